"""The beads as particles of a coarse-grained store: residues, masses and bonds, from those of their atoms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from hpcfit.errors import InputError
from hpcfit.kinds.force_map.bead_choice import Beads
from hpcfit.kinds.force_map.beads import residues_of
from hpcfit.store.particles import Particles


def coarse_particles(beads: Beads, atoms: Particles, bonds: Literal["auto", "none"] | Sequence[tuple[int, int]]):
    """One particle a bead, in the residue that it is of, with an equal share of the mass of the residue."""
    of_bead = residues_of(beads, atoms)
    kept, residue = np.unique(of_bead, return_inverse=True)
    order = np.argsort(np.argsort(kept))
    mass = np.bincount(atoms.residue, atoms.masses, minlength=atoms.n_residues)[of_bead]
    share = np.bincount(residue)[residue]
    return Particles(
        names=_names(beads, atoms),
        elements=("",) * len(of_bead),
        residue=order[residue],
        residue_names=tuple(atoms.residue_names[r] for r in kept),
        residue_numbers=tuple(atoms.residue_numbers[r] for r in kept),
        chains=tuple(atoms.chains[r] for r in kept),
        masses=np.maximum(mass / share, 1.0),
        bonds=_bonds(bonds, of_bead, atoms),
        constraints=np.empty((0, 2), np.int32),
    )


def bead_types(particles: Particles, by: Literal["residue", "one", "each"]) -> list[str]:
    """The force-field type of each bead.

    by: "residue", the residue's name, with the place in the residue where it has several beads; "one", one type for all
    beads; "each", the bead's number.
    """
    if by == "one":
        return ["bead"] * len(particles)
    if by == "each":
        return [f"{number}" for number in range(len(particles))]
    several = np.bincount(particles.residue)[particles.residue] > 1
    place = [int(np.sum(particles.residue[:bead] == r)) for bead, r in enumerate(particles.residue)]
    return [
        particles.residue_names[r] + (f".{p}" if more else "") for r, p, more in zip(particles.residue, place, several)
    ]


def _names(beads: Beads, atoms: Particles) -> tuple[str, ...]:
    """The name of the atom of a bead that is one atom, else that of the bead."""
    lone = [beads.atoms(bead) for bead in range(len(beads.names))]
    return tuple(atoms.names[of[0]] if len(of) == 1 else name for of, name in zip(lone, beads.names))


def _bonds(wanted: Literal["auto", "none"] | Sequence[tuple[int, int]], of_bead: np.ndarray, atoms: Particles):
    if wanted == "none":
        return np.empty((0, 2), int)
    if wanted != "auto":
        return _listed(wanted, len(of_bead))
    first = {residue: number for number, residue in reversed(list(enumerate(of_bead.tolist())))}
    last = {residue: number for number, residue in enumerate(of_bead.tolist())}
    inside = [(a, a + 1) for a in range(len(of_bead) - 1) if of_bead[a] == of_bead[a + 1]]
    joined = {tuple(sorted(pair)) for pair in atoms.residue[atoms.bonds].tolist() if pair[0] != pair[1]}
    between = [(last[a], first[b]) for a, b in sorted(joined) if a in last and b in first]
    return np.array(inside + between, int).reshape(-1, 2)


def _listed(pairs: Sequence[tuple[int, int]], n: int) -> np.ndarray:
    found = np.array(pairs, int).reshape(-1, 2)
    wrong = found[(found < 0).any(axis=1) | (found >= n).any(axis=1)]
    if len(wrong):
        raise InputError(
            f"[problem.force_matching] bonds names beads {wrong[0].tolist()}, there are {n} (from 0)",
            remedy="correct the list",
        )
    return found
