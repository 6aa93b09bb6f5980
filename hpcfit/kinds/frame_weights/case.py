"""`frame-weights` and its files: a store of structure factors and a measured map in, weights and maps out."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hpcfit.config import BLOCK_FRAMES, Config, GridConfig
from hpcfit.errors import InputError
from hpcfit.fit.adjoint import Adjoint
from hpcfit.fit.by_blocks import Reverse
from hpcfit.fit.gradient import Frames, Gradient
from hpcfit.fit.grid import Grid, Load, Shape, choose_shape
from hpcfit.fit.many import AT_ONCE
from hpcfit.fit.problem import FrameRows
from hpcfit.fit.reduction import Sum
from hpcfit.kinds.frame_weights.config import FrameWeightsConfig
from hpcfit.kinds.frame_weights.coordinates import read_coordinates
from hpcfit.kinds.frame_weights.experiments import (
    data_folds,
    experiments_of,
    features_of,
    open_experiments,
    words_of,
)
from hpcfit.kinds.frame_weights.explained import FrameNumbers
from hpcfit.kinds.frame_weights.groups import FrameGroups, group_frames
from hpcfit.kinds.frame_weights.indexing import as_text, indexings
from hpcfit.kinds.frame_weights.live_weights import LiveWeights
from hpcfit.kinds.frame_weights.observed import Observed, observe
from hpcfit.kinds.frame_weights.orbit_choice import OrbitChoice, choose_orbits, folds
from hpcfit.kinds.frame_weights.orbits import OrbitMap, match_orbits
from hpcfit.kinds.frame_weights.prior import Prior, open_prior
from hpcfit.kinds.frame_weights.problem import FrameWeights, PriorRows, Regularisers, Tiles
from hpcfit.kinds.frame_weights.tiling import Tiling, make_tiling
from hpcfit.kinds.frame_weights.trajectories import Trajectories
from hpcfit.kinds.frame_weights.weight_kinds import WEIGHT_KINDS
from hpcfit.log import inputs, logger
from hpcfit.observables.frame_tables import DataTables, stores_of
from hpcfit.readers.maps import DiffuseMap, operator_of, read_map
from hpcfit.store.catalog import Block
from hpcfit.store.files import sha256_of_file
from hpcfit.store.stream import ByFrames, ByReflections, FromDisk, InMemory, StructureFactors
from hpcfit.store.structure_factors import FactorStore, open_store

# Shares of free memory that frames may take: the rest is for block sums (5 %), the compiler and the system.
FEWEST = 4  # orbits: two lie on a line at any weights, and three nearly so
MEMORY_SHARE = 0.6


@dataclass(frozen=True)
class FrameWeightsCase:
    """See ``kinds.base``: a stepped case, and one that weighs frames."""

    block_frames = BLOCK_FRAMES

    config: Config
    store: FactorStore
    measured: DiffuseMap
    orbits: OrbitMap
    tiling: Tiling
    observed: Observed
    chosen: OrbitChoice
    blocks: Sequence[Block]
    prior: Prior
    groups: FrameGroups
    tables: Sequence[DataTables] = ()
    numbers: FrameNumbers | None = None

    @classmethod
    def open(cls, config: Config) -> FrameWeightsCase:
        """Read catalog and map, match them, and cut the reflections into tiles."""
        choice = config.problem
        store, measured = open_store(config.frames.store), read_map(config.experiment)
        _compare_cells(store, measured)
        orbits = match_orbits(store.reference.reflections, measured, choice)
        blocks = store.blocks(config.frames.include, config.frames.exclude)
        n_frames = sum(block.frames for block in blocks)
        tiling = make_tiling(orbits, n_frames, store.encoding.storage.itemsize)
        spread = _orbit_means(orbits, store.reference.scale**2)
        observed = observe(orbits, spread, choice, measured.source)
        _warn_of_unused_symmetry(orbits, measured, choice.laue)
        prior, groups = open_prior(choice.prior, store, blocks), group_frames(choice, store, blocks, config.run.seed)
        chosen = choose_orbits(orbits, choice)
        _check_enough(measured, choice, orbits, chosen)
        tables = open_experiments(choice, store.n_frames, f"the store {store.folder}")
        if tables and choice.n_folds:
            data_folds(tables, choice.n_folds, choice.hold_out_seed)
        numbers = _numbers(choice, blocks)
        return cls(config, store, measured, orbits, tiling, observed, chosen, blocks, prior, groups, tables, numbers)

    @property
    def n_frames(self) -> int:
        """Frames that take part."""
        return sum(block.frames for block in self.blocks)

    def warnings(self) -> list[str]:
        """Warnings that hold at any weights: with two frames the CC does not depend on them."""
        if self.n_frames != 2:
            return []
        # x = w (1 - w) |F_1 - F_2|^2: the weights only scale the map, and no correlation sees a scale.
        return [
            "two frames have the same CC at any weights: these weights say nothing; give several frames of each state"
        ]

    def inspect(self) -> dict[str, str]:
        """CC at uniform weights for each way to index the map, see ``indexing``."""
        found = indexings(self.store, self.blocks, self.measured, self.config.problem.laue)
        given = operator_of(self.config.experiment.reindex or "h,k,l")
        texts = [as_text(one.operator @ given) for one in found]
        best = max(range(len(found)), key=lambda number: found[number].without_rings, default=0)
        if found and found[best].beats(found[0]):
            inputs.warning(
                'the map agrees better with the frames as [experiment] reindex = "%s": CC %.3f for %.3f, without rings'
                " %.3f for %.3f, at uniform weights",
                texts[best], found[best].cc, found[0].cc, found[best].without_rings, found[0].without_rings,
            )  # fmt: skip
        return {
            f"reindex {text}": f"CC {one.cc:.3f}, {one.without_rings:.3f} without rings, at uniform weights over"
            f" {one.orbits} orbits"
            for text, one in zip(texts, found)
        }

    def labels(self) -> list[str]:
        """The label of each block, or its source where it has none."""
        return [self.store.shards[block.shard].label or self.store.shards[block.shard].source for block in self.blocks]

    @functools.cached_property
    def trajectories(self) -> Trajectories:
        """The sources, in ascending order, and the groups of frames, [blocks x 64]; a source without a label is a state
        of its own."""
        of_block = [self.store.shards[block.shard].source for block in self.blocks]
        sources, group = sorted(set(of_block)), self.groups.number
        number = np.where(group >= 0, np.searchsorted(sources, of_block)[:, None], -1)
        label = dict(zip(of_block, self.labels()))
        return Trajectories(
            sources, number.ravel(), np.array([label[name] for name in sources]), self.groups.names, group.ravel()
        )

    @property
    def n_blocks(self) -> int:
        """Blocks of frames."""
        return len(self.blocks)

    @property
    def n_tiles(self) -> int:
        """Tiles of reflections."""
        return len(self.tiling.columns)

    def shape(self, size: int, grid: GridConfig) -> Shape:
        """By the cost of a step."""
        return choose_shape(size, grid.frames, grid.slices, self.load())

    def load(self) -> Load:
        """Blocks, tiles, 3 sums a reflection, and whether one pass is enough on one row of frames."""
        cell = BLOCK_FRAMES * self.tiling.width * 2 * self.store.encoding.storage.itemsize
        return Load(self.n_blocks, self.n_tiles, cell, 3 * self.tiling.width, self._one_pass)

    @property
    def _one_pass(self) -> bool:
        """Whether the config allows one pass, and the objective knows its gradient in it."""
        choice = self.config
        allowed = choice.run.gradient == "auto" and choice.problem.weights != "binary"
        return allowed and self.observed.objective.in_one_pass

    def identity(self) -> dict[str, str]:
        """Store, frames, map and the options of the problem."""
        chosen = hashlib.sha256(str([tuple(block) for block in self.blocks]).encode()).hexdigest()[:16]
        run = self.config.run
        return {
            "frames.store": self.store.digest(),
            "frames chosen": chosen,
            "problem.prior": self.prior.digest(),
            "problem.clusters": hashlib.sha256(self.groups.number.tobytes()).hexdigest()[:16],
            "experiment.file": sha256_of_file(self.measured.source)[:16],
            "problem": self.config.problem.model_dump_json(),
            **{f"experiment {key}": sha256_of_file(path)[:16] for key, path in self._files_of_experiments()},
            **stores_of(self.tables),
            **({"problem.explain": sha256_of_file(self.config.problem.explain)[:16]} if self.numbers else {}),
            "run": f"seed {run.seed}, {run.precision}, {run.reductions}, gradient {run.gradient}",
        }

    def _files_of_experiments(self) -> Iterator[tuple[str, Path]]:
        for one in self.config.problem.experiment:
            yield from ((f"{one.name} {key}", path) for key, path in one.files.items())

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
            **({"experiments": words_of(self.tables)} if self.tables else {}),
            **self._resampling(),
            "fits": self._fits_in_words(),
        }

    def _fits_in_words(self) -> str:
        """What the study will run, as far as it is known beforehand."""
        choice = self.config.problem
        groups = int(np.sum(self.groups.frames >= 2)) if len(self.groups.names) > 1 else 0
        starts = sum({"clusters": groups, "random": choice.random_starts}.get(kind, 1) for kind in choice.starts)
        if choice.weights == "binary":
            starts = 1
        parts = [f"{starts} start" + "s" * (starts > 1)]
        if choice.n_folds:
            parts.append(f"{len(choice.thetas)} theta x {choice.n_folds} folds")
        if choice.resamples and choice.weights != "binary":
            parts.append(f"2 x {choice.resamples} resamples for errors")
        if choice.dropping_rounds:
            parts.append(f"{choice.dropping_rounds} rounds of dropping")
        return ", ".join(parts)

    def _resampling(self) -> dict[str, str]:
        choice, words = self.config.problem, {}
        held_out = int(np.sum(self.chosen.part == 1))
        if choice.fold is not None:
            words["held out"] = f"{held_out} orbits, fold {choice.fold} of {choice.folds}"
        elif choice.hold_out:
            words["held out"] = f"{held_out} orbits by {choice.hold_out_by}, seed {choice.hold_out_seed}"
        if choice.bootstrap:
            words["bootstrap"] = f"resample {choice.bootstrap}: {np.sum(self.chosen.drawn == 0)} orbits not drawn"
        return words

    def bytes_held(self, grid: Grid) -> int:
        """Bytes of this rank's structure factors."""
        return self._factors(grid, self.tiling.columns).bytes

    def bytes_summed(self, grid: Grid) -> int:
        """Three numbers of the kernels' precision for each reflection: of each fit that shares one pass, or of each
        block where there are two passes."""
        sets = AT_ONCE if self._reads_once(grid) else len(self._blocks(grid))
        return 3 * sets * len(grid.tiles) * self.tiling.width * np.dtype(self.config.run.precision).itemsize

    def _reads_once(self, grid: Grid) -> bool:
        return self._one_pass and grid.shape.frames == 1

    def problem(self, grid: Grid) -> FrameWeights:
        """The problem on this rank's tiles, with the smallest theta and the orbits that the config chooses."""
        choice = self.config.problem
        regularisers = Regularisers(choice.thetas[0], choice.l1, choice.l2, choice.smoothness)
        problem = FrameWeights(
            self._tiles(grid), self.observed.objective, regularisers, self.n_frames, choice.shells,
            self.tiling.most_shells(self.orbits.shell), len(self.observed.radial), WEIGHT_KINDS[choice.weights],
            self.config.run.precision, neighbours=choice.smoothness > 0,
            n_groups=int(self.free_groups.max(initial=-1)) + 1,
            experiments=experiments_of(choice, self.tables), map_weight=choice.map_weight or 1.0,
        )  # fmt: skip
        return self.with_orbits(problem, self.chosen, grid)

    def with_orbits(self, problem: FrameWeights, chosen: OrbitChoice, grid: Grid) -> FrameWeights:
        """A copy of the problem with other orbits fitted, held out or drawn."""
        import jax

        part = self.tiling.of_orbits(chosen.part)[_slice(grid)].astype(np.int32)
        drawn = self.tiling.of_orbits(chosen.drawn)[_slice(grid)].astype(float)
        tiles = problem.tiles._replace(part=jax.device_put(part), drawn=jax.device_put(drawn))
        return replace(problem, tiles=tiles, parts=2 if np.any(chosen.part) else 1)

    def _tiles(self, grid: Grid) -> Tiles:
        import jax

        tiling, orbits, seen = self.tiling, self.orbits, self.observed
        reference = self.store.reference
        members = np.bincount(orbits.orbit)
        share = np.zeros(len(reference.scale))
        share[orbits.column] = reference.scale[orbits.column] ** 2 / members[orbits.orbit]
        F0 = None
        if not WEIGHT_KINDS[self.config.problem.weights].normalised:
            F0 = tiling.of_columns((reference.mean / reference.scale).view(float).reshape(-1, 2))
        shell = tiling.of_orbits(orbits.shell, -1)
        tiles = Tiles(
            tiling.place, tiling.of_columns(share), F0, tiling.of_orbits(seen.y), tiling.of_orbits(orbits.multiplicity),
            tiling.of_orbits(seen.weight), tiling.of_orbits(seen.variance, 1.0), np.zeros(tiling.place.shape),
            np.maximum(shell, 0).astype(np.int32), np.zeros(tiling.place.shape, np.int32),
            np.array([row[row >= 0].min() for row in shell], np.int32),
            tiling.of_splines(seen.background), tiling.of_splines(seen.radial),
        )  # fmt: skip
        return jax.tree.map(lambda leaf: jax.device_put(leaf[_slice(grid)]), tiles)

    def gradient(self, grid: Grid, memory: int, add: Sum) -> Gradient:
        """Value and gradient on this rank's structure factors, in memory or streamed from the disk."""
        problem, rows = self.problem(grid), self._rows(grid)
        if self._reads_once(grid):
            strips = self.tiling.width // self.tiling.strip
            source = ByReflections(self._factors(grid, self.tiling.strips, strips), strips)
            return Adjoint(problem, Frames(rows, self._reader(source, memory)), grid, add, self.config.run.threads)
        source = ByFrames(self._factors(grid, self.tiling.columns))
        return Reverse(problem, Frames(rows, self._reader(source, memory)), grid, add)

    def _rows(self, grid: Grid) -> FrameRows:
        """Ids, prior weights and order of this rank's frames."""
        blocks = self._blocks(grid)
        if not blocks:
            logger.warning(
                "this rank holds no frames: %d blocks of %d frames are dealt out over %d ranks",
                len(self.blocks),
                BLOCK_FRAMES,
                grid.frames.size,
            )
        ids = np.stack([block.ids() for block in blocks]) if blocks else np.zeros((0, BLOCK_FRAMES), np.int64)
        log_prior, follows = self.prior.log_weights(blocks), self._follows()[grid.blocks]
        more = PriorRows(log_prior, follows, self.free_groups[grid.blocks], features_of(self.tables, ids))
        return FrameRows(ids, self.n_frames, more)

    @property
    def free_groups(self) -> np.ndarray:
        """The group of each frame whose sum of weights theta leaves free, [all blocks, 64]; -1 where there is none."""
        none = np.full(self.groups.number.shape, -1)
        return self.groups.free if self.config.problem.divergence == "within-groups" else none

    def _follows(self) -> np.ndarray:
        """Which frames come next to that of the row before, [all blocks, 64]."""
        follows = np.stack([block.ids() for block in self.blocks]) >= 0
        source = [self.store.shards[block.shard].source for block in self.blocks]
        follows[0, 0] = False
        for number in range(1, len(self.blocks)):
            before, block = self.blocks[number - 1], self.blocks[number]
            adjacent = block.first_id == before.first_id + BLOCK_FRAMES and before.frames == BLOCK_FRAMES
            follows[number, 0] = adjacent and source[number] == source[number - 1]
        return follows

    def live_weights(self, grid: Grid, problem: FrameWeights, frames: FrameRows) -> LiveWeights:
        """By label, or by source where there is none."""
        return LiveWeights.of(problem, frames, self.labels(), grid.blocks)

    def undefined_loss(self) -> InputError:
        """The calculated map has no variance."""
        return InputError(
            f"the diffuse intensity calculated from the {self.n_frames} frames of {self.store.folder} has zero"
            " variance, so that no correlation is defined: all frames are the same, or one has all the weight",
            remedy="use frames that differ (`hpcfit store info` shows the sources), and a prior of more than one",
        )

    def _blocks(self, grid: Grid) -> Sequence[Block]:
        return self.blocks[grid.blocks.start : grid.blocks.stop]

    def _factors(self, grid: Grid, columns: np.ndarray, rows_per_tile: int = 1) -> StructureFactors:
        tiles = slice(grid.tiles.start * rows_per_tile, grid.tiles.stop * rows_per_tile)
        return StructureFactors(self.store, self._blocks(grid), columns[tiles])

    def _reader(self, source: Any, memory: int) -> Callable:
        keep = self._keeps_in_memory(source.factors.bytes, memory)
        return (InMemory if keep else FromDisk)(source, _place(source)).chunks

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


