"""Progress of counted work: how far it is, how fast it goes and when it ends; a bar, lines of the log, or numbers.

Work on ranks shows itself (`Shown`); a task on a worker of a cluster hands its `Count` to the driver and the dashboard
(`workflow.cluster.journal`); a fit is followed by its history, which everybody may read (`runs.live`).
"""

from __future__ import annotations

import sys
import time

from hpcfit.log import console, logger, span
from hpcfit.ranks import Ranks

LOG_INTERVAL = 15.0  # seconds between the first two lines of progress


class NowAndThen:
    """A clock for lines of progress: one is due after `LOG_INTERVAL`, each later one after twice the time before."""

    def __init__(self):
        self._interval = LOG_INTERVAL
        self._next = time.monotonic() + self._interval

    def is_due(self) -> bool:
        """True where a line is due; it then counts as written."""
        if time.monotonic() < self._next:
            return False
        self._interval *= 2
        self._next = time.monotonic() + self._interval
        return True


class Count:
    """`done` of `total` items, and the rate since the count began, in `unit`.

    done: at first those that were done before. worth: of an item a second in `unit`: 1 for frames/s, 86.4 for frames
    1 ps apart in ns/day.
    """

    def __init__(self, total: float, done: int = 0, *, unit: str, worth: float = 1.0):
        self.total, self.done, self.unit = total, done, unit
        self._worth, self._before, self._begun = worth, done, time.monotonic()

    @property
    def made(self) -> int:
        """Items that have been done since the count began."""
        return self.done - self._before

    @property
    def seconds(self) -> float:
        """Seconds since the count began."""
        return max(time.monotonic() - self._begun, 1e-9)

    @property
    def rate(self) -> float:
        """The rate of the items made, in `unit`."""
        return self._worth * self.made / self.seconds

    def left(self, running: float = 0.0) -> str:
        """The time until all is done at the pace so far, in words; nothing where there is no pace, or nothing left.

        running: items' worth of what has begun and not ended.
        """
        made, left = self.made + running, self.total - self.done - running
        return f"about {span(self.seconds * left / made)} left" if made and left else ""


class Shown(Count):
    """A count of this rank's work, of which root shows its own: a bar where somebody watches, else a line of the log
    now and then, and one at the end."""

    def __init__(self, what: str, total: int, ranks: Ranks):
        super().__init__(total, unit=f"{what}/s")
        self._what = what + (f" of rank 0 of {ranks.size}" if ranks.size > 1 else "")
        self._is_shown = ranks.is_root and total > 0
        self._due, self._bar = NowAndThen(), None

    def __enter__(self) -> Shown:
        if self._is_shown and sys.stderr.isatty():
            self._bar = _bar(self._what, self.total)
            self._bar.start()
        return self

    def __exit__(self, *_exception) -> None:
        if self._bar:
            self._bar.stop()
        if self._is_shown and self.done:
            logger.info("%s", self.line())

    def advance(self) -> None:
        """One more is done."""
        self.done += 1
        if self._bar:
            self._bar.update(self._bar.task_ids[0], advance=1, rate=f"{self.rate:.3g}/s")
        elif self._is_shown and self._due.is_due():
            logger.info("%s", self.line())

    def line(self) -> str:
        """The progress in a line."""
        parts = [f"{self.done} of {self.total} {self._what}", f"{self.rate:.3g} {self.unit}", self.left()]
        return ", ".join(filter(None, parts))


def _bar(what: str, total: float):
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console())
    bar.add_task(what, total=total, rate="")
    return bar
