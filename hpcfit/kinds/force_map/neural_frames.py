"""Neural potentials fitted to mapped frames, which are rows in the memory of the rank that holds them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from hpcfit.bead_models.neural import (
    Architecture,
    BeadFrames,
    BeadSample,
    NeuralForceMatching,
    bead_frames,
    neural_force_matching,
)
from hpcfit.config import BLOCK_FRAMES
from hpcfit.fit.by_blocks import Reverse
from hpcfit.fit.gradient import Frames
from hpcfit.fit.grid import Grid, Shape, make_grid
from hpcfit.fit.problem import FrameRows
from hpcfit.fit.reduction import choose_sum
from hpcfit.fit.stages import Fits, Fitted, Until
from hpcfit.kinds.force_map.case import ForceMapCase
from hpcfit.kinds.force_map.map_fits import FoundMap
from hpcfit.kinds.force_map.mapped_frames import MappedFrames, MappedSums
from hpcfit.ranks import Ranks


class TrainedPotential(NamedTuple):
    """A neural potential of one map. noise_floor: what the noise of its forces is at least, (kJ/mol/A)^2."""

    map: str
    problem: NeuralForceMatching
    fitted: Fitted
    noise_floor: float


def frames_grid(world: Ranks, n_blocks: int) -> Grid:
    """All ranks along the frames; a frame has one tile."""
    return make_grid(world, Shape(world.size, 1, "a frame is not cut"), n_blocks, 1)


def held_out_parts(n: int, share: float) -> np.ndarray:
    """The part of each of n blocks, [n]: 1 held out, 0 fitted. At least one is held out, not all; evenly spread."""
    count = min(max(round(share * n), 1), n - 1)
    part = np.zeros(n, int)
    part[((np.arange(count) + 0.5) * n / count).astype(int)] = 1
    return part


def neural_rows(work: MappedFrames, grid: Grid, part: np.ndarray) -> Iterator[list[BeadFrames]]:
    """The frames of each of this rank's blocks by each map, leaves [64, ...]; part: [statistical blocks], 1 held
    out."""
    for visit in work.frames.visits(grid.blocks):
        R, F = work.mapped(visit)
        of_frame = np.zeros(len(R), int)
        for piece in visit.pieces:
            of_frame[piece.rows] = part[piece.part]
        blocks = [bead_frames(R, F[..., number], of_frame, visit.frames.box) for number in range(len(work.maps))]
        yield [jax.tree.map(_padded, block) for block in blocks]


def stacked_rows(work: MappedFrames, blocks: Sequence[Sequence[BeadFrames]]) -> list[BeadFrames]:
    """For each map all frames of this rank, leaves [blocks, 64, ...]."""
    if not blocks:
        return [_no_blocks(work) for _ in work.maps]
    return [jax.tree.map(lambda *leaves: np.stack(leaves), *of_map) for of_map in zip(*blocks)]


def _padded(leaf: np.ndarray) -> np.ndarray:
    """The frames of a block, and zeros where it has fewer."""
    return np.pad(leaf, [(0, BLOCK_FRAMES - len(leaf)), *[(0, 0)] * (leaf.ndim - 1)])


def _no_blocks(work: MappedFrames) -> BeadFrames:
    none = (0, BLOCK_FRAMES)
    beads = np.zeros((*none, len(work.mapping.anchor), 3))
    return bead_frames(beads, beads, np.zeros(none), np.zeros((*none, 3, 3)) if work.frames.store.periodic else None)


def neural_gradient(problem: NeuralForceMatching, rows: BeadFrames, work: MappedFrames, grid: Grid) -> Reverse:
    """Value and gradient of a problem on this rank's rows."""
    blocks = work.frames.parts.blocks[grid.blocks.start : grid.blocks.stop]
    ids = np.stack([block.ids() for block in blocks]) if blocks else np.zeros((0, BLOCK_FRAMES), np.int64)
    about = FrameRows(ids, work.frames.parts.n_frames)
    data = jax.device_put(jax.tree.map(lambda leaf: leaf[None], rows))
    return Reverse(problem, Frames.in_memory(about, data), grid, choose_sum(work.reductions, grid))


def sample_of(
    rows: BeadFrames, work: MappedFrames, grid: Grid, blocks: int = 16
) -> tuple[np.ndarray, np.ndarray | None]:
    """Positions [T, N, 3] and boxes of the fitted frames among so many blocks, evenly spread, on every rank."""
    every = work.frames.parts.blocks
    chosen = np.unique(np.linspace(0, len(every) - 1, blocks).astype(int)).tolist()
    mine = {
        n: jax.tree.map(lambda leaf, n=n: leaf[n - grid.blocks.start][: every[n].frames], rows)
        for n in chosen
        if n in grid.blocks
    }
    parts = grid.world.gather(mine)
    sample = None
    if parts is not None:
        by_number = {number: of_block for part in parts for number, of_block in part.items()}
        whole = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(by_number[number] for number in chosen))
        sample = jax.tree.map(lambda leaf: leaf[whole.part == 0], whole)
    found = grid.world.bcast(sample)
    return found.R.astype(float), found.box


def training_order(maps: Sequence[str], chosen: str, compare: Sequence[str]) -> list[int]:
    """The numbers of the maps that potentials are fitted to: the chosen one first."""
    return [maps.index(name) for name in dict.fromkeys([chosen, *compare])]


def train(
    case: ForceMapCase, fits: Fits, work: MappedFrames, sums: MappedSums, found: tuple[FoundMap, ...], chosen: FoundMap
) -> list[TrainedPotential]:
    """A neural potential for the chosen map, and for those to compare it with; collective."""
    choice, run = case.config.problem.force_matching, case.config.run
    names = [one.name for one in found]
    grid = frames_grid(fits.grid.world, case.n_blocks)
    part = held_out_parts(case.parts.n, choice.neural.hold_out)
    rows = stacked_rows(work, fits.heeded(neural_rows(work, grid, part)))
    sample = BeadSample(case.types, np.asarray(case.coarse.bonds), *sample_of(rows[0], work, grid))
    mean_square = sums.normal.square.sum(axis=0) / sums.normal.rows.sum()
    # The mean force is common to valid maps, so noises differ as mean squares do: what is above the least is noise.
    least = min(float(mean_square[k]) for k, one in enumerate(found) if one.valid or len(found) == 1)
    neural, trained = choice.neural, []
    architecture = Architecture(neural.width, neural.depth, neural.functions, neural.cutoff)
    for number in training_order(names, chosen.name, neural.compare):
        problem = neural_force_matching(
            sample, float(mean_square[number]), case.config.problem.temperature, architecture, neural.weight_decay,
            run.precision,
        )  # fmt: skip
        gradient = neural_gradient(problem, rows[number], work, grid)
        floor = max(float(mean_square[number]) - least, 0.0)
        fitted = fits.fit(
            f"neural {names[number]}", problem.init(run.seed), evaluate=gradient, until=Until("residual_free", floor)
        )
        trained.append(TrainedPotential(names[number], problem, fitted, floor))
    return trained
