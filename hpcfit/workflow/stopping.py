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


_told: list[list[Stopped]] = []  # what each block of `stopped_by_signals` that is open was told, the outer first


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Inside, the first signal raises Stopped, so that what is open is closed on the way out; later ones do nothing.

    It is raised wherever the program is then, which may be a callback or a library that goes on after any error. So it
    is raised again by `heed`, which is to be called before a wait without end, and at the end of the block.
    """
    told: list[Stopped] = []

    def stop(number: int, _frame) -> None:
        if not told:
            name = signal.Signals(number).name
            # Slurm sends it to every task of a step, and one is to say so.
            remedy = "call again: it goes on from what is complete"
            told.append(together(Stopped(f"stopped by {name}", remedy=remedy)))
            raise told[0]

    _told.append(told)
    try:
        with handled_by(stop):
            yield
            heed()
    finally:
        _told[:] = [other for other in _told if other is not told]  # blocks that were told nothing are equal


def heed() -> None:
    """Raise Stopped where a signal has come and what it raised then was lost."""
    for told in _told:
        if told:
            raise told[0]
