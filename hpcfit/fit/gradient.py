"""Value and gradient of a problem over a grid of ranks.

    S = sum over cells of partial(theta, cell)             additions over ranks lie between the halves of the vjp,
    L = loss(sum over tiles of summary(S, tile))           so nothing inside ``jit`` communicates
    S' = vjp of loss and summary;  theta' = sum over cells of vjp(partial)(S')

``Reverse`` pulls the cotangent back in a second pass over the frames, ``Forward`` carries tangents of few shared
parameters along in one pass (``fit.by_blocks``). ``Adjoint`` needs one pass: while the frames of a tile are in cache it
also makes the few rows of dS/dw that the loss can see, and combines them when it is known how (``fit.adjoint``). The
derivatives themselves are those of ``fit.derivatives``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial as bind
from typing import Any, NamedTuple, Protocol, Self

import jax
import numpy as np

from hpcfit.errors import together
from hpcfit.fit import derivatives
from hpcfit.fit.grid import Grid
from hpcfit.fit.not_finite import frames_in_words, is_finite, largest, not_a_number, not_finite_along, tile_in_words
from hpcfit.fit.problem import Block, FrameRows, NeighbourProblem, Params, Problem, RowsProblem, Statistics
from hpcfit.fit.reduction import Sum
from hpcfit.fit.stopwatch import Stopwatch
from hpcfit.store.stream import Chunk

Tree = Any
NO_ROWS = Params((), ())  # most problems find nothing of single frames
LARGEST_GRADIENT = 1e150  # the squares of a million numbers of this size still have a finite sum


class Frames(NamedTuple):
    """A rank's share of the data. chunks(): one pass, yielding chunks (``store.stream.Chunk``), the same in the same
    order each time: blocks of frames with all tiles for ``Reverse``, tiles with all frames for ``Adjoint``."""

    rows: FrameRows
    chunks: Callable[[], Iterator[Any]]

    @classmethod
    def in_memory(cls, rows: FrameRows, data: Tree) -> Frames:
        """Frames whose data are one tile and lie in memory, leaves [1, blocks, ...]."""
        chunk = Chunk(slice(0, len(rows.ids)), slice(0, 1), data)
        return cls(rows, lambda: iter([chunk]))


class Evaluation(NamedTuple):
    """Loss, gradient, statistics and rows of one evaluation, all at the same parameters.

    Where a sum or a number of the gradient is not finite, the loss is not either, and the gradient is 0.

    statistics, sums: for the results; seconds: reading, computing and reducing, on this rank. rows: what belongs to
    single frames, as local leaves (``fit.problem.RowsProblem``). tangents: of the statistics by the shared parameters,
    where the pass has carried them along (``fit.by_blocks.Forward``). beside: that of a second loss (``fit.joint``).
    """

    loss: float
    gradient: Params | None  # None where only the value was asked for
    params: Params  # gauged: what the statistics belong to
    statistics: Statistics
    sums: Tree
    seconds: dict[str, float]
    rows: Params = NO_ROWS
    tangents: Tree = None
    beside: Evaluation | None = None


@dataclass(frozen=True)
class OverFrames:
    """Sums that a problem may ask of the other ranks: sums and maxima over all frames (see ``fit.problem.Reduce``)."""

    grid: Grid
    add: Sum

    def sum(self, parts: Tree) -> Tree:
        """Sum leaves [blocks, ...] over all blocks."""
        found = self.add.of_fits(jax.tree.map(lambda leaf: np.asarray(leaf)[None], parts), over="frames")
        return jax.tree.map(lambda leaf: leaf[0], found)

    def max(self, value: float) -> float:
        """The maximum over ranks."""
        return float(self.grid.world.max(np.array([value]))[0])


class SumsAt(NamedTuple):
    """Gauged parameters with their sums. kept: what the first pass leaves for the pull-back."""

    params: Params
    blocks: Block
    statistics: Statistics
    sums: Tree
    rows: Params
    kept: Any


class Gradient(Protocol):
    """Value and gradient of a problem on this rank's share of the frames. passes: over the frames in a step."""

    problem: Problem
    frames: Frames
    grid: Grid
    add: Sum
    passes: int

    def __call__(self, params: Params) -> Evaluation: ...

    def value(self, params: Params) -> Evaluation: ...

    def not_finite_at(self, params: Params) -> str: ...

    def metrics(self, evaluation: Evaluation) -> dict[str, float]: ...


