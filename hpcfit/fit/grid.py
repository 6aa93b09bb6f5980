"""The grid of ranks, frames x slices, and which blocks and tiles each rank holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hpcfit.errors import InputError
from hpcfit.fit.cost import ASSUMED, Load, Machine, step_cost
from hpcfit.ranks import Ranks


@dataclass(frozen=True)
class Shape:
    """The shape of a grid, with the reason for it in words."""

    frames: int
    slices: int
    reason: str


@dataclass(frozen=True)
class Grid:
    """frames: the ranks that hold the same slice. slices: the ranks that hold the same frames.

    blocks, tiles: this rank's range of the data set's n_blocks blocks of frames and n_tiles tiles.
    """

    world: Ranks
    frames: Ranks
    slices: Ranks
    shape: Shape
    n_blocks: int
    n_tiles: int

    @property
    def blocks(self) -> range:
        """The blocks of frames that this rank holds; may be empty."""
        return share(self.n_blocks, self.frames.rank, self.frames.size)

    @property
    def tiles(self) -> range:
        """The tiles that this rank holds."""
        return share(self.n_tiles, self.slices.rank, self.slices.size)

    def ranks(self, over: Literal["frames", "slices", "world"]) -> Ranks:
        """The group of ranks of that name."""
        return getattr(self, over)

    def parts(self, over: Literal["frames", "slices", "world"]) -> int:
        """The number of parts that a sum over that axis has in the whole data set, whatever the number of ranks."""
        return {"frames": self.n_blocks, "slices": self.n_tiles, "world": self.n_blocks * self.n_tiles}[over]


def make_grid(world: Ranks, shape: Shape, n_blocks: int, n_tiles: int) -> Grid:
    """Split the ranks into rows and columns; neighbours in rank share a row of frames."""
    row, column = divmod(world.rank, shape.slices)
    return Grid(world, world.split(column), world.split(row), shape, n_blocks, n_tiles)


def share(count: int, part: int, parts: int) -> range:
    """The contiguous share of ``part`` of ``parts``; sizes differ by at most one."""
    return range(count * part // parts, count * (part + 1) // parts)


def fitting_shapes(size: int, n_tiles: int) -> list[tuple[int, int]]:
    """Every (frames, slices) for ``size`` ranks in which a slice has at least one tile."""
    return [(f, size // f) for f in range(1, size + 1) if size % f == 0 and size // f <= n_tiles]


def choose_shape(
    size: int, frames: int | Literal["auto"], slices: int | Literal["auto"], load: Load, machine: Machine = ASSUMED
) -> Shape:
    """The grid for ``size`` ranks; "auto" takes the shape that costs least (``fit.cost``) on ``machine``.

    Raises InputError if the numbers do not fit the ranks or the tiles.
    """
    fitting = fitting_shapes(size, load.n_tiles)
    chosen = [(f, s) for f, s in fitting if frames in ("auto", f) and slices in ("auto", s)]
    if not chosen:
        raise InputError(
            f"[grid] frames = {frames}, slices = {slices} does not fit {size} ranks and {load.n_tiles} tiles of"
            " reflections: frames x slices must be the number of ranks, and a slice has at least one tile",
            remedy=f"use one of {', '.join(f'{f} x {s}' for f, s in fitting)}, or 'auto'",
        )
    if len(chosen) == 1:
        return Shape(*chosen[0], "the only shape that fits" if "auto" in (frames, slices) else "set in the config")
    times = {shape: step_cost(shape, load, machine).seconds for shape in chosen}
    # Of shapes that cost the same to a tenth, those with one pass have the same bits on any number of ranks; of these
    # the one with more frames reads the shards in longer pieces.
    cheap = [shape for shape in chosen if times[shape] <= 1.1 * min(times.values())]
    best = min(cheap, key=lambda shape: (load.passes(shape), -shape[0]))
    words = ", ".join(f"{f} x {s}: {1e3 * times[f, s]:.3g} ms" for f, s in chosen)
    return Shape(*best, f"smallest predicted step of {words}")
