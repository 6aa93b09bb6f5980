"""The workers of a cluster that has just been opened: waiting for the first, and whether they run this hpcfit."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from distributed import Client

from hpcfit import __version__
from hpcfit.errors import InputError
from hpcfit.workflow.stopping import heed

PAUSE = 0.2  # seconds between two looks whether a worker has come
HERE = f"Python {sys.version_info.major}.{sys.version_info.minor}"
SAME_ENVIRONMENT = "workers need the environment that hpcfit runs in here: set [cluster] python or prologue"


def wait_for_workers(
    client: Client,
    patience: float,
    *,
    last_words: Callable[[], str] = str,
    all_ended: Callable[[], bool] = lambda: False,
) -> None:
    """Wait for the first worker, then check that each one there runs the same Python and hpcfit.

    patience: seconds; all_ended: whether none can come any more; last_words: what the workers, or the queue, said.
    Raises InputError.
    """
    end = time.monotonic() + patience
    while not client.nthreads():
        hopeless = all_ended()
        if hopeless and not client.nthreads():
            raise InputError(f"no worker came: all have ended.{_quoted(last_words())}", remedy=SAME_ENVIRONMENT)
        if time.monotonic() > end:
            raise InputError(
                f"no worker came within {patience:g} s ([cluster] patience).{_quoted(last_words())}",
                remedy="wait longer with [cluster] patience, or ask for less",
            )
        heed()
        time.sleep(PAUSE)
    _check_python(client)
    _check_hpcfit(client)


def _quoted(text: str) -> str:
    return "".join(f"\n    {line}" for line in text.strip().splitlines())


def _check_python(client: Client) -> None:
    """Before anything else is sent: functions do not travel between minor versions of Python."""
    for worker, found in client.get_versions()["workers"].items():
        major, minor, *_ = found["host"]["python"].split(".")
        if f"Python {major}.{minor}" != HERE:
            raise InputError(f"worker {worker} runs Python {major}.{minor}, here it is {HERE}", remedy=SAME_ENVIRONMENT)


def _check_hpcfit(client: Client) -> None:
    def version() -> str:  # a function inside a function is sent as code: the worker need not have hpcfit to run it
        try:
            import hpcfit
        except ImportError as error:
            return f"cannot import hpcfit ({error})"
        return f"has hpcfit {hpcfit.__version__}"

    for worker, found in client.run(version).items():
        if found != f"has hpcfit {__version__}":
            raise InputError(f"worker {worker} {found}, here it is hpcfit {__version__}", remedy=SAME_ENVIRONMENT)
