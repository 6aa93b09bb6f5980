"""Units that arrays of other programs are in, turned into A and kJ/mol; and whether what comes out can be of atoms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.log import inputs
from hpcfit.store.frame import Frame

# In A and kJ/mol: CODATA 2022, 10.1103/RevModPhys.97.025002 (the calorie of thermochemistry is 4.184 J by definition).
LENGTHS = {"A": 1.0, "nm": 10.0, "bohr": 0.529177210544}
ENERGIES = {"kJ/mol": 1.0, "kcal/mol": 4.184, "eV": 96.4853321233, "hartree": 2625.49963948}
# Median distance to the nearest atom, A: 0.7 in H2, 0.96 in water, about 1.1 in a protein, 3.8 in liquid argon.
NEAREST = (0.5, 4.0)
BOND = (0.6, 1.7)  # A, of hydrogen: 0.74 in H2, 0.96 in water, 1.09 to carbon, 1.34 to sulfur, 1.48 to silicon
COVALENT = {"C", "N", "O", "Si", "P", "S"}


class Units(NamedTuple):
    """The units of positions and energies; those of forces follow."""

    length: str = "A"
    energy: str | None = "kJ/mol"

    def positions(self, values: np.ndarray) -> np.ndarray:
        """Positions or boxes in A."""
        return values * LENGTHS[self.length]

    def forces(self, values: np.ndarray) -> np.ndarray:
        """Forces in kJ/mol/A."""
        return values * (ENERGIES[self.energy] / LENGTHS[self.length])


def check_plausible(where: str, frame: Frame, elements: Sequence[str], units: Units) -> None:
    """Raise InputError unless a frame, in A and kJ/mol/A, has forces, and its hydrogens the distance of a bond.

    where: file and frame; units: those that it was said to be in. Without hydrogen, bonded to C, N, O, Si, P or S,
    nothing says how near atoms are to each other: a gas may be dilute, beads are larger than atoms, and distances that
    atoms mostly do not have are a warning.
    """
    from hpcfit.readers.bonding import nearest_distances  # it needs SciPy, which most readers of units do not

    positions, box = frame.positions, frame.box
    strength = float(np.sqrt(np.mean(np.sum(np.square(frame.forces, dtype=float), axis=1))))
    if strength == 0:
        raise InputError(
            f"{where}: all forces are zero",
            remedy="have the simulation write its forces (GROMACS: nstfout, OpenMM: getState(forces=True))",
        )
    hydrogens = np.flatnonzero(np.isin(elements, ("H", "D"))) if COVALENT & set(elements) else np.array([], int)
    certain = len(hydrogens) > 0
    allowed = BOND if certain else NEAREST
    chosen = hydrogens if certain else np.arange(len(positions))
    nearest = float(np.median(nearest_distances(positions, box, chosen))) if len(positions) > 1 else allowed[0]
    if allowed[0] <= nearest <= allowed[1]:
        return
    said = (
        f"{where}: wrong units? Read in {units.length} and {units.energy} the median distance"
        f"{' of hydrogens' if certain else ''} to the nearest atom is {nearest:.3g} A ({allowed[0]} to {allowed[1]} A"
        f" is what atoms have), the root mean square force {strength:.3g} kJ/mol/A"
    )
    if certain:
        raise InputError(said, remedy=_likely(nearest, units, allowed))
    inputs.warning("%s; a gas and beads may have others: %s", said, _likely(nearest, units, allowed))


def _likely(nearest: float, units: Units, allowed: tuple[float, float]) -> str:
    given = nearest / LENGTHS[units.length]
    fitting = [name for name, length in LENGTHS.items() if allowed[0] <= given * length <= allowed[1]]
    found = " or ".join(f"{name} ({given * LENGTHS[name]:.3g} A)" for name in fitting)
    if not found:
        return "no unit of length makes it fit: check that these are positions of atoms, in the box that goes with them"
    return f"the numbers fit {found}: correct length_unit, or the units that the file says"
