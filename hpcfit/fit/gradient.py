"""Value and gradient of a problem over a grid of ranks: the only module that differentiates.

    S = sum over cells of partial(theta, cell)             additions over ranks lie between the halves of the vjp,
    L = loss(sum over tiles of summary(S, tile))           so nothing inside ``jit`` communicates
    S' = vjp of loss and summary;  theta' = sum over cells of vjp(partial)(S')

``Reverse`` pulls the cotangent back in a second pass over the frames. ``Adjoint`` needs one pass: while the frames of a
tile are in cache it also makes the few rows of dS/dw that the loss can see, and combines them when it is known how
(``problems.base.OnePassProblem``). ``forward`` for few parameters is to be a further class with the same ``__call__``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from functools import partial as bind
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.fit.grid import Grid
from hpcfit.fit.reduction import Sum
from hpcfit.fit.stopwatch import Stopwatch
from hpcfit.problems.base import Block, Cell, FrameRows, Params, Problem, Statistics

Tree = Any


class Frames(NamedTuple):
    """A rank's share of the data. chunks(): one pass, yielding chunks (``data.stream.Chunk``), the same in the same
    order each time: blocks of frames with all tiles for ``Reverse``, tiles with all frames for ``Adjoint``."""

    rows: FrameRows
    chunks: Callable[[], Iterator[Any]]


class Evaluation(NamedTuple):
    """What one evaluation gives.

    statistics, sums: for the results; seconds: reading, computing and reducing, on this rank.
    """

    loss: float
    gradient: Params | None  # None where only the value was asked for
    params: Params  # gauged: what the statistics belong to
    statistics: Statistics
    sums: Tree
    seconds: dict[str, float]


@dataclass(frozen=True)
class OverFrames:
    """What a problem may ask of the other ranks: sums and maxima over all frames (see ``problems.base.Reduce``)."""

    grid: Grid
    add: Sum

    def sum(self, parts: Tree) -> Tree:
        """Sum leaves [blocks, ...] over all blocks."""
        return self.add([parts], axis=0, over="frames")

    def max(self, value: float) -> float:
        """The maximum over ranks."""
        return float(self.grid.world.max(np.array([value]))[0])


class _At(NamedTuple):
    """Where a gradient is taken. kept: what the first pass leaves for the pull-back."""

    params: Params
    blocks: Block
    statistics: Statistics
    sums: Tree
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

    def metrics(self, evaluation: Evaluation) -> dict[str, float]: ...


@dataclass(frozen=True)
class _Halves:
    """What the two ways share: all but the passes over the frames."""

    problem: Problem
    frames: Frames
    grid: Grid
    add: Sum

    def __call__(self, params: Params) -> Evaluation:
        """Loss and gradient at ``params``; collective."""
        clock = Stopwatch()
        at = self._sums_at(params, clock)
        params, statistics, sums = at.params, at.statistics, at.sums
        loss, (sums_bar, common_bar, shared_bar) = _loss_and_cotangents(
            self.problem, sums, statistics.common, params.shared
        )
        # The loss decides for all ranks alike: root's value, should a processor round differently.
        loss = self.grid.world.bcast(float(loss))
        if not math.isfinite(loss):  # a line search went too far: there is no gradient, and it will turn back
            return Evaluation(loss, jax.tree.map(np.zeros_like, params), params, statistics, sums, clock.seconds)
        statistics_bar, shared_bar = self._pull_summary(at, sums_bar, common_bar, shared_bar, clock)
        of_frames = self._pull_frames(at, statistics_bar.common, clock)
        of_data = self._pull_data(at, statistics_bar.sliced, sums_bar, clock)
        direct = Params(shared_bar, jax.tree.map(np.zeros_like, params.local))
        gradient = jax.tree.map(lambda a, b, c: np.asarray(a) + b + c, direct, of_frames, of_data)
        return Evaluation(loss, gradient, params, statistics, sums, clock.seconds)

    def value(self, params: Params) -> Evaluation:
        """The same without the gradient (``gradient`` is None): one pass."""
        clock = Stopwatch()
        at = self._sums_at(params, clock)
        loss = self.problem.loss(at.sums, at.statistics.common, at.params.shared)
        loss = self.grid.world.bcast(float(loss))
        return Evaluation(loss, None, at.params, at.statistics, at.sums, clock.seconds)

    def metrics(self, evaluation: Evaluation) -> dict[str, float]:
        """What the problem reports of an evaluation."""
        found = _metrics(self.problem, evaluation.sums, evaluation.statistics.common, evaluation.params.shared)
        return {name: float(value) for name, value in found.items()}

    def _sums_at(self, params: Params, clock: Stopwatch) -> _At:
        """The half that value and gradient share: gauged parameters, their statistics and sums."""
        params = self.problem.gauge(params, self.frames.rows, OverFrames(self.grid, self.add))
        blocks = self._blocks(params)
        with clock("compute"):
            parts = _of_frames(self.problem, params, blocks)
        with clock("reduce"):
            common = self.add([parts], axis=0, over="frames")
        sliced, kept = self._pass(params, blocks, common, clock)
        statistics = Statistics(common, sliced)
        with clock("compute"):
            parts = jax.block_until_ready(_summaries(self.problem, statistics, params.shared))
        with clock("reduce"):
            sums = self.add([parts], axis=0, over="slices")
        return _At(params, blocks, statistics, sums, kept)

    def _blocks(self, params: Params) -> Block:
        """The rank's rows beside the rows that their neighbours end and begin with, leaves [blocks, ...]."""
        rows = self.frames.rows
        first, last = (jax.tree.map(lambda leaf, at=at: np.asarray(leaf)[:, at], params.local) for at in (0, -1))
        before, after, followed = last, first, rows.follows[:, 0]
        if getattr(self.problem, "neighbours", False):
            before = jax.tree.map(lambda leaf: self._shifted(leaf, 1), last)
            after = jax.tree.map(lambda leaf: self._shifted(leaf, -1), first)
            followed = self._shifted(rows.follows[:, 0].astype(float), -1) > 0
        return Block(rows.ids, rows.log_prior, rows.follows, before, after, followed)

    def _shifted(self, of_block: np.ndarray, by: int) -> np.ndarray:
        """One number a block, of the block before (by = 1) or after (-1), whatever rank holds it; 0 beyond the ends."""
        blocks = self.grid.blocks
        whole = np.zeros(self.grid.n_blocks + 2)
        whole[blocks.start + 1 : blocks.stop + 1] = of_block
        whole = self.grid.frames.sum(whole)
        return whole[blocks.start + 1 - by : blocks.stop + 1 - by]

    def _pull_summary(self, at: _At, sums_bar, common_bar, shared_bar, clock) -> tuple[Statistics, Tree]:
        with clock("compute"):
            bars, shared_parts = jax.block_until_ready(self._summary_bars(at, sums_bar))
        with clock("reduce"):
            common_more, shared_more = self.add([(bars.common, shared_parts)], axis=0, over="slices")
        plus = bind(jax.tree.map, lambda a, b: np.asarray(a) + b)
        return Statistics(plus(common_bar, common_more), bars.sliced), plus(shared_bar, shared_more)

    def _pull_frames(self, at: _At, common_bar: Tree, clock: Stopwatch) -> Params:
        with clock("compute"):
            bar = jax.block_until_ready(_of_frames_vjp(self.problem, at.params, at.blocks, common_bar))
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


