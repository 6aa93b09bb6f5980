"""Restraints and walls: harmonic wells with a flat bottom, of positions, distances, angles and dihedrals.

½ k d²,   d = max(0, |v − v0| − w)        within w of v0 there is no force
½ k d²,   d = max(0, (x − p)·n)           a wall through p, beyond which n points
½ k d²,   d = max(0, |x − p| − R)         a sphere around p
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.energies.bonded import Bonded
from hpcfit.energies.columns import Column
from hpcfit.energies.geometry import minimum_image
from hpcfit.physics.internal_coordinates import length
from hpcfit.pytrees import pytree


@pytree
@dataclass(frozen=True, kw_only=True)
class PositionRestraints:
    """atoms: [T]. places: [T, 3] nm. k: kJ/mol/nm². width: nm."""

    atoms: np.ndarray
    places: np.ndarray
    k: Column
    width: float = field(default=0.0, metadata={"static": True})
    periodic: bool = field(default=False, metadata={"static": True})

    def energy(self, frame, parameters) -> jax.Array:
        """The energy of all restraints, kJ/mol."""
        away = minimum_image(frame.positions[self.atoms] - self.places, frame.box if self.periodic else None)
        if self.width == 0:
            return jnp.sum(0.5 * self.k.values(parameters) * jnp.sum(away * away, axis=-1))
        return _well(self.k.values(parameters), length(away), self.width)


@pytree
@dataclass(frozen=True, kw_only=True)
class InternalRestraints(Bonded):
    """Restraints of distances, angles or dihedrals: atoms [T, 2], [T, 3] or [T, 4]. target: nm or rad. width:
    likewise."""

    target: Column
    k: Column
    width: float = field(default=0.0, metadata={"static": True})

    def energy(self, frame, parameters) -> jax.Array:
        """The energy of all restraints, kJ/mol."""
        measure = {2: self.distances, 3: self.angles, 4: self.dihedrals}[self.atoms.shape[1]]
        off = measure(frame) - self.target.values(parameters)
        if self.atoms.shape[1] == 4:
            off = off - 2 * jnp.pi * jax.lax.stop_gradient(jnp.round(off / (2 * jnp.pi)))
        return _well(self.k.values(parameters), jnp.abs(off), self.width)


@pytree
@dataclass(frozen=True, kw_only=True)
class Wall:
    """A plane that atoms [T] are kept behind. point: [3] nm. normal: [3]. k: kJ/mol/nm², one item."""

    atoms: np.ndarray
    point: np.ndarray
    normal: np.ndarray
    k: Column

    def energy(self, frame, parameters) -> jax.Array:
        """The energy of all atoms beyond the wall, kJ/mol."""
        beyond = (frame.positions[self.atoms] - self.point) @ (self.normal / np.sqrt(self.normal @ self.normal))
        return _well(self.k.values(parameters), beyond, 0.0)


@pytree
@dataclass(frozen=True, kw_only=True)
class SphericalWall:
    """A sphere that atoms [T] are kept inside. centre: [3] nm. radius: nm, k: kJ/mol/nm², one item each."""

    atoms: np.ndarray
    centre: np.ndarray
    radius: Column
    k: Column

    def energy(self, frame, parameters) -> jax.Array:
        """The energy of all atoms outside of the sphere, kJ/mol."""
        away = length(frame.positions[self.atoms] - self.centre)
        return _well(self.k.values(parameters), away, self.radius.values(parameters))


def _well(k, off, width) -> jax.Array:
    return jnp.sum(0.5 * k * jnp.maximum(off - width, 0.0) ** 2)
