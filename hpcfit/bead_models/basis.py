"""A linear basis of coarse-grained energy functions, by terms and classes.

    U(R) = sum_k theta_k u_k(R),   u_k = sum over the terms of a class of phi_k(q),   q a distance, angle or dihedral

(multiscale coarse-graining: Izvekov and Voth 2005, 10.1021/jp044629q; Noid and others 2008, 10.1063/1.2938860). Terms
of beads of the same types share their functions: they are a class, and a class has its columns side by side. Functions
are Gaussians or cubic B-splines at equal distances; ``cg_forces`` evaluates them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from hpcfit.errors import InputError
from hpcfit.physics.internal_coordinates import bonded_terms, pairs_beyond
from hpcfit.pytrees import pytree

Shape = Literal["gaussian", "b-spline"]
Ranges = Mapping[str, tuple[float, float]]
# How far a function is felt from its centre, in steps or standard deviations: what coverage counts. A Gaussian that is
# left out 2.4 of them from the nearest frame makes the error of a mean force half as large again.
REACH = {"b-spline": 2.0, "gaussian": 3.0}
NARROWEST = 0.05  # A or rad: a range that is shorter (a distance held fixed) is widened to twice this


@dataclass(frozen=True)
class BasisOptions:
    """The choice of functions of a basis.

    pairs: the shape of those of pairs, None for no pairs; bonded functions are B-splines. exclusions: pairs up to so
    many bonds apart have none. cutoff: where pair functions end with force 0, A; None: nowhere. width: of Gaussians,
    in distances between their centres.
    """

    pairs: Shape | None = "b-spline"
    pair_functions: int = 20
    bonded_functions: int = 12
    exclusions: int = 2
    bonds: bool = True
    angles: bool = True
    dihedrals: bool = True
    cutoff: float | None = None
    width: float = 1.0

    def __post_init__(self):
        for key, least in {"pair_functions": 4, "bonded_functions": 4, "exclusions": 0}.items():
            if getattr(self, key) < least:
                raise InputError(f"{key} = {getattr(self, key)} of a basis", remedy=f"use {least} or more")
        if self.pairs is not None and self.pairs not in ("gaussian", "b-spline"):
            raise InputError(f"pairs = '{self.pairs}' is no shape of functions", remedy="use 'gaussian' or 'b-spline'")


@pytree
@dataclass(frozen=True)
class Family:
    """All classes of one kind of term.

    beads: [T, 2 to 4] of each term; group: [T], its class. low, high: [C], A or rad, the range of each class. slots:
    [S, L], for one bead and class (``slot_bead``, ``slot_class``: [S]) which places of the flattened ``beads`` are
    this bead; their number for padding. column: the first of the family's columns, which are [C, functions].
    """

    beads: np.ndarray
    group: np.ndarray
    low: np.ndarray
    high: np.ndarray
    slots: np.ndarray
    slot_bead: np.ndarray
    slot_class: np.ndarray
    kind: str = field(metadata={"static": True})
    shape: Shape = field(metadata={"static": True})
    labels: tuple[str, ...] = field(metadata={"static": True})
    functions: int = field(metadata={"static": True})
    column: int = field(metadata={"static": True})
    cut: bool = field(metadata={"static": True})
    width: float = field(metadata={"static": True})

    @property
    def periodic(self) -> bool:
        """True for dihedrals, whose coordinate lies on a circle."""
        return self.kind == "dihedrals"

    @property
    def columns(self) -> slice:
        """The columns of all classes of the family."""
        return slice(self.column, self.column + len(self.labels) * self.functions)

    @property
    def step(self) -> np.ndarray:
        """The distance between centres, [C]."""
        n = self.functions
        if self.shape == "gaussian":
            return (self.high - self.low) / (n - 1)
        return (self.high - self.low) / (n if self.cut or self.periodic else n - 3)

    @property
    def reach(self) -> np.ndarray:
        """The distance from its centre up to which a function counts a coordinate as seen, [C], A or rad."""
        return REACH[self.shape] * self.step * (self.width if self.shape == "gaussian" else 1.0)

    @property
    def centres(self) -> np.ndarray:
        """[C, functions]. The first B-spline of a range is centred one step before it, of a circle at its beginning."""
        first = 0 if self.shape == "gaussian" or self.periodic else -1
        return self.low[:, None] + (first + np.arange(self.functions)) * self.step[:, None]


@pytree
@dataclass(frozen=True)
class Basis:
    """families: those that have terms. n_beads: N. Its K columns are those of the families, one after the other."""

    families: tuple[Family, ...]
    n_beads: int = field(metadata={"static": True})

    @property
    def size(self) -> int:
        """K."""
        return sum(len(family.labels) * family.functions for family in self.families)

    @property
    def classes(self) -> list[tuple[Family, int, slice]]:
        """Each class: its family, its number in it, and its columns."""
        return [
            (family, number, slice(first, first + family.functions))
            for family in self.families
            for number in range(len(family.labels))
            for first in [family.column + number * family.functions]
        ]

    @property
    def cutoff(self) -> float | None:
        """The longest distance of any pair, where pairs have a cut-off, A."""
        cut = [float(np.max(family.high)) for family in self.families if family.cut]
        return max(cut) if cut else None

    def names(self) -> list[str]:
        """One name a column: "pairs CA-CA 5.20"."""
        return [
            f"{family.kind} {family.labels[number]} {centre:.2f}"
            for family, number, _ in self.classes
            for centre in family.centres[number]
        ]

    def constants(self) -> np.ndarray:
        """Coefficients [g, K] of the energies that are a constant, and give no force: the sums of whole B-splines."""
        found = []
        for family, _, columns in self.classes:
            if family.shape == "b-spline" and not family.cut:
                found.append(np.zeros(self.size))
                found[-1][columns] = 1
        return np.array(found).reshape(-1, self.size)

    def roughness(self) -> np.ndarray:
        """P [K, K]: theta P theta is the sum of the squared second differences of the coefficients of each class."""
        P = np.zeros((self.size, self.size))
        for family, _, columns in self.classes:
            eye = np.eye(family.functions)
            D = np.roll(eye, 1, axis=0) - 2 * eye + np.roll(eye, -1, axis=0)
            D = D if family.periodic else D[1:-1]
            P[columns, columns] = D.T @ D
        return P


def make_basis(
    types: Sequence[str], bonds: np.ndarray, options: BasisOptions = BasisOptions(), ranges: Ranges | None = None
) -> Basis:
    """The basis of N beads of these types with bonds [b, 2].

    ranges: by class ("pairs A-B", as ``observed_ranges`` names them) or by kind ("pairs"), A or rad. Without one,
    angles and dihedrals have their whole range, pairs that of the cut-off. Raises InputError where a range is missing.
    """
    ranges, families, column = ranges or {}, [], 0
    for kind, (beads, group, labels) in class_terms(types, bonds, options).items():
        shape, functions = ("b-spline", options.bonded_functions) if kind != "pairs" else (
            options.pairs, options.pair_functions,
        )  # fmt: skip
        cut = kind == "pairs" and options.cutoff is not None
        limits = np.array([_range(kind, label, ranges, options.cutoff if cut else None) for label in labels])
        families.append(
            Family(
                beads, group, limits[:, 0], limits[:, 1], *_slots(beads, group, len(types)), kind=kind, shape=shape,
                labels=labels, functions=functions, column=column, cut=cut, width=options.width,
            )
        )  # fmt: skip
        column += len(labels) * functions
    if not families:
        raise InputError(
            f"{len(types)} beads with {len(bonds)} bonds have no term of the basis",
            remedy="lower exclusions, or allow pairs",
        )
    return Basis(tuple(families), len(types))


def validity_basis(n_beads: int, range: tuple[float, float], functions: int = 12) -> Basis:
    """Test fields with which force maps are compared: Gaussians of all distances between n beads, whatever their types.

    range: of the centres, A.
    """
    options = BasisOptions("gaussian", pair_functions=functions, exclusions=0)
    return make_basis(["bead"] * n_beads, np.zeros((0, 2), int), options, {"pairs": range})


def class_terms(types: Sequence[str], bonds: np.ndarray, options: BasisOptions) -> dict[str, tuple]:
    """beads [T, n], class [T] and labels [C] of each kind that has terms."""
    n = len(types)
    bonded = bonded_terms(n, bonds)
    wanted = {
        "pairs": pairs_beyond(n, bonds, options.exclusions) if options.pairs else (),
        "bonds": bonded.bonds if options.bonds else (),
        "angles": bonded.angles if options.angles else (),
        "dihedrals": bonded.dihedrals if options.dihedrals else (),
    }
    return {kind: (np.asarray(beads), *_classified(beads, types)) for kind, beads in wanted.items() if len(beads)}


def _classified(beads: np.ndarray, types: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which terms are alike, read forwards or backwards."""
    named = [tuple(str(types[bead]) for bead in term) for term in beads]
    classes = ["-".join(min(name, name[::-1])) for name in named]
    labels = sorted(set(classes))
    number = {label: place for place, label in enumerate(labels)}
    return np.array([number[label] for label in classes]), tuple(labels)


