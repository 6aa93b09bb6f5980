"""RMSDs of structures from a reference and from each other, at the best superposition (Kabsch)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.kinds.structure.landscapes.landscape import Landscape
from hpcfit.kinds.structure.opening import unit_of
from hpcfit.kinds.structure.starts import IN_ANGSTROM, from_file
from hpcfit.physics.superposition import rmsd
from hpcfit.readers.topology import MMCIF, PDB, read_structure
from hpcfit.store.particles import Particles

SAME_ENERGY = 1e-6  # relative, of replicas at one minimum
SAME_STRUCTURE = 0.1  # RMSD of them at most, in units of length (0.1 A of systems)


class Reference(NamedTuple):
    """A structure that replicas are compared with. chosen: [k], the particles that are superposed; positions: [k, 3]
    of them there, in the landscape's unit; which: what they are, in words."""

    file: str
    chosen: np.ndarray
    positions: np.ndarray
    which: str

    def rmsd(self, x: np.ndarray) -> np.ndarray:
        """The RMSD [R] of structures [R, n, 3]."""
        return rmsd(x[:, self.chosen], self.positions)


def open_reference(path: Path, selection: str | None, landscape: Landscape) -> Reference:
    """The reference of a config. selection: of atoms, in MDAnalysis's language; None for Cα, all where there are none.

    A PDB or mmCIF file may have more atoms than the energy, and fewer: the selection must find the same in both. Raises
    InputError where it does not, and for an energy whose particles cannot be superposed.
    """
    if landscape.d != 3 or not landscape.distinguishable():
        raise InputError(
            f"[problem] reference = '{path}': particles of this energy can be exchanged, or have no positions in space,"
            " so that no structure can be superposed on another",
            remedy="leave `reference` out",
        )
    particles = landscape.particles()
    if selection is not None and particles is None:
        raise InputError(
            f"[problem] reference_atoms = '{selection}': particles of this energy have no names",
            remedy="leave it out: all particles are superposed",
        )
    own, which = _chosen(particles, selection, landscape.n)
    if particles is None or path.suffix.lower() not in PDB + MMCIF:
        return Reference(str(path), own, from_file(path, landscape.n, landscape.length)[own], which)
    structure = read_structure(path)
    other, _ = _chosen(structure.particles, selection, len(structure.particles))
    _check_same(path, which, [particles.names[n] for n in own], [structure.particles.names[n] for n in other])
    return Reference(str(path), own, structure.positions[other] / IN_ANGSTROM.get(landscape.length, 1.0), which)


def _chosen(particles: Particles | None, selection: str | None, n: int) -> tuple[np.ndarray, str]:
    """The particles to superpose, and what they are in words."""
    if particles is None:
        return np.arange(n), "all particles"
    if selection is not None:
        return particles.select(selection), f"'{selection}'"
    named = zip(particles.names, particles.elements)
    carbons = [number for number, (name, element) in enumerate(named) if name == "CA" and element == "C"]
    return (np.array(carbons), "Cα") if carbons else (np.arange(n), "all atoms")


def _check_same(path: Path, which: str, own: list[str], other: list[str]) -> None:
    if len(own) != len(other):
        raise InputError(
            f"reference {path} has {len(other)} atoms of {which}, the energy has {len(own)}",
            remedy="give a structure of the same molecule, or reference_atoms that both have",
        )
    for place, (mine, its) in enumerate(zip(own, other)):
        if mine != its:
            raise InputError(
                f"atom {place} of {which} is {its} in reference {path}, and {mine} in the energy",
                remedy="give a structure with its atoms in the same order, or other reference_atoms",
            )


def distinct(landscape: Landscape, energy: np.ndarray, x: np.ndarray) -> int:
    """The number of different minima among replicas: energies [R], positions [R, n, d].

    Two are one minimum where their energies differ by SAME_ENERGY at most and, if their particles cannot be exchanged,
    their RMSD is SAME_STRUCTURE at most; so are both where a third joins them. Hydrogens do not count in the RMSD:
    those of a methyl group can change places. Where particles have no names a mirror image is the same minimum.
    """
    order = np.argsort(energy)
    apart = np.diff(energy[order]) > SAME_ENERGY * np.maximum(np.abs(energy[order][1:]), 1e-300)
    groups = np.split(order, np.flatnonzero(apart) + 1)
    if not landscape.distinguishable() or landscape.d != 3:
        return len(groups)
    particles = landscape.particles()
    heavy = [n for n, element in enumerate(landscape.elements()) if element != "H"]
    limit = SAME_STRUCTURE * unit_of(landscape)
    return sum(_pieces(x[group][:, heavy], limit, mirrored=particles is None) for group in groups)


def _pieces(x: np.ndarray, limit: float, *, mirrored: bool) -> int:
    """The groups of structures [R, n, 3] that are joined by RMSDs within a limit."""
    left, pieces = list(range(len(x))), 0
    while left:
        pieces, queue = pieces + 1, [left.pop()]
        while queue and left:
            near = rmsd(x[left], x[queue.pop()], mirrored=mirrored) <= limit
            queue += [one for one, close in zip(left, near) if close]
            left = [one for one, close in zip(left, near) if not close]
    return pieces
