"""The clusters of one frame: connected components of nodes and linkers, with the shells around them, unwrapped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from hpcfit.errors import InputError
from hpcfit.kinds.clusters.composition import Structure
from hpcfit.kinds.clusters.extraction.cutoffs import Cutoffs
from hpcfit.kinds.clusters.extraction.neighbours import Pairs, minimum_image, pairs_within
from hpcfit.kinds.clusters.extraction.participants import Participants

SAME_PLACE = 0.01  # A: two ways round a cluster that lead further apart than that lead to another image


class FrameClusters(NamedTuple):
    """The C clusters of a frame: those with nodes by their first node, then free linkers.

    cluster, unit, anchor: [m] and [m, 3] A: each membership, with the unwrapped place of the unit's first atom;
    core ones come first, by unit; then shells, which may belong to several clusters. counts: [C, S] units by
    species, shells only where labels have them. spanning: [C] bool, connected to its own image. bonds: [b, 2] units
    of the core and of shells that are bound, each pair once. within: [A, 3] places of atoms from the first of their
    unit, A.
    """

    of: Participants
    cluster: np.ndarray
    unit: np.ndarray
    anchor: np.ndarray
    counts: np.ndarray
    spanning: np.ndarray
    bonds: np.ndarray
    within: np.ndarray
    labelled: bool

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def members(self) -> int:
        """The memberships that labels count, which come first."""
        return len(self.unit) if self.labelled else self.of.core

    def squared_radii(self) -> np.ndarray:
        """Squared radii of gyration [C] over the atoms that labels count, A^2: mean |r - mean r|^2."""
        atom, row = self.of.atoms_of(self.unit[: self.members])
        cluster, n = self.cluster[row], len(self)
        x = self.anchor[row] + self.within[atom]
        atoms = np.bincount(cluster, minlength=n)
        mean = _sums(cluster, x, n) / atoms[:, None]
        return np.bincount(cluster, np.sum((x - mean[cluster]) ** 2, axis=1), n) / atoms

    def structure(self, number: int, source: str = "") -> Structure:
        """A cluster in space, with all its shells; atoms by their numbers in the frame."""
        units = np.flatnonzero(self.cluster == number)
        atom, row = self.of.atoms_of(self.unit[units])
        x = self.anchor[units][row] + self.within[atom]
        order = np.argsort(self.of.particle[atom], kind="stable")
        species = tuple(self.of.species[self.of.kind[self.of.unit[one]]] for one in atom[order])
        return Structure(species, tuple(self.of.elements[one] for one in atom[order]), x[order], source)


@dataclass(frozen=True)
class Finder:
    """Finds the clusters of frames. shared: shells of higher levels may belong to several clusters, else to the first;
    labelled: labels count shells."""

    of: Participants
    cutoffs: Cutoffs
    shared: bool = False
    labelled: bool = False

    def clusters(self, positions: np.ndarray, box: np.ndarray | None, where: str = "a frame") -> FrameClusters:
        """The clusters of a frame. positions: [N, 3] A, of all particles; box: [3, 3] A, None: not periodic."""
        of = self.of
        x = np.asarray(positions, float)[of.particle]
        box = None if box is None else np.asarray(box, float)
        within = minimum_image(x - x[of.start[:-1]][of.unit], box)
        pairs = self._pairs(x, box, where)
        level_0 = pairs.distance <= self.cutoffs.bond[of.kind[of.unit[pairs.i]], of.kind[of.unit[pairs.j]]]
        shell = pairs.j >= of.core_atoms
        bonds = _of_units(of, pairs.chosen(level_0 & ~shell), within)
        cluster, anchor, spanning = _components(of, bonds, x[of.start[:-1]][: of.core])
        near = _of_units(of, pairs.chosen(level_0 & shell), within)
        far = _of_units(of, pairs.chosen(shell & self._within_shell(pairs)), within)
        who, unit, place = self._shells(near, far, cluster, anchor)
        cluster = np.concatenate([cluster, who])
        units = np.concatenate([np.arange(of.core), unit])
        counted = len(units) if self.labelled else of.core
        counts = np.zeros((len(spanning), len(of.species)), np.int64)
        np.add.at(counts, (cluster[:counted], of.kind[units[:counted]]), 1)
        bound = np.concatenate([bonds.units, near.units, far.units])
        return FrameClusters(of, cluster, units, np.concatenate([anchor, place]), counts, spanning,
                             np.unique(bound, axis=0), within, self.labelled)  # fmt: skip

    def _pairs(self, x: np.ndarray, box: np.ndarray | None, where: str) -> Pairs:
        of = self.of
        cutoff, nodes = np.maximum(self.cutoffs.bond, self.cutoffs.shell), len(of.roles.node)
        # Most often every bond has a node: pairs of the others are not to be looked for.
        asking = nodes + (len(of.roles.linker) if cutoff[nodes:, nodes:].any() else 0)
        kind = of.kind[of.unit]
        pairs = pairs_within(x, box, cutoff, kind, kind < asking, where)
        if np.any(same := pairs.distance == 0):
            a, b = (of.particle[ends[np.argmax(same)]] for ends in (pairs.i, pairs.j))
            raise InputError(
                f"{where}: atoms {a} and {b} are at one place ({int(same.sum())} such pairs)",
                remedy="repair the frame in its source; a frame of zeros was perhaps never written",
            )
        return pairs.chosen(of.unit[pairs.i] != of.unit[pairs.j])

    def _within_shell(self, pairs: Pairs) -> np.ndarray:
        of = self.of
        return pairs.distance <= self.cutoffs.shell[of.kind[of.unit[pairs.i]], of.kind[of.unit[pairs.j]]]

    def _shells(
        self, near: _Bonds, far: _Bonds, cluster: np.ndarray, anchor: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cluster, unit and place of each shell. At level 0 it joins the first cluster that it touches; at higher
        levels, around nodes, the first one unless it has been taken, or each one."""
        who, unit, place = _first_touched(near, cluster, anchor)
        if not len(far.units):
            return who, unit, place
        more, which, where = _touched(far, cluster, anchor)
        if self.shared:
            known = {*zip(who.tolist(), unit.tolist())}
            new = np.array([pair not in known for pair in zip(more.tolist(), which.tolist())], bool)
        else:
            new = ~np.isin(which, unit)
            new[new] = np.concatenate([[True], which[new][1:] != which[new][:-1]])[: new.sum()]
        return np.concatenate([who, more[new]]), np.concatenate([unit, which[new]]), np.concatenate([place, where[new]])


