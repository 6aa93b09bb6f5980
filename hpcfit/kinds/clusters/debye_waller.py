"""Widths of pair distances in ensembles of one label, and those of predicted clusters by a ridge for each pair.

σ² is the mean square relative displacement of a pair along one axis, A²; it damps the pair by exp(-q² σ²/2), which is
exp(-B q²/16π²) with B = 8π²σ². Estimators of σ over structures s:

rank: distances of a pair of elements sorted in each structure, aligned by rank up to the smallest number of them,
    σ² = mean over ranks of the variance over structures (SAXSShell). Sorting takes width away: six equivalent pairs
    give 0.56 σ, and where numbers differ the longest distances are dropped.
identity: the same pair of atoms in all structures of a group, that is of the same atoms in the same order.
pooled: all distances of a pair of elements about one mean: right for equivalent pairs, too wide for others.

Moments merge over ranks of a run (Chan, Golub & LeVeque 1983, 10.1080/00031305.1983.10483115).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.spatial.distance import pdist

from hpcfit.errors import InputError
from hpcfit.kinds.clusters.composition import Roles, Structure
from hpcfit.kinds.clusters.geometry import Cutoffs, Pair, first_shell, pair_of
from hpcfit.kinds.clusters.library import Ensemble, Library
from hpcfit.kinds.clusters.prediction.ridge import Regression, Scaling, Target, fit_ridge
from hpcfit.kinds.clusters.prediction.rows import Row, Weighting, features, others_in
from hpcfit.kinds.clusters.prediction.shares import Predicted

Pairs = Literal["all", "first_shell"]
Estimator = Literal["rank", "identity", "pooled"]


class Moments(NamedTuple):
    """Distances of a pair of elements at K positions (ranks, pairs of atoms, or one for all).

    n, mean, m2: [K], of distances: their number, mean (A) and sum of squares about it (A²); fewest: the smallest number
    of positions that a structure has; structures: how many there are.
    """

    n: np.ndarray
    mean: np.ndarray
    m2: np.ndarray
    fewest: int
    structures: int

    @classmethod
    def of(cls, distances: Sequence[np.ndarray], fewest: int | None = None) -> Moments:
        """The moments of structures with distances [k] A, position by position, NaN where a structure has none. fewest:
        the positions of the smallest by default, 0 where positions have names and none is cut."""
        K = max(map(len, distances))
        values = np.array([np.pad(one, (0, K - len(one)), constant_values=np.nan) for one in distances])
        there = ~np.isnan(values)
        n = there.sum(axis=0).astype(float)
        mean = np.where(there, values, 0).sum(axis=0) / np.maximum(n, 1)
        m2 = (np.where(there, values - mean, 0) ** 2).sum(axis=0)
        return cls(n, mean, m2, min(map(len, distances)) if fewest is None else fewest, len(distances))

    @classmethod
    def pooled(cls, distances: Sequence[np.ndarray]) -> Moments:
        """The moments of structures with distances [k] A, all at one position."""
        return cls.of(np.concatenate(distances)[:, None])._replace(structures=len(distances))

    def merged(self, other: Moments) -> Moments:
        """The moments of both; the one with fewer positions has no distances at the others."""
        K = max(len(self.n), len(other.n))
        (n, mean, m2), (n_, mean_, m2_) = (
            (np.pad(values, (0, K - len(values))) for values in one[:3]) for one in (self, other)
        )
        total, delta = n + n_, mean_ - mean
        share = np.where(total > 0, n_ / np.maximum(total, 1), 0.0)
        return Moments(
            *(total, mean + delta * share, m2 + m2_ + delta**2 * n * share),
            *(min(self.fewest, other.fewest), self.structures + other.structures),
        )


class Width(NamedTuple):
    """σ of a pair in A, over so many structures and aligned positions."""

    sigma: float
    structures: int
    aligned: int

    @property
    def b(self) -> float:
        """B = 8π²σ², A²."""
        return b_of(self.sigma)


class DebyeWallerRow(NamedTuple):
    """A line of the table. kind: observed or predicted; method: ensemble or ridge; rank: of a candidate; support:
    structures of an ensemble, labels of a ridge; source: the label that a candidate grows from."""

    kind: Literal["observed", "predicted"]
    method: Literal["ensemble", "ridge"]
    n_node: int
    rank: int | None
    label: str
    pair: Pair
    sigma: float
    support: int
    aligned: int
    source: str | None

    @property
    def b(self) -> float:
        """B = 8π²σ², A²."""
        return b_of(self.sigma)


class SelfCheck(NamedTuple):
    """Relative root mean square error of one structure's I(q) against the mean of its ensemble, without and with σ."""

    label: str
    structures: int
    undamped: float
    damped: float


