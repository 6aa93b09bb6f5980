"""Independent work dealt out: over the ranks of an MPI job, or over the workers of a Dask cluster.

Commands that prepare things are written once, against `Dealer`. What is dealt to a cluster must travel there: functions
of a module, `functools.partial` of such, and results that can be pickled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from hpcfit.progress import Count, Shown
from hpcfit.ranks import Ranks

if TYPE_CHECKING:
    from hpcfit.workflow.cluster.crew import Crew

T = TypeVar("T")
Item = TypeVar("Item")
Advance = Callable[[], None]  # what a task calls when one more frame is done
Size = Callable[[Item], tuple[str, int]]  # an item's name and its number of frames


class Dealer(Protocol):
    """A dealer gives independent work to whoever does it.

    Every method is collective; an error in one ends the work and is raised once.
    """

    def on_root(self, function: Callable[[], T]) -> T:
        """``function()``, done once."""

    def on_all(self, function: Callable[[], T]) -> T:
        """``function()`` wherever the program runs: cheap, and the same everywhere."""

    def share(self, value: T) -> T:
        """A large value that many items need: as an argument of a `partial` it travels once."""

    def dealt(self, work: Callable[[Item], T], items: Sequence[Item], *, at_once: int = 1) -> list[T]:
        """[work(item) for item in items]; where items are cheap, so many of them make one task."""

    def dealt_to_root(self, work: Callable[[Item], T], items: Sequence[Item]) -> list[T] | None:
        """As `dealt` for large results, of which only root gets any."""

    def dealt_frames(self, work: Callable[[Item, Advance], None], items: Sequence[Item], size: Size) -> None:
        """work(item, advance) for each item of many frames; size(item) is its name and how many frames it has."""


class OverRanks:
    """Deals to the ranks of an MPI job, in turns; one rank is a case like any other."""

    def __init__(self, ranks: Ranks):
        self._ranks = ranks
        self.on_root, self.on_all = ranks.on_root, ranks.on_all

    def share(self, value: T) -> T:
        """Every rank has it already."""
        return value

    def dealt(self, work: Callable[[Item], T], items: Sequence[Item], *, at_once: int = 1) -> list[T]:
        """Results on every rank."""
        return self._ranks.bcast(self.dealt_to_root(work, items))

    def dealt_to_root(self, work: Callable[[Item], T], items: Sequence[Item]) -> list[T] | None:
        """Results on root, None elsewhere."""
        ranks = self._ranks
        mine = ranks.on_all(lambda: [work(item) for item in items[ranks.rank :: ranks.size]])
        parts = ranks.gather(mine)
        return parts and [parts[number % ranks.size][number // ranks.size] for number in range(len(items))]

    def dealt_frames(self, work: Callable[[Item, Advance], None], items: Sequence[Item], size: Size) -> None:
        """An error is raised at once on the rank that met it: the others may be hours from their next meeting."""
        mine = items[self._ranks.rank :: self._ranks.size]
        with Shown("frames", sum(size(item)[1] for item in mine), self._ranks) as progress:
            for item in mine:
                work(item, progress.advance)
        self._ranks.barrier()


class OverCrew:
    """Deals to the workers of a Dask cluster; this process alone is root."""

    def __init__(self, crew: Crew, command: str):
        self._crew, self._command = crew, command
        self.share = crew.share

    def on_root(self, function: Callable[[], T]) -> T:
        """Here."""
        return function()

    on_all = on_root

    def dealt(self, work: Callable[[Item], T], items: Sequence[Item], *, at_once: int = 1) -> list[T]:
        """A task for each piece of `at_once` consecutive items."""
        title, task = _inside(_each, work)
        results = self._crew.map(task, batches(items, at_once), title=title)
        return [result for piece in results for result in piece]

    def dealt_to_root(self, work: Callable[[Item], T], items: Sequence[Item]) -> list[T] | None:
        """As `dealt`."""
        return self.dealt(work, items)

    def dealt_frames(self, work: Callable[[Item, Advance], None], items: Sequence[Item], size: Size) -> None:
        """A task for each item, which reports its frames to the dashboard and to the log here."""
        title, task = _inside(_reporting, work)
        names = [size(item)[0] for item in items]
        self._crew.map(task, [(item, self._command, *size(item)) for item in items], names=names, title=title)


def batches(items: Sequence[Item], at_once: int) -> list[Sequence[Item]]:
    """Consecutive items in batches of at most `at_once`."""
    return [items[start : start + at_once] for start in range(0, len(items), at_once)]


def _inside(wrapper: Callable, work: Callable) -> tuple[str, partial]:
    """The name of `work`, and wrapper(work, item) with what `work` is bound to on top, where shared values arrive."""
    work = work if isinstance(work, partial) else partial(work)
    return work.func.__name__, partial(wrapper, work.func, *work.args, **work.keywords)


def _each(work: Callable, *arguments, **keywords) -> list:
    """On a worker: the results of one batch, the last of the arguments."""
    *bound, piece = arguments
    return [work(*bound, item, **keywords) for item in piece]


def _reporting(work: Callable, *arguments, **keywords) -> None:
    """On a worker: work(..., item, advance), reporting each frame that it says is done."""
    from hpcfit.workflow.cluster.journal import report

    *bound, (item, command, name, total) = arguments
    frames = Count(total, unit="frames/s")

    def advance() -> None:
        frames.done += 1
        report(command, name, frames)

    work(*bound, item, advance, **keywords)