def _numbers(choice: FrameWeightsConfig, blocks: Sequence[Block]) -> FrameNumbers | None:
    """The numbers that the weights are to be explained by, where the config names a file of them."""
    if choice.explain is None:
        return None
    ids = np.concatenate([block.ids()[: block.frames] for block in blocks])
    return FrameNumbers(*read_coordinates(choice.explain, ids, "explain"))


def _orbit_means(orbits: OrbitMap, of_column: np.ndarray) -> np.ndarray:
    """The mean of a column's number over the reflections of each orbit, [n]."""
    return np.bincount(orbits.orbit, of_column[orbits.column]) / np.bincount(orbits.orbit)


def _slice(grid: Grid) -> slice:
    return slice(grid.tiles.start, grid.tiles.stop)


def _place(source: ByFrames | ByReflections) -> Callable[[np.ndarray], Any]:
    """Onto the rank's device, once; what one pass reads on a CPU stays an array of NumPy, as its kernel wants it."""
    import jax

    device = jax.local_devices()[0]
    if device.platform == "cpu" and isinstance(source, ByReflections):
        return lambda chunk: chunk
    return lambda chunk: jax.device_put(chunk, device)


def _warn_of_unused_symmetry(orbits: OrbitMap, measured: DiffuseMap, laue: str) -> None:
    """Say so where more reflections of the frames are unused than used. A map merged in its space group covers one
    wedge: without its symmetry the rest is unused."""
    unused = orbits.left_out["reflections not measured"]
    if unused <= len(orbits.column):
        return
    if laue in ("P1", "-1") and measured.space_group.replace(" ", "") not in ("P1", "P-1"):
        inputs.warning(
            "laue = '%s' uses %d reflections and leaves out %d that the map %s does not list: it is of space group %s;"
            " set [problem] laue to it to average over symmetry mates",
            laue, len(orbits.column), unused, measured.source, measured.space_group,
        )  # fmt: skip
        return
    inputs.warning(
        "%.0f %% of the frames' reflections within the limits, %d of %d, are not in the map %s: check its cell, ndiv,"
        " mask and resolution, and [problem] d_min and laue",
        100 * unused / (unused + len(orbits.column)), unused, unused + len(orbits.column), measured.source,
    )  # fmt: skip


def _check_enough(measured: DiffuseMap, choice: FrameWeightsConfig, orbits: OrbitMap, chosen: OrbitChoice) -> None:
    """Raise InputError for orbits that are too few to fit, or for the folds of the cross-validation."""
    fitted = int(np.sum(chosen.part == 0))
    if fitted < FEWEST:
        raise InputError(
            f"{measured.source}: {fitted} of {len(orbits.observed)} orbits are left to be fitted, and what agrees with"
            f" fewer than {FEWEST} may agree by chance",
            remedy="give a map with more reflections in common with the store, or correct mask, d_min and d_max",
        )
    if choice.n_folds:
        folds(orbits, choice, choice.n_folds)


def _compare_cells(store: FactorStore, measured: DiffuseMap, tolerance: float = 0.03) -> None:
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
