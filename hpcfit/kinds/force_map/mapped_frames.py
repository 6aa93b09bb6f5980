"""The second pass: frames of beads with the forces of every map, written for one of them, and summed for all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from scipy.interpolate import CubicSpline

from hpcfit.bead_models.basis import Basis
from hpcfit.bead_models.linear import NormalEquations, normal_equations
from hpcfit.config import BLOCK_FRAMES
from hpcfit.errors import InputError
from hpcfit.kinds.force_map.features import Features, mapped_forces
from hpcfit.kinds.force_map.map_statistics import NoiseMap
from hpcfit.kinds.force_map.mapped_positions import Mapping, nearest_image
from hpcfit.kinds.force_map.passes import AtomisticFrames, BlockSums, Reductions, Visit
from hpcfit.ranks import Ranks
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
    """What the second pass needs. write: the number of the map whose forces are written. noise_sd: A."""

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

    def run(self, folder: Path, particles: Particles, made_from: dict[str, Any], world: Ranks) -> MappedSums:
        """Write the coarse-grained store and add up; collective. A rank takes whole shards."""
        store = self.frames.store
        shards = list(self.first_ids)
        content = ForceContent.of(particles, store.periodic, made_from)
        plans = _plans(store, self.first_ids, content)
        world.on_root(lambda: _begin(folder, content, store.folder))
        sums = _Sums.empty(self)
        numbers = [number for number, block in enumerate(self.frames.parts.blocks)
                   if shards.index(block.shard) % world.size == world.rank]  # fmt: skip
        world.on_all(lambda: self._write_all(folder, content, dict(zip(shards, plans)), numbers, sums))
        world.on_root(lambda: write_catalog(folder, plans, content))
        return sums.total(world)

    def _write_all(
        self, folder: Path, content: ForceContent, plans: dict[int, ShardPlan], numbers: list[int], sums: _Sums
    ) -> None:
        visits = self.frames.visits(numbers)
        blocks = self.frames.parts.blocks
        for shard in sorted({blocks[number].shard for number in numbers}):
            with ShardWriter(folder, plans[shard], content) as writer:
                for _ in range(sum(blocks[number].shard == shard for number in numbers)):
                    visit = next(visits)
                    R, F = self.mapped(visit)
                    beads = ForceFrames(R.astype(np.float32), F[..., self.write].astype(np.float32), visit.frames.box)
                    writer.extend(each_frame(beads, visit.origin))
                    self._add(visit, R, F, sums)

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

    def _add(self, visit: Visit, R: np.ndarray, F: np.ndarray, sums: _Sums) -> None:
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
    """The sums of the pass, not yet of all ranks."""

    def __init__(self, normal: NormalEquations, products: BlockSums, spans: BlockSums):
        self.normal, self.products, self.spans, self.spanned = normal, products, spans, 0

    @classmethod
    def empty(cls, work: MappedFrames) -> _Sums:
        K, columns, n = work.basis.size if work.basis else 0, work.columns, work.frames.parts.n
        shapes = NormalEquations((K, K), (K, columns), (columns,), (K,), ())
        normal = NormalEquations(*(BlockSums(n, shape, work.reductions) for shape in shapes))
        spans = BlockSums(1, (len(work.maps), len(SPANS)), work.reductions)
        return cls(normal, BlockSums(n, (columns, columns), work.reductions), spans)

    def add(self, part: int, normal: NormalEquations, F: np.ndarray) -> None:
        for total, values in zip(self.normal, normal):
            total.add(part, np.asarray(values, float))
        flat = F.reshape(-1, F.shape[-1])
        self.products.add(part, flat.T @ flat)

    def add_spans(self, F: np.ndarray) -> None:
        self.spanned += len(F)
        means = [F.reshape(len(F) // span, span, -1, F.shape[-1]).mean(axis=1) for span in SPANS]
        self.spans.add(0, np.stack([(mean**2).mean(axis=(0, 1)) * len(F) for mean in means], axis=-1))

    def total(self, world: Ranks) -> MappedSums:
        normal = NormalEquations(*(total.total(world) for total in self.normal))
        spanned = int(world.sum(np.array([self.spanned]))[0])
        return MappedSums(normal, self.products.total(world), self.spans.total(world)[0], spanned)


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