class _Bonds(NamedTuple):
    """Bonds between units by all pairs of their atoms. units: [b, 2], the lower number first, sorted, with repetitions;
    vector: [b, 3] from the first atom of one to that of the other."""

    units: np.ndarray
    vector: np.ndarray


def _of_units(of: Participants, pairs: Pairs, within: np.ndarray) -> _Bonds:
    u, v = of.unit[pairs.i], of.unit[pairs.j]
    vector = within[pairs.i] + pairs.vector - within[pairs.j]
    sign = np.where(u < v, 1.0, -1.0)
    low, high = np.minimum(u, v), np.maximum(u, v)
    order = np.lexsort((pairs.j, pairs.i, pairs.distance, high, low))
    return _Bonds(np.stack([low, high], axis=1)[order], (sign[:, None] * vector)[order])


def _components(of: Participants, bonds: _Bonds, start: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cluster [U] and unwrapped place [U, 3] of each core unit, and which clusters are bound to their own image.

    start: [U, 3], where units are; the first unit of a cluster stays there, and the others follow along a breadth-first
    tree.
    """
    n = of.core
    key = bonds.units[:, 0] * n + bonds.units[:, 1]
    once = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])[: len(key)])
    edges, step, key = bonds.units[once], bonds.vector[once], key[once]
    graph = csr_array((np.ones(len(edges), bool), edges.T), (n, n))
    _, label = connected_components(graph, directed=False)
    _, roots = np.unique(label, return_index=True)
    anchor = start.copy()
    if len(edges):
        # One search from a unit beside all others, which is bound to the first one of each cluster.
        ends = np.concatenate([edges.T, np.stack([np.full(len(roots), n), roots])], axis=1)
        whole = csr_array((np.ones(ends.shape[1], bool), ends), (n + 1, n + 1))
        _, before = breadth_first_order(whole, n, directed=False)
        before = before[:n]
        known = before == n
        left = np.flatnonzero(~known)
        while len(left):
            ready = left[known[before[left]]]
            a, b = np.minimum(before[ready], ready), np.maximum(before[ready], ready)
            along = step[np.searchsorted(key, a * n + b)]
            anchor[ready] = anchor[before[ready]] + np.where((before[ready] < ready)[:, None], along, -along)
            known[ready] = True
            left = left[~known[left]]
    rank = _ranked(of, label, roots)
    cluster, spanning = rank[label], np.zeros(len(roots), bool)
    u, v = bonds.units.T
    off = np.abs(anchor[u] + bonds.vector - anchor[v]).max(axis=1, initial=0.0) > SAME_PLACE
    spanning[cluster[u[off]]] = True
    return cluster, anchor, spanning


def _ranked(of: Participants, label: np.ndarray, roots: np.ndarray) -> np.ndarray:
    """The place of each component: those with nodes by their first node, then the others."""
    unit = np.arange(of.core)
    seed = np.full(len(roots), 2 * of.core) + roots
    nodes = of.is_node[: of.core]
    np.minimum.at(seed, label[nodes], unit[nodes])
    rank = np.empty(len(roots), int)
    rank[np.argsort(seed, kind="stable")] = np.arange(len(roots))
    return rank


def _touched(bonds: _Bonds, cluster: np.ndarray, anchor: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cluster, unit and place of shells, once for each cluster that they touch: by unit, then by cluster."""
    core, unit = bonds.units.T
    who, place = cluster[core], anchor[core] + bonds.vector
    order = np.lexsort((np.arange(len(core)), who, unit))
    who, unit, place = who[order], unit[order], place[order]
    once = np.concatenate([[True], (unit[1:] != unit[:-1]) | (who[1:] != who[:-1])])[: len(unit)]
    return who[once], unit[once], place[once]


def _first_touched(bonds: _Bonds, cluster: np.ndarray, anchor: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    who, unit, place = _touched(bonds, cluster, anchor)
    once = np.concatenate([[True], unit[1:] != unit[:-1]])[: len(unit)]
    return who[once], unit[once], place[once]


def _sums(group: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """The sums of values [m, 3] by group, [n, 3]."""
    return np.stack([np.bincount(group, column, n) for column in values.T], axis=1)
