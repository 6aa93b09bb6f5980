"""Ranks: what the processes of one job do together. One rank without MPI is a case like any other.

This is the only module that knows mpi4py.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from hpcfit.errors import EXIT_FAILED, HpcfitError, InputError, together
from hpcfit.launcher import is_later_task, launched_tasks
from hpcfit.log import logger

T = TypeVar("T")

LAST_WORDS = 0.5  # seconds for the launcher to pass on what was said; at an abort it drops the rest
TASKS_APART = 2.0  # seconds between the first and the last task of a launcher at the same line


class Ranks:
    """A group of ranks. Arrays are NumPy arrays; every method but ``abort`` is collective."""

    def __init__(self, communicator: Any = None):
        self._comm = communicator
        self.rank = 0 if communicator is None else communicator.Get_rank()
        self.size = 1 if communicator is None else communicator.Get_size()

    @property
    def is_root(self) -> bool:
        """True on rank 0, the only one that writes."""
        return self.rank == 0

    def sum(self, values: np.ndarray) -> np.ndarray:
        """The elementwise sum over ranks, in the type of ``values``."""
        return self._allreduce(values, "SUM")

    def max(self, values: np.ndarray) -> np.ndarray:
        """The elementwise maximum over ranks."""
        return self._allreduce(values, "MAX")

    def bcast(self, value: Any) -> Any:
        """Root's object on every rank."""
        return value if self.size == 1 else self._comm.bcast(value, root=0)

    def gather(self, value: Any) -> list[Any] | None:
        """The objects of all ranks on root, in rank order; None elsewhere."""
        return [value] if self.size == 1 else self._comm.gather(value, root=0)

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            self._comm.Barrier()

    def split(self, color: int) -> Ranks:
        """The ranks that name the same color, in the order of their rank here."""
        return Ranks() if self.size == 1 else Ranks(self._comm.Split(color, self.rank))

    def node(self) -> Ranks:
        """The ranks that share this node's memory."""
        if self._comm is None:
            return Ranks()
        from mpi4py import MPI

        return Ranks(self._comm.Split_type(MPI.COMM_TYPE_SHARED))

    def raise_together(self, error: Exception | None) -> None:
        """Raise on every rank if any rank brings an error: that of the lowest rank, so that one error is printed."""
        if self.size == 1:
            if error is not None:
                raise error
            return
        if error is not None and not isinstance(error, HpcfitError):
            # A traceback does not travel, and not every exception does: its text goes with it.
            text = "".join(traceback.format_exception(error)).rstrip()
            error = HpcfitError(f"rank {self.rank} of {self.size} failed:\n{text}")
        errors = self.gather(error)
        first = self.bcast(next((e for e in errors if e is not None), None) if self.is_root else None)
        if first is not None:
            raise together(first)

    def on_all(self, function: Callable[[], T]) -> T:
        """``function`` on every rank; if it fails on any, one error is raised on all."""
        value, error = None, None
        try:
            value = function()
        except Exception as caught:
            error = caught
        self.raise_together(error)
        return value

    def on_root(self, function: Callable[[], T]) -> T:
        """Root's result of ``function`` on every rank; if it fails there, the same error is raised on all."""
        value, error = None, None
        if self.is_root:
            try:
                value = function()
            except Exception as caught:  # every error travels: the other ranks would wait for ever
                error = caught
        self.wait()
        self.raise_together(error)
        return self.bcast(value)

    def wait(self, pause: float = 0.002) -> None:
        """Wait for all ranks, asleep: a blocking barrier would keep the cores busy that those who still work need."""
        if self.size == 1:
            return
        request = self._comm.Ibarrier()
        while not request.Test():
            time.sleep(pause)

    def abort(self, code: int) -> None:
        """End every rank of the job with this exit code, now. The only method that is not collective."""
        sys.stderr.flush()
        if self.size == 1:
            os._exit(code)
        self._comm.Abort(code)

    def _allreduce(self, values: np.ndarray, operation: str) -> np.ndarray:
        values = np.asarray(values, order="C")
        if self.size == 1:
            return values
        from mpi4py import MPI

        result = np.empty_like(values)
        self._comm.Allreduce(values, result, op=getattr(MPI, operation))
        return result


