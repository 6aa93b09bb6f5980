"""The contract between a problem and the engine.

A fit minimises   L(theta) = loss( sums, common, shared ),   built in additions:

    common = sum over frames of of_frames(theta)          what the parameters alone decide: sums of weights, penalties
    sliced = sum over frames of partial(theta, cell)      a cell: a block of frames x a tile of the slice
    sums   = sum over tiles  of summary(common, sliced)   a tile: 2048 reflections, say

Frames are cut into blocks and what a frame yields into tiles; both belong to the data set, not to the ranks, so that
any number of ranks in any grid adds the same numbers. How many frames a block has is the kind's: its ``width``. A
problem that has nothing to slice has one tile.

A problem communicates nothing, reads nothing and keeps no state. What it needs from other ranks it gets through
``reduce``, whose ``sum`` and ``max`` act over all frames, and as what neighbouring blocks say (``NeighbourProblem``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np

Tree = Any


class Params(NamedTuple):
    """shared: the same on every rank, its gradient summed over ranks. local: rows [blocks, width, ...] owned by the
    rank that holds the frame, whose gradient never leaves it."""

    shared: Tree
    local: Tree


class Statistics(NamedTuple):
    """Sums over frames: of what the parameters alone decide, and of what the data of a tile say."""

    common: Tree
    sliced: Tree


class FrameRows(NamedTuple):
    """The frames a rank holds.

    ids: [blocks, width] int64, -1 where a block has fewer frames, or where a frame takes no part. total: frames on all
    ranks. more: numbers of each frame that no tile slices, as the problem wants them: a tree with leaves [blocks,
    width, ...].
    """

    ids: np.ndarray
    total: int
    more: Tree = ()


class Block(NamedTuple):
    """The argument of ``of_frames``: the rows of a block, and what their neighbours say.

    ids: [width], more: leaves [width, ...], as in ``FrameRows``. before, after: see ``NeighbourProblem``; else empty.
    """

    ids: Any
    more: Tree
    before: Tree = ()
    after: Tree = ()


class Cell(NamedTuple):
    """The argument of ``partial``: a block of frames in one tile. data: a tree, leaves [width, ...]; ids, more: as in
    ``Block``."""

    data: Tree
    ids: Any
    more: Tree = ()


class Reduce(Protocol):
    """Additions over all frames, whatever rank holds them."""

    def sum(self, parts: Tree) -> Tree:
        """Sum leaves [blocks, ...] over blocks and ranks."""

    def max(self, value: float) -> float:
        """The maximum over ranks."""


class Problem(Protocol):
    """A frozen dataclass, registered as a JAX pytree; ``tiles`` are its constants, leaves [tiles of the slice, ...]."""

    tiles: Tree

    def init(self, seed: int, frames: FrameRows) -> Params:
        """The parameters at the start; random numbers are functions of (seed, frame id)."""

    def gauge(self, params: Params, frames: FrameRows, reduce: Reduce) -> Params:
        """Equivalent parameters at which the sums are well scaled (weights that sum to 1)."""

    def of_frames(self, params: Params, block: Block) -> Tree:
        """The sums over a block of frames that need no data; additive. Padding contributes nothing."""

    def partial(self, params: Params, cell: Cell) -> Tree:
        """The sums of one cell; additive: partial(a ++ b) == partial(a) + partial(b). Padding contributes nothing."""

    def summary(self, statistics: Statistics, shared: Tree, tile: Tree) -> Tree:
        """The sums of one tile that the loss is made of; additive over tiles."""

    def loss(self, sums: Tree, common: Tree, shared: Tree) -> Any:
        """The scalar that is minimised."""

    def metrics(self, sums: Tree, common: Tree, shared: Tree) -> dict[str, Any]:
        """The numbers that the history reports of one evaluation, by name."""


@runtime_checkable
class RowsProblem(Protocol):
    """A problem that also finds something of each frame, which is not summed: the end of a window of a simulation, the
    energy of a replica. It stays with the rank that holds the frame, like a local parameter, and no gradient comes
    through it."""

    def partial_and_rows(self, params: Params, cell: Cell) -> tuple[Tree, Tree]:
        """(partial(params, cell), rows): leaves of rows are [width, ...] floats, the same in every tile."""

    def no_rows(self, frames: FrameRows) -> Tree:
        """Zeros like the rows of all frames of a rank, leaves [blocks, width, ...]."""


class LeastSquaresProblem(Problem, Protocol):
    """A problem whose loss is half the sum of squared residuals, and whose ``of_frames`` depends on no shared
    parameter (``fit.rounds.GaussNewton``)."""

    def residuals(self, sums: Tree, shared: Tree) -> Any:
        """The residuals [R]."""


class DrawnProblem(RowsProblem, Protocol):
    """A problem of simulations with noise, whose local parameters say where they begin (``fit.rounds``)."""

    def redrawn(self, local: Tree, rows: Tree, shared: Tree) -> Tree:
        """The local parameters of the next draw, from those of one, the rows of its evaluation, and the shared
        parameters there. Not collective."""


@runtime_checkable
class NeighbourProblem(Problem, Protocol):
    """A problem whose ``of_frames`` compares frames across the ends of blocks, whatever rank holds the next one."""

    def edges(self, params: Params, frames: FrameRows) -> tuple[Tree, Tree]:
        """The numbers that blocks tell their neighbours, leaves [blocks]: of the first rows to the block before, and of
        the last rows to the block after. They are ``Block.after`` and ``Block.before`` there, 0 beyond the ends, and
        constants: their own block differentiates them."""


class SelectableProblem(Problem, Protocol):
    """A problem that frames can be selected for (``fit.selection``): ``partial`` is linear in one number a frame, and
    the misfit is a function of sums over tiles."""

    def at_weights(self, w: np.ndarray, frames: FrameRows) -> Params:
        """The parameters at weights [blocks, width]."""

    def weights_of(self, params: Params, frames: FrameRows) -> np.ndarray:
        """Those weights."""

    def weighted_sums(self, weights: Any, rows: Any) -> Tree:
        """``partial`` of some frames at n sets of weights [n, T] at once, leaves [n, ...]."""

    def equal_weights(self, n: Any) -> Tree:
        """``of_frames`` summed over n frames of weight 1."""

    def misfit_sums(self, statistics: Statistics, shared: Tree, tile: Tree) -> Tree:
        """The sums of one tile that the misfit is made of; additive over tiles."""

    def misfit_of(self, sums: Tree, shared: Tree) -> Any:
        """The misfit of a selection."""


class SimplexProblem(Problem, Protocol):
    """A problem of weights that sum to 1 (``fit.optimizers.ExponentiatedGradient``)."""

    def natural_direction(self, gradient: Params, frames: FrameRows) -> Params:
        """Downhill by the natural metric of the parameters, from the gradient at gauged ones."""

    def multiplied(self, params: Params, direction: Params, length: float) -> Params:
        """The parameters after a step along such a direction that multiplies each weight by a positive factor."""


class OnePassProblem(Problem, Protocol):
    """A problem whose gradient is known in the pass that adds its statistics (``fit.adjoint.Adjoint``).

    ``partial`` must be linear in one number a frame, its weight, and the loss must see a tile through few directions:

        d loss / d weight of frame t = sum over tiles, k of coefficients[tile, k] rows[tile, k, t]

    where the rows are made while the data of the tile are in cache, and the coefficients are known at the end.
    in_one_pass: whether this problem, as it is configured, is so.
    """

    in_one_pass: bool

    def weights(self, params: Params, block: Block) -> Any:
        """The weight of each frame of a block, [width]; 0 for padding."""

    def in_a_batch(self) -> Self:
        """An equal problem, whose sums have the shape that those of all fits of a batch have, with leaves of its own
        where fits may differ: all others are one object in every fit (``fit.many``)."""

    def of_all_fits(self, more: Tree) -> Tree:
        """``FrameRows.more`` of a fit with None in place of all leaves but those that are one object in every fit."""

    def of_loss(self, sums: Tree) -> Tree:
        """The sums that ``loss`` looks at, None in place of others: these are only reported."""

    def prepare(self, alike: Sequence[Self], frames: Sequence[FrameRows]) -> Tree:
        """The constants of the loss, the tiles and the frames that every pass reads, of the problems and rows of fits
        that share it."""

    def one_pass(
        self, w_rt: Any, common: Tree, chunk: Any, prepared: Tree, of: np.ndarray, threads: int
    ) -> tuple[Tree, Any]:
        """(sliced [R, tiles, ...], rows [R, tiles, K, T]) from all frames of the tiles of a chunk, at R weight vectors
        [R, T] with their sums ``common`` [R]. of: [R], the number of the fit that each belongs to."""

    def coefficients(self, sums_bar: Tree, tile: Tree) -> Any:
        """[K] of one tile, from the cotangent of the sums."""
