"""Structures as text for other programs: PDB where atoms have names and residues, mmCIF where PDB has no room for them,
and XYZ where particles have elements at most. Several frames are several models.
"""

from __future__ import annotations

from collections.abc import Sequence

import gemmi
import numpy as np

from hpcfit.kinds.structure.landscapes.landscape import Landscape
from hpcfit.kinds.structure.starts import IN_ANGSTROM
from hpcfit.store.particles import Particles

MOST_ATOMS, RESIDUE_NUMBERS, COORDINATES = 99_999, (-999, 9999), (-999.999, 9999.999)  # that PDB has room for


def structure_text(landscape: Landscape, frames: np.ndarray, title: str) -> tuple[str, str]:
    """The suffix of a file and its text. frames: [T, n, d] in the landscape's unit; written in A, reduced lengths and
    others as they are."""
    x, particles = np.asarray(frames, float) * IN_ANGSTROM.get(landscape.length, 1.0), landscape.particles()
    if particles is None or x.shape[2] != 3:
        return ".xyz", "".join(xyz(one, title, landscape.elements()) for one in x)
    structure = _structure(particles, x, title)
    if fits_pdb(particles, x):
        return ".pdb", structure.make_pdb_string(gemmi.PdbWriteOptions(cryst1_record=False))  # which would say 1 A
    return ".cif", structure.make_mmcif_document().as_string()


def fits_pdb(particles: Particles, x: np.ndarray) -> bool:
    """True where the columns of PDB have room for atoms, names, numbers and positions (A)."""
    names = {3: particles.residue_names, 4: particles.names, 1: particles.chains}
    numbers = np.asarray(particles.residue_numbers)
    return (
        len(particles) <= MOST_ATOMS
        and all(len(name) <= width for width, of in names.items() for name in of)
        and bool(numbers.min() >= RESIDUE_NUMBERS[0] and numbers.max() <= RESIDUE_NUMBERS[1])
        and bool(x.min() >= COORDINATES[0] and x.max() <= COORDINATES[1])
    )


def xyz(x: np.ndarray, comment: str, names: Sequence[str] | None = None) -> str:
    """The text of an XYZ file of positions [n, d], which are written as they are; missing coordinates are 0."""
    whole = np.zeros((len(x), 3))
    whole[:, : min(x.shape[1], 3)] = x[:, :3]
    rows = zip(names or ["X"] * len(x), whole)
    lines = [f"{name or 'X'} {row[0]:.9f} {row[1]:.9f} {row[2]:.9f}" for name, row in rows]
    return "\n".join([str(len(x)), comment, *lines, ""])


def _structure(particles: Particles, x: np.ndarray, title: str) -> gemmi.Structure:
    """Frames [T, n, 3] A as a structure of gemmi, its atoms in their order."""
    structure = gemmi.Structure()
    structure.info["_struct.title"] = title
    for number, frame in enumerate(x, 1):
        model = gemmi.Model(number)
        for chain_name, residues in _chains(particles):
            chain = gemmi.Chain(chain_name)
            for residue in residues:
                chain.add_residue(_residue(particles, residue, frame))
            model.add_chain(chain)
        structure.add_model(model)
    structure.setup_entities()
    structure.assign_serial_numbers()
    return structure


def _chains(particles: Particles) -> list[tuple[str, list[np.ndarray]]]:
    """The chains, each with the atoms of its residues; what follows each other in the order of atoms."""
    bounds = np.flatnonzero(np.diff(particles.residue)) + 1
    found: list[tuple[str, list[np.ndarray]]] = []
    for atoms in np.split(np.arange(len(particles)), bounds):
        name = particles.chains[particles.residue[atoms[0]]] or "A"
        if not found or found[-1][0] != name:
            found.append((name, []))
        found[-1][1].append(atoms)
    return found


def _residue(particles: Particles, atoms: np.ndarray, x: np.ndarray) -> gemmi.Residue:
    number = int(particles.residue[atoms[0]])
    residue = gemmi.Residue()
    residue.name = particles.residue_names[number]
    residue.seqid = gemmi.SeqId(str(particles.residue_numbers[number]))
    for n in atoms:
        atom = gemmi.Atom()
        atom.name, atom.element = particles.names[n], gemmi.Element(particles.elements[n] or "X")
        atom.pos = gemmi.Position(*x[n])
        residue.add_atom(atom)
    return residue
