"""Sets of geometries, read and checked against their molecule, and the problem of a rank's share of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from hpcfit.errors import InputError
from hpcfit.fit.by_blocks import Reverse
from hpcfit.fit.gradient import Frames
from hpcfit.fit.grid import Grid
from hpcfit.fit.problem import FrameRows
from hpcfit.fit.reduction import Sum
from hpcfit.kinds.force_field.config import GeometriesConfig
from hpcfit.kinds.force_field.geometries.problem import Given, Molecule, StoredGeometries
from hpcfit.kinds.force_field.geometries.shared import Places, Shared
from hpcfit.kinds.force_field.parameters import Moving
from hpcfit.kinds.force_field.simulated.opened import Opened
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.readers.bonding import nearest_distances
from hpcfit.readers.geometries import read_geometries

NEAR = 1.5  # times shorter or longer than in the topology, up to which distances to nearest atoms may be
CARRIED = 1e-6  # of all weights, that no single geometry must have, or its energy is the offset


class Set(NamedTuple):
    """The geometries of a set that take part. molecule: its number; number: [T] of each in its file; positions:
    [T, N, 3] nm, virtual sites included; energies: [T] kJ/mol, zeros where they are no targets; forces: [T, N, 3]
    kJ/mol/nm, or None; weight: [T]; held_out: [T] bool."""

    config: GeometriesConfig
    molecule: int
    number: np.ndarray
    positions: np.ndarray
    energies: np.ndarray
    forces: np.ndarray | None
    weight: np.ndarray
    held_out: np.ndarray


class Stored(NamedTuple):
    """All sets, molecule after molecule, the molecules' energies, what moves, and all entries of their parameters."""

    sets: tuple[Set, ...]
    molecules: tuple[Molecule, ...]
    moving: Moving
    parameters: dict[str, np.ndarray]

    @property
    def n_geometries(self) -> int:
        """Geometries that take part."""
        return sum(len(one.number) for one in self.sets)

    def ids(self, width: int) -> np.ndarray:
        """The number of each geometry, [blocks, width], -1 where there is none: a block is of one molecule."""
        found, first = [], 0
        for mine in self._by_molecule():
            T = sum(len(one.number) for one in mine)
            found.append(np.pad(np.arange(first, first + T), (0, -T % width), constant_values=-1))
            first += T
        return np.concatenate(found).reshape(-1, width)

    def _by_molecule(self) -> list[list[Set]]:
        return [[one for one in self.sets if one.molecule == number] for number in range(len(self.molecules))]

    def evaluate(self, width: int, grid: Grid, add: Sum, priced: bool = True) -> Reverse:
        """Value and gradient on this rank's geometries. priced: whether priors are part of the loss."""
        ids = self.ids(width)[grid.blocks.start : grid.blocks.stop]
        with_forces = any(one.forces is not None for one in self.sets)
        components = [sum(_count(one, held_out) for one in self.sets) for held_out in (False, True)]
        problem = StoredGeometries(
            self.molecules, self.moving, self.parameters, np.array(components), with_forces, priced
        )
        given = jax.tree.map(lambda leaf: leaf[None], self._given(ids, with_forces))
        of = np.concatenate([np.full(len(one.number), one.molecule) for one in self.sets])
        molecule = np.repeat(of[ids[:, :1]], width, axis=1) if len(ids) else ids
        return Reverse(problem, Frames.in_memory(FrameRows(ids, self.n_geometries, molecule), given), grid, add)

    def _given(self, ids: np.ndarray, with_forces: bool) -> Given:
        N = max(one.positions.shape[1] for one in self.sets)
        places, there = np.where(ids < 0, ids[:, :1], ids), ids[..., None] >= 0
        parts = [_given(one, N, N if with_forces else 1) for one in self.sets]
        found = Given(*(np.concatenate(leaves)[places] for leaves in zip(*parts)))
        return found._replace(of_energy=found.of_energy * there, of_forces=found.of_forces * there)