@dataclass(frozen=True)
class Reverse(_Halves):
    """Two passes over the frames: one adds the statistics, one pulls their cotangents back to the parameters."""

    passes = 2

    def _summary_bars(self, at: _At, sums_bar: Tree) -> tuple[Statistics, Tree]:
        return _summaries_vjp(self.problem, at.statistics, at.params.shared, sums_bar)

    def _pass(self, params: Params, blocks: Block, common: Tree, clock: Stopwatch) -> tuple[Tree, None]:
        pieces = []
        for chunk in self._timed_chunks(clock):
            with clock("compute"):
                pieces.append(jax.block_until_ready(_forward(self.problem, *self._on(params, chunk))))
        with clock("reduce"):
            return self.add(pieces, axis=1, over="frames"), None

    def _pull_data(self, at: _At, sliced_bar: Tree, sums_bar: Tree, clock: Stopwatch) -> Params:
        shared, local = [], []
        for chunk in self._timed_chunks(clock):
            with clock("compute"):
                bar = jax.block_until_ready(_pull(self.problem, *self._on(at.params, chunk), sliced_bar))
            shared.append(bar.shared)
            local.append(bar.local)
        with clock("reduce"):
            shared_sum = self.add(shared, axis=(0, 1), over="world")
            rows = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *local)
            return Params(shared_sum, self.add([rows], axis=0, over="slices"))

    def _on(self, params: Params, chunk: Any) -> tuple:
        """The arguments of the two passes for a chunk."""
        local = jax.tree.map(lambda leaf: leaf[chunk.rows], params.local)
        rows = self.frames.rows
        return Params(params.shared, local), Cell(chunk.data, rows.ids[chunk.rows], rows.log_prior[chunk.rows])


