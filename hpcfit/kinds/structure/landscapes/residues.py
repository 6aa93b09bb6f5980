"""The 20 residues of proteins as graphs: heavy atoms with the hydrogen of each amide, bonds, rest lengths and angles.

A chain has the atoms N, H, CA, C, O and side chain of each residue in this order; the first residue and prolines have
no H, and the end has no OXT. Rest lengths follow from elements, rest angles from the geometry of the middle atom and
from rings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpcfit.errors import InputError, nearest
from hpcfit.physics.internal_coordinates import bonded_terms

# One letter -> name, bonds of the side chain, and its flat atoms.
RESIDUES = {
    "G": ("GLY", "", ""),
    "A": ("ALA", "CA-CB", ""),
    "S": ("SER", "CA-CB CB-OG", ""),
    "C": ("CYS", "CA-CB CB-SG", ""),
    "T": ("THR", "CA-CB CB-OG1 CB-CG2", ""),
    "V": ("VAL", "CA-CB CB-CG1 CB-CG2", ""),
    "P": ("PRO", "CA-CB CB-CG CG-CD CD-N", ""),
    "L": ("LEU", "CA-CB CB-CG CG-CD1 CG-CD2", ""),
    "I": ("ILE", "CA-CB CB-CG1 CB-CG2 CG1-CD1", ""),
    "M": ("MET", "CA-CB CB-CG CG-SD SD-CE", ""),
    "D": ("ASP", "CA-CB CB-CG CG-OD1 CG-OD2", "CG"),
    "N": ("ASN", "CA-CB CB-CG CG-OD1 CG-ND2", "CG"),
    "E": ("GLU", "CA-CB CB-CG CG-CD CD-OE1 CD-OE2", "CD"),
    "Q": ("GLN", "CA-CB CB-CG CG-CD CD-OE1 CD-NE2", "CD"),
    "K": ("LYS", "CA-CB CB-CG CG-CD CD-CE CE-NZ", ""),
    "R": ("ARG", "CA-CB CB-CG CG-CD CD-NE NE-CZ CZ-NH1 CZ-NH2", "NE CZ"),
    "H": ("HIS", "CA-CB CB-CG CG-ND1 ND1-CE1 CE1-NE2 NE2-CD2 CD2-CG", "CG ND1 CE1 NE2 CD2"),
    "F": ("PHE", "CA-CB CB-CG CG-CD1 CD1-CE1 CE1-CZ CZ-CE2 CE2-CD2 CD2-CG", "CG CD1 CE1 CZ CE2 CD2"),
    "Y": ("TYR", "CA-CB CB-CG CG-CD1 CD1-CE1 CE1-CZ CZ-CE2 CE2-CD2 CD2-CG CZ-OH", "CG CD1 CE1 CZ CE2 CD2"),
    "W": (
        "TRP",
        "CA-CB CB-CG CG-CD1 CD1-NE1 NE1-CE2 CE2-CD2 CD2-CG CE2-CZ2 CZ2-CH2 CH2-CZ3 CZ3-CE3 CE3-CD2",
        "CG CD1 NE1 CE2 CD2 CZ2 CH2 CZ3 CE3",
    ),
}
LETTERS = {name: letter for letter, (name, _, _) in RESIDUES.items()}
HYDROPHOBIC = "AVLIMFWPY"
FLAT = {"N", "C"}  # of the backbone
PEPTIDE_BOND = 1.32  # A, C-N of neighbouring residues
# Other rest lengths, A: of single bonds by elements, then of bonds in which both atoms are flat, or one is an end.
SINGLE = {"CC": 1.53, "CN": 1.46, "CO": 1.43, "CS": 1.81, "HN": 1.01}
DOUBLE = {"CC": 1.39, "CN": 1.34, "CO": 1.24}
TETRAHEDRAL, TRIGONAL, PENTAGON, SULPHUR = np.deg2rad([109.5, 120.0, 108.0, 100.0])


@dataclass(frozen=True)
class Chain:
    """names: of atoms; elements; residue: [n], the number of the residue of each; sequence. bonds: [b, 2] with
    lengths [b] A; angles: [a, 3] with rest angles [a] rad."""

    sequence: str
    names: tuple[str, ...]
    elements: tuple[str, ...]
    residue: np.ndarray
    flat: np.ndarray
    bonds: np.ndarray
    lengths: np.ndarray
    angles: np.ndarray
    rest_angles: np.ndarray

    def atom(self, residue: int, name: str) -> int:
        """The number of an atom of a residue."""
        return next(n for n, own in enumerate(self.names) if own == name and self.residue[n] == residue)

    def label(self, atom: int) -> str:
        """RESIDUE NUMBER.ATOM, counted from 1."""
        number = int(self.residue[atom])
        return f"{RESIDUES[self.sequence[number]][0]} {number + 1}.{self.names[atom]}"


def chain_of(sequence: str) -> Chain:
    """The chain of a sequence in one-letter code. Raises InputError for a letter that is no residue."""
    sequence = "".join(sequence.split()).upper()
    if len(sequence) < 2:
        raise InputError(f"the sequence {sequence!r} has {len(sequence)} residues", remedy="give 2 or more")
    for place, letter in enumerate(sequence):
        if letter not in RESIDUES:
            raise InputError(f"residue {place + 1} of the sequence is {letter!r}", remedy=nearest(letter, RESIDUES))
    names, residue, flat, bonds, before = [], [], [], [], None
    for number, letter in enumerate(sequence):
        own, own_bonds, own_flat = _residue(letter, first=number == 0)
        place = {name: len(names) + k for k, name in enumerate(own)}
        bonds += [(place[a], place[b]) for a, b in own_bonds]
        bonds += [] if before is None else [(before, place["N"])]
        before = place["C"]
        flat += [name in own_flat for name in own]
        names += own
        residue += [number] * len(own)
    elements = tuple(name[0] for name in names)
    terms = bonded_terms(len(names), np.array(bonds))
    flat, residue = np.array(flat), np.array(residue)
    lengths = np.array([_length(elements, flat, residue, pair) for pair in terms.bonds])
    rest = _rest_angles(elements, flat, terms.bonds, terms.angles)
    return Chain(sequence, tuple(names), elements, residue, flat, terms.bonds, lengths, terms.angles, rest)


def _residue(letter: str, *, first: bool) -> tuple[list[str], list[tuple[str, str]], set[str]]:
    _, side, planar = RESIDUES[letter]
    bonds = [tuple(bond.split("-")) for bond in side.split()]
    hydrogen = [] if first or letter == "P" else ["H"]
    names = ["N", *hydrogen, "CA", "C", "O"]
    for bond in bonds:
        names += [name for name in bond if name not in names]
    backbone = [("N", "CA"), ("CA", "C"), ("C", "O"), *[("N", "H") for _ in hydrogen]]
    return names, backbone + bonds, FLAT | set(planar.split())


def _length(elements: Sequence[str], flat: np.ndarray, residue: np.ndarray, pair: np.ndarray) -> float:
    i, j = pair
    if residue[i] != residue[j]:
        return PEPTIDE_BOND
    kind = "".join(sorted(elements[i] + elements[j]))
    # An end beside a flat atom, such as O of C, shares its electrons.
    ends = {"O", "N"}
    shared = (flat[i] and (flat[j] or elements[j] in ends)) or (flat[j] and elements[i] in ends)
    return DOUBLE[kind] if shared and kind in DOUBLE else SINGLE[kind]


def _rest_angles(elements: Sequence[str], flat: np.ndarray, bonds: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """The rest angles [a] rad. Angles in rings come first; what is left of 360° at a flat atom is shared by others."""
    near: list[set[int]] = [set() for _ in elements]
    for i, j in bonds.tolist():
        near[i].add(j)
        near[j].add(i)
    pentagon = np.array([_steps_around(near, *angle) == 3 for angle in angles.tolist()], bool)
    hexagon = np.array([_steps_around(near, *angle) == 4 for angle in angles.tolist()], bool)
    middle = angles[:, 1]
    rest = np.where(flat[middle], TRIGONAL, TETRAHEDRAL)
    rest[np.array([elements[atom] == "S" for atom in middle], bool)] = SULPHUR
    rest[pentagon] = PENTAGON
    for atom in np.unique(middle[pentagon & flat[middle]]):
        own = middle == atom
        free = own & ~pentagon & ~hexagon
        if own.sum() == 3 and free.any():
            rest[free] = (2 * np.pi - rest[own & ~free].sum()) / free.sum()
    return rest


def _steps_around(near: Sequence[set[int]], i: int, j: int, k: int) -> int:
    """The bonds from i to k without passing j; 5 for more than 4."""
    reached, edge = {i, j}, {i}
    for steps in range(1, 5):
        edge = {other for atom in edge for other in near[atom]} - reached
        if k in edge:
            return steps
        reached |= edge
    return 5