def _count(one: Set, held_out: bool) -> float:
    """The numbers of forces of a set, as their geometries count."""
    return 0.0 if one.forces is None else float(np.sum(one.weight[one.held_out == held_out])) * one.forces[0].size


def _given(one: Set, N: int, with_forces: int) -> Given:
    """A set as the problem has it, with room for so many atoms, and so many forces."""
    T, atoms = one.positions.shape[:2]
    forces = np.zeros((T, with_forces, 3))
    if one.forces is not None:
        forces[:, :atoms] = one.forces
    padded = np.pad(one.positions, ((0, 0), (0, N - atoms), (0, 0)))
    of_energy, of_forces = (_weights(one, sigma) for sigma in (one.config.energy_sigma, one.config.force_sigma))
    return Given(padded, one.energies, forces, of_energy, of_forces)


def _weights(one: Set, sigma: float | None) -> np.ndarray:
    """The columns of weights of ``problem.Given``, [T, 4]."""
    if sigma is None:
        return np.zeros((len(one.weight), 4))
    halves = np.stack([np.where(one.held_out, 0.0, one.weight), np.where(one.held_out, one.weight, 0.0)], axis=1)
    return np.concatenate([halves / sigma**2, halves], axis=1)


# ---- reading ---------------------------------------------------------------------------------------------------------


def open_sets(
    tables: Sequence[GeometriesConfig], opened: Sequence[Opened], shared: Shared, moves: Moving, seed: int
) -> Stored:
    """Read and check all sets; a molecule is one of ``opened``, of which those without geometries are left out.
    shared: the entries of all; moves: which of them move; seed: of held-out shares."""
    used = [one for one in opened if any(table.molecule == one.name for table in tables)]
    molecules, sets = [], []
    for number, one in enumerate(used):
        mine = [(place, table) for place, table in enumerate(tables) if table.molecule == one.name]
        read = [_open(table, one, number, [seed, place]) for place, table in mine]
        _check_weights(one.name, read)
        shift, centred = _at_start(_molecule(one, shared.places(moves, one)), one, read)
        molecules.append(shift)
        sets += centred
    return Stored(tuple(sets), tuple(molecules), moves, shared.parameters)


def _molecule(opened: Opened, places: Places) -> Molecule:
    real = np.where(opened.masses > 0, 1.0, 0.0)[:, None]
    return Molecule(opened.potential, opened.parameters, places, opened.box, np.array(0.0), real)


def _open(table: GeometriesConfig, opened: Opened, molecule: int, seed: list[int]) -> Set:
    energy = table.energy_unit
    found = read_geometries(table.file, table.length_unit, energy, table.force_unit)
    _check_atoms(table, opened, found.elements, found.positions)
    if table.force_sigma is not None and opened.constraints is not None:
        raise InputError(
            f"geometries '{table.name}' have forces, and {opened.config.system} has {opened.n_constraints} constraints:"
            " what they take up of a force is no derivative of its energy",
            remedy="make the System with constraints=None and rigidWater=False, or leave force_sigma out",
        )
    T = len(found.positions)
    above = np.zeros(T) if found.energies is None else found.energies - found.energies.min()
    chosen = np.flatnonzero(above <= (table.cutoff or np.inf))
    weight = np.exp(-above / (GAS_CONSTANT * table.temperature)) if table.temperature else np.ones(T)
    positions, forces = (_with_sites(values, opened) for values in (found.positions, found.forces))
    energies = np.zeros(T) if table.energy_sigma is None else found.energies
    return Set(
        table, molecule, chosen, positions[chosen], energies[chosen], None if forces is None else forces[chosen],
        weight[chosen], _held_out(table, T, seed)[chosen],
    )  # fmt: skip