@dataclass(frozen=True)
class Adjoint(_Halves):
    """One pass over the frames, where a rank holds all frames of its tiles. threads: of the pass, on a CPU."""

    threads: int = 1
    passes = 1

    def _summary_bars(self, at: _At, sums_bar: Tree) -> tuple[Statistics, Tree]:
        return _summaries_vjp_to_common(self.problem, at.statistics, at.params.shared, sums_bar)

    @cached_property
    def _prepared(self) -> Tree:
        return self.problem.prepare(self.frames.rows)

    def _pass(self, params: Params, blocks: Block, common: Tree, clock: Stopwatch) -> tuple[Tree, Any]:
        w_t = np.asarray(_weights(self.problem, params, blocks)).ravel()
        pieces = []
        for chunk in self._timed_chunks(clock):
            with clock("compute"):
                made = self.problem.one_pass(w_t, common, chunk, self._prepared, self.threads)
                pieces.append(jax.block_until_ready(made))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *pieces)

    def _pull_data(self, at: _At, sliced_bar: Tree, sums_bar: Tree, clock: Stopwatch) -> Params:
        with clock("compute"):
            parts = jax.block_until_ready(_combined(self.problem, at.kept, sums_bar))
        with clock("reduce"):
            w_bar = self.add([parts], axis=0, over="slices")
        with clock("compute"):
            bar = _weights_vjp(self.problem, at.params, at.blocks, w_bar.reshape(at.blocks.ids.shape))
        with clock("reduce"):
            return Params(self.add([bar.shared], axis=0, over="frames"), bar.local)


# ---- what runs on the device -------------------------------------------------------------------------------------
# Every cell and every tile is computed by the same loop body on the same shapes, so that its bits do not depend on how
# many a rank holds. On a CPU the loop also keeps a cell in the cache; on a GPU cells are computed side by side.


def _each(function: Callable, *trees: Tree) -> Tree:
    batch = None if jax.default_backend() == "cpu" else 64
    return jax.lax.map(lambda slices: function(*slices), trees, batch_size=batch)


def _each_alike(function: Callable, *trees: Tree) -> Tree:
    """The same for what costs little. A loop of one turn would be no loop to the compiler, which might then add in
    another order than in the loops of other ranks: it gets two."""
    if jax.tree.leaves(trees)[0].shape[0] != 1:
        return _each(function, *trees)
    twice = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), trees)
    return jax.tree.map(lambda leaf: leaf[:1], _each(function, *twice))


def _over_cells(function: Callable, params: Params, cells: Cell, tiles: Tree) -> Tree:
    """``function(params of block, cell, slice of tiles)`` of each tile and block; leaves [tiles, blocks, ...].

    A rank with a single cell computes it twice, for the reason that ``_each_alike`` gives."""
    if cells.data.shape[:2] == (1, 1):
        again = lambda leaf, axis=0: jnp.concatenate([leaf, leaf], axis=axis)  # noqa: E731
        twice = Cell(again(cells.data, 1), again(cells.ids), again(cells.log_prior))
        both = _over_cells(function, Params(params.shared, jax.tree.map(again, params.local)), twice, tiles)
        return jax.tree.map(lambda leaf: leaf[:, :1], both)

    def tile(data, constants):
        return _each(
            lambda rows, local, *about: function(Params(params.shared, local), Cell(rows, *about), constants),
            data, params.local, cells.ids, cells.log_prior,
        )  # fmt: skip

    return _each(tile, cells.data, tiles)


