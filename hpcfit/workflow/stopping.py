"""Being told to stop: what SIGTERM and SIGUSR1, by which Slurm announces the end of a job, do to a driver."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from hpcfit.errors import EXIT_REQUEUE, HpcfitError, together

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Stopped(HpcfitError):
    """Told by a signal to stop; what was complete is kept, and the same command goes on from there."""

    exit_code = EXIT_REQUEUE


@contextlib.contextmanager
def handled_by(handler: Callable[[int, Any], None] | signal.Handlers) -> Iterator[None]:
    """Inside, both signals call `handler(number, frame)`; only in the main thread, which alone gets signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Inside, the first signal raises Stopped, so that what is open is closed on the way out; later ones do nothing."""
    told = []

    def stop(number: int, _frame) -> None:
        if not told:
            told.append(number)
            name = signal.Signals(number).name
            # Slurm sends it to every task of a step, and one is to say so.
            raise together(Stopped(f"stopped by {name}", remedy="call again: it goes on from what is complete"))

    with handled_by(stop):
        yield
