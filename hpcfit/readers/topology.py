"""Particles from the files of a simulation: PDB or mmCIF for names, residues and bonds, and a System of OpenMM."""

from __future__ import annotations

import gzip
import warnings
import xml.etree.ElementTree as xml
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError, check_is_file
from hpcfit.log import inputs, logger
from hpcfit.physics.scattering import SITE, orthogonalization
from hpcfit.readers.bonding import IONS, formula, guessed_bonds, molecules
from hpcfit.readers.boundary import quiet, reading
from hpcfit.readers.cells import sound_cell
from hpcfit.readers.cif_models import cell_of_block
from hpcfit.readers.patterns import suffix_of
from hpcfit.readers.pdb_columns import (
    NO_RECORDS,
    conect_records,
    element_named,
    pdb_columns,
    warn_of_alternates,
    without_element,
)
from hpcfit.readers.program_topologies import HEAVIEST, PROGRAMS, read_program_topology
from hpcfit.readers.tables import strict_number
from hpcfit.readers.text_layout import check_layout
from hpcfit.store.particles import Particles
from hpcfit.store.positions import FURTHEST

PDB, MMCIF = (".pdb", ".ent"), (".cif", ".mmcif")


class SystemFacts(NamedTuple):
    """The n particles of a System of OpenMM. masses: [n] amu; constraints: [c, 2]; sites: [v], virtual."""

    masses: np.ndarray
    constraints: np.ndarray
    sites: np.ndarray


def read_system(path: Path) -> SystemFacts:
    """The facts of a System that OpenMM serialized to a file. Raises InputError for another file."""
    check_is_file(path, "system")
    return parse_system(path.read_text(encoding="utf-8", errors="replace"), str(path))


def parse_system(text: str, name: str) -> SystemFacts:
    """The facts of a System as XML; ``name`` is what errors call it."""
    try:
        root = xml.fromstring(text)
        if root.tag != "System":
            raise ValueError(f"it holds <{root.tag}>")
        particles = root.findall("Particles/Particle")
        masses = np.array([strict_number(particle.attrib["mass"]) for particle in particles])
        rows = [(int(row.attrib["p1"]), int(row.attrib["p2"])) for row in root.findall("Constraints/Constraint")]
    except (xml.ParseError, KeyError, ValueError, RecursionError) as error:
        raise InputError(
            f"{name} is not a System that OpenMM serialized: {error}",
            remedy="write one with openmm.XmlSerializer.serialize(system)",
        ) from None
    wrong = [row for row in rows if row[0] == row[1] or not all(0 <= one < len(masses) for one in row)]
    no_masses = masses[~((masses >= 0) & (masses < HEAVIEST))]
    if wrong or len(no_masses):
        said = f"a constraint of {wrong[0]}" if wrong else f"a mass of {no_masses[0]}"
        raise InputError(
            f"{name} has {len(masses)} particles and {said}",
            remedy="write it again with openmm.XmlSerializer.serialize(system)",
        )
    sites = [number for number, particle in enumerate(particles) if len(particle)]
    return SystemFacts(masses, np.array(rows, np.int32).reshape(-1, 2), np.array(sites, int))


class Structure(NamedTuple):
    """The atoms of a structure file with its positions [n, 3] A and its box [3, 3] A, None where it has none."""

    particles: Particles
    positions: np.ndarray
    box: np.ndarray | None


class _Atoms(NamedTuple):
    """The atoms of a structure file in its order, its positions and box where it has them; bonds and masses where it
    says them itself."""

    names: tuple[str, ...]
    elements: tuple[str, ...]
    residue: np.ndarray
    residue_names: tuple[str, ...]
    residue_numbers: tuple[int, ...]
    chains: tuple[str, ...]
    positions: np.ndarray | None
    box: np.ndarray | None
    bonds: np.ndarray | None = None
    masses: np.ndarray | None = None


def read_particles(path: Path, system: SystemFacts | None = None) -> Particles:
    """The particles of a PDB, mmCIF, GRO, TPR, PSF or PRMTOP file or a data file of LAMMPS, with the masses and
    constraints of its System where there is one.

    Bonds and masses are the file's own where it has them. Else bonds are those that OpenMM makes for standard residues
    and CONECT records; atoms that it leaves alone in a residue are bonded by distance. Without a System masses are
    those of the elements, and constraints are not known.
    Raises InputError for files that cannot be read, or that are of other particles than the System.
    """
    return _particles(path, _read_atoms(path), system)


