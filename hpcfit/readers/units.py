"""Units that arrays of other programs are in, turned into A and kJ/mol; and whether what comes out can be of atoms."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError

# In A and kJ/mol: CODATA 2022, 10.1103/RevModPhys.97.025002 (the calorie of thermochemistry is 4.184 J by definition).
LENGTHS = {"A": 1.0, "nm": 10.0, "bohr": 0.529177210544}
ENERGIES = {"kJ/mol": 1.0, "kcal/mol": 4.184, "eV": 96.4853321233, "hartree": 2625.49963948}
# Median distance to the nearest atom, A: 0.7 in H2, 0.96 in water, about 1.1 in a protein, 3.8 in liquid argon.
NEAREST = (0.5, 4.0)


class Units(NamedTuple):
    """The units of positions and energies; those of forces follow."""

    length: str = "A"
    energy: str = "kJ/mol"

    def positions(self, values: np.ndarray) -> np.ndarray:
        """Positions or boxes in A."""
        return values * LENGTHS[self.length]

    def forces(self, values: np.ndarray) -> np.ndarray:
        """Forces in kJ/mol/A."""
        return values * (ENERGIES[self.energy] / LENGTHS[self.length])


def check_plausible(
    where: str, positions: np.ndarray, forces: np.ndarray, box: np.ndarray | None, units: Units
) -> None:
    """Raise InputError unless a frame, in A and kJ/mol/A, looks like one of atoms: near each other, and with forces.

    where: file and frame; units: those that it was said to be in.
    """
    from hpcfit.readers.bonding import nearest_distances  # it needs SciPy, which most readers of units do not

    nearest = float(np.median(nearest_distances(positions, box))) if len(positions) > 1 else NEAREST[0]
    strength = float(np.sqrt(np.mean(np.sum(np.square(forces, dtype=float), axis=1))))
    if strength == 0:
        raise InputError(
            f"{where}: all forces are zero",
            remedy="have the simulation write its forces (GROMACS: nstfout, OpenMM: getState(forces=True))",
        )
    if not NEAREST[0] <= nearest <= NEAREST[1]:
        raise InputError(
            f"{where}: wrong units? Read in {units.length} and {units.energy} the median distance to the nearest atom"
            f" is {nearest:.3g} A ({NEAREST[0]} to {NEAREST[1]} A is what atoms have), the root mean square force"
            f" {strength:.3g} kJ/mol/A",
            remedy=_likely(nearest, units),
        )


def _likely(nearest: float, units: Units) -> str:
    given = nearest / LENGTHS[units.length]
    fitting = [name for name, length in LENGTHS.items() if NEAREST[0] <= given * length <= NEAREST[1]]
    found = " or ".join(f"{name} ({given * LENGTHS[name]:.3g} A)" for name in fitting)
    if not found:
        return "no unit of length makes it fit: check that these are positions of atoms, in the box that goes with them"
    return f"the numbers fit {found}: correct length_unit, or the units that the file says"
