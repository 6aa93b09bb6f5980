"""Compositions of larger clusters: by a trend, and scaled from each observed label; each with the reason it is out.

The trend regresses the counts of species that are no nodes on (1, n). SAXSShell takes the number of all species among
its features, from which the count follows: its trend ("leaky") gives no linkers at all where there is one kind of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from hpcfit.kinds.clusters.composition import Roles
from hpcfit.kinds.clusters.prediction.ridge import Target, fit_ridge
from hpcfit.kinds.clusters.prediction.rows import Counts, Row, features, others_in

Trend = Literal["leak_free", "leaky"]
TREND, SCALED = "Trend extrapolation", "Composition scaled from observed "
FLOOR, PURE, DUPLICATE, CHARGE = (
    "linker floor",
    "no support for pure nodes of this size",
    "duplicate label",
    "charge out of balance",
)


class Candidate(NamedTuple):
    """A composition with n_node nodes. route: how it came about; source: the label it was scaled from; rejected: why it
    is out, empty where it is kept."""

    n_node: int
    label: str
    counts: dict[str, int]
    route: str
    source: str | None
    rejected: str = ""


class Charges(NamedTuple):
    """Charges of species, and the largest absolute charge per node that a candidate may have."""

    of_species: Mapping[str, float]
    per_node: float


def target_sizes(rows: Sequence[Row], asked: Sequence[int] | None = None) -> list[int]:
    """The sizes to predict, all beyond those observed: those asked for, or the next two."""
    largest = max(row.n_node for row in rows)
    return sorted({n for n in (asked if asked is not None else (largest + 1, largest + 2)) if n > largest})


def raw_candidates(
    rows: Sequence[Row],
    n: int,
    roles: Roles,
    weights: np.ndarray,
    trend: Trend = "leak_free",
    charges: Charges | None = None,
) -> list[Candidate]:
    """All candidates with n nodes, the trend first, then those scaled from labels by falling weight [m] of their rows.
    The first of a label that no filter takes out is kept."""
    others = others_in(rows, roles)
    nodes = split_nodes(n, node_fractions(rows, roles, weights))
    proposed: list[tuple[str, str | None, dict[str, int]]] = [
        (TREND, None, nodes | _trend(rows, n, nodes, roles, others, weights, trend))
    ]
    for number in sorted(range(len(rows)), key=lambda k: (-weights[k], -rows[k].n_node, rows[k].label)):
        row = rows[number]
        scaled = {species: round(row.counts.get(species, 0) * n / row.n_node) for species in others}
        proposed.append((SCALED + row.label, row.label, nodes | scaled))
    floors, kept, found = linker_floors(rows, n, roles), set(), []
    for route, source, counts in proposed:
        counts = {species: count for species, count in counts.items() if count > 0}
        label = roles.label(counts)
        why = _rejection(counts, n, rows, roles, floors, charges) or (DUPLICATE if label in kept else "")
        if not why:
            kept.add(label)
        found.append(Candidate(n, label, counts, route, source, why))
    return found


def node_fractions(rows: Sequence[Row], roles: Roles, weights: np.ndarray) -> dict[str, float]:
    """The mean fractions of the species that are nodes, weighted by rows; they sum to 1."""
    sums = {s: sum(w * row.counts.get(s, 0) / row.n_node for w, row in zip(weights, rows)) for s in sorted(roles.node)}
    total = sum(sums.values())
    return {species: value / total for species, value in sums.items()}


def split_nodes(n: int, fractions: Mapping[str, float]) -> dict[str, int]:
    """n nodes in these fractions by the largest remainder, ties by the alphabet."""
    exact = {species: n * fraction for species, fraction in fractions.items()}
    counts = {species: math.floor(value) for species, value in exact.items()}
    by_remainder = sorted(exact, key=lambda species: (counts[species] - exact[species], species))
    for species in by_remainder[: n - sum(counts.values())]:
        counts[species] += 1
    return {species: count for species, count in counts.items() if count}


def linker_floors(rows: Sequence[Row], n: int, roles: Roles) -> dict[str, int]:
    """The least count of each linker that is in every label with two nodes or more: that of the label with the fewest
    a node, at n nodes, and at least 1."""
    several = [row for row in rows if row.n_node >= 2]
    floors = {}
    for species in others_in(rows, roles) if several and n > 1 else ():
        least = min(row.counts.get(species, 0) / row.n_node for row in several)
        if roles.of(species) == "linker" and least > 0:
            floors[species] = max(1, math.ceil(n * least - 1e-9))
    return floors


def composition_distance(one: Counts, other: Counts, n: int) -> float:
    """The sum of the differences of the counts of all species, per node."""
    return sum(abs(one.get(species, 0) - other.get(species, 0)) for species in sorted({*one, *other})) / max(n, 1)


def _trend(
    rows: Sequence[Row], n: int, nodes: Counts, roles: Roles, others: Sequence[str], weights: np.ndarray, trend: Trend
) -> dict[str, int]:
    found: dict[str, int] = {}
    for species in others:
        y = np.array([row.counts.get(species, 0) for row in rows], float)
        columns = [1] if trend == "leak_free" else slice(1, None)
        x = features([row.counts for row in rows] + [{**nodes, **found}], roles, others)
        x = np.column_stack([np.ones(len(x)), x[:, columns]])
        predicted = fit_ridge(x[:-1], y, weights, Target(species)).predict(x[-1:])
        found[species] = round(float(predicted[0]))
    return found


def _rejection(
    counts: Counts, n: int, rows: Sequence[Row], roles: Roles, floors: Counts, charges: Charges | None
) -> str:
    if any(counts.get(species, 0) < floor for species, floor in floors.items()):
        return FLOOR
    pure = [row.n_node for row in rows if row.n_node == sum(row.counts.values())]
    if sum(counts.values()) == roles.nodes_in(counts) and n > max(pure, default=-1) + 1:
        return PURE
    if charges is not None:
        charge = sum(charges.of_species.get(species, 0.0) * count for species, count in counts.items())
        if abs(charge) > charges.per_node * n + 1e-9:
            return CHARGE
    return ""
