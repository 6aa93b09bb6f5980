"""Locks of folders that one job at a time writes into: a file that says who does.

A lock is made whole under another name and then linked to its own, which one process alone can do, on file systems that
nodes share too; where there are no hard links it is a file that must not have existed. It goes when the job ends, well
or not. What a killed process leaves is taken over where it can be seen that nobody has it any more: its process has
ended on this machine, or its Slurm job was put back into the queue and is this one.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hpcfit.errors import HpcfitError, InputError, together
from hpcfit.ranks import Ranks
from hpcfit.store.files import host_name, process_started, remove_leftovers, written_whole

LOCK = "hpcfit.lock"
PATIENCE = 10.0  # seconds for somebody else to take over a lock that was left, or to write a new one


class Owner(NamedTuple):
    """The process that has a lock. started: of what it began, in the words of this machine, "" where it does not say;
    key: of this one time that it has the lock."""

    host: str
    machine: str  # the boot of the machine and its space of process numbers: who shares them sees the process
    pid: int
    started: str
    job: str  # of Slurm, "" outside
    restarts: str  # of that job
    since: str
    command: str
    key: str

    @classmethod
    def of_this_process(cls) -> Owner:
        """The owner of what this process locks now."""
        pid, since = os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S %z")
        process, command = (pid, process_started(pid)), shlex.join(sys.argv)
        return cls(host_name(), _machine(), *process, *_slurm_job(), since, command, secrets.token_hex(8))

    @property
    def has_ended(self) -> bool:
        """True where it can be seen from here that the process does not run any more."""
        job, restarts = _slurm_job()
        requeued = self.job != "" and self.job == job and self.restarts != restarts
        return requeued or (self.is_seen and process_started(self.pid) != self.started)

    @property
    def is_seen(self) -> bool:
        """True for a process of this machine."""
        return (self.host, self.machine) == (host_name(), _machine())

    def __str__(self) -> str:
        job = f", Slurm job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}, since {self.since} (`{self.command}`)"


class Lock(NamedTuple):
    """A lock that is held: its file, the key of its owner, and folders that were made for it, the innermost first."""

    path: Path
    key: str
    made: tuple[Path, ...]

    def release(self) -> bool:
        """Remove it, and the folders that were made for it and stayed empty; True for the one who has removed it."""
        removed = False
        with contextlib.suppress(OSError, InputError):
            owner = _read(self.path)
            if owner is not None and owner.key == self.key:
                self.path.unlink()
                removed = True
            for folder in self.made:
                folder.rmdir()
        return removed


@contextlib.contextmanager
def locked(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Have a folder for the job of these ranks while the block runs; root holds the lock. Collective.

    Raises InputError that names who has it where another job does.
    """
    lock = ranks.on_root(lambda: _taken(folder))
    try:
        yield
    except BaseException as error:
        if getattr(error, "on_all_ranks", False):
            ranks.on_root(lock.release)  # before any rank leaves, or the launcher may end root first
        elif not lock.release() and ranks.size > 1:
            error.is_echo = True  # a disk is full for all ranks: the first one that found it ends the job
        raise
    ranks.on_root(lock.release)


def check_free(folder: Path) -> None:
    """Raise InputError where another job has the lock of a folder: at once, before anything is started that takes
    long. What is started takes the lock itself."""
    owner = _read(folder / LOCK)
    ours = owner is not None and owner.job != "" and owner.job == _slurm_job()[0]  # another task of this command
    if owner is not None and not owner.has_ended and not ours:
        raise together(_in_use(folder / LOCK, owner))


def _taken(folder: Path) -> Lock:
    path, mine = folder / LOCK, Owner.of_this_process()
    made = tuple(one for one in (folder, *folder.parents) if not one.exists())
    end = time.monotonic() + PATIENCE
    while not _claimed(path, mine):
        owner = _read(path)
        if owner is None:
            continue
        if not owner.has_ended:
            raise _in_use(path, owner)
        if not _left_lock_removed(path, owner, mine) and time.monotonic() > end:
            guard = _guard(path, owner)
            raise InputError(
                f"{path} was left by {owner}, and {guard} says that somebody takes it over, but nobody does",
                remedy=f"if no hpcfit writes there, remove {path} and {guard}",
            )
    for left in [*remove_leftovers(folder, LOCK), *folder.glob(f"{LOCK}.*")]:  # of locks before this one
        left.unlink(missing_ok=True)
    return Lock(path, mine.key, made)


class _Held(HpcfitError):
    """Somebody else was first."""


def _claimed(path: Path, owner: Owner) -> bool:
    """Whether `owner` has now made the file: no two processes can."""

    def link(temporary: Path, path: Path) -> None:
        try:
            os.link(temporary, path)
        except OSError as error:
            # A network file system may have made the link and lost its answer.
            if temporary.stat().st_nlink != 2:
                if isinstance(error, FileExistsError):
                    raise _Held("") from None
                _create(path, text)
        temporary.unlink()

    text = json.dumps(owner._asdict(), indent=1) + "\n"
    try:
        with written_whole(path, link) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except _Held:
        return False
    return True


def _create(path: Path, text: str) -> None:
    """Write a file that must not exist, on a file system without hard links."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        raise _Held("") from None
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _left_lock_removed(path: Path, owner: Owner, mine: Owner) -> bool:
    """Whether the lock of an owner that has ended is gone. Of those who try at once one removes it: the others must
    not, since by then somebody may have it anew."""
    guard = _guard(path, owner)
    if not _claimed(guard, mine):
        other = _read(guard)
        if other is not None and other.has_ended:  # killed at it: the guard is a lock like any other
            return _left_lock_removed(guard, other, mine)
        time.sleep(0.1)
        return other is None
    try:
        found = _read(path)
        if found is not None and found.key == owner.key:
            path.unlink()
    finally:
        guard.unlink(missing_ok=True)
    return True


def _guard(path: Path, owner: Owner) -> Path:
    return path.with_name(f"{path.name}.{owner.key}")


def _read(path: Path) -> Owner | None:
    """Who has a lock; None where nobody has. One that is being written is waited for."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return Owner(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"cannot read the lock {path}: {error.strerror}", remedy="give another folder") from None
        except (ValueError, TypeError, RecursionError):
            if time.monotonic() > end:
                raise InputError(
                    f"{path} is the lock of its folder, but does not say whose",
                    remedy=f"if no hpcfit writes into {path.parent}, remove {path}",
                ) from None
            time.sleep(0.1)


def _in_use(path: Path, owner: Owner) -> InputError:
    wait = "wait until it has ended, or give another folder"
    if not owner.is_seen:
        wait += f"; if it has been killed, which cannot be seen from {host_name()}, remove {path}"
    return InputError(f"{path.parent} is in use by another hpcfit, which holds its lock: {owner}", remedy=wait)


def _slurm_job() -> tuple[str, str]:
    """The Slurm job of this process, "" outside, and how often it was put back into the queue."""
    return os.environ.get("SLURM_JOB_ID", ""), os.environ.get("SLURM_RESTART_COUNT", "0")


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
