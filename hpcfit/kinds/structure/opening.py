"""The energy of a config opened, and where replicas begin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from hpcfit.errors import InputError
from hpcfit.kinds.structure import starts
from hpcfit.kinds.structure.config import StartConfig
from hpcfit.kinds.structure.landscapes.clusters import Cluster
from hpcfit.kinds.structure.landscapes.landscape import Landscape
from hpcfit.kinds.structure.landscapes.loops import Loops
from hpcfit.kinds.structure.landscapes.network import Network
from hpcfit.kinds.structure.landscapes.own import Own
from hpcfit.kinds.structure.landscapes.peptide import Peptide
from hpcfit.kinds.structure.landscapes.silicon import Silicon
from hpcfit.kinds.structure.landscapes.stokes import Stokes
from hpcfit.kinds.structure.landscapes.system import SystemLandscape
from hpcfit.kinds.structure.landscapes.thomson import Thomson
from hpcfit.readers.topology import read_structure

NM = 0.1  # nm: the unit of length of systems, in which steps and widths are about what they are in sigma
CUBE = 1.4  # of n^(1/d): the edge of a cube of random starts
BALL = 0.5  # of n^(1/d): the width of a ball in which each particle has a unit of volume, about


def unit_of(landscape: Landscape) -> float:
    """The length that steps and widths of starts are given in, in the unit of coordinates."""
    return NM if landscape.length == "nm" else 1.0


def _of_system(table: Any) -> Landscape:
    structure = read_structure(table.topology)
    particles = structure.particles
    names = [f"{particles.residue_names[number]}.{name}" for number, name in zip(particles.residue, particles.names)]
    return SystemLandscape.of_xml(table.system, NM * structure.positions, names=names, particles=particles)


def _own(table: Any) -> Landscape:
    at = starts.random(table.n, table.d, BALL * table.n ** (1 / table.d), 0)
    return Own.of(table.function, at)


def _protein(table: Any) -> Landscape:
    if table.sequence is None:
        return SystemLandscape.of_structure(table.file, table.force_field)
    return SystemLandscape.of_sequence(table.sequence, table.force_field)


def _peptide(table: Any) -> Landscape:
    return Peptide.of_file(table.file) if table.sequence is None else Peptide.of_sequence(table.sequence)


def _network(table: Any) -> Landscape:
    atoms = None if table.atoms == "all" else table.atoms
    return Network.of_file(table.file, table.cutoff, table.stiffness, atoms=atoms)


FORMS: dict[str, Callable[[Any], Landscape]] = {
    "loops": lambda table: Loops.of(table.n, bonded=table.bonded, seed=table.permuted, cutoff=table.cutoff),
    "lennard-jones": lambda table: Cluster.of(table.n),
    "thomson": lambda table: Thomson.of(table.n),
    "system": _of_system,
    "protein": _protein,
    "peptide": _peptide,
    "elastic-network": _network,
    "silicon": lambda table: Silicon.of(table.cells, vacancies=table.vacancies),
    "stokes": lambda table: Stokes.of(table.side),
    "function": _own,
}


def open_landscape(table: Any) -> Landscape:
    """The energy of [problem.energy]."""
    return FORMS[table.form](table)


@dataclass(frozen=True)
class Starts:
    """The positions that replicas begin at, a function of seed and number alone.

    draw: of the number of a replica; it travels to other ranks, and is made of functions that have a name.
    """

    draw: Callable[[int], np.ndarray]

    @classmethod
    def of(cls, choice: StartConfig, landscape: Landscape, seed: int) -> Starts:
        """Raises InputError for a start that this energy does not have."""
        n, d, unit = landscape.n, landscape.d, unit_of(landscape)
        if choice.kind == "random":
            scale = unit * (choice.scale or BALL * n ** (1 / d))
            return cls(partial(starts.random, n, d, scale, seed))
        if choice.kind == "uniform":
            return cls(partial(starts.uniform, n, d, unit * (choice.scale or CUBE * n ** (1 / d)), seed))
        if choice.kind == "chain":
            couplings = landscape.couplings()
            if couplings is None:
                raise _has_not(choice, "a graph of couplings, and all particles of this energy are alike")
            scale = {} if choice.scale is None else {"scale": unit * choice.scale}
            return cls(partial(starts.laplacian_gaussian, couplings, d, seed, **scale))
        if choice.kind == "md":
            native = _system(choice, landscape)
            return cls(partial(starts.snapshot, native, choice.temperature, choice.duration, seed))
        return cls(partial(_with_noise, _given(choice, landscape), unit * choice.noise, seed))

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """The starts of some replicas, [W, n, d]."""
        return np.stack([self.draw(int(number)) for number in numbers])


def _given(choice: StartConfig, landscape: Landscape) -> np.ndarray:
    """The positions that every replica begins at, [n, d]."""
    if choice.kind == "file":
        return starts.from_file(choice.file, landscape.n, landscape.length)
    if choice.kind == "native":
        native = getattr(landscape, "native", None)
        if native is None:
            raise _has_not(choice, "positions that the energy came with, as those of a system or a protein")
        return native
    if isinstance(landscape, SystemLandscape) and landscape.facts.names:
        atoms = [name.rpartition(".")[2] for name in landscape.facts.names]
        return starts.extended_backbone(landscape.native, landscape.bonds, atoms)
    if not isinstance(landscape, Loops):
        raise _has_not(choice, "the chain of a loop or of a protein")
    return starts.extended_chain(landscape.order, landscape.d, spacing=choice.scale or 1.0)


def _with_noise(x: np.ndarray, noise: float, seed: int, number: int) -> np.ndarray:
    return x + starts.random(*x.shape, noise, seed, number)


def _system(choice: StartConfig, landscape: Landscape) -> SystemLandscape:
    if not isinstance(landscape, SystemLandscape):
        raise _has_not(choice, "a system or a protein, that can be simulated")
    return landscape


def _has_not(choice: StartConfig, what: str) -> InputError:
    return InputError(f"[problem.start] kind = '{choice.kind}' needs {what}", remedy="use kind = 'random'")
