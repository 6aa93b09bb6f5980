"""`frame-weights` and its files: a store of structure factors and a measured map in, weights and maps out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcfit.cases.live_weights import LiveWeights
from hpcfit.cases.prior import Prior, open_prior
from hpcfit.config import BLOCK_FRAMES, Config
from hpcfit.data.catalog import Block, Store, open_store
from hpcfit.data.experiment import DiffuseMap, read_map
from hpcfit.data.files import sha256_of_file
from hpcfit.data.stream import FromDisk, InMemory, StructureFactors
from hpcfit.errors import InputError
from hpcfit.fit.gradient import Frames, Reverse
from hpcfit.fit.grid import Grid, Load
from hpcfit.log import logger
from hpcfit.problems.base import FrameRows
from hpcfit.problems.frame_weights import FrameWeights
from hpcfit.problems.orbits import OrbitMap, Tiling, make_tiling, match_orbits

# Shares of free memory that frames may take: the rest is for block sums (5 %), the compiler and the system.
MEMORY_SHARE = 0.6


@dataclass(frozen=True)
class FrameWeightsCase:
    """See ``cases.base.Case``."""

    config: Config
    store: Store
    measured: DiffuseMap
    orbits: OrbitMap
    tiling: Tiling
    blocks: Sequence[Block]
    prior: Prior

    @classmethod
    def open(cls, config: Config) -> FrameWeightsCase:
        """Read catalog and map, match them, and cut the reflections into tiles."""
        store, measured = open_store(config.frames.store), read_map(config.experiment)
        _compare_cells(store, measured)
        orbits = match_orbits(store.reference.reflections, measured, config.problem)
        tiling = make_tiling(orbits, store.reference.scale)
        _warn_of_unused_symmetry(orbits, measured, config.problem.laue)
        blocks = store.blocks(config.frames.include, config.frames.exclude)
        return cls(config, store, measured, orbits, tiling, blocks, open_prior(config.problem.prior, store, blocks))

    @property
    def n_frames(self) -> int:
        """Frames that take part."""
        return sum(block.frames for block in self.blocks)

    def warnings(self) -> list[str]:
        """What a reader of the weights must know, whatever they come out as."""
        if self.n_frames != 2:
            return []
        # x = w (1 - w) |F_1 - F_2|^2: the weights only scale the map, and no correlation sees a scale.
        return [
            "two frames have the same CC at any weights: these weights say nothing; give several frames of each state"
        ]

    def labels(self) -> list[str]:
        """The label of each block, or its source where it has none."""
        return [self.store.shards[block.shard].label or self.store.shards[block.shard].source for block in self.blocks]

    def load(self) -> Load:
        """Blocks, tiles, and 3 sums a reflection."""
        width = self.tiling.columns.shape[1]
        return Load(
            len(self.blocks), len(self.tiling.columns), self._factors(self.blocks, slice(0, 1)).cell_bytes, 3 * width
        )

    def identity(self) -> dict[str, str]:
        """Store, frames, map and the options of the problem."""
        chosen = hashlib.sha256(str([tuple(block) for block in self.blocks]).encode()).hexdigest()[:16]
        run = self.config.run
        return {
            "frames.store": self.store.digest(),
            "frames chosen": chosen,
            "problem.prior": self.prior.digest(),
            "experiment.file": sha256_of_file(self.measured.source)[:16],
            "problem": self.config.problem.model_dump_json(),
            "run": f"seed {run.seed}, {run.precision}, {run.reductions}",
        }

    def summary(self) -> dict[str, Any]:
        """Sizes by name."""
        used = f"{len(self.orbits.column)} in {len(self.orbits.observed)} orbits of {self.config.problem.laue}"
        return {
            "frames": f"{self.n_frames} of {self.store.n_frames} in {len(self.store.shards)} shards",
            "reflections": f"{used}, {1 / self.orbits.inverse_d.max():.2f} to {1 / self.orbits.inverse_d.min():.2f} A",
            "left out": ", ".join(f"{count} {reason}" for reason, count in self.orbits.left_out.items() if count)
            or "nothing",
            "map": f"{len(self.measured)} voxels of {self.measured.source.name}, {self.measured.masked} masked",
            "stored as": self.store.encoding.dtype,
            **self._resampling(),
        }

    def _resampling(self) -> dict[str, str]:
        choice, held_out = self.config.problem, int(self.orbits.held_out.sum())
        words = {}
        if choice.folds is not None:
            words["held out"] = f"{held_out} orbits, fold {choice.fold} of {choice.folds}"
        if choice.bootstrap:
            words["bootstrap"] = f"resample {choice.bootstrap}: {np.sum(self.orbits.drawn == 0)} orbits not drawn"
        return words

    def bytes_held(self, grid: Grid) -> int:
        """Bytes of this rank's structure factors."""
        return self._factors(self._blocks(grid), _slice(grid)).bytes

    def bytes_summed(self, grid: Grid) -> int:
        """Three numbers of the kernels' precision for each block and reflection."""
        cells = len(self._blocks(grid)) * len(grid.tiles) * self.tiling.columns.shape[1]
        return 3 * cells * np.dtype(self.config.run.precision).itemsize

    def problem(self, grid: Grid) -> FrameWeights:
        """The problem on this rank's tiles."""
        choice, tiles = self.config.problem, self.tiling.tiles
        return FrameWeights(
            type(tiles)(*(leaf[_slice(grid)] for leaf in tiles)), choice.shells, choice.anisotropic,
            choice.theta, self.config.run.precision, choice.start == "random", 1 if choice.folds is None else 2,
        )  # fmt: skip

    def frames(self, grid: Grid, memory: int) -> Frames:
        """This rank's structure factors, in memory or streamed from the disk."""
        blocks = self._blocks(grid)
        if not blocks:
            logger.warning(
                "this rank holds no frames: %d blocks of 64 frames are dealt out over %d ranks",
                len(self.blocks),
                grid.frames.size,
            )
        factors = self._factors(blocks, _slice(grid))
        keep = self._keeps_in_memory(factors.bytes, memory)
        reader = (InMemory if keep else FromDisk)(factors, _place())
        ids = np.stack([block.ids() for block in blocks]) if blocks else np.zeros((0, BLOCK_FRAMES), np.int64)
        return Frames(FrameRows(ids, self.prior.log_weights(blocks), self.n_frames), reader.chunks)

    def live_weights(self, grid: Grid, frames: FrameRows) -> LiveWeights | None:
        """By label, or by source where there is none."""
        return LiveWeights.of(frames, self.labels(), grid.blocks) if grid.slices.rank == 0 else None

    def undefined_loss(self) -> InputError:
        """The calculated map has no variance."""
        return InputError(
            f"the diffuse intensity calculated from the {self.n_frames} frames of {self.store.folder} has zero"
            " variance, so that no correlation is defined: all frames are the same",
            remedy="use frames that differ: `hpcfit store info` shows the sources",
        )

    def write_results(self, directory: Any, evaluate: Reverse, params: Any, facts: dict[str, Any]) -> dict[str, Any]:
        """See ``results.frame_weights``."""
        from hpcfit.results.frame_weights import write_results

        return write_results(directory, self, evaluate, params, facts)

    def _blocks(self, grid: Grid) -> Sequence[Block]:
        return self.blocks[grid.blocks.start : grid.blocks.stop]

    def _factors(self, blocks: Sequence[Block], tiles: slice) -> StructureFactors:
        return StructureFactors(self.store, blocks, self.tiling.columns[tiles])

    def _keeps_in_memory(self, needed: int, memory: int) -> bool:
        residence = self.config.frames.residence
        if residence == "memory" and needed > memory:
            raise InputError(
                f"[frames] residence = 'memory': this rank's share of the frames is {needed / 1e9:.2f} GB,"
                f" free are {memory / 1e9:.2f} GB",
                remedy="use more ranks, residence = 'disk' or 'auto', or a float16 store",
            )
        if residence == "auto" and needed > MEMORY_SHARE * memory:
            logger.warning(
                "frames are read from the disk in each pass: %.2f GB do not fit into %.2f GB",
                needed / 1e9,
                MEMORY_SHARE * memory / 1e9,
            )
        return residence == "memory" or (residence == "auto" and needed <= MEMORY_SHARE * memory)


