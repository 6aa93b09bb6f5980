"""Value and gradient of a problem over a grid of ranks: the only module that differentiates.

    S = sum over cells of partial(theta, cell)             additions over ranks lie between the halves of the vjp,
    L = loss(sum over tiles of summary(S, tile))           so nothing inside ``jit`` communicates
    S' = vjp of loss and summary;  theta' = sum over cells of vjp(partial)(S')

``Reverse`` pulls the cotangent back in a second pass over the frames. Other ways (``forward`` for few parameters,
``adjoint`` where few statistics suffice) are further classes with the same ``__call__``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial as bind
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.fit.grid import Grid
from hpcfit.fit.reduction import Sum
from hpcfit.problems.base import Cell, FrameRows, Params, Problem, Statistics

Tree = Any


class Frames(NamedTuple):
    """A rank's share of the data. chunks(): one pass, yielding (rows: slice of the rank's blocks, data: leaves
    [tiles, blocks, 64, ...]), the same chunks in the same order each time."""

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


@dataclass(frozen=True)
class Reverse:
    """Two passes over the frames: one adds the statistics, one pulls their cotangents back to the parameters."""

    problem: Problem
    frames: Frames
    grid: Grid
    add: Sum

    def __call__(self, params: Params) -> Evaluation:
        """Loss and gradient at ``params``; collective."""
        clock = Stopwatch()
        params, statistics, sums = self._sums_at(params, clock)
        loss, (sums_bar, common_bar, shared_bar) = _loss_and_cotangents(
            self.problem, sums, statistics.common, params.shared
        )
        # The loss decides for all ranks alike: root's value, should a processor round differently.
        loss = self.grid.world.bcast(float(loss))
        if not math.isfinite(loss):  # a line search went too far: there is no gradient, and it will turn back
            return Evaluation(loss, jax.tree.map(np.zeros_like, params), params, statistics, sums, clock.seconds)
        statistics_bar, shared_bar = self._pull_summary(statistics, params, sums_bar, common_bar, shared_bar, clock)
        gradient = self._pull_partial(params, statistics_bar, shared_bar, clock)
        return Evaluation(loss, gradient, params, statistics, sums, clock.seconds)

    def value(self, params: Params) -> Evaluation:
        """The same without the gradient (``gradient`` is None): one pass."""
        clock = Stopwatch()
        params, statistics, sums = self._sums_at(params, clock)
        loss = self.problem.loss(sums, statistics.common, params.shared)
        return Evaluation(self.grid.world.bcast(float(loss)), None, params, statistics, sums, clock.seconds)

    def metrics(self, evaluation: Evaluation) -> dict[str, float]:
        """What the problem reports of an evaluation."""
        found = _metrics(self.problem, evaluation.sums, evaluation.statistics.common)
        return {name: float(value) for name, value in found.items()}

    def _sums_at(self, params: Params, clock: Stopwatch) -> tuple[Params, Statistics, Tree]:
        """The half that value and gradient share: gauged parameters, their statistics and sums."""
        params = self.problem.gauge(params, self.frames.rows, OverFrames(self.grid, self.add))
        statistics = self._statistics(params, clock)
        return params, statistics, self._sums(statistics, params, clock)

    def _statistics(self, params: Params, clock: Stopwatch) -> Statistics:
        pieces = []
        for chunk in self._timed_chunks(clock):
            with clock("compute"):
                pieces.append(jax.block_until_ready(_forward(self.problem, *self._on(params, chunk))))
        with clock("reduce"):
            common = self.add([piece.common for piece in pieces], axis=(0, 1), over="world")
            sliced = self.add([piece.sliced for piece in pieces], axis=1, over="frames")
        return Statistics(common, sliced)

    def _sums(self, statistics: Statistics, params: Params, clock: Stopwatch) -> Tree:
        with clock("compute"):
            parts = jax.block_until_ready(_summaries(self.problem, statistics, params.shared))
        with clock("reduce"):
            return self.add([parts], axis=0, over="slices")

    def _pull_summary(self, statistics, params, sums_bar, common_bar, shared_bar, clock) -> tuple[Statistics, Tree]:
        with clock("compute"):
            bars, shared_parts = jax.block_until_ready(
                _summaries_vjp(self.problem, statistics, params.shared, sums_bar)
            )
        with clock("reduce"):
            common_more, shared_more = self.add([(bars.common, shared_parts)], axis=0, over="slices")
        plus = bind(jax.tree.map, lambda a, b: np.asarray(a) + b)
        return Statistics(plus(common_bar, common_more), bars.sliced), plus(shared_bar, shared_more)

    def _pull_partial(self, params: Params, statistics_bar: Statistics, shared_bar: Tree, clock: Stopwatch) -> Params:
        shared, local = [], []
        for chunk in self._timed_chunks(clock):
            with clock("compute"):
                bar = jax.block_until_ready(_pull(self.problem, *self._on(params, chunk), statistics_bar))
            shared.append(bar.shared)
            local.append(bar.local)
        with clock("reduce"):
            shared_sum = self.add(shared, axis=(0, 1), over="world")
            rows = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *local)
            local_sum = self.add([rows], axis=0, over="slices")
        return Params(jax.tree.map(lambda a, b: np.asarray(a) + b, shared_bar, shared_sum), local_sum)

    def _timed_chunks(self, clock: Stopwatch) -> Iterator[Any]:
        """One pass over the frames; waiting for them counts as reading."""
        chunks = self.frames.chunks()
        while True:
            with clock("read"):
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk

    def _on(self, params: Params, chunk: Any) -> tuple:
        """The arguments of the two passes for a chunk."""
        local = jax.tree.map(lambda leaf: leaf[chunk.rows], params.local)
        rows = self.frames.rows
        cells = Cell(chunk.data, rows.ids[chunk.rows], rows.log_prior[chunk.rows])
        return Params(params.shared, local), cells, self.grid.tiles.start == 0


class Stopwatch:
    """Seconds by name, added up."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str) -> _Lap:
        return _Lap(self, name)


