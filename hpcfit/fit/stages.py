"""The requests of a study to the engine: fits and stages, each by name, one after another, on all ranks.

A fit is iterated. A stage is computed once: sums over the blocks of frames, files, a series of evaluations. It is done
unit by unit, and between units it heeds what ends a run. What it has done by then is kept, and taken up on any number
of ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from hpcfit.fit.checkpoint import Progress, Stages
from hpcfit.fit.gradient import NO_ROWS, Gradient
from hpcfit.fit.grid import Grid, share
from hpcfit.fit.loop import Hook, Stop
from hpcfit.fit.optimizers import MakeOptimizer
from hpcfit.fit.problem import Params
from hpcfit.fit.running_sum import BlockSums
from hpcfit.log import logger
from hpcfit.ranks import Ranks
from hpcfit.store.files import sha256_of_file

PART = -1  # no number of a unit: a part of one is done, and kept
ENDED = object()  # in place of the next item of an iterator that has none
SHORT = 0.0002  # seconds to sleep while other ranks are not there yet
T = TypeVar("T")


class Interrupted(Exception):
    """A fit or a stage was ended from outside, as ``stop`` says; what it had done was kept, for the run to go on."""

    def __init__(self, stop: Stop):
        super().__init__(stop.reason)
        self.stop = stop


class Fitted(NamedTuple):
    """The end of a fit. metrics: what the problem reports there, with the loss. rows: what belongs to each frame."""

    name: str
    params: Params
    metrics: dict[str, float]
    steps: int
    evaluations: int
    stopped: str
    rows: Params = NO_ROWS


class Result(NamedTuple):
    """The result that a study has named: the fit, and the gradient that it was made with."""

    fitted: Fitted
    evaluate: Gradient


class Until(NamedTuple):
    """Ends a fit when a metric of held-out frames comes no nearer to its ``floor`` (see ``fit.hooks.HeldOut``)."""

    metric: str
    floor: float


class Work(Protocol):
    """The work of a stage. Which rank does a unit, and in which order units are done, must change no bit of the result.

    n_units: of the data set. ranks: those that units are dealt out to; a group of one rank where all do every unit.
    """

    n_units: int
    ranks: Ranks

    def run(self, units: Sequence[int]) -> Generator[int | None]:
        """Do these units; yield the number of each when it is done, and in between where it can be stopped: PART where
        ``kept`` has what is done of the present unit, None where it is then done again."""

    def kept(self) -> dict[str, np.ndarray]:
        """The sums over the units that all ranks have done, and parts of others, on the root of all; collective."""

    def take_up(self, kept: Mapping[str, np.ndarray]) -> None:
        """Begin with such sums, on the rank that is to add them; every rank is given them."""

    def product(self) -> dict[str, np.ndarray]:
        """The result of all units, on the root of all; collective."""

    def files(self) -> Sequence[Path]:
        """The files that units have left so far, on root: their digests are kept beside the sums."""


class ArraysOfUnits:
    """The half of a ``Work`` that keeps what its units leave as arrays by name, which no two of them share."""

    def __init__(self, ranks: Ranks):
        self.ranks = ranks
        self._done: dict[str, np.ndarray] = {}  # of the units of this rank
        self._before: dict[str, np.ndarray] = {}  # of those that were taken up

    def kept(self) -> dict[str, np.ndarray]:
        """See ``Work``."""
        parts = self.ranks.gather(self._done)
        if parts is None:
            return {}
        return self._before | {name: values for part in parts for name, values in part.items()}

    def take_up(self, kept: Mapping[str, np.ndarray]) -> None:
        """See ``Work``."""
        self._before = dict(kept)

    def files(self) -> Sequence[Path]:
        """See ``Work``; there are none."""
        return ()


class SumsOfUnits:
    """The half of a ``Work`` whose units add to one ``BlockSums``."""

    def __init__(self, sums: BlockSums, ranks: Ranks):
        self.ranks, self._sums = ranks, sums

    def kept(self) -> dict[str, np.ndarray]:
        """See ``Work``."""
        return self._sums.kept(self.ranks)

    def take_up(self, kept: Mapping[str, np.ndarray]) -> None:
        """See ``Work``."""
        if self.ranks.is_root:
            self._sums.take_up(kept)

    def files(self) -> Sequence[Path]:
        """See ``Work``; there are none."""
        return ()


@dataclass(frozen=True)
class StageRunner:
    """Does stages and keeps them. stop(progressed): what ends the run now, if anything; collective. progressed: whether
    a unit or a part has been done since the stage was begun or taken up, without which every job might end where it
    began."""

    stages: Stages
    stop: Callable[[bool], Stop | None]

    @property
    def _world(self) -> Ranks:
        return self.stages.world

    def run(self, name: str, work: Work, inputs: Mapping[str, str]) -> dict[str, np.ndarray]:
        """See ``Fits.stage``."""
        with self.stages.opened(name, inputs) as found:
            if found is not None and found.ended:
                logger.info("stage '%s' has ended before", name)
                return dict(found.arrays) if self._world.is_root else {}
            if found is not None:
                logger.info("stage '%s' goes on: %d of %d units are done", name, len(found.done), work.n_units)
                self._world.on_all(lambda: work.take_up(found.arrays))
            before = set() if found is None else set(found.done)
        done, stop = self._do(work, [unit for unit in range(work.n_units) if unit not in before])
        arrays = work.product() if stop is None else work.kept()
        self._world.on_root(
            lambda: self._keep(name, inputs, work, Progress(stop is None, sorted(before | done), arrays))
        )
        if stop is not None:
            raise Interrupted(stop)
        return arrays

    def _do(self, work: Work, left: Sequence[int]) -> tuple[set[int], Stop | None]:
        """Deal out the units that are left and do them, until all are done or something ends the run; collective."""
        units, done = work.run([left[n] for n in share(len(left), work.ranks.rank, work.ranks.size)]), set()
        stop, busy, progressed = None, True, False
        while busy and stop is None:
            unit, busy, some = _turn(self._world, units, lambda item: item is not None)
            done.add(unit)
            progressed = progressed or some
            stop = self.stop(progressed) if busy else None
        units.close()
        found = self._world.gather(done - {None, PART, ENDED})
        return self._world.bcast(set().union(*found) if found is not None else None), stop

    def _keep(self, name: str, inputs: Mapping[str, str], work: Work, progress: Progress) -> None:
        files = {str(path): sha256_of_file(path) for path in work.files()}
        self.stages.save(name, inputs, progress._replace(files=files))


def _turn(world: Ranks, items: Iterator[T], counts: Callable[[T], bool]) -> tuple[Any, bool, bool]:
    """The next item of this rank, or ENDED; whether any rank has one, and whether any has one that counts. Collective;
    the error of one rank is raised on all."""
    item, error = ENDED, None
    try:
        item = next(items, ENDED)
    except Exception as caught:  # the others are told at once: they would wait for ever
        error = caught
    world.wait(SHORT)  # asleep: who still works may need the core
    here = np.array([item is not ENDED, item is not ENDED and counts(item), error is not None], float)
    busy, some, failed = world.max(here) > 0
    if failed:
        world.raise_together(error)
    return item, bool(busy), bool(some)


def heeded(world: Ranks, items: Iterator[T], stop: Callable[[], Stop | None]) -> list[T]:
    """See ``Fits.heeded``. stop: what ends the run now, if anything; collective."""
    found, busy = [], True
    while busy:
        item, busy, _ = _turn(world, items, lambda item: False)
        if item is not ENDED:
            found.append(item)
        if busy and (why := stop()) is not None:
            raise Interrupted(why)
    return found


class Fits(Protocol):
    """grid: the ranks. evaluate: what ``Case.gradient`` gave, on all frames of this rank."""

    grid: Grid
    evaluate: Gradient | None

    def announce(self, names: Sequence[str]) -> None:
        """Say which fits and stages are to come, in their order, as far as it is known; collective."""

    def warn(self, sentences: Sequence[str]) -> None:
        """Add what a reader of the results must know; it is logged, and stands in the metrics and the report."""

    def heeded(self, items: Iterator[T]) -> list[T]:
        """The items of an iterator, which every rank has one of; between them signals and the clock end the run.

        For work of which nothing is kept, so that each job does it again: frames read into memory, equations solved.
        So the clock is heeded only in a job that has kept something else before. Collective; raises Interrupted, and
        the error of one rank on all.
        """

    def on_root(self, function: Callable[[], T]) -> T:
        """Root's result of ``function`` on every rank, as ``Ranks.on_root``; collective.

        For equations that take long to solve: a signal to root ends it on the spot, and nothing of it is kept. Raises
        Interrupted.
        """

    def stage(self, name: str, work: Work, inputs: Mapping[str, str]) -> dict[str, np.ndarray]:
        """Do some work, or what is left of it, or nothing where it has ended; collective. Gives its product on root.

        inputs: digests of what it depends on beside config and data; where they changed it begins again. Raises
        Interrupted.
        """

    def fit(
        self,
        name: str,
        start: Params,
        evaluate: Gradient | None = None,
        *,
        optimizer: MakeOptimizer | None = None,
        until: Until | None = None,
        tolerance: float = 0.0,
        also: Hook | None = None,
    ) -> Fitted:
        """Minimise from ``start``; collective. A fit that has ended before an interruption is not run again.

        evaluate: value and gradient of this fit, by default those of the run. optimizer: makes one for this fit, by
        default that of the config. until: what else ends it. tolerance: of a fit that is only compared with others, a
        relative one that is enough, where it is larger than that of the config. also: is called at the start and after
        each step.
        """

    def fit_many(
        self, names: Sequence[str], starts: Sequence[Params], gradients: Sequence[Gradient], *, tolerance: float
    ) -> list[Fitted]:
        """Fits that do not depend on each other, which are only compared; collective. Where they can they share their
        passes over the frames (``fit.many``). What one finds does not depend on the others."""

    def final(self, fitted: Fitted, evaluate: Gradient | None = None) -> None:
        """Say that this is the result, of this gradient, after which no more is fitted but to tell its errors."""
