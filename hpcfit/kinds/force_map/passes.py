"""The passes over the atomistic frames: what each adds up, on any number of ranks, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.fit.grid import Grid
from hpcfit.fit.running_sum import RunningSum, running_sum
from hpcfit.kinds.force_map.constraints import HeldDistances
from hpcfit.kinds.force_map.features import Features, feature_gram
from hpcfit.kinds.force_map.products import Products
from hpcfit.kinds.force_map.virtual_sites import spread_forces
from hpcfit.ranks import Ranks
from hpcfit.store.catalog import Block
from hpcfit.store.forces import ForceFrames, ForceStore
from hpcfit.store.shard import Origin
from hpcfit.store.stream import block_frames

Reductions = Literal["reproducible", "fast"]


class Piece(NamedTuple):
    """Frames of one block that belong to one statistical block, its number being ``part``."""

    part: int
    rows: slice


@dataclass(frozen=True)
class StatisticalBlocks:
    """n equal contiguous parts of the frames of ``blocks``, in their order: of the data set, whatever the ranks."""

    n: int
    blocks: Sequence[Block]

    def __post_init__(self):
        if self.n > self.n_frames:
            raise InputError(
                f"[problem] blocks = {self.n} statistical blocks, but there are {self.n_frames} frames",
                remedy="give more frames, or fewer blocks",
            )

    @property
    def n_frames(self) -> int:
        """Frames of all."""
        return int(self._begins[-1])

    @property
    def frames(self) -> np.ndarray:
        """Frames of each, [n]."""
        return np.diff(self._first)

    @cached_property
    def _begins(self) -> np.ndarray:
        """The first frame of each block, and the end of the last."""
        return np.cumsum([0, *(block.frames for block in self.blocks)])

    @cached_property
    def _first(self) -> np.ndarray:
        return -(-np.arange(self.n + 1) * self.n_frames // self.n)

    def pieces(self, number: int) -> list[Piece]:
        """Of a block of frames, by its number in ``blocks``."""
        first, (begin, end) = self._first, self._begins[number : number + 2].tolist()
        parts = range(int(np.searchsorted(first, begin, "right")) - 1, int(np.searchsorted(first, end, "left")))
        return [
            Piece(part, slice(max(first[part], begin) - begin, min(first[part + 1], end) - begin)) for part in parts
        ]


class Visit(NamedTuple):
    """One block of a pass. number: in the list of blocks. frames: with the forces of virtual sites given away."""

    number: int
    block: Block
    frames: ForceFrames
    origin: Origin
    pieces: list[Piece]


@dataclass(frozen=True)
class AtomisticFrames:
    """What a pass reads."""

    store: ForceStore
    parts: StatisticalBlocks
    held: HeldDistances

    def visits(self, numbers: Sequence[int]) -> Iterator[Visit]:
        """The blocks of these numbers, in their order."""
        chosen = [self.parts.blocks[number] for number in numbers]
        for number, (block, frames, origin) in zip(numbers, block_frames(self.store, chosen)):
            if self.held.sites:
                forces = spread_forces(self.held.sites, frames.positions, frames.forces, frames.box)
                frames = frames._replace(forces=np.asarray(forces, np.float32))
            yield Visit(number, block, frames, origin, self.parts.pieces(number))


@dataclass
class BlockSums:
    """Sums for each statistical block of a quantity of one shape; a rank keeps only those that its frames are in."""

    n: int
    shape: tuple[int, ...]
    reductions: Reductions
    _sums: dict[int, RunningSum] = field(default_factory=dict)

    def add(self, part: int, values: np.ndarray) -> None:
        """Add to one statistical block."""
        if part not in self._sums:
            self._sums[part] = running_sum(self.reductions, self.shape)
        self._sums[part].add(values)

    def total(self, ranks: Ranks) -> np.ndarray:
        """[n, ...] of all ranks; collective."""
        empty = [self._sums.pop(part, None) or running_sum(self.reductions, self.shape) for part in range(self.n)]
        return np.stack([one.total(ranks) for one in empty]) if self.n else np.zeros((0, *self.shape))


def add_products(products: Products, visit: Visit, sums: dict[int, BlockSums]) -> None:
    """The products of a block's reduced forces, to the sums of each of this rank's tiles."""
    for piece in visit.pieces:
        reduced = products.reduced(visit.frames.forces[piece.rows])
        for tile, total in sums.items():
            total.add(piece.part, products.tile(reduced, tile))


def add_feature_products(features: Sequence[Features], visit: Visit, kT: float, sums: Sequence[BlockSums]) -> None:
    """The products of the forces of each bead's features, to its sums."""
    frames = visit.frames
    held = np.zeros(len(frames.forces), bool)
    for piece in visit.pieces:
        held[:] = False
        held[piece.rows] = True
        for of_bead, total in zip(features, sums):
            products = feature_gram(of_bead, frames.positions, frames.forces, frames.box, kT, held)
            total.add(piece.part, np.asarray(products))


def padded(totals: Sequence[np.ndarray]) -> np.ndarray:
    """[B, N, K, K] of the products of N beads, [B, k, k] each, 0 where a bead has fewer than the most."""
    most = max(total.shape[-1] for total in totals)
    return np.stack([np.pad(total, [(0, 0), *2 * [(0, most - total.shape[-1])]]) for total in totals], axis=1)


def product_sums(products: Products, grid: Grid, n: int, reductions: Reductions) -> dict[int, BlockSums]:
    """Empty sums of this rank's tiles, by their number."""
    return {tile: BlockSums(n, products.shape(tile), reductions) for tile in grid.tiles}


def assembled_on_root(products: Products, grid: Grid, sums: dict[int, BlockSums]) -> np.ndarray | None:
    """The sums of all tiles and frames, [n, ...], on the root of all ranks; collective."""
    mine = {tile: total.total(grid.frames) for tile, total in sums.items()}
    found = grid.world.gather(mine if grid.frames.rank == 0 else {})
    if found is None:
        return None
    tiles: dict[int, Any] = {tile: total for part in found for tile, total in part.items()}
    return products.assembled([tiles[tile] for tile in range(products.n_tiles)])
