"""The command ``hpcfit`` as tests run it: in the test's own process, in a process apart, or on ranks."""

import contextlib
import gc
import io
import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock

from hpcfit.cli import main
from hpcfit.log import libraries, logger

ROOT = Path(__file__).resolve().parents[1]
HPCFIT = [sys.executable, "-m", "hpcfit"]
PROGRAM = str(ROOT / "hpcfit/__main__.py")  # the name that `python -m hpcfit` has for itself
WIDE = {"COLUMNS": "200"}  # no message is wrapped
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def sets(*settings: str) -> list[str]:
    """The words ``--set SETTING`` of each setting."""
    return [word for setting in settings for word in ("--set", setting)]


def apart(*arguments, launcher: Sequence[str] = (), timeout: float = 840) -> subprocess.CompletedProcess:
    """Run the command in a process of its own, or in those that a launcher starts, to its end. timeout: seconds, to
    end what hangs a little before pytest does."""
    command = [*launcher, *HPCFIT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT, env=os.environ | WIDE)


def here(*arguments) -> subprocess.CompletedProcess:
    """Run the command in this process, which saves imports and compilations; the answer is as that of a process.

    It goes through `hpcfit.cli.main`, the whole of what the console script calls. What the command does to the process
    is undone: cores, signals, environment, folder and logging.
    """
    words, out, errors, code = [*map(str, arguments)], io.StringIO(), io.StringIO(), None
    with _undone(), mock.patch("sys.argv", [PROGRAM, *words]), warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # as in a process: a failed command leaves files to its end
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            try:
                main()
            except SystemExit as end:
                code = end.code
        if code:
            gc.collect()  # which is now
    assert isinstance(code, int), f"`hpcfit` ended with {code!r} instead of an exit code"
    return subprocess.CompletedProcess(words, code, out.getvalue(), errors.getvalue())


@contextlib.contextmanager
def _undone() -> Iterator[None]:
    """Give the process back its cores, signals, environment, folder and logging."""
    cores, signals = os.sched_getaffinity(0), {number: signal.getsignal(number) for number in SIGNALS}
    gc.freeze()  # garbage is looked for among what the command made, not in all that JAX has compiled before
    handlers, level, propagate, hook = list(logger.handlers), logger.level, logger.propagate, sys.unraisablehook
    try:
        with mock.patch.dict(os.environ, WIDE), contextlib.chdir(ROOT):
            yield
    finally:
        gc.unfreeze()
        os.sched_setaffinity(0, cores)
        for number, handler in signals.items():
            signal.signal(number, handler)
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)
        sys.unraisablehook = hook
        logging.getLogger().removeHandler(libraries)
