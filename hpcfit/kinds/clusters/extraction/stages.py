"""The stages that pass over frames: clusters of each block of frames, and radial distributions for cut-offs.

A unit is a block of frames; what it leaves are arrays of its own, so that nothing depends on ranks or interruptions.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.fit.stages import ArraysOfUnits
from hpcfit.kinds.clusters.extraction.frame import Finder, FrameClusters
from hpcfit.kinds.clusters.extraction.neighbours import face_distance, pairs_within
from hpcfit.kinds.clusters.extraction.participants import Participants
from hpcfit.ranks import Ranks
from hpcfit.store.catalog import Block
from hpcfit.store.positions import ParticleStore, read_block

STEP = 0.05  # A, of a radial distribution


class Frames(NamedTuple):
    """The frames of a store. box: [3, 3] A of all frames, where the config gives one; periodic: whether any is used."""

    store: ParticleStore
    blocks: Sequence[Block]
    box: np.ndarray | None
    periodic: bool

    def of_block(self, number: int) -> Iterator[tuple[int, np.ndarray, np.ndarray | None, str]]:
        """Id, positions [N, 3], box [3, 3] or None, and name in words of each frame of a block."""
        block = self.blocks[number]
        found = read_block(self.store, block)
        for row, x in enumerate(found.positions):
            box = None
            if self.periodic:
                box = self.box if self.box is not None else found.box[row].astype(float)
            yield block.first_id + row, x, box, f"frame {block.first_id + row} of {self.store.folder}"


class Guard(NamedTuple):
    """A guard against clusters that are no molecules: bound to their own image, or of more units than
    `largest`; raises: they are an error, else they are counted."""

    largest: int
    raises: bool

    def check(self, found: FrameClusters, where: str) -> int:
        """The number of such clusters of a frame. Raises InputError."""
        sizes = np.bincount(found.cluster[: found.of.core], minlength=len(found))
        wrong = found.spanning | (sizes > self.largest)
        if wrong.any() and self.raises:
            worst = int(np.argmax(np.where(wrong, sizes, 0)))
            why = "is bound to its own periodic image" if found.spanning[worst] else f"has more than {self.largest}"
            raise InputError(
                f"{where}: a cluster of {sizes[worst]} of the {found.of.core} nodes and linkers {why}",
                remedy="choose shorter [problem.cutoffs]; percolation = 'flag' counts such clusters and goes on,"
                " largest = N allows more",
            )
        return int(wrong.sum())


class Wanted(NamedTuple):
    """The arrays that each block keeps beside counts. structures: of each label; identity: atom sets of all clusters;
    residence: bound pairs."""

    structures: int
    identity: bool
    residence: bool


class Extraction(ArraysOfUnits):
    """The clusters of all frames; see ``fit.stages.Work``. Each block leaves arrays named `WHAT BLOCK`:

    compositions [l, S], counts [F, l], radii [F, l] (sums of squared radii of gyration, A^2), contacts [F, S, S]
    (of units of a species with those of another), percolating [F], and the structures that have the least hashes of
    each label.
    """

    def __init__(self, frames: Frames, finder: Finder, guard: Guard, wanted: Wanted, ranks: Ranks):
        super().__init__(ranks)
        self.n_units = len(frames.blocks)
        self._frames, self._finder, self._guard, self._wanted = frames, finder, guard, wanted

    def run(self, units: Sequence[int]) -> Generator[int | None]:
        """See ``Work``."""
        for unit in units:
            found, ids, percolating = [], [], []
            for frame, x, box, where in self._frames.of_block(unit):
                found.append(self._finder.clusters(x, box, where))
                percolating.append(self._guard.check(found[-1], where))
                ids.append(frame)
                if len(found) % 16 == 0:
                    yield None
            arrays = summary(found, np.array(ids), self._wanted) | {"percolating": np.array(percolating, np.int32)}
            for name, values in arrays.items():
                self._done[f"{name} {unit:08d}"] = values
            yield unit

    def product(self) -> dict[str, np.ndarray]:
        """See ``Work``: the arrays of all blocks."""
        return self.kept()


def summary(found: Sequence[FrameClusters], ids: np.ndarray, wanted: Wanted) -> dict[str, np.ndarray]:
    """The arrays of a block of frames; see ``Extraction``."""
    of, frames = found[0].of, len(found)
    row = np.repeat(np.arange(frames), [len(one) for one in found])
    compositions, label = np.unique(np.concatenate([one.counts for one in found]), axis=0, return_inverse=True)
    at, n = row * len(compositions) + label.ravel(), frames * len(compositions)
    radii = np.concatenate([one.squared_radii() for one in found])
    sets = np.concatenate([atom_sets(one) for one in found])
    arrays = {
        "compositions": compositions.astype(np.int32),
        "counts": np.bincount(at, minlength=n).reshape(frames, -1).astype(np.int32),
        "radii": np.bincount(at, radii, n).reshape(frames, -1),
        "contacts": np.stack([contacts(of, one.bonds) for one in found]),
    }
    if wanted.identity:
        arrays |= {"sets": sets, "set labels": label.ravel().astype(np.int32)}
    if wanted.residence:
        arrays |= {"bonds": np.concatenate([one.bonds for one in found]).astype(np.int32),
                   "bonds a frame": np.array([len(one.bonds) for one in found], np.int32)}  # fmt: skip
    return arrays | reservoir(found, ids, row, label.ravel(), sets, wanted.structures)


def contacts(of: Participants, bonds: np.ndarray) -> np.ndarray:
    """The number of neighbours of each species that all units of a species have, [S, S]; bonds: [b, 2] units."""
    found = np.zeros((len(of.species),) * 2, np.int32)
    a, b = of.kind[bonds].T
    np.add.at(found, (a, b), 1)
    np.add.at(found, (b, a), 1)
    return found


def mixed(values: np.ndarray) -> np.ndarray:
    """A number for each number, uint64, that looks random: SplitMix64 (Steele and others 2014,
    10.1145/2660193.2660195)."""
    z = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def atom_sets(found: FrameClusters) -> np.ndarray:
    """A number of the set of nodes and linkers of each cluster, [C] uint64, by the numbers of their first atoms."""
    sets = np.zeros(len(found), np.uint64)
    np.add.at(sets, found.cluster[: found.of.core], mixed(found.of.first[: found.of.core]))
    return mixed(sets)


def reservoir(
    found: Sequence[FrameClusters], ids: np.ndarray, row: np.ndarray, label: np.ndarray, sets: np.ndarray, most: int
) -> dict[str, np.ndarray]:
    """The structures of a block that have the least hashes of (frame id, atoms), at most so many a label: a sample
    drawn evenly, which does not depend on order.

    hash, frame, label of them [m], atoms of each [m], then of all: atom, and its place [., 3] A.
    """
    hashes = mixed(sets ^ mixed(ids)[row])
    order = np.lexsort((hashes, label))
    first = np.searchsorted(label[order], label[order])  # where the label of each begins
    kept = order[np.arange(len(order)) - first < most]
    start = np.concatenate([[0], np.cumsum([len(one) for one in found])])
    atoms, places = [], []
    for cluster in kept.tolist():
        one = found[row[cluster]]
        units = np.flatnonzero(one.cluster == cluster - start[row[cluster]])
        atom, of_unit = one.of.atoms_of(one.unit[units])
        x = one.anchor[units][of_unit] + one.within[atom]
        by_number = np.argsort(one.of.particle[atom], kind="stable")
        atoms.append(atom[by_number])
        places.append(x[by_number])
    return {
        "hash": hashes[kept], "frame": ids[row[kept]], "label": label[kept].astype(np.int32),
        "atoms": np.array([len(one) for one in atoms], np.int32),
        "atom": np.concatenate([np.zeros(0, np.int64), *atoms]).astype(np.int32),
        "place": np.concatenate([np.zeros((0, 3)), *places]),
    }  # fmt: skip


# ---- radial distributions ------------------------------------------------------------------------------------------


class Distributions(ArraysOfUnits):
    """Histograms of distances between atoms of different units, by pair of species, of every `stride`-th frame; see
    ``fit.stages.Work``. Each block leaves `pairs BLOCK` [S, S, bins] and `density BLOCK` [frames], 1 / volume, A^-3."""

    def __init__(self, frames: Frames, of: Participants, furthest: float, stride: int, ranks: Ranks):
        super().__init__(ranks)
        self.n_units = len(frames.blocks)
        self._frames, self._of, self._stride = frames, of, stride
        self._bins = int(furthest / STEP)

    def run(self, units: Sequence[int]) -> Generator[int | None]:
        """See ``Work``."""
        of, S = self._of, len(self._of.species)
        for unit in units:
            found, density = np.zeros((S, S, self._bins), np.int64), []
            for frame, x, box, where in self._frames.of_block(unit):
                if frame % self._stride:
                    continue
                _check_range(self._bins * STEP, box, where)
                pairs = pairs_within(x[of.particle].astype(float), box, np.full((S, S), self._bins * STEP),
                                     of.kind[of.unit], np.arange(len(of.unit)) < of.core_atoms, where)  # fmt: skip
                apart = of.unit[pairs.i] != of.unit[pairs.j]
                a, b = of.kind[of.unit[pairs.i[apart]]], of.kind[of.unit[pairs.j[apart]]]
                bins = np.minimum((pairs.distance[apart] / STEP).astype(int), self._bins - 1)
                np.add.at(found, (np.minimum(a, b), np.maximum(a, b), bins), 1)
                density.append(1 / abs(np.linalg.det(box)))
                yield None
            self._done[f"pairs {unit:08d}"], self._done[f"density {unit:08d}"] = found, np.array(density)
            yield unit

    def product(self) -> dict[str, np.ndarray]:
        """See ``Work``: r [bins] A, and g [S, S, bins], symmetric, NaN where there are no pairs."""
        kept = self.kept()
        if not kept:
            return {}
        names = sorted(name for name in kept if name.startswith("pairs "))
        pairs = np.sum([kept[name] for name in names], axis=0)
        density = np.sum(np.concatenate([kept[name.replace("pairs", "density")] for name in names]))
        atoms = np.bincount(self._of.kind[self._of.unit], minlength=len(self._of.species)).astype(float)
        own = np.bincount(self._of.kind, np.diff(self._of.start) ** 2, len(atoms))
        of_both = np.outer(atoms, atoms)
        np.fill_diagonal(of_both, (atoms**2 - own) / 2)
        edges = np.arange(self._bins + 1) * STEP
        shells = 4 / 3 * np.pi * np.diff(edges**3)
        pairs = pairs + np.transpose(np.triu(np.ones(pairs.shape[:2]), 1)[..., None] * pairs, (1, 0, 2))
        with np.errstate(divide="ignore", invalid="ignore"):
            g = pairs / (of_both[..., None] * shells * density)
        return {"r": (edges[1:] + edges[:-1]) / 2, "g": g}


def _check_range(furthest: float, box: np.ndarray, where: str) -> None:
    if 2 * furthest >= face_distance(box):
        raise InputError(
            f"{where}: opposite faces of the box are {face_distance(box):g} A apart, the distributions that cut-offs"
            f" are read from go to {furthest:g} A",
            remedy="set rdf_range below half the box, or give the cut-offs as numbers",
        )


# ---- on root, of all blocks ----------------------------------------------------------------------------------------


def blocks_of(arrays: Mapping[str, np.ndarray], name: str) -> list[np.ndarray]:
    """The arrays of this name of all blocks, in their order."""
    return [arrays[key] for key in sorted(key for key in arrays if key.rpartition(" ")[0] == name)]