def _range(kind: str, label: str, ranges: Ranges, cutoff: float | None) -> tuple[float, float]:
    if kind == "dihedrals":
        return -np.pi, np.pi
    whole = {"angles": (0.0, np.pi)} | ({"pairs": (0.0, cutoff)} if cutoff else {})
    found = ranges.get(f"{kind} {label}", ranges.get(kind, whole.get(kind)))
    if found is None:
        raise InputError(f"no range is given for {kind} {label}", remedy="take it from the frames (observed_ranges)")
    low, high = found[0], found[1] if cutoff is None else cutoff
    if not (np.isfinite([low, high]).all() and low <= high):
        raise InputError(f"the range {low:g} to {high:g} of {kind} {label} is none", remedy="give the lower end first")
    short = max(2 * NARROWEST - (high - low), 0.0)
    return low - short / 2, high + short / 2


def _slots(beads: np.ndarray, group: np.ndarray, n_beads: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each bead and class with terms, the places of the bead in the flattened list of beads, padded."""
    size = beads.shape[1]
    key = beads.ravel() * (group.max() + 1) + np.repeat(group, size)
    order = np.argsort(key, kind="stable")
    keys, first, count = np.unique(key[order], return_index=True, return_counts=True)
    slots = np.full((len(keys), count.max()), beads.size)
    for row, (start, n) in enumerate(zip(first, count)):
        slots[row, :n] = order[start : start + n]
    return slots, keys // (group.max() + 1), keys % (group.max() + 1)
