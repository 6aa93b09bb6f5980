"""[problem.constraints]: the distances that a simulation held fixed, by what is known of it; frames check that.

Atoms that constraints join are a rigid group: a force map gives all of them one coefficient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import connected_components

from hpcfit.errors import InputError, check_is_file
from hpcfit.kinds.force_map.config import ConstraintsConfig
from hpcfit.kinds.force_map.virtual_sites import VirtualSite, sites_of_system
from hpcfit.log import inputs
from hpcfit.physics.periodic import nearest_image
from hpcfit.store.catalog import Block
from hpcfit.store.forces import ForceStore
from hpcfit.store.particles import Particles
from hpcfit.store.positions import read_block

WATER = ("HOH", "WAT", "SOL", "TIP3", "TIP4", "T3P", "T4P", "SPC", "DOD", "H2O")
SAMPLE_BLOCKS = 4
# A distance that is held varies by what the stored numbers round and what the simulation's constraint solver left: XTC
# rounds to 0.01 A, which makes +-0.0083 to +-0.0134 A in so many frames, solvers leave 1e-5 relative. A bond that is
# free has a standard deviation of 0.03 A at 300 K (kT / k, k = 3000 kJ/mol/A^2), +-0.04 A in ten frames.
HELD = 1.5e-2


@dataclass(frozen=True)
class HeldDistances:
    """pairs: [c, 2] atoms. virtual: sites without force of their own. sites: how to give their forces to their parents,
    where that is still to be done. said: in words, where the pairs are from."""

    pairs: np.ndarray
    virtual: np.ndarray
    sites: tuple[VirtualSite, ...]
    said: str


def open_constraints(choice: ConstraintsConfig, particles: Particles) -> HeldDistances:
    """The union of what the config names. Raises InputError where its parts contradict each other."""
    found: dict[str, np.ndarray] = {}
    if choice.store and particles.constraints is not None:
        found["the store"] = particles.constraints
    virtual, sites = particles.virtual_sites, ()
    if choice.system is not None:
        system = _read_system(choice.system, particles)
        found[f"{choice.system.name}"] = _constraints_of(system)
        virtual, sites = _virtual_sites(system, choice, virtual)
    for rule in choice.rules:
        found[f"rule {rule}"] = _by_rule(rule, particles)
    if choice.pairs:
        found["pairs"] = _listed(choice.pairs, particles)
    _compare_with_store(found, particles)
    pairs = np.unique(np.sort(np.concatenate([np.empty((0, 2), int), *found.values()]).astype(int), axis=1), axis=0)
    said = ", ".join(f"{len(part)} of {name}" for name, part in found.items()) or "none"
    return HeldDistances(pairs, virtual, sites, said)


def _read_system(path: Path, particles: Particles) -> Any:
    import openmm

    check_is_file(path, "[problem.constraints] system")
    try:
        system = openmm.XmlSerializer.deserialize(path.read_text(encoding="utf-8"))
        count = system.getNumParticles()
    except Exception as error:  # OpenMM raises whatever its parsing met
        raise InputError(
            f"[problem.constraints] system {path} cannot be read as a System of OpenMM: {error}",
            remedy="write it with openmm.XmlSerializer.serialize",
        ) from None
    if count != len(particles):
        raise InputError(
            f"[problem.constraints] system {path} has {count} particles, the store has {len(particles)}",
            remedy="give the System of this trajectory",
        )
    return system


def _constraints_of(system: Any) -> np.ndarray:
    pairs = [system.getConstraintParameters(number)[:2] for number in range(system.getNumConstraints())]
    return np.array(pairs, int).reshape(-1, 2)


def _virtual_sites(system: Any, choice: ConstraintsConfig, virtual: np.ndarray) -> tuple[np.ndarray, tuple]:
    of_system = np.array([i for i in range(system.getNumParticles()) if system.isVirtualSite(i)], int)
    virtual = np.union1d(virtual, of_system).astype(int)
    if not len(of_system):
        return virtual, ()
    if choice.virtual_sites is None:
        raise InputError(
            f"system {choice.system} has {len(of_system)} virtual sites, and the store holds them: it is not known"
            " whether the forces on them have been given to the atoms that they are made of",
            remedy="set [problem.constraints] virtual_sites = 'done' for forces of OpenMM or GROMACS, else"
            " 'redistribute'",
        )
    return virtual, sites_of_system(system) if choice.virtual_sites == "redistribute" else ()


def _by_rule(rule: str, particles: Particles) -> np.ndarray:
    bonds = particles.bonds
    if not len(bonds) and rule != "rigid-water":
        raise InputError(
            f"[problem.constraints] rules = '{rule}': the particles of the store have no bonds",
            remedy="prepare the store with a topology that has bonds, or give pairs",
        )
    hydrogen = np.array([element == "H" for element in particles.elements])
    if rule == "h-bonds":
        return bonds[hydrogen[bonds].any(axis=1)]
    if rule == "all-bonds":
        return bonds
    water = np.array([name.upper() in WATER for name in particles.residue_names])
    pairs = []
    for residue in np.flatnonzero(water):
        atoms = np.flatnonzero((particles.residue == residue) & (particles.masses > 0))
        pairs += [(a, b) for number, a in enumerate(atoms) for b in atoms[number + 1 :]]
    if not pairs:
        raise InputError(
            "[problem.constraints] rules = 'rigid-water': no residue of the store is called water"
            f" ({', '.join(WATER[:4])} ...)",
            remedy="leave the rule out, or give pairs",
        )
    return np.array(pairs)


def _listed(pairs: Sequence[tuple[int, int]], particles: Particles) -> np.ndarray:
    found = np.array(pairs, int)
    wrong = found[np.any((found < 0) | (found >= len(particles)), axis=1)]
    if len(wrong):
        raise InputError(
            f"[problem.constraints] pairs names atoms {wrong[0].tolist()}, the store has {len(particles)} (from 0)",
            remedy="correct the list",
        )
    return found


def _compare_with_store(found: dict[str, np.ndarray], particles: Particles) -> None:
    """What a System or a list says beside the store must be the same as what the store says."""
    said = found.get("the store")
    if said is None or not len(found) > 1:
        return
    known = {tuple(pair) for pair in said.tolist()}
    for name, pairs in found.items():
        listed = {tuple(sorted(pair)) for pair in pairs.tolist()}
        more, less = listed - known, known - listed
        if more or (less and name.endswith(".xml")):
            a, b = sorted(more or less)[0]
            raise InputError(
                f"[problem.constraints] {name} has {len(listed)} constraints, the store {len(known)}:"
                f" {particles.label(a)} and {particles.label(b)} are constrained only in"
                f" {name if more else 'the store'}",
                remedy="correct one of them, or set store = false to use the config alone",
            )


def check_by_frames(held: HeldDistances, store: ForceStore, blocks: Sequence[Block]) -> None:
    """Compare with distances in a sample of frames, which costs the same however many there are.

    Raises InputError for a pair that varies; warns of bonds that do not vary and are not among the pairs.
    """
    chosen = [blocks[n] for n in np.unique(np.linspace(0, len(blocks) - 1, SAMPLE_BLOCKS).astype(int))]
    bonds = store.particles.bonds
    candidates = np.concatenate([held.pairs, bonds]).astype(int)
    if not len(candidates) or sum(block.frames for block in chosen) < 2:
        return
    low, high = np.full(len(candidates), np.inf), np.zeros(len(candidates))
    for block in chosen:
        frames = read_block(store, block)
        step = frames.positions[:, candidates[:, 0]].astype(float) - frames.positions[:, candidates[:, 1]]
        step = step if frames.box is None else nearest_image(step, frames.box)
        length = np.linalg.norm(step, axis=2)
        low, high = np.minimum(low, length.min(axis=0)), np.maximum(high, length.max(axis=0))
    spread = (high - low) / 2
    _check_held(held, store, candidates[: len(held.pairs)], spread[: len(held.pairs)])
    _warn_of_missing(held, store, bonds, spread[len(held.pairs) :])


def _check_held(held: HeldDistances, store: ForceStore, pairs: np.ndarray, spread: np.ndarray) -> None:
    free = np.flatnonzero(spread > HELD)
    if len(free):
        a, b = pairs[free[0]]
        atoms = f"{store.particles.label(a)} and {store.particles.label(b)}"
        raise InputError(
            f"{len(free)} of {len(pairs)} constraints ({held.said}) are not held in the frames of {store.folder}: the"
            f" distance of {atoms} varies by +-{spread[free[0]]:.3f} A",
            remedy="give the constraints of this simulation, or set [problem.constraints] check = false",
        )


def _warn_of_missing(held: HeldDistances, store: ForceStore, bonds: np.ndarray, spread: np.ndarray) -> None:
    known = {tuple(pair) for pair in held.pairs.tolist()}
    missing = [tuple(pair) for pair, width in zip(bonds.tolist(), spread) if width < HELD and tuple(pair) not in known]
    if missing:
        a, b = missing[0]
        inputs.warning(
            "%d bonds do not vary in the frames and are not among the %d constraints (first: %s and %s):"
            " [problem.constraints] system or rules would give their atoms one coefficient",
            len(missing), len(held.pairs), store.particles.label(a), store.particles.label(b),
        )  # fmt: skip


# ---- rigid groups --------------------------------------------------------------------------------------------------
# The gradient of a distance constraint between atoms i and j is along r_ij with opposite signs, so that a map W that is
# constant in the configuration is orthogonal to it only with W_Ii = W_Ij (Ciccotti, Kapral and Vanden-Eijnden,
# 10.1002/cphc.200400669; Kramer and others, 10.1021/acs.jpclett.3c00444). Atoms joined through any chain of
# constraints share one coefficient.


def rigid_groups(n_atoms: int, constraints: np.ndarray, left_out: Sequence[int] = ()) -> np.ndarray:
    """The number of the rigid group of each atom, [n_atoms], counted in the order of their first atoms.

    constraints: pairs of atoms, [c, 2]. left_out: atoms that carry no force of their own, as virtual sites; theirs is
    -1. Raises InputError for a constraint that names an atom there is not, or one that is left out.
    """
    pairs = np.asarray(constraints, int).reshape(-1, 2)
    left_out = np.asarray(left_out, int).reshape(-1)
    _check_pairs(pairs, n_atoms, left_out)
    graph = scipy.sparse.coo_array((np.ones(len(pairs)), tuple(pairs.T)), (n_atoms, n_atoms))
    _, label = connected_components(graph, directed=False)
    kept = np.setdiff1d(np.arange(n_atoms), left_out)
    _, first, of_kept = np.unique(label[kept], return_index=True, return_inverse=True)
    group = np.full(n_atoms, -1)
    group[kept] = np.argsort(np.argsort(first))[of_kept]
    return group


def _check_pairs(pairs: np.ndarray, n_atoms: int, left_out: np.ndarray) -> None:
    missing = pairs[np.any((pairs < 0) | (pairs >= n_atoms), axis=1)]
    if len(missing):
        raise InputError(
            f"a constraint joins atoms {missing[0, 0]} and {missing[0, 1]}, but there are {n_atoms} atoms (from 0)",
            remedy="take constraints and trajectory from the same system",
        )
    virtual = pairs[np.any(np.isin(pairs, left_out), axis=1)]
    if len(virtual):
        raise InputError(
            f"a constraint joins atoms {virtual[0, 0]} and {virtual[0, 1]}, one of which is a virtual site",
            remedy="constrain the atoms that the site is made of",
        )
