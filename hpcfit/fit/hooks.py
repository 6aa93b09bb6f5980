"""Hooks: small objects called after every step on every rank; each may end the run and says why."""

from __future__ import annotations

import faulthandler
import math
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from hpcfit.errors import EXIT_FAILED
from hpcfit.fit.loop import Step
from hpcfit.fit.stop import Stop
from hpcfit.log import logger
from hpcfit.ranks import Ranks

T = TypeVar("T")
PATIENCE_OF_COMPARED = 3  # steps without change that end a fit which is only compared with others


@dataclass(frozen=True)
class MaxSteps:
    """Ends after so many steps."""

    steps: int

    def __call__(self, step: Step) -> Stop | None:
        """Compare the number of the step."""
        return Stop(f"{self.steps} steps done (optimizer.max_steps)") if step.number >= self.steps else None


@dataclass(frozen=True)
class SmallGradient:
    """Ends when the gradient's norm over all ranks is below a tolerance."""

    tolerance: float

    def __call__(self, step: Step) -> Stop | None:
        """Compare the norm."""
        if step.gradient_norm > self.tolerance:
            return None
        return Stop(f"gradient norm {step.gradient_norm:.2e} <= {self.tolerance:.2e} (optimizer.gradient_tolerance)")


@dataclass(frozen=True)
class SmallChange:
    """Ends when each of the last ``patience`` steps changed the loss by less than a relative tolerance."""

    tolerance: float
    patience: int

    def __call__(self, step: Step) -> Stop | None:
        """Compare the losses that the loop remembers."""
        losses = np.array(step.losses[-self.patience - 1 :])
        if len(losses) <= self.patience or np.any(np.abs(np.diff(losses)) > self.tolerance * abs(losses[-1])):
            return None
        return Stop(
            f"loss changed by less than {self.tolerance:.2e} relative in {self.patience} steps"
            " (optimizer.relative_tolerance)"
        )


@dataclass(frozen=True)
class HeldOut:
    """Ends when what a metric of held-out frames has above ``floor`` did not shrink by a share ``progress`` of itself
    in ``patience`` steps. values: the metric after each step of the fit so far, on root; all ranks hear root."""

    ranks: Ranks
    values: Callable[[], list[float]]
    floor: float
    patience: int
    progress: float = 1e-3

    def __call__(self, step: Step) -> Stop | None:
        """Compare the least value until ``patience`` steps ago with the least since then."""
        return self.ranks.bcast(self._judged() if self.ranks.is_root else None)

    def _judged(self) -> Stop | None:
        above = np.array(self.values()) - self.floor
        if len(above) <= self.patience:
            return None
        before, since = np.min(above[: -self.patience]), np.min(above[-self.patience :])
        if since < (1 - self.progress) * before:
            return None
        return Stop(
            f"held-out frames: {before:.5g} above the floor, not {100 * self.progress:g} % less in {self.patience}"
            " steps (optimizer.patience)"
        )


@dataclass
class WallClock:
    """Ends when root's clock says so; the run is to be continued. The time counts from the first call, over all fits
    and stages, so that every continuation makes a step or does a unit."""

    ranks: Ranks
    minutes: float
    _start: float | None = None

    def __call__(self, step: Step | None) -> Stop | None:
        """Ask root's clock, after a step of a fit or a unit of a stage."""
        self._start = time.monotonic() if self._start is None else self._start
        over = self.ranks.bcast(time.monotonic() - self._start > 60 * self.minutes)
        return (
            Stop(f"{self.minutes:g} minutes of wall clock used (optimizer.wall_clock_minutes)", interrupted=True)
            if over
            else None
        )


class _Received(BaseException):
    """A signal came within ``Signals.unless_received``; nothing on the way takes it for an error."""


class Signals:
    """Ends at the same step on all ranks when any of them got SIGTERM or SIGUSR1 (a scheduler's warning)."""

    def __init__(self, ranks: Ranks):
        self._ranks, self._received, self._at_once = ranks, 0, False
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame) -> None:
        self._received = number
        if self._at_once:
            self._at_once = False
            raise _Received

    def unless_received(self, function: Callable[[], T]) -> T | None:
        """The result of ``function``, which a signal to this rank ends on the spot, or None where one came.

        For work that takes long and keeps nothing, and in which this rank waits for no other. Not collective: a call
        tells the other ranks.
        """
        try:
            self._at_once = True
            return None if self._received else function()
        except _Received:
            return None
        finally:
            self._at_once = False

    def __call__(self, step: Step | None) -> Stop | None:
        """Share the flag, after a step of a fit or a unit of a stage."""
        number = int(self._ranks.max(np.array([self._received]))[0])
        return Stop(f"signal {signal.Signals(number).name}", interrupted=True) if number else None


@dataclass
class Progress:
    """Log lines whose number grows with the logarithm of the steps, as long as there are ``lines`` left, and at least
    one every ``seconds``."""

    describe: Callable[[], str]
    lines: float = math.inf
    seconds: float = 10.0
    _last: float = field(default_factory=time.monotonic)

    def __call__(self, step: Step) -> None:
        """Log the last evaluation where it is due."""
        due = str(step.number).rstrip("0") in ("1", "2", "5") and self.lines > 0
        if due or time.monotonic() - self._last > self.seconds:
            self._last, self.lines = time.monotonic(), self.lines - 1
            logger.info("step %d  %s  |gradient| %.2e", step.number, self.describe(), step.gradient_norm)


class Watchdog:
    """Ends the job when a rank hangs: no evaluation for ``factor`` medians, and at least ``patience`` seconds."""

    def __init__(self, ranks: Ranks, patience: float = 600.0, factor: float = 50.0):
        self._ranks, self._patience, self._factor = ranks, patience, factor
        self._beats, self._done = [time.monotonic()], threading.Event()
        threading.Thread(target=self._watch, daemon=True, name="hpcfit-watchdog").start()

    def beat(self) -> None:
        """An evaluation has finished."""
        self._beats = [*self._beats[-50:], time.monotonic()]

    def stop(self) -> None:
        """The loop has ended."""
        self._done.set()

    def limit(self) -> float:
        """Seconds without an evaluation that end the job."""
        gaps = np.diff(self._beats)
        return max(self._patience, self._factor * statistics.median(gaps)) if len(gaps) else self._patience

    def _watch(self) -> None:
        while not self._done.wait(min(self._patience / 4, 10.0)):
            silent = time.monotonic() - self._beats[-1]
            if silent > self.limit():
                sys.stderr.write(
                    f"hpcfit: rank {self._ranks.rank}: no evaluation for {silent:.0f} s: a rank hangs; the job ends\n"
                )
                faulthandler.dump_traceback(all_threads=True)
                self._ranks.abort(EXIT_FAILED)
