"""Cores of a node for one child process alone, where several are started side by side."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from hpcfit.errors import InputError

PAUSE = 0.5  # seconds between two looks for free cores


@contextlib.contextmanager
def own_cores(number: int) -> Iterator[list[int]]:
    """Bind this thread, and with it the children it starts, to cores that no other caller on this node has.

    A fit binds its ranks to the first of the cores it finds, so fits side by side would all take the same one. Waits
    until so many are free, or all where there are fewer. Gives the open files that hold the cores: a child that keeps
    them open keeps its cores if this process dies.
    """
    available, folder = sorted(os.sched_getaffinity(0)), _lock_folder()
    with contextlib.ExitStack() as held:
        while not (taken := _take(available, min(number, len(available)), folder, held)):
            time.sleep(PAUSE)
        os.sched_setaffinity(0, taken)
        try:
            yield [file.fileno() for file in taken.values()]
        finally:
            os.sched_setaffinity(0, available)


def _lock_folder() -> Path:
    """The folder of this user's locks. Raises InputError where it cannot be used."""
    folder = Path(tempfile.gettempdir()) / f"hpcfit-cores-{os.getuid()}"
    remedy = "remove it, or set TMPDIR to a folder of your own on this node"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}", remedy=remedy) from None
    if (owner := folder.stat().st_uid) != os.getuid():
        raise InputError(f"{folder} belongs to user {owner}, not to you, {os.getuid()}", remedy=remedy)
    return folder


def _take(cores: Sequence[int], number: int, folder: Path, held: contextlib.ExitStack) -> dict[int, IO[str]]:
    """Lock so many free cores, or none; the locked file of each."""
    taken: dict[int, IO[str]] = {}
    with contextlib.ExitStack() as files:
        for core in cores:
            file = files.enter_context(open(folder / str(core), "w"))
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                taken[core] = file
            if len(taken) == number:
                held.push(files.pop_all())
                return taken
    return {}