def read_atoms(path: Path) -> Particles:
    """The particles of a topology (see ``read_particles``) without bonds, for which nothing needs to be found."""
    atoms = _read_atoms(path)._replace(bonds=np.empty((0, 2), int))
    return _particles(path, atoms, None)


def read_structure(path: Path, system: SystemFacts | None = None) -> Structure:
    """The particles of a topology that holds positions (see ``read_particles``), and where they lie in its first
    model."""
    atoms = _read_atoms(path)
    if atoms.positions is None:
        raise InputError(f"{path} holds no positions", remedy="give a PDB, mmCIF or GRO of the same atoms")
    return Structure(_particles(path, atoms, system), atoms.positions, atoms.box)


def _particles(path: Path, atoms: _Atoms, system: SystemFacts | None) -> Particles:
    if system is not None and len(system.masses) != len(atoms.names):
        raise InputError(
            f"topology {path} has {len(atoms.names)} atoms, its System has {len(system.masses)} particles",
            remedy="give the files of one system; virtual sites stand in the structure too",
        )
    _check_elements(path, atoms, system)
    atoms = atoms._replace(elements=tuple("" if element == SITE else element for element in atoms.elements))
    masses = _masses(atoms.elements) if atoms.masses is None else atoms.masses
    particles = Particles(*atoms[:6], masses, _bonds(path, atoms) if atoms.bonds is None else atoms.bonds)
    warn_of_valences(str(path), particles)
    return particles if system is None else with_system(particles, system)


MOST_BONDS = {"H": 2, "D": 2, "C": 4, "N": 4, "O": 4, "F": 2}  # bridges and ions included


def warn_of_valences(where: str, particles: Particles) -> None:
    """Say which atoms have more bonds than their element can have: those at alternate locations, or on each other."""
    counts = np.bincount(particles.bonds.ravel(), minlength=len(particles))
    wrong = [atom for atom in np.flatnonzero(counts > 2).tolist()
             if counts[atom] > MOST_BONDS.get(particles.elements[atom], len(counts))]  # fmt: skip
    if wrong:
        inputs.warning(
            "%s: %d atoms have more bonds than their element can have, for instance %s, %s with %d: are there atoms at"
            " alternate locations, on each other, or of another element?",
            where, len(wrong), particles.label(wrong[0]), particles.elements[wrong[0]], counts[wrong[0]],
        )  # fmt: skip


def with_system(particles: Particles, system: SystemFacts) -> Particles:
    """The particles with the masses and constraints of their System; InputError where that has another number."""
    if len(system.masses) != len(particles):
        raise InputError(
            f"the trajectory has {len(particles)} atoms, its System has {len(system.masses)} particles",
            remedy="give the System of this trajectory",
        )
    return particles.changed(masses=system.masses, constraints=system.constraints)


def particles_of_elements(elements: Sequence[str]) -> Particles:
    """Particles of which only the elements are known, without bonds: one residue, named by its formula.

    An atom is named by its element and its number among the atoms of that element.
    """
    counts: Counter[str] = Counter()
    names = []
    for element in elements:
        counts[element] += 1
        names.append(f"{element}{counts[element]}")
    none = np.empty((0, 2), int)
    residue = np.zeros(len(names), int)
    return Particles(
        tuple(names), tuple(elements), residue, (formula(elements),), (1,), ("",), _masses(tuple(elements)), none
    )  # fmt: skip


def particles_of_residues(
    names: Sequence[str], elements: Sequence[str], residue: np.ndarray, residue_names: Sequence[str], *,
    numbers: Sequence[int] | None = None, chains: Sequence[str] | None = None, bonds: np.ndarray,
) -> Particles:  # fmt: skip
    """Atoms of which all but the masses is known, which are those of their elements. numbers: of residues, from 1 by
    default; chains: of residues, all "A" by default."""
    count = len(residue_names)
    numbers = range(1, count + 1) if numbers is None else numbers
    chains = ["A"] * count if chains is None else chains
    return Particles(
        tuple(names), tuple(elements), residue, tuple(residue_names), tuple(numbers), tuple(chains),
        _masses(tuple(elements)), bonds,
    )  # fmt: skip


