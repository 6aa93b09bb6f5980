"""Value and gradient of a problem over a grid of ranks: the only module that differentiates.

    S = sum over cells of partial(theta, cell)             additions over ranks lie between the halves of the vjp,
    L = loss(sum over tiles of summary(S, tile))           so nothing inside ``jit`` communicates
    S' = vjp of loss and summary;  theta' = sum over cells of vjp(partial)(S')

``Reverse`` pulls the cotangent back in a second pass over the frames. ``Adjoint`` needs one pass: while the frames of a
tile are in cache it also makes the few rows of dS/dw that the loss can see, and combines them when it is known how
(``fit.problem.OnePassProblem``). ``Forward`` carries tangents of few shared parameters along in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from functools import partial as bind
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.errors import NumericalError, together
from hpcfit.fit.cells import each, over_blocks, over_cells
from hpcfit.fit.grid import Grid
from hpcfit.fit.problem import Block, Cell, FrameRows, NeighbourProblem, Params, Problem, RowsProblem, Statistics
from hpcfit.fit.reduction import Sum
from hpcfit.fit.stopwatch import Stopwatch

Tree = Any
NO_ROWS = Params((), ())  # most problems find nothing of single frames
LARGEST_GRADIENT = 1e150  # the squares of a million numbers of this size still have a finite sum


class Frames(NamedTuple):
    """A rank's share of the data. chunks(): one pass, yielding chunks (``store.stream.Chunk``), the same in the same
    order each time: blocks of frames with all tiles for ``Reverse``, tiles with all frames for ``Adjoint``."""

    rows: FrameRows
    chunks: Callable[[], Iterator[Any]]


class Evaluation(NamedTuple):
    """Loss, gradient, statistics and rows of one evaluation, all at the same parameters.

    Where a sum or a number of the gradient is not finite, the loss is not either, and the gradient is 0.

    statistics, sums: for the results; seconds: reading, computing and reducing, on this rank. rows: what belongs to
    single frames, as local leaves (``fit.problem.RowsProblem``).
    """

    loss: float
    gradient: Params | None  # None where only the value was asked for
    params: Params  # gauged: what the statistics belong to
    statistics: Statistics
    sums: Tree
    seconds: dict[str, float]
    rows: Params = NO_ROWS


@dataclass(frozen=True)
class OverFrames:
    """Sums that a problem may ask of the other ranks: sums and maxima over all frames (see ``fit.problem.Reduce``)."""

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
        loss = self._agreed(loss, statistics, sums)
        no_gradient = jax.tree.map(np.zeros_like, params)
        if not math.isfinite(loss):  # a line search went too far: there is no gradient, and it will turn back
            return Evaluation(loss, no_gradient, params, statistics, sums, clock.seconds, at.rows)
        statistics_bar, shared_bar = self._pull_summary(at, sums_bar, common_bar, shared_bar, clock)
        of_frames = self._pull_frames(at, statistics_bar.common, clock)
        of_data = self._pull_data(at, statistics_bar.sliced, sums_bar, clock)
        direct = Params(shared_bar, jax.tree.map(np.zeros_like, params.local))
        gradient = jax.tree.map(lambda a, b, c: np.asarray(a) + b + c, direct, of_frames, of_data)
        if self._any_rank(_largest(gradient) > LARGEST_GRADIENT):
            loss, gradient = math.nan, no_gradient
        return Evaluation(loss, gradient, params, statistics, sums, clock.seconds, at.rows)

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
        if not self._any_rank(not _is_finite((at.statistics, at.sums))):
            return ""
        rows = self._rows_of(np.flatnonzero(_not_finite(_of_frames(self.problem, at.params, at.blocks), axis=0)))
        if not self._any_rank(len(rows) > 0):
            rows = self._not_finite_data(at)
        found = self.grid.world.gather(self._in_words(rows) or self._tile_in_words(at))
        # A frame at fault makes the sums of a tile bad as well: it is named first, by the lowest rank that holds one.
        return self.grid.world.bcast(
            max(found, key=lambda words: (words != "") + words.startswith("block")) if found else ""
        )

    def _tile_in_words(self, at: _At) -> str:
        bad = np.flatnonzero(_not_finite(_summaries(self.problem, at.statistics, at.params.shared), axis=0))
        tile = f"tile {self.grid.tiles.start + bad[0]} of {self.grid.n_tiles}" if len(bad) else ""
        return tile and f"{tile}, from parameters that all frames share"

    def _rows_of(self, blocks: np.ndarray) -> np.ndarray:
        """The rows of some of this rank's blocks, counted over all of them."""
        width = self.frames.rows.ids.shape[1]
        return (blocks[:, None] * width + np.arange(width)).ravel()

    def _in_words(self, rows: np.ndarray) -> str:
        ids, width = self.frames.rows.ids.reshape(-1), self.frames.rows.ids.shape[1]
        rows = rows[ids[rows] >= 0]
        if not len(rows):
            return ""
        block = rows[0] // width
        inside = ids[rows[rows // width == block]]
        frames = f"frame {inside[0]}" if len(inside) == 1 else f"frames {inside[0]} to {inside[-1]}"
        return f"block {self.grid.blocks.start + block} of {self.grid.n_blocks}, {frames}"

    def _agreed(self, loss: Any, statistics: Statistics, sums: Tree) -> float:
        """The loss that decides for all ranks alike, should a processor round differently: the largest. NaN where it or
        a sum is not finite on any of them."""
        loss = float(loss)
        bad = not (math.isfinite(loss) and _is_finite((statistics, sums)))
        any_bad, largest = self.grid.world.max(np.array([bad, -math.inf if bad else loss], float))
        return math.nan if any_bad else float(largest)

    def _any_rank(self, here: bool) -> bool:
        return bool(self.grid.world.max(np.array([float(here)]))[0])

    def metrics(self, evaluation: Evaluation) -> dict[str, float]:
        """The numbers that the problem reports of an evaluation."""
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
        sliced, rows, kept = self._pass(params, blocks, common, clock)
        statistics = Statistics(common, sliced)
        with clock("compute"):
            parts = jax.block_until_ready(_summaries(self.problem, statistics, params.shared))
        with clock("reduce"):
            sums = self.add([parts], axis=0, over="slices")
        return _At(params, blocks, statistics, sums, rows, kept)

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
class _ByBlocks(_Halves):
    """What the ways share that take blocks of frames with all tiles, chunk by chunk."""

    def _summary_bars(self, at: _At, sums_bar: Tree) -> tuple[Statistics, Tree]:
        return _summaries_vjp(self.problem, at.statistics, at.params.shared, sums_bar)

    def _over_chunks(self, function: Callable, params: Params, clock: Stopwatch) -> list[tuple]:
        """What ``function(problem, params, cells)`` gives of each chunk."""
        pieces = []
        for chunk in self._timed_chunks(clock):
            with clock("compute"):
                pieces.append(jax.block_until_ready(function(self.problem, *self._on(params, chunk))))
        return pieces

    def _not_finite_data(self, at: _At) -> np.ndarray:
        """The rows of the first block whose cells are not finite, or those among them whose data are not."""
        for chunk in self.frames.chunks():
            sums, _ = _forward(self.problem, *self._on(at.params, chunk))
            bad = np.flatnonzero(_not_finite(sums, axis=1))
            if len(bad):
                data = jax.tree.map(lambda leaf, bad=bad: np.asarray(leaf)[:, bad[0]], chunk.data)
                rows, culprits = self._rows_of(chunk.rows.start + bad[:1]), _not_finite(data, axis=1)
                return rows[culprits] if np.any(culprits) else rows
        return np.zeros(0, int)

    def _on(self, params: Params, chunk: Any) -> tuple[Params, Cell]:
        """The parameters and the cells of a chunk."""
        rows = self.frames.rows
        local, more = jax.tree.map(lambda leaf: leaf[chunk.rows], (params.local, rows.more))
        return Params(params.shared, local), Cell(chunk.data, rows.ids[chunk.rows], more)


@dataclass(frozen=True)
class Reverse(_ByBlocks):
    """Two passes over the frames: one adds the statistics, one pulls their cotangents back to the parameters."""

    passes = 2

    def _pass(self, params: Params, blocks: Block, common: Tree, clock: Stopwatch) -> tuple[Tree, Params, None]:
        pieces = self._over_chunks(_forward, params, clock)
        with clock("reduce"):
            return self.add([sums for sums, _ in pieces], axis=1, over="frames"), _joined(pieces), None

    def _pull_data(self, at: _At, sliced_bar: Tree, sums_bar: Tree, clock: Stopwatch) -> Params:
        pull = lambda problem, params, cells: _pull(problem, params, cells, sliced_bar)  # noqa: E731
        bars = self._over_chunks(pull, at.params, clock)
        with clock("reduce"):
            shared_sum = self.add([bar.shared for bar in bars], axis=(0, 1), over="world")
            rows = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *(bar.local for bar in bars))
            return Params(shared_sum, self.add([rows], axis=0, over="slices"))


@dataclass(frozen=True)
class Forward(_ByBlocks):
    """One pass that carries the derivatives by the shared parameters along: for few of them, and for frames that take
    long to compute, such as windows of a simulation. Local parameters are constants of its data."""

    passes = 1

    def _pass(self, params: Params, blocks: Block, common: Tree, clock: Stopwatch) -> tuple[Tree, Params, Tree]:
        pieces = self._over_chunks(_forward_and_tangents, params, clock)
        with clock("reduce"):
            both = [(sums, jax.tree.leaves(tangents)) for sums, _, tangents in pieces]
            sliced, tangents = self.add(both, axis=1, over="frames")
        return sliced, _joined(pieces), tangents

    def _pull_data(self, at: _At, sliced_bar: Tree, sums_bar: Tree, clock: Stopwatch) -> Params:
        with clock("compute"):
            parts = jax.block_until_ready(_contracted(sliced_bar, at.kept, at.params.shared))
        with clock("reduce"):
            shared = self.add([parts], axis=0, over="slices")
        return Params(shared, jax.tree.map(np.zeros_like, at.params.local))


def no_rows_of(evaluate: Gradient) -> Params:
    """Zeros in place of the rows that an evaluation gives."""
    problem = evaluate.problem
    return Params((), problem.no_rows(evaluate.frames.rows)) if isinstance(problem, RowsProblem) else NO_ROWS


def _joined(pieces: Sequence[tuple]) -> Params:
    """The rows of all chunks as local leaves [blocks, ...]; they are those of the first tile, which has every frame."""
    rows = jax.tree.map(lambda *parts: np.concatenate([np.asarray(part[0]) for part in parts]), *(p[1] for p in pieces))
    return Params((), rows)


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

    def _pass(self, params: Params, blocks: Block, common: Tree, clock: Stopwatch) -> tuple[Tree, Params, Any]:
        w_t = np.asarray(_weights(self.problem, params, blocks)).ravel()
        pieces = []
        for chunk in self._timed_chunks(clock):
            with clock("compute"):
                made = self.problem.one_pass(w_t, common, chunk, self._prepared, self.threads)
                pieces.append(jax.block_until_ready(made))
        sliced, rows = jax.tree.map(lambda *parts: np.concatenate(parts), *pieces)
        return sliced, NO_ROWS, rows

    def _not_finite_data(self, at: _At) -> np.ndarray:
        """The rows whose data are not finite, else the one of the largest weight, if sums of tiles are not."""
        bad = [np.flatnonzero(_not_finite(chunk.data, axis=2)) for chunk in self.frames.chunks()]
        rows = np.unique(np.concatenate([np.zeros(0, int), *bad]))
        if self._any_rank(len(rows) > 0) or not self._any_rank(not _is_finite(at.statistics)):
            return rows
        w = np.abs(np.asarray(_weights(self.problem, at.params, at.blocks))).ravel()
        return np.flatnonzero(w == np.max(w, initial=0.0))[:1]

    def _pull_data(self, at: _At, sliced_bar: Tree, sums_bar: Tree, clock: Stopwatch) -> Params:
        with clock("compute"):
            parts = jax.block_until_ready(_combined(self.problem, at.kept, sums_bar))
        with clock("reduce"):
            w_bar = self.add([parts], axis=0, over="slices")
        with clock("compute"):
            bar = _weights_vjp(self.problem, at.params, at.blocks, w_bar.reshape(at.blocks.ids.shape))
        with clock("reduce"):
            return Params(self.add([bar.shared], axis=0, over="frames"), bar.local)


# ---- what is not finite ------------------------------------------------------------------------------------------


def not_a_number(where: str) -> NumericalError:
    """The error of a sum that is not finite. where: block and frames (``Gradient.not_finite_at``)."""
    return NumericalError(
        f"a sum over frames is not a finite number (NaN or overflow in the frames or the parameters): {where}",
        remedy="run `hpcfit store verify` on the store; if it is sound, use a smaller step or precision = 'float64'",
    )


def _is_finite(tree: Tree) -> bool:
    """Whether all numbers are; a sum is one pass, and keeps what is not."""
    with np.errstate(over="ignore", invalid="ignore"):
        return all(np.isfinite(np.sum(leaf)) for leaf in jax.tree.leaves(tree))


def _largest(tree: Tree) -> float:
    """The largest magnitude, infinity for what is not a number."""
    largest = max((float(np.max(np.abs(leaf), initial=0.0)) for leaf in jax.tree.leaves(tree)), default=0.0)
    return math.inf if math.isnan(largest) else largest


def _not_finite(tree: Tree, axis: int) -> np.ndarray:
    """Which slices along an axis of the leaves have a number that is not finite."""
    leaves = [np.moveaxis(np.asarray(leaf), axis, 0) for leaf in jax.tree.leaves(tree)]
    return np.any([~np.isfinite(leaf.reshape(len(leaf), -1)).all(axis=1) for leaf in leaves], axis=0)


# ---- what runs on the device -------------------------------------------------------------------------------------


def _of_cell(problem: Problem, params: Params, cell: Cell) -> tuple[Tree, Tree]:
    """The sums of a cell, and what belongs to each of its frames; nothing for most problems."""
    if isinstance(problem, RowsProblem):
        return problem.partial_and_rows(params, cell)
    return problem.partial(params, cell), ()


@jax.jit
def _forward(problem: Problem, params: Params, cells: Cell) -> tuple[Tree, Tree]:
    """Sums and rows, leaves [tiles, blocks, ...]."""
    return over_cells(lambda p, cell, _: _of_cell(problem, p, cell), params, cells, None)


@jax.jit
def _forward_and_tangents(problem: Problem, params: Params, cells: Cell) -> tuple[Tree, Tree, Tree]:
    """Sums, rows, and the derivatives of the sums by every shared parameter: each leaf of the sums a tree of leaves
    [tiles, blocks, shape of the sum, shape of the parameter]."""

    def of_cell(p, cell, _):
        def sums_of(shared):
            sums, rows = _of_cell(problem, Params(shared, p.local), cell)
            return sums, (sums, rows)

        tangents, (sums, rows) = jax.jacfwd(sums_of, has_aux=True)(p.shared)
        return sums, rows, tangents

    return over_cells(of_cell, params, cells, None)


@jax.jit
def _contracted(sliced_bar: Tree, tangents: Sequence[jax.Array], shared: Tree) -> Tree:
    """Cotangents times tangents, summed over the sums of each tile; as the shared parameters, leaves [tiles, ...].

    tangents: of each sum by each parameter, in this order.
    """
    bars, structure = jax.tree.leaves(sliced_bar), jax.tree.structure(shared)
    n = structure.num_leaves
    product = jax.vmap(lambda bar, tangent: jnp.tensordot(bar, tangent, bar.ndim))
    terms = [product(bar, tangents[i * n + k]) for i, bar in enumerate(bars) for k in range(n)]
    return jax.tree.unflatten(structure, [sum(terms[k::n]) for k in range(n)])


@jax.jit
def _pull(problem: Problem, params: Params, cells: Cell, sliced_bar: Tree) -> Params:
    def cell_vjp(p, cell, bar):
        value, vjp = jax.vjp(lambda q: problem.partial(q, cell), p)
        return vjp(jax.tree.map(lambda leaf, like: jnp.asarray(leaf, like.dtype), bar, value))[0]

    return over_cells(cell_vjp, params, cells, sliced_bar)


@jax.jit
def _of_frames(problem: Problem, params: Params, blocks: Block) -> Tree:
    return over_blocks(problem.of_frames, params, blocks)


@jax.jit
def _of_frames_vjp(problem: Problem, params: Params, blocks: Block, common_bar: Tree) -> Params:
    return over_blocks(lambda p, b: jax.vjp(lambda q: problem.of_frames(q, b), p)[1](common_bar)[0], params, blocks)


@jax.jit
def _weights(problem: Problem, params: Params, blocks: Block) -> jax.Array:
    return over_blocks(problem.weights, params, blocks)


@jax.jit
def _weights_vjp(problem: Problem, params: Params, blocks: Block, w_bar: jax.Array) -> Params:
    return over_blocks(lambda p, b, bar: jax.vjp(lambda q: problem.weights(q, b), p)[1](bar)[0], params, blocks, w_bar)


@jax.jit
def _combined(problem: Problem, rows: jax.Array, sums_bar: Tree) -> jax.Array:
    """d loss / d weight by each tile, [tiles, T]."""

    def one(rows_kt, tile):
        coefficients = problem.coefficients(sums_bar, tile)
        return sum(c * row.astype(c.dtype) for c, row in zip(coefficients, rows_kt))

    return each(one, rows, problem.tiles)


@jax.jit
def _summaries(problem: Problem, statistics: Statistics, shared: Tree) -> Tree:
    def one(sliced, tile):
        return problem.summary(Statistics(statistics.common, sliced), shared, tile)

    return each(one, statistics.sliced, problem.tiles)


@jax.jit
def _summaries_vjp(problem: Problem, statistics: Statistics, shared: Tree, sums_bar: Tree) -> tuple[Statistics, Tree]:
    def one(sliced, tile):
        _, vjp = jax.vjp(lambda s, q: problem.summary(s, q, tile), Statistics(statistics.common, sliced), shared)
        return vjp(sums_bar)

    return each(one, statistics.sliced, problem.tiles)


@jax.jit
def _summaries_vjp_to_common(
    problem: Problem, statistics: Statistics, shared: Tree, sums_bar: Tree
) -> tuple[Statistics, Tree]:
    """Without what belongs to the tiles, which one pass over the frames pulls back by other means."""

    def one(sliced, tile):
        of_common = lambda common, q: problem.summary(Statistics(common, sliced), q, tile)  # noqa: E731
        common_bar, shared_bar = jax.vjp(of_common, statistics.common, shared)[1](sums_bar)
        return Statistics(common_bar, None), shared_bar

    return each(one, statistics.sliced, problem.tiles)


@jax.jit
def _metrics(problem: Problem, sums: Tree, common: Tree, shared: Tree) -> dict[str, jax.Array]:
    return problem.metrics(sums, common, shared)


@jax.jit
def _loss_and_cotangents(problem: Problem, sums: Tree, common: Tree, shared: Tree):
    return jax.value_and_grad(lambda *args: problem.loss(*args), argnums=(0, 1, 2))(sums, common, shared)
