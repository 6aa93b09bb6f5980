"""The terms of a fitted linear model as functions of one coordinate, also where there were no frames.

Inside the range that the frames have sampled a term is what was fitted. Outside it is continued so that a simulation
comes back into the range, with a continuous force:

- bonds and angles: straight on, plus a wall of 100 kT / A^2 (or rad^2) in the distance from the range;
- pairs closer than any sampled: the same. Pairs further apart than any sampled: the same, unless there is a box or the
  frames reach the end of the functions: then it is what the functions are there (0 beyond a cut-off; straight on for
  splines without one, decaying for Gaussians);
- dihedrals have no end: functions that no frame saw get the highest coefficient of their class and 2 kT more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcfit.bead_models.basis import Basis, Family
from hpcfit.bead_models.linear import class_functions
from hpcfit.errors import InputError
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.store.files import write_text

WALL = 100.0  # kT per A^2 or rad^2: a thermal width of 0.1 A or rad
SEEN = 10  # samples that a function needs to count as seen
UNSEEN = 2.0  # kT by which dihedrals avoid what no frame has shown
TAIL = 6.0  # standard deviations beyond its centre where a Gaussian is over


@dataclass(frozen=True)
class Term:
    """One class of a fitted model.

    beads: [t, 2 to 4], its members. coefficients: [functions], kJ/mol. low, high: what is taken as fitted, A or rad.
    walls: the stiffness below ``low`` and above ``high``, kJ/mol/A^2 or kJ/mol/rad^2.
    """

    family: Family
    number: int
    beads: np.ndarray
    coefficients: np.ndarray
    low: float
    high: float
    walls: tuple[float, float]

    @property
    def kind(self) -> str:
        """pairs, bonds, angles or dihedrals."""
        return self.family.kind

    @property
    def label(self) -> str:
        """The types of its beads."""
        return self.family.labels[self.number]

    def __call__(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """U (kJ/mol) and dU/dq at coordinates q [Q] (A or rad)."""
        q = np.asarray(q, float)
        if self.family.periodic:
            return self._fitted(q)
        inside = np.clip(q, self.low, self.high)
        U, slope = self._fitted(inside)
        beyond = q - inside
        stiffness = np.where(beyond < 0, *self.walls)
        return U + slope * beyond + 0.5 * stiffness * beyond**2, slope + stiffness * beyond

    def grid(self, points: int = 1000) -> np.ndarray:
        """Coordinates [points] of a table: a quarter of the range on both sides of it, where there are such."""
        if self.family.periodic:
            return np.linspace(-np.pi, np.pi, points)
        more = 0.25 * (self.high - self.low)
        most = np.pi if self.kind == "angles" else np.inf
        return np.linspace(max(self.low - more, 0.0), min(self.high + more, most), points)

    def _fitted(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, slopes = class_functions(self.family, self.number, q)
        return values @ self.coefficients, slopes @ self.coefficients


def make_terms(
    basis: Basis, coefficients: np.ndarray, coverage: np.ndarray, temperature: float, periodic: bool = False
) -> list[Term]:
    """The terms of a model with coefficients [K] (kJ/mol), whose functions saw ``coverage`` [K] samples.

    temperature: K, for walls. periodic: whether the beads are in a box. Raises InputError for a class without samples.
    """
    kT = GAS_CONSTANT * temperature
    found = []
    for family, number, columns in basis.classes:
        theta, seen = np.asarray(coefficients)[columns], np.asarray(coverage)[columns]
        seen = seen >= min(SEEN, max(float(seen.max()), 1.0))
        if not seen.any():
            if family.kind == "pairs":
                continue  # two types that never come near each other
            raise InputError(f"no frame has {family.kind} {family.labels[number]}", remedy="give more frames")
        if family.periodic:
            theta = np.where(seen, theta, theta[seen].max() + UNSEEN * kT)
        low, high, walls = _ends(family, number, seen, periodic)
        beads = family.beads[family.group == number]
        found.append(Term(family, number, beads, theta, low, high, tuple(WALL * kT * wall for wall in walls)))
    return found


def _ends(family: Family, number: int, seen: np.ndarray, periodic: bool) -> tuple[float, float, tuple[bool, bool]]:
    """The sampled range of a class, and whether it has a wall below and above.

    A function that was seen while the one before was not says that the least coordinate lies in the last step of its
    reach: from its end on all is known.
    """
    first, last = np.flatnonzero(seen)[[0, -1]]
    centres, reach = family.centres[number], family.reach[number]
    low = family.low[number] if first == 0 else centres[first] + reach
    high = family.high[number] if last == len(seen) - 1 else centres[last] - reach
    if low >= high:  # samples in a step or two: all that there is
        low, high = centres[first] - reach / 2, centres[last] + reach / 2
    if family.kind != "pairs":
        return float(low), float(high), (True, True)
    if last < len(seen) - 1 and not periodic:
        return float(low), float(high), (True, True)
    end = family.high[number]
    end += TAIL * family.width * family.step[number] if family.shape == "gaussian" and not family.cut else 0
    return float(low), float(end), (True, False)


def write_tables(folder: Path, terms: Sequence[Term], points: int = 1000) -> list[Path]:
    """One text file a term, in columns q (A or rad), U (kJ/mol), dU/dq; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for term in terms:
        unit = "A" if term.kind in ("pairs", "bonds") else "rad"
        q = term.grid(points)
        head = (
            f"# {term.kind} {term.label}: q ({unit}), U (kJ/mol), dU/dq (kJ/mol/{unit});"
            f" fitted from {term.low:.4f} to {term.high:.4f}, continued outside\n"
        )
        body = "".join(f"{x:.6f} {u:.8g} {slope:.8g}\n" for x, u, slope in zip(q, *term(q)))
        paths.append(folder / f"{term.kind}_{term.number:02d}_{_file_name(term.label)}.txt")
        write_text(paths[-1], head + body)
    return paths


def _file_name(label: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in label)
