"""The second pass: frames of beads with the forces of every map, written for one of them, and summed for all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.sparse

from hpcfit.bead_models.basis import Basis
from hpcfit.bead_models.linear import NormalEquations, normal_equations
from hpcfit.config import BLOCK_FRAMES
from hpcfit.errors import InputError
from hpcfit.kinds.force_map.features import Features, mapped_forces
from hpcfit.kinds.force_map.map_statistics import NoiseMap
from hpcfit.kinds.force_map.mapped_positions import Mapping
from hpcfit.kinds.force_map.passes import (
    Arrays,
    AtomisticFrames,
    BlockSums,
    Reductions,
    Visit,
    below,
    named_frames,
    prefixed,
)
from hpcfit.physics.periodic import nearest_image
from hpcfit.ranks import Ranks
from hpcfit.statistics.blocks import squares_of_means
from hpcfit.store.catalog import CATALOG, write_catalog
from hpcfit.store.files import disk_errors
from hpcfit.store.forces import ForceContent, ForceFrames, ForceStore
from hpcfit.store.particles import Particles
from hpcfit.store.positions import each_frame
from hpcfit.store.shard import ShardPlan
from hpcfit.store.writer import ShardWriter

MADE_FROM = "made_from"  # the setting by which the particles of a mapped store are known
SPANS = (1, 2, 4, 8, 16, 32, 64)  # frames of a mean, in the scan for correlation


class NamedMap(NamedTuple):
    """A map to be applied. W: [N, n]. noise: of the beads, where the config adds some. features: functions and
    coefficients of each bead that are added to W, with kT, kJ/mol."""

    name: str
    W: scipy.sparse.csr_array
    noise: NoiseMap | None
    features: Sequence[tuple[Features, np.ndarray]] = ()
    kT: float = 0.0

    def __call__(self, frames: ForceFrames) -> np.ndarray:
        """Mapped forces [T, N, 3], float64, kJ/mol/A."""
        if self.features:
            of_beads = [
                mapped_forces(one, theta[: one.n_features], frames.positions, frames.forces, frames.box, self.kT)
                for one, theta in self.features
            ]
            return np.stack(of_beads, axis=1).astype(np.float64)
        T, n = frames.forces.shape[:2]
        flat = frames.forces.transpose(1, 0, 2).reshape(n, -1).astype(np.float64)
        return (self.W @ flat).reshape(-1, T, 3).transpose(1, 0, 2)


class MeanForce(NamedTuple):
    """The exact mean force between two beads, kJ/mol/A, at distances r, A, ascending."""

    r: np.ndarray
    f: np.ndarray

    def __call__(self, r: np.ndarray) -> np.ndarray:
        """By a cubic spline; beyond the ends the nearest one."""
        from scipy.interpolate import CubicSpline

        return CubicSpline(self.r, self.f)(np.clip(r, self.r[0], self.r[-1]))


class MappedSums(NamedTuple):
    """Sums of the second pass, by statistical block.

    normal: leaves [B, ...]; its columns are the W maps and, where a mean force is given, the radial parts of the maps
    and of the mean force, and the direction from bead to bead. products: [B, columns, columns], of these forces.
    spans: [W, len(SPANS)], squares of means over so many frames; spanned: frames of whole blocks, which they are of.
    """

    normal: NormalEquations
    products: np.ndarray
    spans: np.ndarray
    spanned: int


@dataclass(frozen=True)
class MappedFrames:
    """The input of the second pass. write: the number of the map whose forces are written. noise_sd: A."""

    frames: AtomisticFrames
    mapping: Mapping
    maps: Sequence[NamedMap]
    write: int
    basis: Basis | None
    mean_force: MeanForce | None
    noise_sd: float
    kT: float
    seed: int
    reductions: Reductions

    @property
    def columns(self) -> int:
        """Forces that are summed."""
        return len(self.maps) if self.mean_force is None else 2 * len(self.maps) + 2

    def digest(self) -> str:
        """A digest of the maps, the basis, the noise and the seed, to the bit. Where it differs, the pass restarts."""
        maps = [(one.W.data, one.W.indices, one.W.indptr, one.noise, [theta for _, theta in one.features])
                for one in self.maps]  # fmt: skip
        arrays = [np.asarray(leaf) for leaf in jax.tree.leaves((maps, self.basis, self.mean_force))]
        told = f"{[one.name for one in self.maps]} {self.write} {self.noise_sd} {self.kT} {self.seed}"
        return hashlib.sha256(told.encode() + b"".join(array.tobytes() for array in arrays)).hexdigest()

    @cached_property
    def first_ids(self) -> dict[int, int]:
        """The id of the first mapped frame of each shard that is mapped; ids are counted over these."""
        frames = {block.shard: self.frames.store.shards[block.shard].frames for block in self.frames.parts.blocks}
        shards = sorted(frames)
        ends = np.cumsum([frames[shard] for shard in shards])
        return {shard: int(end) - frames[shard] for shard, end in zip(shards, ends)}

    def mapped(self, visit: Visit) -> tuple[np.ndarray, np.ndarray]:
        """R [T, N, 3] and the forces of all maps F [T, N, 3, W] of one block, float64."""
        frames = visit.frames
        R = self.mapping(frames.positions, frames.box)
        F = np.stack([one(frames) for one in self.maps], axis=-1)
        if not self.noise_sd:
            return R, F
        first = self.first_ids[visit.block.shard] + visit.block.index * BLOCK_FRAMES
        eps = np.stack([self._noise(first + row, R.shape[1]) for row in range(len(R))])
        n = -self.kT * eps / self.noise_sd**2
        noised = [one.noise.Lambda1 @ F[..., k] + one.noise.Lambda2 @ n for k, one in enumerate(self.maps)]
        return R + eps, np.stack(noised, axis=-1)

    def _noise(self, frame: int, n_beads: int) -> np.ndarray:
        """Of one frame [N, 3]: a function of seed and frame alone."""
        return np.random.default_rng([self.seed, frame]).normal(0, self.noise_sd, (n_beads, 3))

    def add(self, visit: Visit, R: np.ndarray, F: np.ndarray, sums: _Sums) -> None:
        """Add a block, its beads R and their forces F of all maps, to the sums."""
        whole = F if self.mean_force is None else self._with_mean_force(R, F, visit.frames.box)
        for piece in visit.pieces:
            sums.add(piece.part, self._normal(R, whole, visit.frames.box, piece.rows), whole[piece.rows])
        if len(F) == BLOCK_FRAMES:
            sums.add_spans(F)

    def _normal(self, R, F, box, rows: slice) -> NormalEquations:
        """Of some frames of a block; always as many, of weight 0 where they are not meant: one shape, one program."""
        if self.basis is None:
            square = np.sum(F[rows] ** 2, axis=(0, 1, 2))
            none = np.zeros((0, F.shape[-1]))
            return NormalEquations(np.zeros((0, 0)), none, square, np.zeros(0), F[rows, ..., 0].size)
        weights = np.zeros(BLOCK_FRAMES, np.float32)
        weights[rows] = 1
        fill = [(0, BLOCK_FRAMES - len(R))]
        R, F = (np.pad(a, fill + [(0, 0)] * (a.ndim - 1), "edge").astype(np.float32) for a in (R, F))
        box = None if box is None else np.pad(box, [*fill, (0, 0), (0, 0)], "edge")
        return normal_equations(self.basis, R, F, box, weights)

    def _with_mean_force(self, R: np.ndarray, F: np.ndarray, box: np.ndarray | None) -> np.ndarray:
        step = R[:, :1] - R[:, 1:]
        step = step if box is None else nearest_image(step, box)
        r = np.linalg.norm(step, axis=2, keepdims=True)
        u = np.concatenate([step / r, -step / r], axis=1)  # [T, 2, 3], of length sqrt(2) over both beads
        radial = np.einsum("tnxw,tnx->tw", F, u) / 2
        along = np.concatenate([radial, self.mean_force(r[:, 0]), np.ones((len(R), 1))], axis=1)
        return np.concatenate([F, u[..., None] * along[:, None, None, :]], axis=-1)


class _Sums:
    """The sums of the pass, by name."""

    def __init__(self, work: MappedFrames):
        K, columns, n = work.basis.size if work.basis else 0, work.columns, work.frames.parts.n
        shapes = NormalEquations((K, K), (K, columns), (columns,), (K,), ())
        of_blocks = shapes._asdict() | {"products": (columns, columns)}
        self.named = {name: BlockSums(n, shape, work.reductions) for name, shape in of_blocks.items()}
        of_all = {"spans": (len(work.maps), len(SPANS)), "spanned": ()}
        self.named |= {name: BlockSums(1, shape, work.reductions) for name, shape in of_all.items()}

    def add(self, part: int, normal: NormalEquations, F: np.ndarray) -> None:
        for name, values in normal._asdict().items():
            self.named[name].add(part, np.asarray(values, float))
        flat = F.reshape(-1, F.shape[-1])
        self.named["products"].add(part, flat.T @ flat)

    def add_spans(self, F: np.ndarray) -> None:
        self.named["spanned"].add(0, np.array(float(len(F))))
        self.named["spans"].add(0, squares_of_means(F, SPANS))

    def absorb(self, other: _Sums) -> None:
        for name, sums in self.named.items():
            sums.absorb(other.named[name])


def mapped_sums(arrays: Arrays) -> MappedSums:
    """The sums of the pass, from what it has left (``MappingPass.product``)."""
    normal = NormalEquations(*(arrays[name] for name in NormalEquations._fields))
    return MappedSums(normal, arrays["products"], arrays["spans"][0], int(arrays["spanned"][0]))


class MappingPass:
    """The second pass, as a stage (``fit.stages.Work``): a unit is a shard of the store of beads, which a rank writes
    whole and adds to its sums when it is written."""

    def __init__(self, work: MappedFrames, folder: Path, particles: Particles, made_from: dict[str, Any], ranks: Ranks):
        self.ranks, self._work, self._folder = ranks, work, folder
        self._content = ForceContent.of(particles, work.frames.store.periodic, made_from)
        self._shards = list(work.first_ids)
        self._plans = _plans(work.frames.store, work.first_ids, self._content)
        self._sums, self._goes_on = _Sums(work), False

    @property
    def n_units(self) -> int:
        """Shards."""
        return len(self._shards)

    def run(self, units: Sequence[int]) -> Generator[int | None]:
        """See ``fit.stages.Work``."""
        if not self._goes_on:
            source = self._work.frames.store.folder
            self.ranks.on_root(lambda: _begin(self._folder, self._content, source))
        for unit in units:
            sums = _Sums(self._work)
            yield from self._written(unit, sums)
            self._sums.absorb(sums)
            yield unit

    def _written(self, unit: int, sums: _Sums) -> Generator[None]:
        """Write a shard, its sums beside it; yields after each block."""
        work, blocks = self._work, self._work.frames.parts.blocks
        numbers = [number for number, block in enumerate(blocks) if block.shard == self._shards[unit]]
        with ShardWriter(self._folder, self._plans[unit], self._content) as writer:
            for visit in work.frames.visits(numbers):
                R, F = work.mapped(visit)
                beads = ForceFrames(R.astype(np.float32), F[..., work.write].astype(np.float32), visit.frames.box)
                writer.extend(each_frame(beads, visit.origin))
                with named_frames(visit, len(blocks)):
                    work.add(visit, R, F, sums)
                yield None

    def kept(self) -> dict[str, np.ndarray]:
        """See ``fit.stages.Work``."""
        kept = {}
        for name, sums in self._sums.named.items():
            kept |= prefixed(name, sums.kept(self.ranks))
        return kept

    def take_up(self, kept: Arrays) -> None:
        """See ``fit.stages.Work``."""
        self._goes_on = True
        if self.ranks.is_root:
            for name, sums in self._sums.named.items():
                sums.take_up(below(name, kept))

    def product(self) -> dict[str, np.ndarray]:
        """Write the list of shards; the sums by name (``mapped_sums``)."""
        self.ranks.on_root(lambda: write_catalog(self._folder, self._plans, self._content))
        return {name: sums.total(self.ranks) for name, sums in self._sums.named.items()}

    def files(self) -> Sequence[Path]:
        """Particles, the shards that are whole, and their list."""
        names = (ForceContent.shared.name, *(plan.file for plan in self._plans), CATALOG)
        return [path for path in (self._folder / name for name in names) if path.exists()]


def _plans(store: ForceStore, first_ids: dict[int, int], content: ForceContent) -> list[ShardPlan]:
    plans, identity = [], content.store_id(_settings(content))
    for place, (number, first) in enumerate(first_ids.items()):
        shard = store.shards[number]
        what = json.dumps([shard.plan, shard.file, first, content.made_from], sort_keys=True)
        digest = hashlib.sha256(what.encode()).hexdigest()
        plans.append(
            ShardPlan(
                shard.file, shard.source, shard.label, str(store.path(number)), first, 0, shard.frames, digest,
                {shard.file: shard.plan}, identity, place,
            )
        )  # fmt: skip
    return plans


def check_folder(folder: Path, source: Path) -> None:
    """Raise InputError unless a folder is empty or holds a store that was mapped, other than the one that is read."""
    if folder.resolve() == source.resolve():
        raise InputError(
            f"[problem] mapped = {folder} is the store whose frames are to be mapped", remedy="name another folder"
        )
    begun = ForceContent.is_begun(folder)
    if (begun or (folder / CATALOG).exists()) and not (begun and MADE_FROM in ForceContent.begun_with(folder)[1]):
        raise InputError(
            f"[problem] mapped = {folder} holds a store that was not made by mapping",
            remedy="name another folder",
        )


def _settings(content: ForceContent) -> dict[str, str]:
    return {MADE_FROM: json.dumps(content.made_from)}


def _begin(folder: Path, content: ForceContent, source: Path) -> None:
    """Begin a store; the list of one that was there goes first, or an interruption would leave one that is half new."""
    check_folder(folder, source)
    with disk_errors(folder / CATALOG):
        (folder / CATALOG).unlink(missing_ok=True)
    content.begin(folder, _settings(content))
