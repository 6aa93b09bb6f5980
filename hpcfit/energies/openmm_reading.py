"""The common parts of the readers of OpenMM's forces: rows of parameters as arrays, the box, the pairs, the result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from hpcfit.energies.columns import Column
from hpcfit.energies.energy import Parameters, Term
from hpcfit.energies.geometry import require_box
from hpcfit.energies.lists import PairSource, pair_source
from hpcfit.physics.openmm_library import import_openmm


class Read(NamedTuple):
    """The terms of a force. write(force, parameters): puts parameters into the same force of a copy of the System."""

    terms: tuple[Term, ...]
    write: Callable[[Any, Parameters], None]


class Box(NamedTuple):
    """The default box of a System, rows a, b, c in nm."""

    vectors: np.ndarray

    @property
    def orthorhombic(self) -> bool:
        """True for a box with right angles."""
        return not np.any(self.vectors - np.diag(self.widths))

    @property
    def widths(self) -> np.ndarray:
        """The widths along the axes, [3] nm."""
        return np.diagonal(self.vectors)

    def require(self, cutoff: float, force: Any) -> None:
        """Raises InputError for a box that is not wide enough for a cut-off."""
        require_box(self.vectors, cutoff, source=force.getName())


def table(items: int, row: Callable, atoms: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Rows of a force: the numbers of atoms, [T, atoms], and each further parameter, [T], in OpenMM's units."""
    columns = np.array([list(_flat(row(item))) for item in range(items)], dtype=float)
    return columns[:, :atoms].astype(np.int32), list(columns[:, atoms:].T)


def _flat(values: Any) -> Iterator[float]:
    for value in map(plain, values):
        yield from _flat(value) if isinstance(value, list | tuple) else (value,)


def pairs_of(force: Any, atoms: int, excluded, box: Box, members=None) -> PairSource:
    """The pairs that a force runs over."""
    cutoff = None if force.getNonbondedMethod() == force.NoCutoff else plain(force.getCutoffDistance())
    periodic = force.usesPeriodicBoundaryConditions()
    if periodic:
        box.require(cutoff, force)
    right = periodic and box.orthorhombic
    return pair_source(atoms, cutoff=cutoff, excluded=excluded, periodic=periodic, orthorhombic=right, members=members)


def plain(value: Any) -> Any:
    """A number of a quantity, in OpenMM's units; numbers as they are."""
    return value.value_in_unit_system(_units()) if hasattr(value, "value_in_unit_system") else value


def numbers(atoms: np.ndarray) -> list[int]:
    """Plain integers, which OpenMM's interface wants."""
    return [int(atom) for atom in atoms]


def values(parameters: Parameters, *columns: Column) -> Iterator[list[float]]:
    """The rows of some columns at some parameters, as plain numbers."""
    arrays = [np.asarray(column.values(parameters)) for column in columns]
    return (list(map(float, row)) for row in zip(*arrays))


def _units():
    return import_openmm().unit.md_unit_system
