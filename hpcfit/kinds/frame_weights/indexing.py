"""Other indexings of a map: the rotations of the lattice that are none of the crystal, each with its correlation.

A crystal whose point group is lower than that of its lattice can be indexed in several ways. The wrong one looks like a
bad simulation: rings remain, and what is on them disagrees.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from hpcfit.kinds.frame_weights.observed import splines
from hpcfit.physics import reciprocal
from hpcfit.readers.maps import DiffuseMap
from hpcfit.store.catalog import Block
from hpcfit.store.reference import Reflections
from hpcfit.store.structure_factors import CHUNK_REFLECTIONS, FactorStore

MOST_CHUNKS, MOST_BLOCKS = 10, 64  # of 2048 reflections, and of 64 frames: some 300 MB of float16
FEWEST = 30  # orbits, below which rings are not told from what is on them


class Indexing(NamedTuple):
    """An operator [3, 3] on the indices of the map, with CC at uniform weights over so many orbits.

    without_rings: CC of what a smooth radial curve leaves of both, which is the same in all indexings; of few orbits,
    the other CC.
    """

    operator: np.ndarray
    cc: float
    without_rings: float
    orbits: int

    def beats(self, other: Indexing) -> bool:
        """True where CC without rings is larger by three of its standard errors, (1 - CC^2) / sqrt(orbits)."""
        error = (1 - other.without_rings**2) / np.sqrt(other.orbits)
        return self.without_rings > other.without_rings + 3 * error


def indexings(store: FactorStore, blocks: list[Block], measured: DiffuseMap, laue: str) -> list[Indexing]:
    """CC at uniform weights for each way to index the map, its own first; none where there is no other.

    Read are at most 4096 frames, evenly spread, at 20,480 reflections in ten ranges of resolution.
    """
    reflections = store.reference.reflections
    operators = other_operators(reflections, measured, laue)
    if len(operators) == 1:
        return []
    columns = _spread_columns(len(reflections))
    chosen = Reflections(reflections.hkl[columns], reflections.ndiv, reflections.cell, reflections.space_group)
    x = uniform_intensity(store, blocks, columns)
    voxels = _near(chosen, measured, np.concatenate([operators, reciprocal.laue_operations(laue)]))
    found = (_indexing(chosen, x, measured, voxels, operator, laue) for operator in operators)
    return [one for one in found if one is not None]


def other_operators(reflections: Reflections, measured: DiffuseMap, laue: str) -> list[np.ndarray]:
    """The rotations [3, 3] of indices that the cell has within 1.5 % of its lengths, one of each coset of the crystal's
    own; the identity first. Its own are those of the space group that map or store names, or of ``laue``, whichever are
    more."""
    groups = map(reciprocal.laue_operations, (laue, measured.space_group, reflections.space_group))
    own = max((one for one in groups if reciprocal.keeps_metric(one, reflections.cell)), key=len)
    found: dict[bytes, np.ndarray] = {}
    for operator in _rotations_of_lattice(reflections.cell):
        lattices = (reciprocal.maps_lattice(operator[None], ndiv) for ndiv in (reflections.ndiv, measured.ndiv))
        if all(lattices):
            coset = min((one @ operator).tobytes() for one in own)
            found.setdefault(coset, operator)
    return list(found.values())


def _rotations_of_lattice(cell: tuple[float, ...]) -> list[np.ndarray]:
    """Matrices of -1, 0 and 1 of determinant 1 that keep the metric, the identity first."""
    every = np.array(list(itertools.product((0, 1, -1), repeat=9)), np.int64).reshape(-1, 3, 3)
    every = every[np.rint(np.linalg.det(every)) == 1]
    kept = [one for one in every if reciprocal.keeps_metric(one[None], cell)]
    return sorted(kept, key=lambda one: -np.trace(one))


def uniform_intensity(store: FactorStore, blocks: list[Block], columns: np.ndarray) -> np.ndarray:
    """x(h) of equal weights at some columns, [k] float64, electrons^2, from frames spread evenly over the blocks."""
    chosen = np.unique(np.linspace(0, len(blocks) - 1, min(MOST_BLOCKS, len(blocks))).round().astype(int))
    chunks = np.unique(columns // CHUNK_REFLECTIONS)
    total, squares, n = np.zeros((len(columns), 2)), np.zeros(len(columns)), 0
    for block in (blocks[one] for one in chosen.tolist()):
        with store.shard(block.shard) as shard:
            ends = [min((one + 1) * CHUNK_REFLECTIONS, len(store.reference.scale)) for one in chunks.tolist()]
            parts = [shard.read(block.index, slice(int(a) * CHUNK_REFLECTIONS, b)) for a, b in zip(chunks, ends)]
        pairs = np.concatenate(parts, axis=1).astype(float)
        total += pairs.sum(axis=0)
        squares += np.einsum("thi,thi->h", pairs, pairs)
        n += len(pairs)
    return (squares / n - np.sum((total / n) ** 2, axis=1)) * store.reference.scale[columns] ** 2


def _spread_columns(n: int) -> np.ndarray:
    """Whole chunks, evenly spread: mates follow each other in the order of a store."""
    chunks = -(-n // CHUNK_REFLECTIONS)
    chosen = np.unique(np.linspace(0, chunks - 1, min(MOST_CHUNKS, chunks)).round().astype(int))
    return np.concatenate([np.arange(one * CHUNK_REFLECTIONS, min((one + 1) * CHUNK_REFLECTIONS, n)) for one in chosen])


def _near(chosen: Reflections, measured: DiffuseMap, operators: np.ndarray) -> np.ndarray:
    """The voxels of the map at the resolutions of the chosen reflections, [k] int, as far as operators keep them."""
    g = np.linalg.inv(reciprocal.metric(chosen.cell))
    # 1/d^2 of M h over that of h lies between the eigenvalues of G*^-1 M^T G* M, which are 1 if the symmetry is exact.
    ratios = np.linalg.eigvals(np.linalg.solve(g, np.swapaxes(operators, 1, 2) @ g @ operators)).real
    off = 2 * np.abs(ratios - 1).max() + reciprocal.SAME_RESOLUTION
    ours = np.sort(reciprocal.inverse_d2(chosen.hkl, chosen.ndiv, chosen.cell))
    theirs = reciprocal.inverse_d2(measured.hkl, measured.ndiv, chosen.cell)
    above = np.searchsorted(ours, theirs * (1 - off))
    below = np.searchsorted(ours, theirs * (1 + off))
    return np.flatnonzero(below > above)


def _indexing(chosen: Reflections, x: np.ndarray, measured: DiffuseMap, voxels, operator, laue: str) -> Indexing | None:
    """The CC of an operator; None where too little is common."""
    common = np.lcm(chosen.ndiv, measured.ndiv)
    moved = measured.hkl[voxels].astype(np.int64) * (common // np.asarray(measured.ndiv))
    # The new index is M h of h in the unit cell; M maps the lattice of both to itself.
    scaled = operator * common[:, None] // common
    ours = chosen.hkl.astype(np.int64) * (common // np.asarray(chosen.ndiv))
    both = np.concatenate([ours, moved @ scaled.T])
    orbit, size = reciprocal.laue_orbits(both, reciprocal.laue_operations(laue), common)
    here, there = orbit[: len(ours)], orbit[len(ours) :]
    counts = [np.bincount(part, minlength=len(size)) for part in (here, there)]
    used = (counts[0] > 0) & (counts[1] > 0)
    used[orbit[np.flatnonzero(~np.any(both, axis=1))]] = False  # the origin
    if used.sum() < 3:
        return None
    sums = np.bincount(here, x, len(size)), np.bincount(there, measured.intensity[voxels], len(size))
    means = [(total / np.maximum(count, 1))[used] for total, count in zip(sums, counts)]
    first = np.unique(orbit, return_index=True)[1][used]
    inverse_d = np.sqrt(reciprocal.inverse_d2(both[first], common, chosen.cell))
    weight = size[used].astype(float)
    cc = without = _correlation(*means, weight)
    if len(inverse_d) >= FEWEST:
        radial = splines(inverse_d, min(20, len(inverse_d) // 10), even_in=3)
        without = _correlation(*(one - _fitted(radial, one, weight) for one in means), weight)
    return Indexing(operator, cc, without, int(used.sum()))


def _fitted(radial: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The smooth radial curve of y: weighted least squares on splines [J, n]."""
    root = np.sqrt(weight)
    return radial.T @ np.linalg.lstsq((radial * root).T, y * root, rcond=None)[0]


def _correlation(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> float:
    a, b = (one - np.average(one, weights=weight) for one in (a, b))
    norm = np.sqrt((weight @ a**2) * (weight @ b**2))
    return float(weight @ (a * b) / norm) if norm > 0 else float("nan")


def as_text(operator: np.ndarray) -> str:
    """An operator as `[experiment] reindex` has it, such as "k,h,-l": the new index is M h."""
    signs = {1: "+", -1: "-", 0: ""}
    rows = ("".join(signs[value] + name for value, name in zip(row, "hkl") if value) for row in operator.tolist())
    return ",".join(row.removeprefix("+") for row in rows)
