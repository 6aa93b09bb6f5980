"""One fit as independent work: `hpcfit optimize` as a child process in its run directory, continued until it ends."""

from __future__ import annotations

import contextlib
import fcntl
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpcfit.errors import EXIT_REQUEUE
from hpcfit.kinds.table import load_config
from hpcfit.progress import Count
from hpcfit.runs.live import LiveRun
from hpcfit.store.files import write_text
from hpcfit.sweep.cores import own_cores
from hpcfit.sweep.outcome import EXIT_CODE, LOG
from hpcfit.sweep.tethered import tethered
from hpcfit.workflow.cluster.journal import report
from hpcfit.workflow.launch import child_environment, hpcfit_command, in_slurm

POLL_SECONDS = 1.0


def fit_point(directory: str, ranks: int = 1) -> int:
    """Fit what DIRECTORY/config.toml says, from its last checkpoint on; the exit code of the fit."""
    folder, code = Path(directory), EXIT_REQUEUE
    config = load_config(folder / "config.toml")
    progress = _Progress(folder, config.optimizer.max_steps)
    with _alone_in(folder) as lock, _bound(ranks, config.run.threads) as cores:
        (folder / EXIT_CODE).unlink(missing_ok=True)
        while code == EXIT_REQUEUE:
            code = _run(folder, ranks, [lock, *cores], progress)
        write_text(folder / EXIT_CODE, f"{code}\n")
    progress.report(ended=True)
    return code


def _bound(ranks: int, threads: int) -> contextlib.AbstractContextManager[list[int]]:
    """Cores of its own for the child; several ranks in a Slurm job are bound by srun."""
    return contextlib.nullcontext([]) if ranks > 1 and in_slurm() else own_cores(ranks * threads)


def _run(folder: Path, ranks: int, kept_open: Sequence[int], progress: _Progress) -> int:
    """The child from its start to its end, its output into the log; it ends first where this process is stopped."""
    command = tethered(hpcfit_command("optimize", str(folder / "config.toml"), "--resume", "auto", ranks=ranks))
    with open(folder / LOG, "ab") as log:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=child_environment(),
            pass_fds=kept_open,
        )  # fmt: skip
    try:
        return _awaited(child, progress)
    except BaseException:
        child.send_signal(signal.SIGUSR1)  # writes a checkpoint; at SIGTERM srun kills its tasks before they can
        child.wait()
        raise


def _awaited(child: subprocess.Popen, progress: _Progress) -> int:
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(POLL_SECONDS)
        progress.report()


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[int]:
    """A lock on the run directory, as an open file: what a lost worker had begun there may still be ending."""
    with open(folder / ".lock", "w") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


class _Progress:
    """Tells the dashboard how far a fit is, by the rows of its growing history."""

    def __init__(self, folder: Path, max_steps: int):
        self._run, self._steps = LiveRun(folder), max_steps
        self._evaluations = Count(max_steps, len(self._run.rows), unit="evaluations/s")

    def report(self, *, ended: bool = False) -> None:
        """The progress of the fit as it is now; mostly it has ended before the last step it may take."""
        self._run.update()
        done = len(self._run.rows)
        self._evaluations.done, self._evaluations.total = done, done if ended else max(self._steps, done + 1)
        report("sweep", self._run.path.name, self._evaluations)
