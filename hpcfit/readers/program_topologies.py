"""Topologies of simulation programs: GRO and TPR of GROMACS, PSF of CHARMM and NAMD, PRMTOP of AMBER, LAMMPS data."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.log import inputs, logger
from hpcfit.physics.scattering import SITE
from hpcfit.readers.bonding import formula
from hpcfit.readers.boundary import quiet, reading
from hpcfit.readers.cells import cell_of
from hpcfit.readers.elements import agree, elements_of_atoms
from hpcfit.readers.lammps_data import read_lammps_data
from hpcfit.readers.pdb_columns import element_named
from hpcfit.readers.topology_layout import check_names_of_psf, check_topology

# The format, and what else writes a topology where this one cannot be read.
PROGRAMS = {
    ".gro": ("GRO", "gmx editconf -f FILE -o FILE.pdb"),
    ".tpr": ("TPR", "gmx editconf -f FILE -o FILE.pdb, since MDAnalysis knows no TPR of a newer GROMACS"),
    ".psf": ("PSF", "VMD or ParmEd, to PDB"),
    ".prmtop": ("PRMTOP", "cpptraj or ParmEd, to PDB"),
    ".parm7": ("PRMTOP", "cpptraj or ParmEd, to PDB"),
    ".data": ("LAMMPS data", "LAMMPS's write_data, with `nocoeff`"),
    ".lmpdat": ("LAMMPS data", "LAMMPS's write_data, with `nocoeff`"),
}  # fmt: skip


HEAVIEST = 1e6  # amu


class ProgramAtoms(NamedTuple):
    """The n atoms of a topology, in its order. positions: [n, 3] A, and cell: None where the format has none; bonds:
    [b, 2], None where it says none; masses: [n] amu, None where it says none."""

    names: tuple[str, ...]
    elements: tuple[str, ...]
    residue: np.ndarray
    residue_names: tuple[str, ...]
    residue_numbers: tuple[int, ...]
    chains: tuple[str, ...]
    positions: np.ndarray | None
    cell: tuple[float, ...] | None
    bonds: np.ndarray | None
    masses: np.ndarray | None


def read_program_topology(path: Path) -> ProgramAtoms:
    """The atoms of a topology by its suffix (`PROGRAMS`).

    Elements are the file's own; those it does not name follow from masses, and from the names of atoms and residues,
    which is said. Raises InputError for a file that cannot be read, which names a program that converts it.
    """
    form, converts = PROGRAMS[path.suffix.lower()]
    with quiet(), reading(f"topology {path} cannot be read as {form}", f"check the file, or convert it: {converts}"):
        if not path.stat().st_size:
            raise ValueError("it is empty")
        found = _of_lammps(path) if form == "LAMMPS data" else _of_mdanalysis(path, form)
        if found.masses is not None and len(wrong := found.masses[~((found.masses >= 0) & (found.masses < HEAVIEST))]):
            raise ValueError(f"a mass of {wrong[0]} amu")
    if "" in found.elements:
        number = found.elements.index("")
        raise InputError(
            f"topology {path} does not say the element of atom {number} ({found.names[number]} of"
            f" {found.residue_names[found.residue[number]]}), nor do its name and mass",
            remedy="give a PDB of the same atoms, with elements in columns 77-78; X stands for a virtual site",
        )
    return found


def _of_mdanalysis(path: Path, form: str) -> ProgramAtoms:
    import MDAnalysis

    check_topology(path, form)
    try:
        universe = MDAnalysis.Universe(str(path), topology_format="PARM7" if form == "PRMTOP" else form, to_guess=())
    except (ValueError, OSError) as error:  # it says on the last line what its parser met
        raise ValueError(str(error).splitlines()[-1].removeprefix("Error: ")) from None
    atoms, residues, there = universe.atoms, universe.residues, form == "GRO"
    positions = atoms.positions.astype(float) if there else None
    cell = _cell_of_gro(path, len(atoms)) if there else None
    masses = np.array(atoms.masses, float) if hasattr(atoms, "masses") else None
    masses = _masses_of_psf(path, masses) if form == "PSF" else masses
    names = tuple(str(name).strip() for name in atoms.names)
    if form == "PSF":
        check_names_of_psf(path, names)
    residue_names = tuple(str(name).strip() for name in residues.resnames)
    residue = np.array(atoms.resindices, int)
    # The segments of GROMACS's and AMBER's files are MDAnalysis's own words.
    chains = tuple(map(str, residues.segids)) if form == "PSF" else ("",) * len(residues)
    numbers = tuple(map(int, residues.resids))
    bonds = np.array(universe.bonds.indices, int).reshape(-1, 2) if hasattr(universe, "bonds") else None
    if there:
        universe.trajectory.close()
    elements = _elements(path, atoms, (names, residue, residue_names, masses))
    return ProgramAtoms(names, elements, residue, residue_names, numbers, chains, positions, cell, bonds, masses)


def _cell_of_gro(path: Path, n_atoms: int) -> tuple[float, ...] | None:
    """Lengths (A) and angles of the box of a GRO; None where its lengths are 0. MDAnalysis gives none for a bad one."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    a, b, c, *rest = (10 * float(word) for word in lines[2 + n_atoms].split())
    b_x, c_x, c_y = (rest[2], rest[4], rest[5]) if rest else (0.0, 0.0, 0.0)
    box = np.array([[a, 0, 0], [b_x, b, 0], [c_x, c_y, c]])
    return None if not box.any() else cell_of(box)