def world_ranks() -> Ranks:
    """All ranks of this job; raises InputError if a launcher started several tasks that MPI does not see."""
    communicator = _world_communicator()
    size = 1 if communicator is None else communicator.Get_size()
    variable, tasks = launched_tasks()
    if tasks > 1 and size == 1:
        raise together(
            InputError(
                f"{variable} = {tasks} says that {tasks} tasks were started, but MPI sees 1 rank:"
                " each task would run the whole job",
                remedy="start with the launcher of the MPI library that mpi4py uses (`hpcfit doctor` shows it):"
                " its own mpiexec, or srun --mpi=pmi2 or pmix (`srun --mpi=list` shows what there is)",
            )
        )
    return Ranks(communicator)


def check_one_process(because: str, remedy: str) -> None:
    """Raise InputError where a launcher started several processes of a command that is one; one of them says it."""
    variable, tasks = launched_tasks()
    if tasks > 1:
        raise together(InputError(f"{variable} = {tasks}: {tasks} processes were started, {because}", remedy=remedy))


def _world_communicator() -> Any:
    try:
        with warnings.catch_warnings():
            # Of a foreign launcher, from every task: `world_ranks` says it once.
            warnings.filterwarnings("ignore", "suspicious MPI execution environment", RuntimeWarning)
            from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # a missing library is a RuntimeError
        logger.info("no MPI (%s): running on one rank", str(error).splitlines()[0])
        return None
    return MPI.COMM_WORLD


@dataclass(frozen=True)
class MpiLibrary:
    """The MPI library that mpi4py uses: versions, path on disk, level of thread support."""

    mpi4py: str
    library: str
    path: str
    threads: str


def mpi_library() -> MpiLibrary | None:
    """The MPI library behind mpi4py with the path of its file, or None."""
    if _world_communicator() is None:
        return None
    import mpi4py
    from mpi4py import MPI

    levels = {MPI.THREAD_SINGLE: "single", MPI.THREAD_FUNNELED: "funneled", MPI.THREAD_SERIALIZED: "serialized"}
    version = " ".join(MPI.Get_library_version().replace("\x00", "").split())[:70]
    return MpiLibrary(mpi4py.__version__, version, _library_path(), levels.get(MPI.Query_thread(), "multiple"))


def _library_path() -> str:
    with open("/proc/self/maps", encoding="utf-8") as maps:
        paths = [line.split()[-1] for line in maps if "libmpi" in line or "libmpich" in line]
    return min(paths, key=len) if paths else "unknown"


def end_job(error: Exception) -> None:
    """Say what went wrong, once, and end every rank of the job with the error's exit code; never returns.

    Without it a rank that fails leaves the others waiting in a collective, under every launcher.
    """
    ranks = Ranks(_initialised_world())
    together = getattr(error, "on_all_ranks", False)
    code = error.exit_code if isinstance(error, HpcfitError) else EXIT_FAILED
    if ranks.size > 1 and not together:
        if getattr(error, "is_echo", False):
            time.sleep(LAST_WORDS)  # twice in all: the rank that says why is to end the job
        else:
            _say(error, f" on rank {ranks.rank} of {ranks.size}")
        time.sleep(LAST_WORDS)
        ranks.abort(code)
        os._exit(code)  # MPI_Abort may return before this process is ended
    keep_exit_code()
    if ranks.is_root and not (together and is_later_task()):
        _say(error)
    if together and ranks.size == 1 and launched_tasks()[1] > 1:
        time.sleep(TASKS_APART)  # tasks that MPI does not join: the launcher may end all when the first one leaves
    sys.exit(code)


def _say(error: Exception, where: str = "") -> None:
    if isinstance(error, HpcfitError):
        sys.stderr.write(f"hpcfit: error{where}: {error}\n")
    else:
        sys.stderr.write(f"hpcfit: failed{where}, by a fault in hpcfit and not in its input. Please report this:\n")
        traceback.print_exception(error)
    sys.stderr.flush()


def keep_exit_code() -> None:
    """Ignore SIGTERM and SIGUSR1 on the way out, so that what this process returns is its own code and not 143.

    Under `srun --kill-on-bad-exit` the first rank that leaves with a code other than 0 has the others terminated.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _initialised_world() -> Any:
    """MPI.COMM_WORLD if this process has started MPI; it is not started only to end."""
    module = sys.modules.get("mpi4py.MPI")
    return module.COMM_WORLD if module and module.Is_initialized() and not module.Is_finalized() else None