def _slice(grid: Grid) -> slice:
    return slice(grid.tiles.start, grid.tiles.stop)


def _place() -> Callable[[np.ndarray], Any]:
    import jax

    device = jax.local_devices()[0]
    return lambda chunk: jax.device_put(chunk, device)


def _warn_of_unused_symmetry(orbits: OrbitMap, measured: DiffuseMap, laue: str) -> None:
    """A map merged in its space group covers one wedge.

    Without its symmetry the rest of the frames' reflections is unused.
    """
    unused = orbits.left_out["reflections not measured"]
    if (
        laue in ("P1", "-1")
        and unused > len(orbits.column)
        and measured.space_group.replace(" ", "") not in ("P1", "P-1")
    ):
        logger.warning(
            "laue = '%s' uses %d reflections and leaves out %d that the map %s does not list: it is of space group %s;"
            " set [problem] laue to it to average over symmetry mates",
            laue, len(orbits.column), unused, measured.source, measured.space_group,
        )  # fmt: skip


def _compare_cells(store: Store, measured: DiffuseMap, tolerance: float = 0.03) -> None:
    """Raise if the cells of frames and map differ by more than 3 %, which no refinement explains."""
    ours, theirs = np.array(store.reference.reflections.cell), np.array(measured.cell)
    difference = np.max(np.abs(ours - theirs) / ours)
    if difference > tolerance:
        raise InputError(
            f"unit cells differ by {100 * difference:.1f} %: frames in {store.folder} have {tuple(ours.tolist())},"
            f" map {measured.source} has {tuple(theirs.tolist())}",
            remedy="use frames and map of the same crystal; if an axis is a multiple, give the supercell in [prepare]"
            " and ndiv in [experiment]",
        )
