"""Alanine dipeptide (ACE-ALA-NME, 22 atoms) built from internal coordinates, with phi and psi as wanted.

Bond lengths and angles are rounded equilibrium values of the amber14 protein force field; a minimisation refines them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Placement(NamedTuple):
    """An atom placed from three earlier ones.

    `distance` (A) is to `parent`, which it is bonded to; `angle` is grandparent-parent-atom and `dihedral`
    reference-grandparent-parent-atom (degrees), plus phi or psi if it turns with one.
    """

    residue: str
    name: str
    reference: str
    grandparent: str
    parent: str
    distance: float
    angle: float
    dihedral: float
    turns_with: str = ""


def _methyl(residue: str, names: tuple[str, str, str], frame: tuple[str, str, str]) -> list[Placement]:
    return [Placement(residue, name, *frame, 1.09, 109.5, turn) for name, turn in zip(names, (60, 180, 300))]


# Atoms that others refer to are named residue:name. The first three (ACE CH3, C and ALA N) span the frame.
PLACEMENTS = [
    Placement("ACE", "O", "ACE:CH3", "ALA:N", "ACE:C", 1.229, 122.9, 180),
    Placement("ALA", "CA", "ACE:CH3", "ACE:C", "ALA:N", 1.449, 121.9, 180),
    Placement("ALA", "H", "ACE:CH3", "ACE:C", "ALA:N", 1.010, 119.8, 0),
    Placement("ALA", "C", "ACE:C", "ALA:N", "ALA:CA", 1.522, 110.1, 0, "phi"),
    Placement("ALA", "CB", "ACE:C", "ALA:N", "ALA:CA", 1.526, 109.7, -120, "phi"),
    Placement("ALA", "HA", "ACE:C", "ALA:N", "ALA:CA", 1.090, 109.5, 120, "phi"),
    Placement("ALA", "O", "ALA:N", "ALA:CA", "ALA:C", 1.229, 120.4, 180, "psi"),
    Placement("NME", "N", "ALA:N", "ALA:CA", "ALA:C", 1.335, 116.6, 0, "psi"),
    Placement("NME", "C", "ALA:CA", "ALA:C", "NME:N", 1.449, 121.9, 180),
    Placement("NME", "H", "ALA:CA", "ALA:C", "NME:N", 1.010, 119.8, 0),
    *_methyl("ACE", ("H1", "H2", "H3"), ("ALA:N", "ACE:C", "ACE:CH3")),
    *_methyl("ALA", ("HB1", "HB2", "HB3"), ("ALA:N", "ALA:CA", "ALA:CB")),
    *_methyl("NME", ("H1", "H2", "H3"), ("ALA:C", "NME:N", "NME:C")),
]
FIRST = ["ACE:CH3", "ACE:C", "ALA:N"]
BUILT = FIRST + [f"{p.residue}:{p.name}" for p in PLACEMENTS]
# Residues in the order of the chain, as a PDB file wants them.
ATOMS = [atom for residue in ("ACE", "ALA", "NME") for atom in BUILT if atom.startswith(residue)]
BONDS = [("ACE:CH3", "ACE:C"), ("ACE:C", "ALA:N")] + [(p.parent, f"{p.residue}:{p.name}") for p in PLACEMENTS]
PHI = tuple(ATOMS.index(atom) for atom in ("ACE:C", "ALA:N", "ALA:CA", "ALA:C"))
PSI = tuple(ATOMS.index(atom) for atom in ("ALA:N", "ALA:CA", "ALA:C", "NME:N"))


def _place(a, b, c, internal: tuple[float, float, float]) -> np.ndarray:
    """The point at `internal` = (distance, angle b-c-d, dihedral a-b-c-d; A and degrees) from the points a, b, c."""
    distance, angle, dihedral = internal[0], *np.radians(internal[1:])
    axis = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, axis)
    normal /= np.linalg.norm(normal)
    local = distance * np.array([-np.cos(angle), np.sin(angle) * np.cos(dihedral), np.sin(angle) * np.sin(dihedral)])
    return c + local @ np.array([axis, np.cross(normal, axis), normal])


def coordinates(phi: float, psi: float) -> np.ndarray:
    """Positions [22, 3] in A of an L-alanine dipeptide with these torsions (degrees), in the order of ATOMS."""
    turned = {"phi": phi, "psi": psi, "": 0.0}
    at = {"ACE:CH3": np.zeros(3), "ACE:C": np.array([1.522, 0.0, 0.0])}
    at["ALA:N"] = at["ACE:C"] + 1.335 * np.array([-np.cos(np.radians(116.6)), np.sin(np.radians(116.6)), 0.0])
    for p in PLACEMENTS:
        internal = (p.distance, p.angle, p.dihedral + turned[p.turns_with])
        at[f"{p.residue}:{p.name}"] = _place(at[p.reference], at[p.grandparent], at[p.parent], internal)
    return np.array([at[atom] for atom in ATOMS])


def dihedral(positions, quadruple: tuple[int, int, int, int]) -> np.ndarray:
    """The dihedral (degrees, -180 to 180) of four atoms; positions [..., N, 3] give [...]."""
    a, b, c, d = (positions[..., atom, :] for atom in quadruple)
    axis = (c - b) / np.linalg.norm(c - b, axis=-1, keepdims=True)
    left, right = np.cross(b - a, axis), np.cross(axis, d - c)
    sine = np.einsum("...i,...i", np.cross(left, right), axis)
    return np.degrees(np.arctan2(sine, np.einsum("...i,...i", left, right)))


def topology(copies: int, box: tuple[float, float, float]):
    """An OpenMM topology of that many dipeptides, a chain each, in an orthorhombic box (A)."""
    from openmm import Vec3, app

    result = app.Topology()
    for _ in range(copies):
        chain = result.addChain()
        residues = {name: result.addResidue(name, chain) for name in ("ACE", "ALA", "NME")}
        atoms = {atom: _add_atom(result, atom, residues) for atom in ATOMS}
        for first, second in BONDS:
            result.addBond(atoms[first], atoms[second])
    # OpenMM's lengths are nm.
    result.setPeriodicBoxVectors([Vec3(box[0], 0, 0) / 10, Vec3(0, box[1], 0) / 10, Vec3(0, 0, box[2]) / 10])
    return result


def _add_atom(topology, atom: str, residues: dict):
    from openmm import app

    residue, name = atom.split(":")
    return topology.addAtom(name, app.Element.getBySymbol(name[0]), residues[residue])
