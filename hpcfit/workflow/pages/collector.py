"""The memory of a scheduler for the page /hpcfit: histories of fits and tasks of workflows, as they report.

Dask keeps a bounded number of events. What is kept here is bounded too, but thinned evenly, so that a page that is
opened late or loaded again shows everything from the beginning.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hpcfit.workflow.cluster.journal import TOPIC as WORK_TOPIC
from hpcfit.workflow.pages.gauges import set_newest, set_seconds

FIT_TOPIC = "hpcfit-fit"
MAX_POINTS = 2000  # of a history: several for each pixel of a figure
MAX_FITS, MAX_TASKS = 50, 5000
SILENT = 30.0  # seconds after which a task that reports nothing no longer counts as running


class Columns:
    """A history as columns of one length, thinned to every second row whenever it is full.

    added: rows so far, those left out as well; thinned: how often it was thinned.
    """

    def __init__(self, limit: int = MAX_POINTS):
        self.values: dict[str, list[float]] = {}
        self.length = self.added = self.thinned = 0
        self._limit = limit

    def append(self, row: dict[str, float]) -> None:
        """One row; a column that it lacks, or has for the first time, is NaN there."""
        for name in row:
            self.values.setdefault(name, [np.nan] * self.length)
        for name, column in self.values.items():
            column.append(row.get(name, np.nan))
        self.length, self.added = self.length + 1, self.added + 1
        if self.length >= self._limit:
            for column in self.values.values():
                del column[1::2]
            self.length, self.thinned = (self.length + 1) // 2, self.thinned + 1

    def newest(self) -> dict[str, float]:
        """The newest value of each column."""
        return {name: column[-1] for name, column in self.values.items() if column}

    def last(self, name: str) -> float:
        """The newest value of a column, NaN where there is none."""
        return self.values[name][-1] if self.values.get(name) else np.nan


@dataclass
class Fit:
    """The reports of the ranks of one run.

    about: what does not change (ranks, frames, metrics of the kind of problem); status: what does (state, checkpoint,
    ends: see ``commands.reporter``). seconds, weights: the newest report of each rank that sent one.
    """

    name: str
    about: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    history: Columns = field(default_factory=Columns)
    timing: Columns = field(default_factory=Columns)
    seconds: dict[int, dict[str, float]] = field(default_factory=dict)
    weights: dict[int, dict[str, Any]] = field(default_factory=dict)
    heard: float = 0.0

    def event(self, message: dict[str, Any]) -> None:
        """A report of a rank."""
        rank, self.heard = message["rank"], time.time()
        self.about.update(message.get("about", {}))
        self.status.update(message.get("status", {}))
        for row in message.get("points", ()):
            self.history.append(row)
        if "weights" in message:
            self.weights[rank] = message["weights"]
        if "seconds" in message:
            self.seconds[rank] = message["seconds"]
            if rank == 0:
                self.timing.append(self._timing())

    def _timing(self) -> dict[str, float]:
        """Milliseconds per step: the mean over ranks of each part, and what the slowest rank computes and reads."""
        names = dict.fromkeys(name for parts in self.seconds.values() for name in parts)
        means = {name: 1e3 * np.mean([parts.get(name, 0.0) for parts in self.seconds.values()]) for name in names}
        return {"passes": self.history.last("passes"), **means, "slowest": 1e3 * max(self.working_seconds())}

    def working_seconds(self) -> list[float]:
        """Seconds that each rank computes and reads in a step, [ranks]; it waits for others in its reductions."""
        return [parts.get("compute", 0.0) + parts.get("read", 0.0) for _, parts in sorted(self.seconds.items())]

    def imbalance(self) -> float:
        """The slowest rank's seconds over their mean."""
        seconds = self.working_seconds()
        return max(seconds) / np.mean(seconds) if seconds and max(seconds) > 0 else np.nan

    def groups(self) -> dict[str, tuple[float, float]]:
        """(summed weights, summed weights before the fit) of each source or label, over all ranks; each sums to 1."""
        total: dict[str, np.ndarray] = {}
        for report in self.weights.values():
            for name, sums in report["groups"].items():
                total[name] = total.get(name, np.zeros(2)) + sums
        whole = sum(total.values())  # ranks report of different steps, so that it is 1 only nearly
        return {name: tuple(sums / whole) for name, sums in total.items()}

    def distribution(self, bars: int = 40) -> tuple[np.ndarray, np.ndarray]:
        """Edges [n + 1] and frames [n] of a histogram of ln(T w) over all ranks, of at most so many bars."""
        bins: Counter[int] = Counter()
        for report in self.weights.values():
            bins.update({report["first"] + number: count for number, count in enumerate(report["frames"])})
        if not bins:
            return np.zeros(1), np.zeros(0)
        width = next(iter(self.weights.values()))["width"]
        first, last = min(bins), max(bins)
        merged = -(-(last + 1 - first) // bars)  # bins of the reports in each bar
        first -= first % merged  # so that 0 is an edge
        frames = np.zeros((last - first) // merged + 1)
        for number, count in bins.items():
            frames[(number - first) // merged] += count
        return width * (first + merged * np.arange(len(frames) + 1)), frames


@dataclass
class Task:
    """The progress of one task; rate in `unit` a second, times in seconds since 1970."""

    name: str
    worker: str
    done: float
    total: float
    rate: float
    unit: str
    begun: float
    heard: float

    @property
    def finished(self) -> bool:
        return self.done >= self.total

    @property
    def running(self) -> bool:
        return not self.finished and time.time() - self.heard < SILENT


@dataclass
class Work:
    """The tasks of one command. waiting: those that have not begun, as far as the scheduler knows them."""

    name: str
    tasks: dict[str, Task] = field(default_factory=dict)
    waiting: int = 0
    history: Columns = field(default_factory=Columns)
    begun: float = field(default_factory=time.time)
    heard: float = 0.0
    _recent: deque = field(default_factory=lambda: deque(maxlen=30))

    def event(self, message: dict[str, Any], worker: str) -> None:
        """A report of a task."""
        now = time.time()
        self._task(message, worker, now)
        if now - self.heard > 1.0 or self.unfinished == 0:  # tasks report one by one, the history is of all of them
            self.heard = now
            self._recent.append((now, self.done))
            now_done = {"seconds": now - self.begun, "done": self.done, "per_second": self.per_second()}
            self.history.append(now_done | self.rates())

    def _task(self, message: dict[str, Any], worker: str, now: float) -> None:
        name, done = str(message["task"]), float(message["done"])
        known = self.tasks.get(name)
        if known is None and len(self.tasks) >= MAX_TASKS:
            return
        self.tasks[name] = Task(
            name, worker, done, float(message["total"]), float(message["rate"]), str(message["unit"]),
            known.begun if known else now, now,
        )  # fmt: skip

    @property
    def done(self) -> float:
        return sum(task.done for task in self.tasks.values())

    @property
    def total(self) -> float:
        return sum(task.total for task in self.tasks.values())

    def per_second(self) -> float:
        """The rate of all tasks together over the last seconds, units a second."""
        if len(self._recent) < 2:
            return np.nan
        (first, before), (last, after) = self._recent[0], self._recent[-1]
        return max(after - before, 0.0) / (last - first)

    def rates(self) -> dict[str, float]:
        """The summed rates of the running tasks by unit."""
        total: dict[str, float] = {}
        for task in self.tasks.values():
            if task.running:
                total[task.unit] = total.get(task.unit, 0.0) + task.rate
        return total

    @property
    def unfinished(self) -> int:
        """Tasks that have begun and not ended."""
        return sum(not task.finished for task in self.tasks.values())

    @property
    def counted(self) -> str:
        """The unit that the tasks count in: frames, evaluations."""
        unit = next((task.unit for task in self.tasks.values()), "")
        return unit.removesuffix("/s") if unit.endswith("/s") else "frames"

    def ended(self) -> tuple[int, int]:
        """Tasks that have ended, and all that are known."""
        return len(self.tasks) - self.unfinished, len(self.tasks) + self.waiting

    def seconds_left(self) -> float:
        """Until all is done, at the pace of the last seconds; NaN where that is unknown, 0 at the end."""
        left = self.total - self.done + self.waiting * self.total / max(len(self.tasks), 1)
        pace = self.per_second()
        return 0.0 if left == 0 else left / pace if pace > 0 else np.nan


class Collector:
    """Everything that has been reported to one scheduler: fits and works by name, the newest last.

    unfinished: how many tasks that scheduler knows which have not ended.
    """

    def __init__(self, unfinished: Callable[[], int] = lambda: 0):
        self.fits: dict[str, Fit] = {}
        self.works: dict[str, Work] = {}
        self._unfinished = unfinished

    def event(self, topic: str, message: dict[str, Any], worker: str) -> None:
        """An event of Dask; those of other topics are ignored."""
        if topic == FIT_TOPIC:
            if message.get("begins"):
                self.fits.pop(str(message["run"]), None)
            fit = self._of(self.fits, str(message["run"]), Fit)
            fit.event(message)
            set_seconds(fit.name, message["rank"], fit.seconds.get(message["rank"], {}))
            if message["rank"] == 0:
                set_newest(fit.name, fit.history.newest(), fit.status)
        elif topic == WORK_TOPIC:
            self._of(self.works, str(message["what"]), Work).event(message, worker)

    def count_waiting(self) -> None:
        """Ask the scheduler anew for the tasks that have not begun; they are of the newest work."""
        for work in self.works.values():
            newest, work.waiting = work, 0
        if self.works:
            newest.waiting = max(self._unfinished() - newest.unfinished, 0)

    def _of(self, records: dict, name: str, kind: type) -> Any:
        if name not in records:
            while len(records) >= MAX_FITS:
                del records[next(iter(records))]
            records[name] = kind(name)
        return records[name]