# Charge, mass and the flag of fixed atoms; more numbers may follow.
MASS = re.compile(r"\s[-+]?\d*\.\d+(?:[eE][-+]?\d+)?\s+(\d+\.\d*(?:[eE][-+]?\d+)?)\s+-?\d+(?:\s|$)")


def _masses_of_psf(path: Path, masses: np.ndarray) -> np.ndarray:
    """The masses that the lines of a PSF have; MDAnalysis cuts them at columns that CHARMM-GUI does not keep to."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if "!NATOM" in line:
                break
        found = [MASS.search(line.rstrip()) for line in itertools.islice(file, len(masses))]
    return masses if None in found else np.array([float(one[1]) for one in found])


def _elements(path: Path, atoms: Any, known: tuple) -> tuple[str, ...]:
    """The file's own elements, and for the rest those of masses and names, which are said."""
    own = [element_named(str(one)) for one in atoms.elements] if hasattr(atoms, "elements") else [""] * len(atoms)
    if all(own):
        return tuple(own)
    found = elements_of_atoms(*known)
    if known[-1] is not None and not agree(by_names := elements_of_atoms(*known[:-1], None), found):
        known, found = (*known[:-1], None), by_names
    chosen = tuple(mine or other for mine, other in zip(own, found))
    guessed = [other for mine, other in zip(own, chosen) if not mine and other != SITE and "" not in chosen]
    if guessed and known[-1] is None:
        inputs.warning(
            "%s names no elements: by the names of its atoms they are %s; if this is wrong, give a PDB with elements",
            path, formula(guessed),
        )  # fmt: skip
    elif guessed:
        logger.info("%s names no elements: by the masses of its atoms they are %s", path, formula(guessed))
    return chosen


def _of_lammps(path: Path) -> ProgramAtoms:
    found = read_lammps_data(path)
    names = tuple(f"{element}{number}" for number, element in enumerate(found.elements, 1))
    order, residue = np.unique(found.molecules, return_inverse=True)
    chains, numbers = ("",) * len(order), tuple(map(int, order))
    residue_names = tuple(f"M{number}" for number in order.tolist())
    return ProgramAtoms(
        names, found.elements, residue, residue_names, numbers, chains, found.positions, found.cell, found.bonds,
        found.masses,
    )  # fmt: skip
