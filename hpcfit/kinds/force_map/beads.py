"""[problem.beads]: the configurational map that a config asks for, on the particles of a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import scipy.sparse

from hpcfit.errors import InputError, check_is_file
from hpcfit.kinds.force_map.bead_choice import Beads
from hpcfit.kinds.force_map.config import BeadsConfig
from hpcfit.readers.boundary import loaded_array, reading
from hpcfit.store.particles import Particles

CENTRES = {"backbone": "backbone", "center-of-mass": "all"}  # selection of the atoms in each residue


def open_beads(choice: BeadsConfig, particles: Particles) -> Beads:
    """Beads and their names. Raises InputError for selections without atoms, atoms there are not, or a matrix that does
    not fit."""
    if choice.particles:
        return _on_atoms(np.arange(len(particles)), particles)
    if choice.each is not None:
        return _on_atoms(particles.select(choice.each), particles)
    if choice.matrix is not None:
        return _of_matrix(choice.matrix, particles)
    if choice.residue is not None and choice.residue not in CENTRES:
        return _on_atoms(_named_atoms(choice, particles), particles)
    groups = _groups(choice, particles)
    return _centres(groups, particles, choice.weights)


def residues_of(beads: Beads, particles: Particles) -> np.ndarray:
    """The residue of each bead's heaviest share, [N]."""
    M = beads.M.tocsr()
    rows = [slice(*M.indptr[bead : bead + 2]) for bead in range(M.shape[0])]
    return np.array([particles.residue[M.indices[row][np.argmax(M.data[row])]] for row in rows])


def _on_atoms(atoms: np.ndarray, particles: Particles) -> Beads:
    names = _unique([f"{_residue_name(particles, atom)} {particles.names[atom]}" for atom in atoms])
    ones = np.ones(len(atoms))
    return Beads(names, scipy.sparse.csr_array((ones, (np.arange(len(atoms)), atoms)), (len(atoms), len(particles))))


def _named_atoms(choice: BeadsConfig, particles: Particles) -> np.ndarray:
    chosen = particles.select(choice.selection)
    found = [atom for atom in chosen if particles.names[atom] == choice.residue]
    if not found:
        raise InputError(
            f"[problem.beads] residue = '{choice.residue}': no atom of this name in selection '{choice.selection}'"
            f" (names there: {', '.join(sorted({particles.names[atom] for atom in chosen})[:12])})",
            remedy="name an atom, 'backbone' or 'center-of-mass'",
        )
    of_residue = particles.residue[found]
    twice = of_residue[:-1][np.diff(of_residue) == 0]
    if len(twice):
        raise InputError(
            f"residue {particles.residue_names[twice[0]]} {particles.residue_numbers[twice[0]]} has several atoms"
            f" '{choice.residue}'",
            remedy="use each = a selection, or atoms = lists of atoms",
        )
    return np.array(found)


def _groups(choice: BeadsConfig, particles: Particles) -> list[tuple[str, np.ndarray]]:
    """Name and atoms of each bead that is a centre; residues of several chains may have one name."""
    if choice.centers is not None:
        return [(selection, particles.select(selection)) for selection in choice.centers]
    if choice.atoms is not None:
        return [(f"bead {number}", _in_range(atoms, particles)) for number, atoms in enumerate(choice.atoms)]
    inside = CENTRES[choice.residue]
    chosen = np.intersect1d(particles.select(choice.selection), particles.select(inside))
    by_residue = np.split(chosen, np.flatnonzero(np.diff(particles.residue[chosen])) + 1)
    return [(_residue_name(particles, atoms[0]), atoms) for atoms in by_residue if len(atoms)]


def _in_range(atoms: Sequence[int], particles: Particles) -> np.ndarray:
    wrong = [atom for atom in atoms if not 0 <= atom < len(particles)]
    if wrong or len(set(atoms)) < len(atoms):
        raise InputError(
            f"[problem.beads] atoms: {f'atom {wrong[0]} is not' if wrong else f'{atoms} names an atom twice, not once'}"
            f" among the {len(particles)} atoms of the store, counted from 0",
            remedy="correct the list",
        )
    return np.array(atoms)


def _centres(
    groups: Sequence[tuple[str, np.ndarray]], particles: Particles, weights: Literal["mass", "equal"]
) -> Beads:
    rows, columns, values = [], [], []
    for number, (name, atoms) in enumerate(groups):
        real = atoms[particles.masses[atoms] > 0]
        if weights == "mass" and not len(real):
            raise InputError(f"bead '{name}' has no mass", remedy="set weights = 'equal', or choose other atoms")
        share = particles.masses[real] if weights == "mass" else np.ones(len(real))
        rows += [number] * len(real)
        columns += real.tolist()
        values += (share / share.sum()).tolist()
    M = scipy.sparse.csr_array((values, (rows, columns)), (len(groups), len(particles)))
    return Beads(_unique([name for name, _ in groups]), M)


def _of_matrix(path: Path, particles: Particles) -> Beads:
    M = read_matrix(path, "[problem.beads] matrix")
    if M.shape[1] != len(particles):
        raise InputError(
            f"{path} has {M.shape[1]} columns, the store has {len(particles)} atoms",
            remedy="give a row for each bead and a column for each atom",
        )
    return Beads(tuple(f"bead {number}" for number in range(len(M))), scipy.sparse.csr_array(M))


def read_matrix(path: Path, what: str) -> np.ndarray:
    """A matrix of numbers, from .npy or from text (spaces or commas). Raises InputError naming ``what``."""
    check_is_file(path, what)
    with reading(f"{what} {path} cannot be read", "give a .npy or a text file"):
        if path.suffix == ".npy":
            matrix = loaded_array(path).astype(float)
        else:
            text = path.read_text(encoding="utf-8").replace(",", " ")
            matrix = np.loadtxt(text.splitlines(), ndmin=2)
    if matrix.ndim != 2 or not np.all(np.isfinite(matrix)):
        raise InputError(
            f"{what} {path} has shape {list(matrix.shape)} or numbers that are not finite",
            remedy="give beads x atoms, all finite",
        )
    return matrix


def _residue_name(particles: Particles, atom: int) -> str:
    residue = particles.residue[atom]
    return f"{particles.residue_names[residue]}{particles.residue_numbers[residue]}"


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    """The names; those that come again get a number."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(found)
