"""The passes over the atomistic frames: what each adds up, on any number of ranks, in memory that does not grow."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.bead_models.ranges import united
from hpcfit.errors import InputError, NumericalError
from hpcfit.fit.grid import Grid
from hpcfit.fit.running_sum import BlockSums, Reductions
from hpcfit.kinds.force_map.constraints import HeldDistances
from hpcfit.kinds.force_map.features import Features, feature_gram
from hpcfit.kinds.force_map.products import Products
from hpcfit.kinds.force_map.virtual_sites import spread_forces
from hpcfit.ranks import Ranks
from hpcfit.store.catalog import Block
from hpcfit.store.forces import ForceFrames, ForceStore
from hpcfit.store.shard import Origin
from hpcfit.store.stream import block_frames

OfRanges = dict[str, tuple[float, float]]
Arrays = Mapping[str, np.ndarray]


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
        """The statistical blocks that the frames of block `number` belong to, with their rows."""
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
    """The frames that a pass reads: their store, statistical blocks and held distances."""

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


def prefixed(name: str, arrays: Arrays) -> dict[str, np.ndarray]:
    """The arrays of one of several sums, as they lie beside those of the others."""
    return {f"{name}/{key}": values for key, values in arrays.items()}


def below(name: str, arrays: Arrays) -> dict[str, np.ndarray]:
    """The arrays that ``prefixed`` has put under a name."""
    return {key.removeprefix(f"{name}/"): arrays[key] for key in arrays if key.startswith(f"{name}/")}


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


@contextmanager
def named_frames(visit: Visit, n_blocks: int) -> Iterator[None]:
    """Name block and frames in the error of a sum that is not finite."""
    try:
        yield
    except NumericalError as error:
        first, last = visit.block.first_id, visit.block.first_id + visit.block.frames - 1
        where = f"block {visit.number} of {n_blocks}, frames {first} to {last}"
        raise NumericalError(f"{where}: {error.what}", remedy=error.remedy) from None


@dataclass
class ProductsPass:
    """The first pass, as a stage (``fit.stages.Work``): products of reduced forces, of features, and ranges of beads.

    ranges_of: the ranges of the coordinates of beads in a block of atomistic frames; None where there is no basis.
    """

    frames: AtomisticFrames
    products: Products
    features: Sequence[Features]
    ranges_of: Callable[[ForceFrames], OfRanges] | None
    grid: Grid
    kT: float
    reductions: Reductions
    _ranges: OfRanges = field(default_factory=dict)

    def __post_init__(self):
        n = self.frames.parts.n
        self._tiles = {tile: BlockSums(n, self.products.shape(tile), self.reductions) for tile in self.grid.tiles}
        # What is not cut into tiles is left to the first slice.
        self._features = [] if self.grid.slices.rank else [
            BlockSums(n, 2 * (one.n_features + 1,), self.reductions) for one in self.features
        ]  # fmt: skip

    @property
    def n_units(self) -> int:
        """Blocks of frames."""
        return len(self.frames.parts.blocks)

    @property
    def ranks(self) -> Ranks:
        """The ranks that share a slice."""
        return self.grid.frames

    def run(self, units: Sequence[int]) -> Generator[int | None]:
        """See ``fit.stages.Work``."""
        for visit in self.frames.visits(units):
            with named_frames(visit, self.n_units):
                add_products(self.products, visit, self._tiles)
                add_feature_products(self.features, visit, self.kT, self._features)
            if self.ranges_of is not None and self.grid.slices.rank == 0:
                self._ranges = united([self._ranges, self.ranges_of(visit.frames)])
            yield visit.number

    def _sums(self) -> dict[str, BlockSums]:
        named = {f"tile {tile}": sums for tile, sums in self._tiles.items()}
        return named | {f"features {number}": sums for number, sums in enumerate(self._features)}

    def kept(self) -> dict[str, np.ndarray]:
        """See ``fit.stages.Work``."""
        mine = {}
        for name, sums in self._sums().items():
            mine |= prefixed(name, sums.kept(self.grid.frames))
        return self._of_all_slices(mine) | self._united_ranges()

    def take_up(self, kept: Arrays) -> None:
        """See ``fit.stages.Work``."""
        if self.grid.frames.rank == 0:
            for name, sums in self._sums().items():
                sums.take_up(below(name, kept))
        if self.grid.world.is_root:
            self._ranges = ranges_in(kept)

    def product(self) -> dict[str, np.ndarray]:
        """The products of all reduced forces, "total"; of features, "features"; and the ranges (``ranges_in``)."""
        tiles = self._of_all_slices({str(tile): sums.total(self.grid.frames) for tile, sums in self._tiles.items()})
        features = [sums.total(self.grid.frames) for sums in self._features]
        ranges = self._united_ranges()
        if not self.grid.world.is_root:
            return {}
        total = self.products.assembled([tiles[str(tile)] for tile in range(self.products.n_tiles)])
        return {"total": total} | ({"features": padded(features)} if features else {}) | ranges

    def files(self) -> Sequence[Path]:
        """See ``fit.stages.Work``."""
        return ()

    def _of_all_slices(self, mine: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the first rank of each slice has, on root."""
        found = self.grid.world.gather(mine if self.grid.frames.rank == 0 else {})
        return {name: values for part in found or () for name, values in part.items()}

    def _united_ranges(self) -> dict[str, np.ndarray]:
        found = self.grid.world.gather(self._ranges)
        return {} if found is None else {"ranges": np.frombuffer(json.dumps(united(found)).encode(), np.uint8).copy()}


def ranges_in(arrays: Arrays) -> OfRanges:
    """The ranges that a pass has left among its arrays, by label."""
    return {label: tuple(ends) for label, ends in json.loads(arrays["ranges"].tobytes()).items()}
