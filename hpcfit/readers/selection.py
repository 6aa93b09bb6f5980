"""A selection of the atoms of a trajectory, in the language of MDAnalysis, for what a part of a system scatters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.log import logger
from hpcfit.readers.bonding import ION_ELEMENTS, formula
from hpcfit.readers.frame_folders import frame_files, is_frame_folder
from hpcfit.readers.patterns import suffix_of
from hpcfit.readers.positions import MMCIF, PDB, TrajectoryReader
from hpcfit.readers.topology import particles_of_elements, read_atoms
from hpcfit.store.frame import Frame
from hpcfit.store.particles import Particles


class Chosen(NamedTuple):
    """The atoms of a selection: their numbers [k] among all, in the order of the file."""

    selection: str
    atoms: np.ndarray

    def of(self, frame: Frame) -> Frame:
        """A frame of these atoms alone."""
        forces = None if frame.forces is None else frame.forces[self.atoms]
        return frame._replace(positions=frame.positions[self.atoms], forces=forces)

    def among(self, values: Sequence[str]) -> tuple[str, ...]:
        """The values that these atoms have."""
        return tuple(values[atom] for atom in self.atoms.tolist())


def chosen_atoms(selection: str, reader: TrajectoryReader, topology: Path | None) -> Chosen:
    """The atoms of a selection; names and residues are those of the topology, or of the trajectory itself where it is a
    structure file. Raises InputError, which lists residues, where nothing is selected or the language is another."""
    particles = _particles(reader, topology)
    atoms = selected(particles, selection)
    elements = Chosen(selection, atoms).among(particles.elements)
    logger.info("%s: '%s' selects %d of %d atoms, %s", reader.path, selection, len(atoms), len(particles),
                formula([one for one in elements if one]))  # fmt: skip
    return Chosen(selection, atoms)


def selected(particles: Particles, selection: str) -> np.ndarray:
    """The particles of a selection, [k] int: `Particles.select` with a word `ions`, atoms that are a residue by
    themselves and of an element that is an ion there."""
    return particles.select(re.sub(r"\bions?\b", _ions(particles), selection))


def _ions(particles: Particles) -> str:
    """A selection of the ions by their numbers."""
    alone = np.bincount(particles.residue)[particles.residue] == 1
    found = [atom for atom in np.flatnonzero(alone).tolist() if particles.elements[atom] in ION_ELEMENTS]
    return f"(index {' '.join(map(str, found))})" if found else "(not all)"


def _particles(reader: TrajectoryReader, topology: Path | None) -> Particles:
    elements, path = reader.topology.elements, reader.path
    if topology is None and is_frame_folder(path):
        path = frame_files(path)[0]
    described = topology or (path if suffix_of(path) in (*PDB, *MMCIF) else None)
    particles = particles_of_elements(elements) if described is None else read_atoms(described)
    if len(particles) != len(elements):
        raise InputError(
            f"{reader.path} has {len(elements)} atoms, {described} has {len(particles)}",
            remedy="give the topology of this trajectory",
        )
    return particles
