"""Structures of predicted compositions, grown one atom at a time from the nodes of an observed structure.

Nodes first, each at the node bond from an earlier one; then the other species, those that bridge first: at a bond from
both ends of an edge between nodes, or at a bond from one node. Of a set of fixed directions the cheapest is taken.

The result is the same, to 1e-7 A, for a library that differs by 1e-8 A: costs that agree to COST_TIE are equal and the
first of them is taken, directions are fixed in space or tied to bonds, and no choice rests on a vector that may vanish.
No pair comes closer than 0.9 of the closest one of its species in the library, unless there is no room at all.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from hpcfit.kinds.clusters.composition import Structure
from hpcfit.kinds.clusters.geometry import (
    Geometry,
    Quartiles,
    cutoffs_between,
    pair_of,
    role_of,
    scaffold,
    sites,
)
from hpcfit.kinds.clusters.library import Library

COST_TIE = 1e-3  # of costs, which are about degrees
LENGTH_TIE = 1e-4  # A
DIRECTIONS, AZIMUTHS = 192, 12
LEAST_NODE_DISTANCE = 0.75  # of the node bond
CLOSEST, UNSEEN = 0.9, 0.65  # of the closest distance of a pair in the library; of its contact where it has none
Bridging = Literal["connect", "median"]
SIGMA_OF_QUARTILES = 1.349  # interquartile range of a Gaussian, in standard deviations


class Terms(NamedTuple):
    """Factors of the terms of a cost, 0 to leave one out: bond lengths, angles at nodes, contacts that are too short,
    coordination among others than nodes, collisions, and growth outwards."""

    length: float = 1.0
    angle: float = 1.0
    contact: float = 1.0
    coordination: float = 1.0
    collision: float = 1.0
    outward: float = 1.0


class Placed(NamedTuple):
    """A grown structure. seed: how many of its first atoms are nodes of the source, unmoved; edges: bound nodes;
    bound_to: the nodes of each other site; crowded: pairs of sites that are closer than they may be."""

    structure: Structure
    seed: int
    edges: list[tuple[int, int]]
    bound_to: dict[int, list[int]]
    crowded: list[tuple[int, int]]


def place(
    counts: Mapping[str, int],
    source: Structure,
    geometry: Geometry,
    *,
    molecules: Mapping[str, Structure] | None = None,
    terms: Terms | None = None,
    bridging: Bridging = "connect",
    random: np.random.Generator | None = None,
) -> Placed:
    """A structure of this composition, grown from the nodes of ``source``.

    molecules: the atoms of each species that is none itself, as ``molecules_in`` has them; random: draws lengths and
    angles from the learned quartiles and turns the directions, None for medians; bridging: "median": a species joins
    two nodes where its median one does, as in SAXSShell; "connect": a linker does too while the nodes are in pieces.
    No radius is imposed at the end.
    """
    growth = _Growth(geometry, terms or Terms(), bridging, random)
    growth.seed(counts, source)
    n_seed = len(growth.species)
    growth.edges = scaffold(cdist(growth.x, growth.x), cutoffs_between(growth.species, geometry.cutoffs))
    left = Counter({species: count for species, count in counts.items() if geometry.roles.of(species) == "node"})
    left.subtract(growth.species)
    for species in sorted(left):
        for _ in range(left[species]):
            growth.add_node(species)
    for species in order_of_growth(counts, geometry):
        growth.add_other(species)
    crowded = [(i, j) for i, j in growth.crowded() if j >= n_seed]  # pairs of the seed are as they were observed
    return Placed(growth.structure(molecules or {}), n_seed, growth.edges, growth.bound_to, crowded)


def conformer(
    counts: Mapping[str, int],
    sources: Sequence[Structure],
    geometry: Geometry,
    number: int,
    seed: int,
    *,
    molecules: Mapping[str, Structure] | None = None,
    terms: Terms | None = None,
    bridging: Bridging = "connect",
) -> Placed:
    """A structure of a composition, with source, lengths and angles drawn; seed and number alone decide the draw."""
    name = zlib.crc32(repr(sorted(counts.items())).encode())
    random = np.random.default_rng([seed, name, number])
    source = sources[random.integers(len(sources))]
    options = {"molecules": molecules, "terms": terms, "bridging": bridging}
    return place(counts, source, geometry, random=random, **options)


def order_of_growth(counts: Mapping[str, int], geometry: Geometry) -> list[str]:
    """The species that are no nodes, each as often as it is there: bound to more nodes first, then linkers before
    shells, then by the alphabet."""
    roles = geometry.roles

    def place_of(species: str) -> tuple[float, bool, str]:
        return -_nodes_of(species, geometry), role_of(species, roles) != "linker", species

    others = sorted((species for species in counts if roles.of(species) != "node"), key=place_of)
    return [species for species in others for _ in range(counts[species])]


def molecules_in(library: Library) -> dict[str, Structure]:
    """One molecule of each species that has several atoms, its positions from the atom that stands for it, A; from the
    first structure that has the species."""
    found: dict[str, Structure] = {}
    for ensemble in library.ensembles.values():
        for one in ensemble.structures:
            for species in sorted(set(one.species) - set(one.elements) - set(found)):
                if library.roles.of(species):
                    found[species] = _first_molecule(one, species, library)
    return found


class _Growth:
    """Sites that are placed so far: species, x [n, 3] A, the bonds between nodes, the nodes of others."""

    def __init__(self, geometry: Geometry, terms: Terms, bridging: Bridging, random: np.random.Generator | None):
        self.geometry, self.terms, self.bridging, self.random = geometry, terms, bridging, random
        self.species: list[str] = []
        self.x = np.zeros((0, 3))
        self.edges: list[tuple[int, int]] = []
        self.bound_to: dict[int, list[int]] = {}
        self.directions = _sphere(DIRECTIONS)
        if random is not None:
            self.directions = Rotation.random(rng=random).apply(self.directions)

    def seed(self, counts: Mapping[str, int], source: Structure) -> None:
        """The nodes of the source, as many as are needed; or a single one at the origin."""
        roles = self.geometry.roles
        left = Counter({species: count for species, count in counts.items() if roles.of(species) == "node"})
        for row in sites(source, roles):
            if left[source.species[row]] > 0:
                left[source.species[row]] -= 1
                self._add(source.species[row], source.positions[row])
        if not self.species:
            self._add(min(left), np.zeros(3))

    def add_node(self, species: str) -> None:
        """A node at a node bond from one that is there: away from others, at the learned angle, outwards."""
        x, anchors, cost = [], [], []
        bond = self._drawn(self.geometry.node_bond)
        for anchor in range(len(self.x)):
            neighbours = self._neighbours(anchor)
            here = self.x[anchor] + bond * self._directions_at(anchor, neighbours, "node")
            d = cdist(here, self.x)
            penalty = 500 * _below(d, 0.75 * bond) + 60 * _below(d, 0.95 * bond) * (d >= 0.75 * bond)
            cost.append(
                self.terms.collision * penalty.sum(axis=1)
                + self.terms.angle * self._angles(here, anchor, neighbours, "node")
                - self.terms.outward * 8 * self._outward(here, anchor)
            )
            x.append(here)
            anchors += [anchor] * len(here)
        chosen = self._chosen(species, np.concatenate(x), np.concatenate(cost))
        chosen = chosen if chosen is not None else self._roomiest(species, np.concatenate(x))
        self.edges.append((anchors[chosen], len(self.x)))
        self._add(species, np.concatenate(x)[chosen])

    def add_other(self, species: str) -> None:
        """A linker or shell: between two nodes where it bridges and there is room, or at one node."""
        edges, bond = self.edges, self._drawn(self.geometry.bond_of(species))
        if round(_nodes_of(species, self.geometry)) < 2:
            joins = self.bridging == "connect" and self.geometry.roles.of(species) == "linker"
            piece, x = self._pieces(), self.x
            edges = [(i, j) for i, j in edges if joins and piece[i] != piece[j]]
            edges = [(i, j) for i, j in edges if np.linalg.norm(x[i] - x[j]) <= 2 * bond]
        if not self._bridge(species, bond, edges):
            self._terminal(species, bond)

    def _pieces(self) -> np.ndarray:
        """The piece of each node, of those that are joined by other species or within a cutoff of each other."""
        nodes = self._nodes()
        d = cdist(self.x[:nodes], self.x[:nodes])
        near = np.argwhere(d <= cutoffs_between(self.species[:nodes], self.geometry.cutoffs))
        joined = [(of[0], other) for of in self.bound_to.values() for other in of]
        i, j = np.array([*map(tuple, near), *joined, (0, 0)]).T
        return connected_components(coo_array((np.ones(len(i)), (i, j)), shape=(nodes, nodes)), directed=False)[1]

    def _bridge(self, species: str, bond: float, edges: Sequence[tuple[int, int]]) -> bool:
        """At a bond from both ends of the edge that lacks most. Where there is no room, nothing is placed."""
        missing = self._missing(role_of(species, self.geometry.roles))
        assigned = Counter(tuple(sorted(nodes)) for nodes in self.bound_to.values() if len(nodes) == 2)
        centre = self.x[: self._nodes()].mean(axis=0)
        far = [np.linalg.norm(self.x[list(edge)].mean(axis=0) - centre) for edge in edges]
        order = _ordered([(-missing[i] - missing[j], assigned[i, j]) for i, j in edges], far)
        for i, j in (edges[number] for number in order):
            axis = self.x[j] - self.x[i]
            half = np.linalg.norm(axis) / 2
            height = np.sqrt(max(bond, half) ** 2 - half**2)
            here = (self.x[i] + self.x[j]) / 2 + height * self._cone(axis, 90.0)
            d = cdist(here, self.x)
            cost = 4 * self.terms.length * np.abs(d[:, [i, j]] - bond).sum(axis=1) + self._penalty(species, d)
            others = np.delete(d, [i, j], axis=1)
            cost -= 3 * self.terms.collision * (others.min(axis=1) if others.size else 0.0)
            chosen = self._chosen(species, here, cost)
            if chosen is not None:
                self.bound_to[len(self.x)] = [i, j]
                self._add(species, here[chosen])
                return True
        return False

    def _terminal(self, species: str, bond: float) -> None:
        """At a bond from the node that lacks most; from the next one where there is no room."""
        geometry, role = self.geometry, role_of(species, self.geometry.roles)
        missing = self._missing(role)
        nodes = self._nodes()
        centre = self.x[:nodes].mean(axis=0)
        order = _ordered([(-missing[k],) for k in range(nodes)], np.linalg.norm(self.x[:nodes] - centre, axis=1))
        tried = []
        for node in order:
            neighbours = self._neighbours(node)
            here = self.x[node] + bond * self._directions_at(node, neighbours, role)
            d = cdist(here, self.x)
            contact = np.array([geometry.contact(species, other) for other in self.species])
            contact[node] = 0.0
            collision = 500 * _below(d, 0.7 * contact) + 40 * _below(d, 0.95 * contact) * (d >= 0.7 * contact)
            cost = (
                self.terms.collision * collision.sum(axis=1)
                + self.terms.angle * self._angles(here, node, neighbours, role)
                + self._penalty(species, d)
                - self.terms.outward * 8 * self._outward(here, node)
            )
            chosen = self._chosen(species, here, cost)
            tried.append(here)
            if chosen is not None:
                break
        else:
            number = self._roomiest(species, np.concatenate(tried))
            sizes = np.cumsum([len(one) for one in tried])
            node = order[int(np.searchsorted(sizes, number, side="right"))]
            here, chosen = np.concatenate(tried), number
        self.bound_to[len(self.x)] = [node]
        self._add(species, here[chosen])

    def _penalty(self, species: str, d: np.ndarray) -> np.ndarray:
        """The cost [P] of contacts and coordination among others than nodes at distances d [P, n] of P positions.

        Short contacts 220 (max(0.65 c, 0.45) - d)²; 12 for each missing and 10 for each needless neighbour, 8 |d - c|
        of each; a neighbour that still lacks this role takes 6 off, one that has enough adds 6.
        """
        geometry, role = self.geometry, role_of(species, self.geometry.roles)
        contact = np.array([geometry.contact(species, other) for other in self.species])
        short = 220 * self.terms.contact * _below(d, np.maximum(0.65 * contact, 0.45)).sum(axis=1)
        kinds = np.array([role_of(other, geometry.roles) for other in self.species])
        touching = d <= np.array([geometry.reach(species, other) for other in self.species])
        between, coordination = self._touching(), np.zeros(len(d))
        for kind in ("linker", "shell"):
            there = kinds == kind
            if (role, kind) not in geometry.coordination:
                continue
            wanted = round(geometry.coordination[role, kind].median)
            found = (touching & there).sum(axis=1)
            coordination += 12 * np.maximum(wanted - found, 0) + 10 * np.maximum(found - wanted, 0)
            coordination += 8 * np.sum(np.abs(d - contact) * (touching & there), axis=1)
            back = geometry.coordination.get((kind, role))
            enough = between[:, kinds == role].sum(axis=1) >= (round(back.median) if back else 0)
            coordination += 6 * np.sum(np.where(enough, 1, -1) * (touching & there), axis=1)
        return short + self.terms.coordination * coordination

    def _touching(self) -> np.ndarray:
        """Whether two sites that are there touch, [n, n]."""
        reach = np.array([[self.geometry.reach(a, b) for b in self.species] for a in self.species])
        return (cdist(self.x, self.x) <= reach) & ~np.eye(len(self.x), dtype=bool)

    def _missing(self, role: str) -> np.ndarray:
        """By how many neighbours of this role each node is short of its median; negative where it has more."""
        wanted = self.geometry.node_coordination.get(role, Quartiles.single(0.0)).median
        roles = self.geometry.roles
        bound = Counter(
            node for k, nodes in self.bound_to.items() if role_of(self.species[k], roles) == role for node in nodes
        )
        return np.array([wanted - bound[node] for node in range(self._nodes())])

    def _angles(self, here: np.ndarray, node: int, neighbours: Sequence[int], role: str) -> np.ndarray:
        """Σ |angle - learned angle| at a node between positions [P, 3] and its neighbours, degrees."""
        total, u = np.zeros(len(here)), _unit(here - self.x[node])
        for other in neighbours:
            v = _unit(self.x[other] - self.x[node])
            # atan2 keeps the angle exact near 180 degrees
            angle = 2 * np.degrees(np.arctan2(np.linalg.norm(u - v, axis=1), np.linalg.norm(u + v, axis=1)))
            learned = self.geometry.angle(role, role_of(self.species[other], self.geometry.roles)).median
            total += np.abs(angle - learned)
        return total

    def _outward(self, here: np.ndarray, node: int) -> np.ndarray:
        """The cosine [P] to the way out of the nodes; it vanishes where that way does."""
        way = self.x[node] - self.x[: self._nodes()].mean(axis=0)
        return _unit(here - self.x[node]) @ way / (np.linalg.norm(way) + 0.1)

    def _directions_at(self, node: int, neighbours: Sequence[int], role: str) -> np.ndarray:
        """Directions to try at a node [P, 3]: cones at the learned angle about its neighbours, then all others."""
        cones = []
        for other in neighbours:
            learned = self.geometry.angle(role, role_of(self.species[other], self.geometry.roles))
            cones.append(self._cone(self.x[other] - self.x[node], np.clip(self._drawn(learned), 0.0, 180.0)))
        return np.concatenate([*cones, self.directions])

    def _cone(self, axis: np.ndarray, angle: float) -> np.ndarray:
        """Unit vectors at an angle (degrees) to an axis, [AZIMUTHS, 3]."""
        u = _unit(axis)
        across = np.array([0.36, 0.48, 0.8])  # a fixed vector that no bond is likely to lie along
        if abs(u @ across) > 0.93:
            across = np.array([0.8, -0.6, 0.0])
        p = _unit(np.cross(u, across))
        offset = self.random.uniform(0, 2 * np.pi) if self.random is not None else 0.0
        phi = offset + 2 * np.pi * np.arange(AZIMUTHS)[:, None] / AZIMUTHS
        theta = np.radians(angle)
        return np.cos(theta) * u + np.sin(theta) * (np.cos(phi) * p + np.sin(phi) * np.cross(u, p))

    def _neighbours(self, node: int) -> list[int]:
        nodes = [i + j - node for i, j in self.edges if node in (i, j)]
        return nodes + [k for k, of in self.bound_to.items() if node in of]

    def _nodes(self) -> int:
        """Nodes stand first."""
        return len(self.x) - len(self.bound_to)

    def _least(self, species: str) -> np.ndarray:
        """The least distance to each site that is there, [n] A."""
        return np.array([least_distance(species, other, self.geometry) for other in self.species])

    def _chosen(self, species: str, here: np.ndarray, cost: np.ndarray) -> int | None:
        """The first of the cheapest positions with room, None where no position has room."""
        room = np.all(cdist(here, self.x) >= self._least(species) - LENGTH_TIE, axis=1)
        if not room.any():
            return None
        cost = np.where(room, cost, np.inf)
        return int(np.flatnonzero(cost <= cost.min() + COST_TIE)[0])

    def _roomiest(self, species: str, here: np.ndarray) -> int:
        room = (cdist(here, self.x) / self._least(species)).min(axis=1)
        return int(np.flatnonzero(room >= room.max() - LENGTH_TIE)[0])

    def _drawn(self, learned: Quartiles) -> float:
        """The median, or a draw about it with the width of the quartiles, at most two standard deviations away."""
        if self.random is None:
            return learned.median
        step = np.clip(self.random.standard_normal(), -2, 2)
        return learned.median + step * (learned.high - learned.low) / SIGMA_OF_QUARTILES

    def _add(self, species: str, position: np.ndarray) -> None:
        self.species.append(species)
        self.x = np.vstack([self.x, position])

    def crowded(self) -> list[tuple[int, int]]:
        """The pairs of sites that are closer than they may be."""
        d = cdist(self.x, self.x)
        least = np.array([self._least(one) for one in self.species])
        return [(int(i), int(j)) for i, j in np.argwhere(np.triu(d < least - 2 * LENGTH_TIE, 1))]

    def structure(self, molecules: Mapping[str, Structure]) -> Structure:
        """The sites as atoms; a molecule is turned, among 24 ways, to where it has most room."""
        species, elements, x = [], [], self.x
        parts = []
        for number, name in enumerate(self.species):
            one = molecules.get(name)
            if one is None:
                parts.append(self.x[number : number + 1])
                species, elements = [*species, name], [*elements, name]
                continue
            others = np.vstack([np.delete(x, number, axis=0), *parts])
            ways = [turn.apply(one.positions) + self.x[number] for turn in Rotation.create_group("O")]
            room = np.array([cdist(way, others).min() if len(others) else 0.0 for way in ways])
            parts.append(ways[int(np.flatnonzero(room >= room.max() - LENGTH_TIE)[0])])
            species, elements = [*species, *one.species], [*elements, *one.elements]
        return Structure(tuple(species), tuple(elements), np.vstack(parts))


def least_distance(a: str, b: str, geometry: Geometry) -> float:
    """The least distance that two species may have, A: nodes 0.75 of their bond; others 0.9 of the closest in the
    library, or where the library has no such pair 0.65 of their contact."""
    if geometry.roles.of(a) == geometry.roles.of(b) == "node":
        return LEAST_NODE_DISTANCE * geometry.node_bond.median
    closest = geometry.closest.get(pair_of(a, b))
    return CLOSEST * closest if closest is not None else UNSEEN * geometry.contact(a, b)


def _nodes_of(species: str, geometry: Geometry) -> float:
    return geometry.nodes_of.get(species, Quartiles.single(1.0)).median


def _ordered(keys: Sequence[tuple], far: Sequence[float]) -> list[int]:
    """Numbers by rising keys, then by falling distance, which ties to LENGTH_TIE, then as they come."""
    steps = np.round(np.asarray(far, float) / LENGTH_TIE)
    return sorted(range(len(keys)), key=lambda k: (*keys[k], -steps[k], k))


def _below(d: np.ndarray, limit: np.ndarray | float) -> np.ndarray:
    """(limit - d)² where d is below its limit, 0 elsewhere."""
    return np.maximum(limit - d, 0.0) ** 2


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _sphere(n: int) -> np.ndarray:
    """n directions, evenly over the sphere by the golden angle, [n, 3]."""
    z = 1 - (2 * np.arange(n) + 1) / n
    phi = np.arange(n) * np.pi * (3 - np.sqrt(5))
    r = np.sqrt(1 - z**2)
    return np.column_stack([r * np.cos(phi), r * np.sin(phi), z])


def _first_molecule(one: Structure, species: str, library: Library) -> Structure:
    """The atoms of a species that are nearest to its first anchor, of each element its share."""
    anchors = [row for row in sites(one, library.roles) if one.species[row] == species]
    of_element: dict[str, list[int]] = {}
    away = np.linalg.norm(one.positions - one.positions[anchors[0]], axis=1)
    for row in np.argsort(away, kind="stable"):
        if one.species[row] == species:
            of_element.setdefault(one.elements[row], []).append(int(row))
    rows = [row for found in of_element.values() for row in found[: len(found) // len(anchors)]]
    rows = sorted(rows, key=lambda row: (row != anchors[0], row))
    elements = tuple(one.elements[row] for row in rows)
    return Structure((species,) * len(rows), elements, one.positions[rows] - one.positions[anchors[0]])
