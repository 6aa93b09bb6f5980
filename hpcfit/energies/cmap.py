"""CMAP: a correction by two dihedrals, a bicubic spline through a periodic map.

MacKerell, Feig and Brooks 2004, 10.1002/jcc.20065. A map has S × S values, kJ/mol, at dihedrals 0, 2π/S, … of the first
(fast in OpenMM's order) and the second torsion.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.energies.columns import Column
from hpcfit.energies.geometry import dihedral, minimum_image
from hpcfit.energies.splines import Spline, spline
from hpcfit.pytrees import pytree


@pytree
@dataclass(frozen=True)
class CmapTorsions:
    """atoms: [T, 8], of the first and the second torsion. map: [T], which map. maps: M·S·S values, by map, first and
    second dihedral. places: of the values in the extended map, [M, S + 1, S + 1]."""

    atoms: np.ndarray
    map: np.ndarray
    maps: Column
    places: np.ndarray
    spline: Spline
    periodic: bool = field(default=False, metadata={"static": True})

    def energy(self, frame, parameters) -> jax.Array:
        """The energy of all pairs of torsions, kJ/mol."""
        places = jnp.take(jnp.asarray(frame.positions).T, self.atoms, axis=1, mode="clip").reshape(3, -1, 2, 4)
        steps = minimum_image(jnp.diff(places, axis=3), frame.box if self.periodic else None, axis=0)
        turns = dihedral(*jnp.moveaxis(steps, 3, 0))
        tables = self.maps.values(parameters)[self.places]
        return jnp.sum(self.spline(tables, turns[:, 0], turns[:, 1], which=(self.map,)))


def cmap_torsions(atoms, map_of_item, maps: Column, shape: tuple[int, int], *, periodic: bool = False) -> CmapTorsions:
    """The term of maps in a column, for atoms [T, 8]. shape: the number of maps and their size."""
    number, size = shape
    edge = np.arange(size + 1) % size
    places = np.arange(number * size * size).reshape(number, size, size)[:, edge][:, :, edge]
    turn = ((0.0, 2 * np.pi), (0.0, 2 * np.pi))
    return CmapTorsions(atoms, map_of_item, maps, places, spline(turn, (size + 1, size + 1), periodic=True), periodic)