@dataclass(frozen=True)
class Halves:
    """The part of value and gradient that all ways to pull back share: all but their passes over the frames."""

    problem: Problem
    frames: Frames
    grid: Grid
    add: Sum

    def of(self, problem: Problem, rows: FrameRows | None = None) -> Self:
        """Value and gradient of another problem, and of other ``rows`` of the same frames where they are given."""
        frames = self.frames if rows is None else self.frames._replace(rows=rows)
        return replace(self, problem=problem, frames=frames)

    def __call__(self, params: Params) -> Evaluation:
        """Loss and gradient at ``params``; collective."""
        clock = Stopwatch()
        at = self._sums_at(params, clock)
        params, statistics, sums = at.params, at.statistics, at.sums
        loss, (sums_bar, common_bar, shared_bar) = derivatives.loss_and_cotangents(
            self.problem, sums, statistics.common, params.shared
        )
        loss = self._agreed(loss, statistics, sums)
        no_gradient = jax.tree.map(np.zeros_like, params)
        if not math.isfinite(loss):  # a line search went too far: there is no gradient, and it will turn back
            return Evaluation(loss, no_gradient, params, statistics, sums, clock.seconds, at.rows, self._tangents(at))
        statistics_bar, shared_bar = self._pull_summary(at, sums_bar, common_bar, shared_bar, clock)
        of_frames = self._pull_frames(at, statistics_bar.common, clock)
        of_data = self._pull_data(at, statistics_bar.sliced, sums_bar, clock)
        direct = Params(shared_bar, jax.tree.map(np.zeros_like, params.local))
        with np.errstate(over="ignore", invalid="ignore"):
            add = lambda a, b, c: np.asarray(a) + np.asarray(b) + np.asarray(c)  # noqa: E731
            gradient = jax.tree.map(add, direct, of_frames, of_data)
        if self._any_rank(largest(gradient) > LARGEST_GRADIENT):
            loss, gradient = math.nan, no_gradient
        return Evaluation(loss, gradient, params, statistics, sums, clock.seconds, at.rows, self._tangents(at))

    def _tangents(self, at: SumsAt) -> Tree:
        """The derivatives of the statistics, where the first pass leaves them."""
        return None

    def value(self, params: Params) -> Evaluation:
        """Loss without gradient (``gradient`` is None): one pass. Raises NumericalError for a sum that is not
        finite."""
        clock = Stopwatch()
        at = self._sums_at(params, clock)
        loss = self.problem.loss(at.sums, at.statistics.common, at.params.shared)
        loss = self._agreed(loss, at.statistics, at.sums)
        if not math.isfinite(loss) and (where := self.not_finite_at(params)):
            raise together(not_a_number(where))
        return Evaluation(loss, None, at.params, at.statistics, at.sums, clock.seconds, at.rows)

    def not_finite_at(self, params: Params) -> str:
        """The source of a sum that is not finite at ``params``, in words: a block and its frames, or a tile where no
        frame is at fault; "" where every sum is finite. Collective; one or two passes over the frames."""
        at = self._sums_at(params, Stopwatch())
        if not self._any_rank(not is_finite((at.statistics, at.sums))):
            return ""
        blocks = derivatives.of_frames(self.problem, at.params, at.blocks)
        rows = self._rows_of(np.flatnonzero(not_finite_along(blocks, axis=0)))
        if not self._any_rank(len(rows) > 0):
            rows = self._not_finite_data(at)
        tiles = derivatives.summaries(self.problem, at.statistics, at.params.shared)
        bad = np.flatnonzero(not_finite_along(tiles, axis=0))
        words = frames_in_words(rows, self.frames.rows.ids, self.grid) or tile_in_words(bad, self.grid)
        found = self.grid.world.gather(words)
        # A frame at fault makes the sums of a tile bad as well: it is named first, by the lowest rank that holds one.
        return self.grid.world.bcast(
            max(found, key=lambda words: (words != "") + words.startswith("block")) if found else ""
        )

    def _rows_of(self, blocks: np.ndarray) -> np.ndarray:
        """The rows of some of this rank's blocks, counted over all of them."""
        width = self.frames.rows.ids.shape[1]
        return (blocks[:, None] * width + np.arange(width)).ravel()

    def _agreed(self, loss: Any, statistics: Statistics, sums: Tree) -> float:
        """The loss that decides for all ranks alike, should a processor round differently: the largest. NaN where it or
        a sum is not finite on any of them."""
        loss = float(loss)
        bad = not (math.isfinite(loss) and is_finite((statistics, sums)))
        any_bad, most = self.grid.world.max(np.array([bad, -math.inf if bad else loss], float))
        return math.nan if any_bad else float(most)

    def _any_rank(self, here: bool) -> bool:
        return bool(self.grid.world.max(np.array([float(here)]))[0])

    def metrics(self, evaluation: Evaluation) -> dict[str, float]:
        """The numbers that the problem reports of an evaluation."""
        common, shared = evaluation.statistics.common, evaluation.params.shared
        found = derivatives.metrics(self.problem, evaluation.sums, common, shared)
        return {name: float(value) for name, value in found.items()}

    def _sums_at(self, params: Params, clock: Stopwatch) -> SumsAt:
        """The half that value and gradient share: gauged parameters, their statistics and sums."""
        params = self.problem.gauge(params, self.frames.rows, OverFrames(self.grid, self.add))
        blocks = self._blocks(params)
        with clock("compute"):
            parts = derivatives.of_frames(self.problem, params, blocks)
        with clock("reduce"):
            common = self.add([parts], axis=0, over="frames")
        sliced, rows, kept = self._pass(params, blocks, common, clock)
        statistics = Statistics(common, sliced)
        with clock("compute"):
            parts = jax.block_until_ready(derivatives.summaries(self.problem, statistics, params.shared))
        with clock("reduce"):
            sums = self.add([parts], axis=0, over="slices")
        return SumsAt(params, blocks, statistics, sums, rows, kept)

    def _blocks(self, params: Params) -> Block:
        """The rank's rows beside what their neighbours say, leaves [blocks, ...]."""
        rows, before, after = self.frames.rows, (), ()
        if isinstance(self.problem, NeighbourProblem):
            first, last = self.problem.edges(params, rows)
            before = jax.tree.map(lambda leaf: self._shifted(leaf, 1), last)
            after = jax.tree.map(lambda leaf: self._shifted(leaf, -1), first)
        return Block(rows.ids, rows.more, before, after)

    def _shifted(self, of_block: np.ndarray, by: int) -> np.ndarray:
        """One number a block, of the block before (by = 1) or after (-1), whatever rank holds it; 0 beyond the ends."""
        blocks = self.grid.blocks
        whole = np.zeros(self.grid.n_blocks + 2)
        whole[blocks.start + 1 : blocks.stop + 1] = of_block
        whole = self.grid.frames.sum(whole)
        return whole[blocks.start + 1 - by : blocks.stop + 1 - by]

    def _pull_summary(self, at: SumsAt, sums_bar, common_bar, shared_bar, clock) -> tuple[Statistics, Tree]:
        with clock("compute"):
            bars, shared_parts = jax.block_until_ready(self._summary_bars(at, sums_bar))
        with clock("reduce"):
            common_more, shared_more = self.add([(bars.common, shared_parts)], axis=0, over="slices")
        plus = bind(jax.tree.map, lambda a, b: np.asarray(a) + b)
        return Statistics(plus(common_bar, common_more), bars.sliced), plus(shared_bar, shared_more)

    def _pull_frames(self, at: SumsAt, common_bar: Tree, clock: Stopwatch) -> Params:
        with clock("compute"):
            bar = jax.block_until_ready(derivatives.of_frames_vjp(self.problem, at.params, at.blocks, common_bar))
        with clock("reduce"):
            return Params(self.add([bar.shared], axis=0, over="frames"), bar.local)

    def _timed_chunks(self, clock: Stopwatch) -> Iterator[Any]:
        """One pass over the frames; waiting for them counts as reading."""
        chunks = self.frames.chunks()
        while True:
            with clock("read"):
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk


def no_rows_of(evaluate: Gradient) -> Params:
    """Zeros in place of the rows that an evaluation gives."""
    problem = evaluate.problem
    return Params((), problem.no_rows(evaluate.frames.rows)) if isinstance(problem, RowsProblem) else NO_ROWS
