"""The elements of atoms whose file names none: by atomic masses, and by the names of atoms and residues.

From a name alone CA is calcium or carbon, so a name is read together with its residue: an atom that is a residue by
itself is an ion or a noble gas, and an atom of a molecule has one of the elements that molecules have.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import numpy as np

from hpcfit.physics.scattering import SITE
from hpcfit.readers.pdb_columns import is_element

SAME_MASS = 0.03  # amu: programs round masses
DEUTERIUM = 2.014
# What AMBER, CHARMM, GROMACS and OPLS call atoms that are a residue by themselves, where that is not their element.
ALONE = {
    "SOD": "Na", "POT": "K", "CLA": "Cl", "CHL": "Cl", "CIM": "Cl", "CIO": "Na", "CAL": "Ca", "CA": "Ca", "C0": "Ca",
    "CES": "Cs", "LIT": "Li", "RUB": "Rb", "BAR": "Ba", "CAD": "Cd", "IB": "Na", "IOD": "I", "BRO": "Br", "MAG": "Mg",
    "ZIN": "Zn", "OW": "O", "LA": "La",
}  # fmt: skip
WATER = {"SOL", "WAT", "HOH", "TIP", "TIP3", "TP3", "TIP3P", "TIP4", "TP4", "TIP4P", "T4P", "TIP5", "TP5", "TIP5P",
         "SPC", "SPCE", "OPC", "OPC3", "H2O", "W", "WT4", "DOD", "D2O", "T3P", "T5P", "TIPS"}  # fmt: skip
SITES_OF_WATER = ("MW", "EP", "LP", "OM", "M")  # beginnings
OF_MOLECULES = ("H", "C", "N", "O", "S", "P", "F", "I", "B", "D")
RARE = {"Po", "At", "Rn", "Fr", "Ra", "Ac", "Pa", "Np", "Pu", "Am", "Cm", "Bk", "Cf", "Es", "Fm", "Md", "No"}
# Two letters that are an element in a molecule, whatever its first letter is; CA, CD, HG, NA, PB and others are not.
TWO_LETTERS = ("CL", "BR", "FE", "MG", "MN", "ZN", "SI", "SE", "LI", "AL", "TI")


def elements_of_atoms(
    names: Sequence[str], residue: np.ndarray, residue_names: Sequence[str], masses: np.ndarray | None
) -> tuple[str, ...]:
    """Elements by mass, and by name where the mass is none of an element, or not known, or hydrogens are too heavy.

    residue: the number of each atom's residue, [n]; masses: [n] amu, or None. SITE is a site without mass, "" an atom
    whose element is not found.
    """
    alone = (np.bincount(residue, minlength=len(residue_names))[residue] == 1).tolist()
    water = _waters(names, residue, residue_names)
    rows = residue.tolist()
    of_names = tuple(named(name, residue_names[r], a, r in water) for name, r, a in zip(names, rows, alone))
    if masses is None or _repartitioned(of_names, masses):
        return of_names
    return tuple(_of_mass(round(float(mass), 3), name) for mass, name in zip(masses, of_names))


def _repartitioned(of_names: Sequence[str], masses: np.ndarray) -> bool:
    """True where hydrogens are heavier than they are: what bears them is lighter, oxygen of water and nitrogen as heavy
    as carbon."""
    hydrogens = np.asarray(masses)[np.array([element == "H" for element in of_names], bool)]
    return bool(np.any((hydrogens > 1.1) & (np.abs(hydrogens - DEUTERIUM) > SAME_MASS)))


def agree(by_names: Sequence[str], by_masses: Sequence[str]) -> bool:
    """False where names and masses of most atoms mean other elements: then these are no masses in amu."""
    both = [(a, b) for a, b in zip(by_names, by_masses) if a and b]
    return sum(a == b for a, b in both) >= len(both) / 2


def _waters(names: Sequence[str], residue: np.ndarray, residue_names: Sequence[str]) -> set[int]:
    """The residues that are water by their name, or by the atoms of one of that name: O, H, H and up to three sites."""
    first = np.array([name.strip().upper()[:1] or "?" for name in names])
    counts = {letter: np.bincount(residue[first == letter], minlength=len(residue_names)) for letter in ("O", "H", "D")}
    size = np.bincount(residue, minlength=len(residue_names))
    of_atoms = (counts["O"] == 1) & (counts["H"] + counts["D"] == 2) & (size <= 6)
    known = WATER | {residue_names[number].upper() for number in np.flatnonzero(of_atoms).tolist()}
    return {number for number, name in enumerate(residue_names) if name.upper() in known}


def _of_mass(mass: float, named_as: str) -> str:
    """The element of a mass, or of the name where no element has it, or where both are nearly equal."""
    if mass <= 0:
        return SITE
    found = _near(mass)
    return named_as if named_as in found or not found else found[0]


@functools.cache
def _near(mass: float) -> tuple[str, ...]:
    """The elements that have a mass, the nearest first."""
    import gemmi

    if abs(mass - DEUTERIUM) < SAME_MASS:
        return ("D",)
    known = [gemmi.Element(number) for number in range(1, 93)]
    near = sorted((abs(one.weight - mass), one.name) for one in known if abs(one.weight - mass) < SAME_MASS)
    return tuple(name.capitalize() for _, name in near)


@functools.cache
def named(name: str, residue_name: str, alone: bool, water: bool = False) -> str:
    """The element of an atom's name in a residue; alone: whether it is the only atom there; water: whether that is."""
    letters = re.sub(r"[^A-Za-z]", "", name).upper()
    of_residue = re.sub(r"[^A-Za-z]", "", residue_name).upper()
    if not letters:
        return ""
    if alone and not _in_chains(residue_name.upper()):
        return _alone(name.upper(), letters) or _alone(residue_name.upper(), of_residue)
    if water and letters.startswith(SITES_OF_WATER):
        return SITE
    if letters.startswith(TWO_LETTERS):
        return letters[:2].capitalize()
    return next((one for one in OF_MOLECULES if letters.startswith(one)), "")


@functools.cache
def _in_chains(residue_name: str) -> bool:
    """True for a residue of proteins, of which a model may hold one atom, the C alpha."""
    from MDAnalysis.core.selection import ProteinSelection

    return residue_name in ProteinSelection.prot_res


def _alone(name: str, letters: str) -> str:
    if name in ALONE or letters in ALONE:
        return ALONE.get(name) or ALONE[letters]
    element = letters.capitalize()
    return element if is_element(element) and element not in RARE else ""
