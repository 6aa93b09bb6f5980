"""Ranks that are threads of this process: what ranks do together, without starting any."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from hpcfit.ranks import Ranks


class Meeting:
    """Where so many threads exchange a value each."""

    def __init__(self, size: int):
        self._values: list[Any] = [None] * size
        self._barrier = threading.Barrier(size, timeout=60)

    def exchange(self, rank: int, value: Any) -> list[Any]:
        """The values of all, in the order of rank."""
        self._values[rank] = value
        self._barrier.wait()
        found = list(self._values)
        self._barrier.wait()
        return found


class ThreadRanks(Ranks):
    """One of the ranks of a meeting."""

    def __init__(self, meeting: Meeting, rank: int, size: int):
        super().__init__()
        self._meeting, self.rank, self.size = meeting, rank, size

    def sum(self, values):
        return np.sum(self._meeting.exchange(self.rank, values), axis=0)

    def max(self, values):
        return np.max(self._meeting.exchange(self.rank, values), axis=0)

    def bcast(self, value):
        return self._meeting.exchange(self.rank, value)[0]

    def gather(self, value):
        found = self._meeting.exchange(self.rank, value)
        return found if self.is_root else None

    def barrier(self):
        self._meeting.exchange(self.rank, None)

    def split(self, color):
        colors = self._meeting.exchange(self.rank, color)
        mates = [rank for rank, other in enumerate(colors) if other == color]
        meetings = self._meeting.exchange(self.rank, Meeting(len(mates)))
        return ThreadRanks(meetings[mates[0]], mates.index(self.rank), len(mates))

    def wait(self, pause=0.0):
        self.barrier()


def on_ranks(size: int, function: Callable[[Ranks], Any]) -> list[Any]:
    """What ``function`` gives on each of so many ranks."""
    meeting = Meeting(size)
    with ThreadPoolExecutor(size) as pool:
        running = [pool.submit(function, ThreadRanks(meeting, rank, size)) for rank in range(size)]
        return [each.result() for each in running]
