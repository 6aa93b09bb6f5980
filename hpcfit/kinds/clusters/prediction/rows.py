"""Training rows: the structures of a label joined with what was seen of it in the frames, its features and weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.kinds.clusters.composition import Roles
from hpcfit.kinds.clusters.library import Library, Shape

Counts = Mapping[str, int]
Weighting = Literal["saxshell", "count"]
MANY_LABELS, MANY_SIZES = 6, 3  # below, a prediction rests on few data


class Observed(NamedTuple):
    """Kinetics of a label in the frames. Rates in 1/ps, lifetimes in fs over completed ones, None where there is none;
    all 0 for a label that was never seen."""

    total: int = 0
    occupied_frames: int = 0
    mean_count: float = 0.0
    occupancy: float = 0.0
    births: int = 0
    deaths: int = 0
    association_rate: float = 0.0
    dissociation_rate: float = 0.0
    completed: int = 0
    truncated: int = 0
    mean_lifetime: float | None = None
    std_lifetime: float | None = None


class Row(NamedTuple):
    """A label of the training set. shape: means over its structures, A."""

    label: str
    counts: dict[str, int]
    n_node: int
    n_structures: int
    mean_atoms: float
    shape: Shape
    representative: str
    motifs: tuple[str, ...]
    observed: Observed

    @property
    def stability(self) -> float:
        """The stability weight of SAXSShell: 1 + files/10 + completed/5 + 5 count + 5 occupancy + lifetime/(100 fs).

        Its last term has a scale, so that the weight depends on the interval between frames.
        """
        seen = self.observed
        kinetics = seen.completed / 5 + 5 * seen.mean_count + 5 * seen.occupancy + (seen.mean_lifetime or 0.0) / 100
        return 1 + self.n_structures / 10 + kinetics

    def weight(self, weighting: Weighting) -> float:
        """The weight of this row: its stability, or how often it was seen (Poisson)."""
        return self.stability if weighting == "saxshell" else max(float(self.observed.total), 1e-9)


def training_rows(library: Library, observed: Mapping[str, Observed]) -> list[Row]:
    """The rows of all labels of a library by label; those that were not seen have zeros for kinetics.

    Raises InputError where no label was seen, or all have one number of nodes.
    """
    rows = [
        Row(
            *(one.label, one.counts, one.n_node, len(one.structures), one.mean_atoms, one.shape),
            *(one.structures[one.representative].source, one.motifs, observed.get(one.label, Observed())),
        )
        for one in library.ensembles.values()
    ]
    if not any(row.label in observed for row in rows):
        raise InputError(
            f"no label of the library ({_some(row.label for row in rows)}) is among those of the frames"
            f" ({_some(observed)})",
            remedy="name the folders of the library by labels as the frames have them, or correct roles and cutoffs",
        )
    sizes = sorted({row.n_node for row in rows})
    if len(sizes) < 2:
        raise InputError(
            f"all {len(rows)} labels of the library have {sizes[0]} node{'s' * (sizes[0] > 1)}: at least two numbers of"
            " nodes are needed to extrapolate",
            remedy="add structures of another size to the library",
        )
    return rows


def features(counts: Sequence[Counts], roles: Roles, others: Sequence[str]) -> np.ndarray:
    """[1, n, N, X_1/n, …] of each composition: n its nodes (at least 1), N all its species, X_j those that are no
    nodes; [m, 3 + len(others)]."""
    n = np.array([max(roles.nodes_in(one), 1) for one in counts], float)
    N = np.array([sum(one.values()) for one in counts], float)
    X = np.array([[one.get(species, 0) for species in others] for one in counts], float).reshape(len(n), len(others))
    return np.column_stack([np.ones_like(n), n, N, X / n[:, None]])


def feature_names(others: Sequence[str]) -> list[str]:
    """The names of the columns of ``features``."""
    return ["1", "n_node", "n_total", *(f"{species}/n_node" for species in others)]


def others_in(rows: Sequence[Row], roles: Roles) -> list[str]:
    """The species of the rows that are no nodes, by the alphabet."""
    return sorted({species for row in rows for species in row.counts if roles.of(species) != "node"})


def small_data(rows: Sequence[Row]) -> list[str]:
    """Sentences that say where a training set is small."""
    sizes = sorted({row.n_node for row in rows})
    found = []
    if len(rows) < MANY_LABELS:
        found.append(f"{len(rows)} labels train the models, fewer than {MANY_LABELS}: take predictions as hints")
    if len(sizes) < MANY_SIZES:
        found.append(f"sizes {', '.join(map(str, sizes))} train the models, fewer than {MANY_SIZES} different ones")
    return found


def _some(names: Iterable[str], most: int = 8) -> str:
    names = sorted(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "") or "none"
