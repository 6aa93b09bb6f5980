"""The particles that take part in clusters: elements, and molecules by the names of their residues."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.kinds.clusters.composition import Roles
from hpcfit.store.particles import Particles


class Participants(NamedTuple):
    """The U units that are bound to clusters, an atom of an element or a molecule, which have A atoms.

    Nodes and linkers (the core) come first, then shells, each in the order of their first atoms. species: S names,
    nodes, linkers, shells. kind: [U] species of units; start: [U + 1], where the atoms of each begin; particle: [A]
    numbers in the frame; unit: [A]; elements: [A]; core: units, and core_atoms: their atoms, that are no shells.
    """

    roles: Roles
    species: tuple[str, ...]
    kind: np.ndarray
    start: np.ndarray
    particle: np.ndarray
    unit: np.ndarray
    elements: tuple[str, ...]
    core: int

    @property
    def core_atoms(self) -> int:
        """Atoms of nodes and linkers, which come first."""
        return int(self.start[self.core])

    @property
    def first(self) -> np.ndarray:
        """The particle numbers of the first atoms of units, [U]."""
        return self.particle[self.start[:-1]]

    @property
    def is_node(self) -> np.ndarray:
        """True for units that are nodes, [U] bool."""
        return self.kind < len(self.roles.node)

    def atoms_of(self, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The atoms of units [m], in their order, and the row in `units` that each is of."""
        sizes = self.start[units + 1] - self.start[units]
        row = np.repeat(np.arange(len(units)), sizes)
        within = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return self.start[units][row] + within, row


def participants_of(roles: Roles, particles: Particles) -> Participants:
    """The participants among particles. A name that an element of theirs has means atoms, else molecules: the residues
    of this name. Of what several roles name the first has it. Raises InputError for a name that is of nothing."""
    species = (*roles.node, *roles.linker, *roles.shell)
    elements, residues = np.array(particles.elements), np.array(particles.residue_names)
    taken = np.full(len(particles), -1)
    whole = np.zeros(len(species), bool)
    for number, name in enumerate(species):
        whole[number] = name not in particles.elements
        atoms = residues[particles.residue] == name if whole[number] else elements == name
        if not atoms.any():
            raise InputError(
                f"[problem] {roles.of(name)} = '{name}' is no element and no residue of the frames; elements:"
                f" {_some(particles.elements)}; residues: {_some(particles.residue_names)}",
                remedy="name an element, or a molecule by its residue; a store made with a topology knows residues",
            )
        taken[atoms & (taken < 0)] = number
    atom = np.flatnonzero(taken >= 0)
    # Molecules are told apart by their residue, atoms of elements by themselves.
    unit = np.where(whole[taken[atom]], len(particles) + particles.residue[atom], atom)
    _, first, unit = np.unique(unit, return_index=True, return_inverse=True)
    in_core = taken[atom][first] < len(roles.node) + len(roles.linker)
    order = np.lexsort((atom[first], ~in_core))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    by_unit = np.lexsort((atom, place[unit]))
    atom, unit = atom[by_unit], place[unit][by_unit]
    start = np.concatenate([[0], np.cumsum(np.bincount(unit))])
    kind = taken[atom][start[:-1]]
    names = tuple(elements[atom].tolist())
    return Participants(roles, species, kind, start, atom, unit, names, int(in_core.sum()))


def _some(names: tuple[str, ...]) -> str:
    found = sorted(set(filter(None, names)))
    return ", ".join(found[:12]) + (" ..." if len(found) > 12 else "")
