"""Bonds, contacts, angles and coordination of the structures of a library, as quartiles.

A molecule counts as one site, the atom of its rarest element. A pair of species is in the order of the alphabet.
Species without a role count as shells, as SAXSShell has it. Lengths in A, angles in degrees.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial.distance import cdist

from hpcfit.kinds.clusters.composition import Roles, Structure
from hpcfit.kinds.clusters.library import Library

Pair = tuple[str, str]
Cutoffs = Mapping[Pair, float]
BOND_REACH = 1.15  # of a cutoff: atoms that bind, beyond the cutoff of clusters
DEFAULT_BOND = 3.0  # A, between nodes where no cutoff tells


class Quartiles(NamedTuple):
    """The lower quartile, median and upper quartile of n values."""

    low: float
    median: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Quartiles:
        """The quartiles of at least one value."""
        low, _, high = np.quantile(values, [0.25, 0.5, 0.75])
        return cls(float(low), float(np.median(values)), float(high), len(values))

    @classmethod
    def single(cls, value: float) -> Quartiles:
        """A default, of no values."""
        return cls(value, value, value, 0)


class Geometry(NamedTuple):
    """Quartiles of a library. node_bond: between bound nodes; bonds: by species of the pair; contacts: by species, and
    role_contacts: by roles, of all pairs that touch; closest: the smallest distance of each pair of species; angles: at
    nodes by roles of the two neighbours; node_coordination: bound neighbours of a node by role; nodes_of: nodes that a
    species is bound to; coordination: atoms of the second role that touch one of the first."""

    roles: Roles
    cutoffs: dict[Pair, float]
    node_bond: Quartiles
    bonds: dict[Pair, Quartiles]
    contacts: dict[Pair, Quartiles]
    role_contacts: dict[Pair, Quartiles]
    closest: dict[Pair, float]
    angles: dict[Pair, Quartiles]
    node_coordination: dict[str, Quartiles]
    nodes_of: dict[str, Quartiles]
    coordination: dict[Pair, Quartiles]

    def bond_of(self, species: str) -> Quartiles:
        """The bond of a species to nodes: of nodes the node bond; of several kinds of nodes the median one."""
        if self.roles.of(species) == "node":
            return self.node_bond
        found = [self.bonds[pair_of(species, n)] for n in self.roles.node if pair_of(species, n) in self.bonds]
        if not found:
            known = [self.cutoffs[pair_of(species, n)] for n in self.roles.node if pair_of(species, n) in self.cutoffs]
            return Quartiles.single(float(np.median(known)) if known else self.node_bond.median)
        return Quartiles(*map(float, np.median([one[:3] for one in found], axis=0)), sum(one.n for one in found))

    def contact(self, a: str, b: str) -> float:
        """The distance at which two species touch: the median contact, or else bond, contact of their roles, cutoff,
        node bond."""
        pair, roles = pair_of(a, b), pair_of(role_of(a, self.roles), role_of(b, self.roles))
        for known, key in ((self.contacts, pair), (self.bonds, pair), (self.role_contacts, roles)):
            if key in known:
                return known[key].median
        return self.cutoffs.get(pair, self.node_bond.median)

    def reach(self, a: str, b: str) -> float:
        """The largest distance of a contact of two species."""
        return contact_reach(self.contact(a, b), self.cutoffs.get(pair_of(a, b), self.node_bond.median))

    def angle(self, a: str, b: str) -> Quartiles:
        """The angle at a node between neighbours of these roles; 180 between nodes and 120 else where none was seen."""
        return self.angles.get(pair_of(a, b)) or Quartiles.single(180.0 if a == b == "node" else 120.0)


def pair_of(a: str, b: str) -> Pair:
    """Two names in the order of the alphabet."""
    return (a, b) if a <= b else (b, a)


def role_of(species: str, roles: Roles) -> str:
    """The role of a species, "shell" where it has none."""
    return roles.of(species) or "shell"


def contact_reach(median: float, fallback: float) -> float:
    """min(1.25 d + 0.15, 1.40 d_fallback + 0.20), A."""
    return min(1.25 * median + 0.15, 1.40 * fallback + 0.20)


def sites(structure: Structure, roles: Roles) -> np.ndarray:
    """The numbers of the atoms that stand for a species each: every atom of an element, of a molecule with a role the
    atoms of its rarest element."""
    anchor = {}
    for species in {one for one in structure.species if roles.of(one)}:
        atoms = Counter(e for s, e in zip(structure.species, structure.elements) if s == species)
        anchor[species] = min(atoms, key=lambda element: (atoms[element], element))
    return np.array(
        [k for k, (s, e) in enumerate(zip(structure.species, structure.elements)) if anchor.get(s, e) == e], int
    )


def scaffold(distance: np.ndarray, cutoff: np.ndarray) -> list[tuple[int, int]]:
    """The bonds between nodes: pairs within 1.15 cutoffs, and the shortest others that connect all.

    distance: [n, n] A; cutoff: [n, n], NaN where there is none.
    """
    n = len(distance)
    if n < 2:
        return []
    bound = np.triu(distance <= BOND_REACH * cutoff, 1)
    # edges that are there cost least; of the others the tree takes the shortest, of equals the first, noise or not
    cost = np.where(bound | bound.T, 1e-3, 1.0 + np.round(distance, 5) + 1e-9 * np.arange(n * n).reshape(n, n))
    tree = minimum_spanning_tree(np.triu(cost, 1)).toarray() > 0
    joined = connected_components(bound)[1]
    tree &= joined[:, None] != joined[None, :]
    return [(int(i), int(j)) for i, j in np.argwhere(bound | tree)]


def cutoffs_between(species: Sequence[str], cutoffs: Cutoffs) -> np.ndarray:
    """The cutoffs of all pairs of these species [n, n], NaN where there is none."""
    known = {pair_of(*pair): value for pair, value in cutoffs.items()}
    names = sorted(set(species))
    small = np.array([[known.get(pair_of(a, b), np.nan) for b in names] for a in names]).reshape(len(names), -1)
    number = np.array([names.index(one) for one in species], int)
    return small[np.ix_(number, number)]


class Bonds(NamedTuple):
    """Sites of a structure. rows: their atoms; species, kinds (roles): [n]; distance: [n, n]; edges: between nodes;
    attached: the nodes that each other site is bound to."""

    rows: np.ndarray
    species: list[str]
    kinds: list[str]
    distance: np.ndarray
    edges: list[tuple[int, int]]
    attached: dict[int, list[int]]


def bonds_in(structure: Structure, roles: Roles, cutoffs: Cutoffs) -> Bonds:
    """The bonds of a structure. A site that is no node is bound to all nodes within 1.15 cutoffs, or to the nearest."""
    rows = sites(structure, roles)
    species = [structure.species[row] for row in rows]
    kinds = [role_of(one, roles) for one in species]
    distance = cdist(structure.positions[rows], structure.positions[rows])
    cutoff = cutoffs_between(species, cutoffs)
    nodes = np.flatnonzero([kind == "node" for kind in kinds])
    among = np.ix_(nodes, nodes)
    edges = [(int(nodes[i]), int(nodes[j])) for i, j in scaffold(distance[among], cutoff[among])]
    attached = {}
    for site in (k for k, kind in enumerate(kinds) if kind != "node" and len(nodes)):
        near = nodes[distance[site, nodes] <= BOND_REACH * cutoff[site, nodes]]
        found = near if len(near) else nodes[[int(np.argmin(distance[site, nodes]))]]
        attached[site] = [int(node) for node in found]
    return Bonds(rows, species, kinds, distance, edges, attached)


def first_shell(structure: Structure, roles: Roles, cutoffs: Cutoffs) -> np.ndarray:
    """The pairs of atoms within 1.15 cutoffs, and the bonds between nodes: [p, 2], the smaller number first."""
    distance = cdist(structure.positions, structure.positions)
    near = np.triu(distance <= BOND_REACH * cutoffs_between(structure.species, cutoffs), 1)
    bonds = bonds_in(structure, roles, cutoffs)
    for i, j in bonds.edges:
        near[bonds.rows[i], bonds.rows[j]] = True
    return np.argwhere(near)


def first_shell_pairs(structure: Structure, roles: Roles, cutoffs: Cutoffs) -> np.ndarray:
    """True for the pairs of atoms of a first shell, [n, n]; see ``first_shell``."""
    among = np.zeros((len(structure.elements),) * 2, bool)
    i, j = first_shell(structure, roles, cutoffs).T
    among[i, j] = among[j, i] = True
    return among



def geometry_of(library: Library, cutoffs: Cutoffs) -> Geometry:
    """The geometry of all structures of a library that have a node; cutoffs: A by pair of species, in any order."""
    roles, cutoffs = library.roles, {pair_of(*pair): float(value) for pair, value in cutoffs.items()}
    everything = [one for ensemble in library.ensembles.values() for one in ensemble.structures]
    with_nodes = [one for one in everything if any(roles.of(species) == "node" for species in one.species)]
    found = [bonds_in(one, roles, cutoffs) for one in with_nodes]
    tracked = sorted({"node"} | ({"linker"} if roles.linker else set()) | ({"shell"} if roles.shell else set()))
    node_bonds, bonds, angles, node_coordination, nodes_of = _bound(with_nodes, found, tracked)
    default = _default_node_bond(roles, cutoffs)
    contacts, role_contacts, coordination, closest = _touching(found, tracked, cutoffs, default)
    return Geometry(
        *(roles, cutoffs, Quartiles.of(node_bonds) if node_bonds else Quartiles.single(default)),
        *(_quartiles(bonds), _quartiles(contacts), _quartiles(role_contacts), closest),
        *(_quartiles(angles), _quartiles(node_coordination), _quartiles(nodes_of), _quartiles(coordination)),
    )


def _bound(structures: Sequence[Structure], found: Sequence[Bonds], tracked: Sequence[str]) -> tuple:
    """Values of what is bound: lengths between nodes; lengths by species; angles at nodes by roles; bound neighbours of
    nodes by role; nodes of other species."""
    node_bonds, lengths, angles = [], defaultdict(list), defaultdict(list)
    node_coordination, nodes_of = defaultdict(list), defaultdict(list)
    for one, bonds in zip(structures, found):
        x, neighbours = one.positions[bonds.rows], defaultdict(list)
        for i, j in [*bonds.edges, *((site, node) for site, nodes in bonds.attached.items() for node in nodes)]:
            neighbours[i].append(j)
            neighbours[j].append(i)
            lengths[pair_of(bonds.species[i], bonds.species[j])].append(bonds.distance[i, j])
        node_bonds += [bonds.distance[edge] for edge in bonds.edges]
        for site, nodes in bonds.attached.items():
            nodes_of[bonds.species[site]].append(len(nodes))
        for node in (k for k, kind in enumerate(bonds.kinds) if kind == "node"):
            there = Counter(bonds.kinds[k] for k in neighbours[node])
            for kind in {*tracked, *there}:
                node_coordination[kind].append(there[kind])
            for a, b in combinations(neighbours[node], 2):
                kinds = pair_of(bonds.kinds[a], bonds.kinds[b])
                angles[kinds].append(angle_between(x[a] - x[node], x[b] - x[node]))
    return node_bonds, lengths, angles, node_coordination, nodes_of


def _touching(found: Sequence[Bonds], tracked: Sequence[str], cutoffs: Cutoffs, default: float) -> tuple:
    """Values of what touches: distances by species, and by roles; touching sites by both roles; the smallest distance
    of each pair of species. A contact reaches as far as the median nearest distance of its species tells."""
    nearest, closest = defaultdict(list), {}
    for bonds in found:
        for site, distances in enumerate(bonds.distance):
            by_pair = defaultdict(list)
            for other in (k for k in range(len(distances)) if k != site):
                by_pair[pair_of(bonds.species[site], bonds.species[other])].append(float(distances[other]))
            for pair, values in by_pair.items():
                nearest[pair].append(min(values))
                closest[pair] = min(closest.get(pair, np.inf), *values)
    reach = {p: contact_reach(float(np.median(values)), cutoffs.get(p, default)) for p, values in nearest.items()}
    contacts, role_contacts, coordination = defaultdict(list), defaultdict(list), defaultdict(list)
    for bonds in found:
        touching = [Counter() for _ in bonds.species]
        for i, j in combinations(range(len(bonds.species)), 2):
            pair, d = pair_of(bonds.species[i], bonds.species[j]), bonds.distance[i, j]
            if d <= reach[pair]:
                contacts[pair].append(d)
                role_contacts[pair_of(bonds.kinds[i], bonds.kinds[j])].append(d)
                touching[i][bonds.kinds[j]] += 1
                touching[j][bonds.kinds[i]] += 1
        for kind, there in zip(bonds.kinds, touching):
            for other in tracked:
                coordination[kind, other].append(there[other])
    return contacts, role_contacts, coordination, dict(sorted(closest.items()))


def angle_between(u: np.ndarray, v: np.ndarray) -> float:
    """The angle of two vectors, degrees."""
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(u, v)), u @ v)))


def _default_node_bond(roles: Roles, cutoffs: Cutoffs) -> float:
    """The median cutoff between nodes, or else twice that between a node and another, or else 3 A."""
    nodes = [sum(roles.of(one) == "node" for one in pair) for pair in cutoffs]
    for of_pair, factor in ((2, 1.0), (1, 2.0)):
        known = [factor * value for n, value in zip(nodes, cutoffs.values()) if n == of_pair]
        if known:
            return float(np.median(known))
    return DEFAULT_BOND


def _quartiles(values: Mapping) -> dict:
    return {key: Quartiles.of(values[key]) for key in sorted(values)}