def guessed_particles(elements: Sequence[str], positions: np.ndarray, box: np.ndarray | None) -> Particles:
    """Particles of which only elements and positions (A) are known: bonds by distance, residues are molecules.

    A molecule is named by its formula, and its atoms by element and number.
    """
    bonds = guessed_bonds(elements, positions, box)
    residue = molecules(len(elements), bonds)
    members = np.split(np.argsort(residue, kind="stable"), np.cumsum(np.bincount(residue))[:-1])
    names = [""] * len(elements)
    for atoms in members:
        of = [elements[atom] for atom in atoms]
        for place, atom in enumerate(atoms):
            names[atom] = f"{of[place]}{of[: place + 1].count(of[place])}"
    formulas = tuple(formula([elements[atom] for atom in atoms]) for atoms in members)
    numbers, chains = tuple(range(1, len(members) + 1)), ("",) * len(members)
    return Particles(
        tuple(names), tuple(elements), residue, formulas, numbers, chains, _masses(tuple(elements)), bonds
    )  # fmt: skip


def _masses(elements: Sequence[str]) -> np.ndarray:
    """[n] amu; particles without an element have none."""
    import gemmi

    known = {element: gemmi.Element(element).weight if element not in ("", SITE) else 0.0 for element in set(elements)}
    return np.array([known[element] for element in elements])


def _check_elements(path: Path, atoms: _Atoms, system: SystemFacts | None) -> None:
    sites = set() if system is None else set(system.sites.tolist())
    for number, element in enumerate(atoms.elements):
        if not element and number not in sites:
            said, remedy = without_element(path, number, atoms.names[number])
            raise InputError(said, remedy=f"{remedy}; or give system = the System of OpenMM, which knows its sites")


def _read_atoms(path: Path) -> _Atoms:
    check_is_file(path, "topology", "correct [[prepare.source]] topology")
    suffix = suffix_of(path)
    if path.suffix.lower() in PROGRAMS:
        return _checked(path, _program_atoms(path))
    if suffix not in PDB + MMCIF:
        known = ", ".join((*PDB, *MMCIF, *PROGRAMS))
        raise InputError(f"topology {path}: '{suffix}' is not read", remedy=f"give one of {known}")
    with reading(f"topology {path} cannot be read", "check the file"):
        if suffix in PDB:
            check_layout(path, "pdb")
        atoms = _pdb_atoms(path) if suffix in PDB else _mmcif_atoms(path)
    if not atoms.names:
        raise InputError(f"topology {path} has no atoms", remedy="give the file that the simulation started from")
    return _checked(path, atoms)


def _program_atoms(path: Path) -> _Atoms:
    found = read_program_topology(path)
    box = _box(path, found.cell)
    return _Atoms(*found[:7], box, found.bonds, found.masses)


def _pdb_atoms(path: Path) -> _Atoms:
    import MDAnalysis

    with quiet():
        universe = MDAnalysis.Universe(str(path), to_guess=())
        atoms, residues = universe.atoms, universe.residues
        columns = pdb_columns(path)
        chains = tuple(str(residue.atoms[0].chainID).strip() for residue in residues)
        box = _box(path, universe.dimensions)
        positions = atoms.positions.astype(float)
        universe.trajectory.close()
    names, residue_names = tuple(map(str, atoms.names)), tuple(map(str, residues.resnames))
    numbers = tuple(map(int, residues.resids))
    warn_of_alternates(path, columns.alternates)
    return _Atoms(names, columns.elements, atoms.resindices, residue_names, numbers, chains, positions, box)


# For each field the columns of mmCIF, the author's first: they are what a PDB file has.
COLUMNS = [
    "type_symbol", "?auth_atom_id", "?label_atom_id", "?auth_comp_id", "?label_comp_id", "?auth_seq_id",
    "?label_seq_id", "?auth_asym_id", "?label_asym_id", "?pdbx_PDB_ins_code", "?pdbx_PDB_model_num",
    "Cartn_x", "Cartn_y", "Cartn_z",
]  # fmt: skip