def _check_atoms(table: GeometriesConfig, opened: Opened, elements: Sequence[str], positions: np.ndarray) -> None:
    """Raise InputError for geometries of other atoms than those of the molecule, or in another unit of length."""
    real = np.flatnonzero(opened.masses > 0)
    source = opened.config.topology or opened.config.positions
    if positions.shape[1] != len(real):
        raise InputError(
            f"{table.file} has {positions.shape[1]} atoms, molecule '{opened.name}' of {source} has {len(real)}",
            remedy="give geometries of the molecule's atoms; virtual sites are placed by hpcfit",
        )
    known = [opened.elements[atom] for atom in real] if opened.elements else list(elements)
    for atom, (given, expected) in enumerate(zip(elements, known)):
        if given != expected:
            raise InputError(
                f"atom {atom} is {given} in {table.file} and {expected} in {source}",
                remedy="give both with the atoms in one order",
            )
    if opened.structure is None or len(real) < 2:
        return
    here, there = (float(np.median(nearest_distances(x, None))) for x in (positions[0], opened.positions[0][real]))
    if not 1 / NEAR < here / there < NEAR:
        raise InputError(
            f"in {table.file}, read in {table.length_unit}, the nearest atoms of geometry 0 are {here:.3g} nm apart,"
            f" in {source} {there:.3g} nm",
            remedy="correct length_unit",
        )


def _with_sites(values: np.ndarray | None, opened: Opened) -> np.ndarray | None:
    """Positions or forces of all particles, [T, N, 3], from those of atoms; sites get 0, and are placed later."""
    if values is None:
        return None
    found = np.zeros((len(values), len(opened.masses), 3))
    found[:, opened.masses > 0] = values
    return found


def _held_out(table: GeometriesConfig, T: int, seed: list[int]) -> np.ndarray:
    """True for geometries that are held out, [T]."""
    if isinstance(table.held_out, bool):
        return np.full(T, table.held_out)
    if isinstance(table.held_out, float):
        numbers = np.random.default_rng(seed).permutation(T)[: max(round(table.held_out * T), 1)]
    else:
        numbers = np.array(table.held_out)
    if numbers.max() >= T:
        raise InputError(
            f"held_out of geometries '{table.name}' names number {numbers.max()} of {T}", remedy="numbers count from 0"
        )
    return np.isin(np.arange(T), numbers)


def _check_weights(name: str, sets: Sequence[Set]) -> None:
    """Raise InputError where no geometry of a molecule is left to fit, or one whose energy is the offset."""
    weight = np.concatenate([np.where(one.held_out, 0.0, one.weight) for one in sets])
    if all(one.config.held_out is True for one in sets):
        return
    forces = any(one.forces is not None and np.any(~one.held_out) for one in sets)
    left = weight.sum() - weight.max(initial=0.0)
    if not (left > CARRIED * weight.sum() or (forces and weight.sum() > 0)):
        raise InputError(
            f"weights, cutoff and held_out leave {np.sum(weight > CARRIED * weight.max(initial=0.0))} of {len(weight)}"
            f" geometries of molecule '{name}': with an offset they say nothing of its energy",
            remedy="raise temperature or cutoff, or hold out fewer",
        )


def _at_start(molecule: Molecule, opened: Opened, sets: Sequence[Set]) -> tuple[Molecule, list[Set]]:
    """The molecule and its sets with energies about 0. Raises InputError for a geometry without a finite energy."""
    mean = np.mean(np.concatenate([one.energies for one in sets]))
    centred = [one._replace(energies=one.energies - mean) for one in sets]
    off = []
    for one in centred:
        energies = np.asarray(_energies(molecule, one.positions))
        for t in np.flatnonzero(~np.isfinite(energies)):
            raise InputError(
                f"the energy of geometry {one.number[t]} of {one.config.file} is {energies[t]} at the parameters given",
                remedy=f"leave it out, or check that its atoms stand in the order of molecule '{opened.name}'",
            )
        off.append(energies - one.energies)
    return replace(molecule, shift=np.mean(np.concatenate(off))), centred


@jax.jit
def _energies(molecule: Molecule, positions: Any) -> Any:
    return jax.lax.map(partial(molecule.energy, molecule.parameters), positions)