@jax.jit
def _forward(problem: Problem, params: Params, cells: Cell) -> Tree:
    return _over_cells(lambda p, cell, _: problem.partial(p, cell), params, cells, None)


@jax.jit
def _pull(problem: Problem, params: Params, cells: Cell, sliced_bar: Tree) -> Params:
    def cell_vjp(p, cell, bar):
        value, vjp = jax.vjp(lambda q: problem.partial(q, cell), p)
        return vjp(jax.tree.map(lambda leaf, like: jnp.asarray(leaf, like.dtype), bar, value))[0]

    return _over_cells(cell_vjp, params, cells, sliced_bar)


def _over_blocks(function: Callable, params: Params, blocks: Block, *more: Tree) -> Tree:
    """``function(params of block, block, ...)`` for each block; the leaves are [blocks, ...]."""
    return _each_alike(
        lambda local, block, *rest: function(Params(params.shared, local), block, *rest), params.local, blocks, *more
    )


@jax.jit
def _of_frames(problem: Problem, params: Params, blocks: Block) -> Tree:
    return _over_blocks(problem.of_frames, params, blocks)


@jax.jit
def _of_frames_vjp(problem: Problem, params: Params, blocks: Block, common_bar: Tree) -> Params:
    return _over_blocks(lambda p, b: jax.vjp(lambda q: problem.of_frames(q, b), p)[1](common_bar)[0], params, blocks)


@jax.jit
def _weights(problem: Problem, params: Params, blocks: Block) -> jax.Array:
    return _over_blocks(problem.weights, params, blocks)


@jax.jit
def _weights_vjp(problem: Problem, params: Params, blocks: Block, w_bar: jax.Array) -> Params:
    return _over_blocks(lambda p, b, bar: jax.vjp(lambda q: problem.weights(q, b), p)[1](bar)[0], params, blocks, w_bar)


@jax.jit
def _combined(problem: Problem, rows: jax.Array, sums_bar: Tree) -> jax.Array:
    """d loss / d weight by each tile, [tiles, T]."""

    def one(rows_kt, tile):
        coefficients = problem.coefficients(sums_bar, tile)
        return sum(c * row.astype(c.dtype) for c, row in zip(coefficients, rows_kt))

    return _each_alike(one, rows, problem.tiles)


@jax.jit
def _summaries(problem: Problem, statistics: Statistics, shared: Tree) -> Tree:
    def one(sliced, tile):
        return problem.summary(Statistics(statistics.common, sliced), shared, tile)

    return _each_alike(one, statistics.sliced, problem.tiles)


@jax.jit
def _summaries_vjp(problem: Problem, statistics: Statistics, shared: Tree, sums_bar: Tree) -> tuple[Statistics, Tree]:
    def one(sliced, tile):
        _, vjp = jax.vjp(lambda s, q: problem.summary(s, q, tile), Statistics(statistics.common, sliced), shared)
        return vjp(sums_bar)

    return _each_alike(one, statistics.sliced, problem.tiles)


@jax.jit
def _summaries_vjp_to_common(
    problem: Problem, statistics: Statistics, shared: Tree, sums_bar: Tree
) -> tuple[Statistics, Tree]:
    """Without what belongs to the tiles, which one pass over the frames pulls back by other means."""

    def one(sliced, tile):
        of_common = lambda common, q: problem.summary(Statistics(common, sliced), q, tile)  # noqa: E731
        common_bar, shared_bar = jax.vjp(of_common, statistics.common, shared)[1](sums_bar)
        return Statistics(common_bar, None), shared_bar

    return _each_alike(one, statistics.sliced, problem.tiles)


@jax.jit
def _metrics(problem: Problem, sums: Tree, common: Tree, shared: Tree) -> dict[str, jax.Array]:
    return problem.metrics(sums, common, shared)


@jax.jit
def _loss_and_cotangents(problem: Problem, sums: Tree, common: Tree, shared: Tree):
    return jax.value_and_grad(lambda *args: problem.loss(*args), argnums=(0, 1, 2))(sums, common, shared)