class _Lap:
    def __init__(self, watch: Stopwatch, name: str):
        self.watch, self.name = watch, name

    def __enter__(self):
        self.start = time.perf_counter()

    def __exit__(self, *_):
        self.watch.seconds[self.name] = self.watch.seconds.get(self.name, 0.0) + time.perf_counter() - self.start


# ---- what runs on the device -------------------------------------------------------------------------------------
# Every cell and every tile is computed by the same loop body on the same shapes, so that its bits do not depend on how
# many a rank holds. On a CPU the loop also keeps a cell in the cache; on a GPU cells are computed side by side.


def _each(function: Callable, *trees: Tree) -> Tree:
    batch = None if jax.default_backend() == "cpu" else 64
    return jax.lax.map(lambda slices: function(*slices), trees, batch_size=batch)


def _over_cells(function: Callable, params: Params, cells: Cell, first: jax.Array, tiles: Tree) -> Tree:
    """``function(params of block, cell, is first tile, slice of tiles)`` for each tile and block.

    The leaves are [tiles, blocks, ...].
    """
    n_tiles = jax.tree.leaves(cells.data)[0].shape[0]
    is_first = (jnp.arange(n_tiles) == 0) & first

    def tile(data, flag, constants):
        return _each(
            lambda rows, local, *about: function(Params(params.shared, local), Cell(rows, *about), flag, constants),
            data, params.local, cells.ids, cells.log_prior,
        )  # fmt: skip

    return _each(tile, cells.data, is_first, tiles)


def _counted_once(problem: Problem, params: Params, cell: Cell, flag: jax.Array) -> Statistics:
    """The partial sums of a cell; what every tile repeats counts in the first tile of the data set alone."""
    common, sliced = problem.partial(params, cell)
    return Statistics(jax.tree.map(lambda leaf: leaf * flag, common), sliced)


@jax.jit
def _forward(problem: Problem, params: Params, cells: Cell, first: jax.Array) -> Statistics:
    return _over_cells(lambda p, c, flag, _: _counted_once(problem, p, c, flag), params, cells, first, None)


@jax.jit
def _pull(problem: Problem, params: Params, cells: Cell, first: jax.Array, bar: Statistics) -> Params:
    def cell_vjp(p, cell, flag, sliced_bar):
        value, vjp = jax.vjp(lambda q: _counted_once(problem, q, cell, flag), p)
        cotangent = Statistics(bar.common, sliced_bar)
        return vjp(jax.tree.map(lambda leaf, like: jnp.asarray(leaf, like.dtype), cotangent, value))[0]

    return _over_cells(cell_vjp, params, cells, first, bar.sliced)


@jax.jit
def _summaries(problem: Problem, statistics: Statistics, shared: Tree) -> Tree:
    def one(sliced, tile):
        return problem.summary(Statistics(statistics.common, sliced), shared, tile)

    return _each(one, statistics.sliced, problem.tiles)


@jax.jit
def _summaries_vjp(problem: Problem, statistics: Statistics, shared: Tree, sums_bar: Tree) -> tuple[Statistics, Tree]:
    def one(sliced, tile):
        _, vjp = jax.vjp(lambda s, q: problem.summary(s, q, tile), Statistics(statistics.common, sliced), shared)
        return vjp(sums_bar)

    return _each(one, statistics.sliced, problem.tiles)


@jax.jit
def _metrics(problem: Problem, sums: Tree, common: Tree) -> dict[str, jax.Array]:
    return problem.metrics(sums, common)


@jax.jit
def _loss_and_cotangents(problem: Problem, sums: Tree, common: Tree, shared: Tree):
    return jax.value_and_grad(lambda *args: problem.loss(*args), argnums=(0, 1, 2))(sums, common, shared)