def b_of(sigma: float) -> float:
    """B = 8π²σ², A²."""
    return 8 * np.pi**2 * sigma**2


def pair_distances(
    structure: Structure, roles: Roles, cutoffs: Cutoffs, pairs: Pairs
) -> dict[Pair, tuple[np.ndarray, np.ndarray]]:
    """Numbers of the pairs of atoms [k] in the order of ``pdist`` and their distances [k] A, by pair of elements; of
    atoms that have a role."""
    kept = [number for number, species in enumerate(structure.species) if roles.of(species)]
    one = Structure(
        tuple(structure.species[k] for k in kept),
        tuple(structure.elements[k] for k in kept),
        structure.positions[kept],
    )
    n = len(kept)
    if n < 2:
        return {}
    first, second = np.triu_indices(n, 1)
    number = np.arange(len(first))
    if pairs == "first_shell":
        i, j = first_shell(one, roles, cutoffs).T
        number = np.sort(n * i - i * (i + 1) // 2 + j - i - 1)
    values, found = pdist(one.positions), defaultdict(list)
    for k in number:
        found[pair_of(one.elements[first[k]], one.elements[second[k]])].append(k)
    return {pair: (np.array(rows), values[rows]) for pair, rows in sorted(found.items())}


def moments_of(
    structures: Sequence[Structure], roles: Roles, cutoffs: Cutoffs, pairs: Pairs, estimator: Estimator
) -> dict[Pair, Moments]:
    """Moments of the distances of all structures, by pair of elements.

    identity: structures of one group, with the same elements in the same order; a pair of atoms counts in the
    structures that have it among their pairs. Raises InputError where they differ.
    """
    if estimator == "identity" and len({one.elements for one in structures}) > 1:
        first, other = list(dict.fromkeys(one.elements for one in structures))[:2]
        raise InputError(
            f"structures of one group have elements {''.join(first)} and {''.join(other)}: pairs of atoms cannot be"
            " matched",
            remedy="group structures of the same atoms, or take estimator = 'rank' or 'pooled'",
        )
    distances = defaultdict(list)
    for structure in structures:
        for pair, (rows, values) in pair_distances(structure, roles, cutoffs, pairs).items():
            if estimator == "identity":
                named = np.full(rows.max() + 1, np.nan)
                named[rows] = values
                values = named
            distances[pair].append(np.sort(values) if estimator == "rank" else values)
    if estimator == "pooled":
        return {pair: Moments.pooled(distances[pair]) for pair in sorted(distances)}
    fewest = 0 if estimator == "identity" else None
    return {pair: Moments.of(distances[pair], fewest) for pair in sorted(distances)}


def widths(groups: Sequence[Mapping[Pair, Moments]], ddof: int) -> dict[Pair, Width]:
    """σ of each pair of elements that two structures have at least, from the moments of groups.

    Positions of different groups do not match: the squares about their own means add up. ddof: taken from the number
    of distances at each position.
    """
    found = {}
    for pair in sorted({pair for group in groups for pair in group}):
        squares, degrees, aligned, structures = 0.0, 0.0, 0, 0
        for moments in (group[pair] for group in groups if pair in group):
            ranks = moments.fewest or len(moments.n)
            use = moments.n[:ranks] > max(ddof, 1)  # one distance has no width
            # with equal n this is the mean over positions of m2 / (n - ddof)
            squares += float(moments.m2[:ranks][use].sum())
            degrees += float((moments.n[:ranks][use] - ddof).sum())
            aligned, structures = aligned + int(use.sum()), structures + moments.structures
        if structures >= 2 and degrees > 0:
            found[pair] = Width(float(np.sqrt(squares / degrees)), structures, aligned)
    return found


def widths_of(
    ensemble: Ensemble,
    roles: Roles,
    cutoffs: Cutoffs,
    *,
    pairs: Pairs = "all",
    estimator: Estimator = "rank",
    ddof: int | None = None,
    groups: Sequence[int] | None = None,
) -> dict[Pair, Width]:
    """σ of each pair of elements of an ensemble.

    ddof: 0 for "rank", as SAXSShell has it, else 1. groups: of each structure the number of its group, for "identity";
    without, structures with the same elements in the same order are one group. Files beside motif folders count here
    too, but for "identity".
    """
    ddof = ddof if ddof is not None else int(estimator != "rank")
    if estimator != "identity":
        all_files = (*ensemble.structures, *ensemble.beside)
        return widths([moments_of(all_files, roles, cutoffs, pairs, estimator)], ddof)
    by_group = defaultdict(list)
    for number, one in enumerate(ensemble.structures):
        by_group[one.elements if groups is None else groups[number]].append(one)
    return widths([moments_of(one, roles, cutoffs, pairs, "identity") for one in by_group.values()], ddof)


def fit_widths(
    rows: Sequence[Row],
    found: Mapping[str, Mapping[Pair, Width]],
    roles: Roles,
    weighting: Weighting = "saxshell",
    scaling: Scaling = "documented",
) -> dict[Pair, tuple[Regression, int]]:
    """A ridge of ln(1 + σ) for each pair of elements, and the number of labels it rests on. found: σ by label; a row
    weighs as it does elsewhere, times its structures with that pair."""
    models = {}
    for pair in sorted({pair for of_label in found.values() for pair in of_label}):
        of_pair = [row for row in rows if pair in found.get(row.label, {})]
        known = [found[row.label][pair] for row in of_pair]
        x = features([row.counts for row in of_pair], roles, others_in(rows, roles))
        weights = np.array([row.weight(weighting) * one.structures for row, one in zip(of_pair, known)])
        sigma = np.array([one.sigma for one in known])
        models[pair] = fit_ridge(x, sigma, weights, Target("sigma", log=True), scaling), len(of_pair)
    return models


def debye_waller_table(
    library: Library,
    rows: Sequence[Row],
    predicted: Sequence[Predicted],
    found: Mapping[str, Mapping[Pair, Width]],
    models: Mapping[Pair, tuple[Regression, int]],
) -> list[DebyeWallerRow]:
    """The σ of all pairs of elements: of observed labels by their ensemble, or else by the ridge; of predicted ones by
    the ridge. A pair without either is left out: it is not damped. found: σ by label, as ``widths_of`` has it."""
    roles, table = library.roles, []
    others = others_in(rows, roles)
    for row in sorted(rows, key=lambda one: (one.n_node, one.label)):
        known = found.get(row.label, {})
        for pair in _pairs_of(row.counts, library):
            if pair in known:
                width = known[pair]
                values = (width.sigma, width.structures, width.aligned)
                table.append(DebyeWallerRow("observed", "ensemble", row.n_node, None, row.label, pair, *values, None))
            elif pair in models:
                values = (_fitted(models[pair], row.counts, roles, others), models[pair][1], 0)
                table.append(DebyeWallerRow("observed", "ridge", row.n_node, None, row.label, pair, *values, None))
    for candidate in sorted(predicted, key=lambda one: (one.n_node, one.rank)):
        counts = candidate.candidate.counts
        for pair in _pairs_of(counts, library):
            if pair in models:
                values = (_fitted(models[pair], counts, roles, others), models[pair][1], 0)
                name = (candidate.n_node, candidate.rank, candidate.label)
                table.append(DebyeWallerRow("predicted", "ridge", *name, pair, *values, candidate.source))
    return table


def self_check(
    ensemble: Ensemble,
    sigma: Mapping[Pair, float],
    intensity: Callable[[Structure, Mapping[Pair, float]], np.ndarray],
) -> SelfCheck:
    """The error of the representative's I(q) against the mean of its ensemble, with σ by pair of elements and without.

    intensity: I(q) [Q] of a structure with σ by pair of elements, none of them for an undamped one. The same structures
    give σ and the mean, so that the check is in-sample.
    """
    mean = np.mean([intensity(one, {}) for one in ensemble.structures], axis=0)
    one = ensemble.structures[ensemble.representative]
    plain, damped = (float(np.sqrt(np.mean((intensity(one, s) / mean - 1) ** 2))) for s in ({}, sigma))
    return SelfCheck(ensemble.label, len(ensemble.structures), plain, damped)


def _fitted(model: tuple[Regression, int], counts: Mapping[str, int], roles: Roles, others: Sequence[str]) -> float:
    return float(model[0].predict(features([counts], roles, others))[0])


def _pairs_of(counts: Mapping[str, int], library: Library) -> list[Pair]:
    """The pairs of elements that a composition has."""
    atoms = elements_in(counts, library)
    return [(a, b) for a in sorted(atoms) for b in sorted(atoms) if a < b or (a == b and atoms[a] > 1)]


def elements_in(counts: Mapping[str, int], library: Library) -> dict[str, int]:
    """The atoms of a composition by element; those of molecules as the library's structures have them."""
    atoms: dict[str, int] = defaultdict(int)
    for species, count in counts.items():
        for element, each in atoms_of(species, library).items():
            atoms[element] += each * count
    return dict(atoms)


def atoms_of(species: str, library: Library) -> dict[str, int]:
    """The atoms of one unit of a species by element, as the library's first structure with it has them; the species
    itself where none has."""
    for ensemble in library.ensembles.values():
        for one in ensemble.structures:
            there = [element for name, element in zip(one.species, one.elements) if name == species]
            if there:
                least = min(there.count(element) for element in set(there))
                return {element: there.count(element) // least for element in sorted(set(there))}
    return {species: 1}
