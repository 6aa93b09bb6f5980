"""Progress of independent work: reports of single tasks, and the lines that the driver logs of all of them."""

from __future__ import annotations

import sys
import time
from typing import Any

from hpcfit.log import logger
from hpcfit.progress import Count, NowAndThen

TOPIC = "hpcfit-work"  # of Dask's events; the dashboard's page listens to it as well
REPORT_INTERVAL = 1.0  # seconds between two events of one task: frames may come in milliseconds

_reported: dict[str, float] = {}


def report(what: str, task: str, count: Count) -> None:
    """Tell the dashboard and the driver how far this task is, at most once a second; nothing outside a Dask worker.

    what: the command ("simulate"), task: its name.
    """
    now = time.monotonic()
    if count.done < count.total and now - _reported.get(task, -1e9) < REPORT_INTERVAL:
        return
    worker = _this_worker()
    if worker is None:
        return
    _reported[task] = now
    state = {"done": count.done, "total": count.total, "rate": count.rate, "unit": count.unit}
    worker.log_event(TOPIC, {"what": what, "task": task, "time": time.time(), **state})


def worker_name() -> str | None:
    """The name of the Dask worker that runs this task; None outside of one."""
    worker = _this_worker()
    return None if worker is None else str(worker.name)


def _this_worker() -> Any:
    if "distributed" not in sys.modules:  # a process without it is no worker, and need not import it
        return None
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:
        return None


class Journal:
    """Logs now and then how many of `total` items are done, what the running ones report, and when all will be."""

    def __init__(self, what: str, total: int):
        self._what, self._items = what, Count(total, unit="items/s")
        self._running: dict[str, dict] = {}
        self._due = NowAndThen()

    def completed(self) -> None:
        """One more item is done."""
        self._items.done += 1
        self._log_when_due()

    def event(self, event: tuple[float, dict]) -> None:
        """A report of a task, as Dask hands it over: (time, message)."""
        message = event[1]
        if message["done"] < message["total"]:
            self._running[message["task"]] = message
        else:
            self._running.pop(message["task"], None)
        self._log_when_due()

    def _log_when_due(self) -> None:
        if self._due.is_due():
            logger.info("%s", self.line())

    def line(self) -> str:
        """The progress of all tasks in a line."""
        running, items = list(self._running.values()), self._items
        left = items.left(sum(message["done"] / message["total"] for message in running))
        parts = [f"{self._what}: {items.done} of {items.total} done", _rates(running), left]
        return ", ".join(filter(None, parts))


def _rates(running: list[dict]) -> str:
    """The summed rates of the running tasks, by unit."""
    units = dict.fromkeys(message["unit"] for message in running)
    return ", ".join(f"{sum(m['rate'] for m in running if m['unit'] == unit):.3g} {unit}" for unit in units)
