"""The contract between a problem and the engine.

A fit minimises   L(theta) = loss( sums, common, theta ),   built in two additions:

    common, sliced = sum over frames of partial(theta, cell)          a cell: a block of frames x a tile of the slice
    sums           = sum over tiles  of summary(common, sliced, ...)  a tile: 2048 reflections, say

Frames are cut into blocks and what a frame yields into tiles; both belong to the data set, not to the ranks, so that
any number of ranks in any grid adds the same numbers. A problem that has nothing to slice has one tile.

A problem communicates nothing, reads nothing and keeps no state. What it needs from other ranks it gets through
``reduce``, whose ``sum`` and ``max`` act over all frames.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

Tree = Any


class Params(NamedTuple):
    """shared: the same on every rank, its gradient summed over ranks. local: rows [blocks, 64, ...] owned by the rank
    that holds the frame, whose gradient never leaves it."""

    shared: Tree
    local: Tree


class Statistics(NamedTuple):
    """Sums over frames.

    common: what every tile would repeat (counted once). sliced: what belongs to the cell's tile.
    """

    common: Tree
    sliced: Tree


class FrameRows(NamedTuple):
    """The frames a rank holds.

    ids: [blocks, 64] int64, -1 where a block has fewer frames. log_prior: [blocks, 64], ln of the frames' weights
    before any data, whose sum over all ranks is 1; 0 where there is no frame. total: frames on all ranks.
    """

    ids: np.ndarray
    log_prior: np.ndarray
    total: int


class Cell(NamedTuple):
    """What ``partial`` sees: 64 frames in one tile. data: [64, ...]; ids, log_prior: [64], as in ``FrameRows``."""

    data: Any
    ids: Any
    log_prior: Any


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
        """Where the fit starts; random numbers are functions of (seed, frame id)."""

    def gauge(self, params: Params, frames: FrameRows, reduce: Reduce) -> Params:
        """Equivalent parameters at which the sums are well scaled (weights that sum to 1)."""

    def metric(self, params: Params, frames: FrameRows) -> Params:
        """The diagonal of the parameters' natural metric, at gauged parameters; for natural-gradient steps."""

    def partial(self, params: Params, cell: Cell) -> Statistics:
        """The sums of one cell; additive: partial(a ++ b) == partial(a) + partial(b). Padding contributes nothing."""

    def summary(self, statistics: Statistics, shared: Tree, tile: Tree) -> Tree:
        """The sums of one tile that the loss is made of; additive over tiles."""

    def loss(self, sums: Tree, common: Tree, shared: Tree) -> Any:
        """The scalar that is minimised."""

    def metrics(self, sums: Tree, common: Tree) -> dict[str, Any]:
        """What the history reports of one evaluation."""
