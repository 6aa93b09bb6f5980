"""Cells of a box that say which atoms may be near another, so that lists take time and memory linear in their number.

Cells are parallelepipeds along the vectors of the box, no narrower between their faces than what is to be found, so
that whoever is near an atom is in its cell or in one of the 26 around it. An axis that is too short for 3 cells is not
divided. Without a box space is divided all the same: cells of one width are numbered periodically, atoms that share a
cell by that are told apart by their distance, and nothing has to be known of how far they spread.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SPARE = 1.2  # slots made for a cell or a list, over those that it takes at first
MORE = 4  # slots beside


@dataclass(frozen=True)
class Cells:
    """A division of space. counts: the cells along each axis, 1 or at least 3. slots: the atoms for which a cell has
    room."""

    counts: tuple[int, int, int]
    slots: int

    @property
    def around(self) -> np.ndarray:
        """The ways from a cell to itself and those around it, [27, 3] where all axes are divided."""
        return np.array(list(product(*[(-1, 0, 1) if count > 1 else (0,) for count in self.counts])))

    @property
    def candidates(self) -> int:
        """The slots of a cell and those around it."""
        return len(self.around) * self.slots


class Filled(NamedTuple):
    """Atoms in their cells. place: [N, 3], the cell of each atom. held: [cells, slots], the atoms of each cell, N where
    there are fewer. full: cells have no room for all atoms, or have become narrower than what is to be found."""

    cells: Cells
    place: jax.Array
    held: jax.Array
    full: jax.Array

    def candidates(self, atom: jax.Array) -> jax.Array:
        """The atoms in the cell of an atom and in those around it, each once, itself included; N in empty slots."""
        found = (self.place[atom] + self.cells.around) % np.array(self.cells.counts)
        return self.held[_number(found, self.cells.counts)].reshape(-1)


def cells_for(several, box, reach: float) -> Cells | None:
    """Cells in which atoms nearer than ``reach`` (nm) are found, with room for the densest of several positions
    [n, N, 3]; None where looking at all atoms costs less. box: that of periodic positions, or None."""
    several = np.asarray(several)
    if box is None:
        counts = np.ptp(several, axis=1).max(axis=0, initial=0.0) // reach + 1
    else:
        counts = np.asarray(widths(box)) // reach
    atoms = several.shape[1]
    counts = counts * min(1.0, (atoms / max(np.prod(counts), 1.0)) ** (1 / 3))  # no more cells than atoms
    counts = tuple(int(count) if count >= 3 else 1 for count in counts)
    most = max(int(_most_in_a_cell(x, box, reach, counts)) for x in several)
    cells = Cells(counts, int(SPARE * most) + MORE)
    return cells if cells.candidates < atoms else None


def widths(box) -> jax.Array:
    """The widths of a box between its faces, along a, b and c, [3]."""
    return 1 / jnp.linalg.norm(jnp.linalg.inv(jnp.asarray(box)), axis=0)


def filled(cells: Cells, positions, box, reach) -> Filled:
    """The atoms at positions [N, 3] nm in their cells; can be compiled."""
    atoms, total = len(positions), math.prod(cells.counts)
    place = _place(positions, box, reach, cells.counts)
    number = _number(place, cells.counts)
    order = jnp.argsort(number)
    first = jnp.searchsorted(number[order], jnp.arange(total + 1))
    slot = first[:-1, None] + jnp.arange(cells.slots)
    held = jnp.where(slot < first[1:, None], order[jnp.minimum(slot, atoms - 1)], atoms)
    narrow = False if box is None else jnp.any(_too_narrow(box, reach, cells.counts))
    return Filled(cells, place, held.astype(jnp.int32), narrow | (jnp.max(jnp.diff(first)) > cells.slots))


def _too_narrow(box, reach, counts: tuple[int, int, int]) -> jax.Array:
    counts = np.array(counts)
    return (counts > 1) & (widths(box) < counts * reach)


def _place(positions, box, reach, counts: tuple[int, int, int]) -> jax.Array:
    """The cells of positions, [N, 3]."""
    counts = np.array(counts)
    turns = positions / (counts * reach) if box is None else positions @ jnp.linalg.inv(box)
    inside = turns - jnp.floor(turns)
    return jnp.clip((inside * counts).astype(jnp.int32), 0, counts - 1).astype(jnp.int32)


def _number(place, counts: tuple[int, int, int]) -> jax.Array:
    """One number of a cell, of its numbers along the axes, [..., 3]."""
    return (place[..., 0] * counts[1] + place[..., 1]) * counts[2] + place[..., 2]


def _most_in_a_cell(positions, box, reach: float, counts: tuple[int, int, int]) -> int:
    number = _number(_place(jnp.asarray(positions), box, reach, counts), counts)
    return np.bincount(np.asarray(number)).max(initial=0)
