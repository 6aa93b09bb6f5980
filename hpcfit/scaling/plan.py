"""The points of a scaling series: numbers of ranks, grids, frames and repeats, in the order of measuring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hpcfit.errors import InputError
from hpcfit.fit.cost import Load
from hpcfit.fit.grid import choose_shape, fitting_shapes
from hpcfit.scaling.arguments import at_least_one
from hpcfit.scaling.series import Point

Grids = Literal["auto", "all"] | Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Plan:
    """The measurements wanted. grids: "auto" as a run would choose, "all" that fit, or pairs (frames, slices)."""

    ranks: Sequence[int]
    mode: Literal["strong", "weak"] = "strong"
    grids: Grids = "auto"
    repeats: int = 3
    steps: int = 9

    def __post_init__(self):
        at_least_one("--repeats", self.repeats)
        at_least_one("--steps", self.steps)


def plan_points(plan: Plan, load: Load) -> list[Point]:
    """The points, in the order in which they are measured: all of one repeat, then all of the next."""
    shapes = [(ranks, grid, _blocks(plan, ranks, load)) for ranks in plan.ranks for grid in _grids(plan, ranks, load)]
    _check_grids_are_used(plan, [grid for _, grid, _ in shapes])
    return [
        Point(ranks, grid, blocks, repeat, _parts(blocks, load) if ranks == 1 else ())
        for repeat in range(1, plan.repeats + 1)
        for ranks, grid, blocks in shapes
    ]


def _blocks(plan: Plan, ranks: int, load: Load) -> int:
    """All blocks, or in a weak series so many that a rank's share stays the same and the most ranks use all."""
    if plan.mode == "strong":
        return load.n_blocks
    most = max(plan.ranks)
    if load.n_blocks < most:
        raise InputError(
            f"--mode weak up to {most} ranks needs {most} blocks of {load.block_frames} frames at least, one a rank;"
            f" the data set has {load.n_blocks}",
            remedy="use fewer ranks, more frames, or --mode strong",
        )
    return load.n_blocks // most * ranks


def _grids(plan: Plan, ranks: int, load: Load) -> list[tuple[int, int]]:
    load = replace(load, n_blocks=_blocks(plan, ranks, load))
    chosen = choose_shape(ranks, "auto", "auto", load)
    if plan.grids == "auto":
        return [(chosen.frames, chosen.slices)]
    if plan.grids == "all":
        busy = [grid for grid in fitting_shapes(ranks, load.n_tiles) if grid[0] <= load.n_blocks]
        return busy or [(chosen.frames, chosen.slices)]
    wanted = [(f, s) for f, s in plan.grids if f * s == ranks]
    for f, s in wanted:
        choose_shape(ranks, f, s, load)  # raises where there are more slices than tiles
    return wanted or [(chosen.frames, chosen.slices)]


def _check_grids_are_used(plan: Plan, used: Sequence[tuple[int, int]]) -> None:
    unused = [grid for grid in plan.grids if grid not in used] if not isinstance(plan.grids, str) else []
    if unused:
        f, s = unused[0]
        raise InputError(
            f"--grids {f}x{s} is for {f * s} ranks, --ranks {','.join(map(str, plan.ranks))} has no such number",
            remedy=f"add {f * s} to --ranks, or leave the grid out",
        )


def _parts(blocks: int, load: Load) -> tuple[tuple[int, int], ...]:
    """Grids whose shares tell apart what a cell, a tile and a step cost: a quarter, one block, and one cell.

    A few tiles of all blocks would lie in a cache, where a cell costs less.
    """
    f, s = min(4, blocks), min(4, load.n_tiles)
    return tuple(sorted({(f, 1), (1, s), (blocks, 1), (blocks, load.n_tiles)} - {(1, 1)}))