def _mmcif_atoms(path: Path) -> _Atoms:
    import gemmi

    block = gemmi.cif.read(str(path)).sole_block()
    table = block.find("_atom_site.", COLUMNS)
    rows = [[_value(row, column) for column in range(len(COLUMNS))] for row in table]
    rows = [row for row in rows if row[10] == rows[0][10]]
    # Atoms of one residue follow each other.
    of = [(row[5] or row[6], row[3] or row[4], row[7] or row[8], row[9]) for row in rows]
    starts = [number for number in range(len(of)) if number == 0 or of[number] != of[number - 1]]
    residue = np.searchsorted(starts, np.arange(len(of)), side="right") - 1
    numbers, names, chains, _ = zip(*(of[start] for start in starts)) if starts else ((),) * 4
    positions = np.array([[strict_number(value) for value in row[11:]] for row in rows]).reshape(-1, 3)
    elements = tuple(element_named(row[0]) for row in rows)
    atom_names = tuple(row[1] or row[2] for row in rows)
    return _Atoms(
        atom_names, elements, residue, names,
        tuple(int(number) if number else 0 for number in numbers), chains, positions,
        _box(path, cell_of_block(block)),
    )  # fmt: skip


def _checked(path: Path, atoms: _Atoms) -> _Atoms:
    """The atoms. Raises InputError for an atom without a name, or without a place that a store could keep."""
    wrong = {number for number, name in enumerate(atoms.names) if not name}
    if atoms.positions is not None:
        wrong |= set(np.flatnonzero(~np.all(np.abs(atoms.positions) <= FURTHEST, axis=1)).tolist())
    for number in sorted(wrong)[:1]:
        position = "" if atoms.positions is None else f" and the position {atoms.positions[number].tolist()} A"
        raise InputError(
            f"topology {path}: atom {number} has the name '{atoms.names[number]}'{position}",
            remedy="write a name and three coordinates for each atom, in A (GRO: nm)",
        )
    return atoms


def _value(row, column: int) -> str:
    """A value of a row; nothing where the column is missing or the value unknown."""
    import gemmi

    return "" if not row.has(column) or gemmi.cif.is_null(row[column]) else row.str(column)


def _box(path: Path, cell) -> np.ndarray | None:
    cell = sound_cell(path, cell)
    return None if cell is None else orthogonalization(cell).T


def _bonds(path: Path, atoms: _Atoms) -> np.ndarray:
    """Bonds as OpenMM makes them, or of CONECT records, and by distance where these know none."""
    written = conect_records(path) if suffix_of(path) in PDB else NO_RECORDS
    bonds = _known_or_guessed(path, atoms, written.pairs)
    there = set(map(frozenset, bonds.tolist()))
    lost = written.unclear + sum(frozenset(pair) not in there for pair in written.pairs.tolist())
    if lost:
        inputs.warning(
            "%s: %d of %d bonds of its CONECT records are not used: they name atoms that are not there, or serial"
            " numbers that several atoms have", path, lost, written.unclear + len(written.pairs),
        )  # fmt: skip
    return bonds


def _known_or_guessed(path: Path, atoms: _Atoms, written: np.ndarray) -> np.ndarray:
    known = _openmm_bonds(path, atoms)
    if known is None and len(written):
        known = written.astype(np.int32)
    if known is None:
        return guessed_bonds(atoms.elements, atoms.positions, atoms.box)
    alone = _without_bonds(atoms, known)
    if not alone.any():
        return known
    guessed = guessed_bonds(atoms.elements, atoms.positions, atoms.box)
    added = guessed[alone[guessed].any(axis=1)]
    logger.info("%s: %d bonds of atoms whose bonds are not known were found by distance", path, len(added))
    return np.concatenate([known, added])


def _without_bonds(atoms: _Atoms, bonds: np.ndarray) -> np.ndarray:
    """[n] bool: atoms without bonds in a residue of several; not virtual sites and ions."""
    alone = np.array([bool(element) and element not in IONS for element in atoms.elements])
    alone[bonds] = False
    return alone & (np.bincount(atoms.residue)[atoms.residue] > 1)


def _openmm_bonds(path: Path, atoms: _Atoms) -> np.ndarray | None:
    """[b, 2]; None where there is no OpenMM, or it does not read these very atoms."""
    try:
        from openmm import app
    except ImportError:
        return None
    reader = app.PDBFile if suffix_of(path) in PDB else app.PDBxFile
    opens = gzip.open if path.suffix == ".gz" else open
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with opens(path, "rt") as file:
                topology = reader(file).topology
        except Exception:  # it raises whatever its parsing met; the file was read already
            return None
    elements = ["" if atom.element is None else atom.element.symbol for atom in topology.atoms()]
    if len(elements) != len(atoms.names) or any(a and b and a != b for a, b in zip(elements, atoms.elements)):
        return None  # alternate locations, of which OpenMM takes one
    return np.array([(a.index, b.index) for a, b in topology.bonds()], np.int32).reshape(-1, 2)
