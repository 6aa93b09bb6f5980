"""Bonded terms: harmonic bonds, angles and impropers, periodic and Ryckaert–Bellemans torsions.

bond       ½ k (r − r0)²                 kJ/mol/nm²; Urey–Bradley is a bond between the ends of an angle
angle      ½ k (θ − θ0)²                 kJ/mol/rad²
torsion    k (1 + cos(n φ − φ0))
improper   k (φ − φ0)²                   CHARMM's; φ − φ0 taken between −π and π, or as it is
RB         Σ_{n=0..5} c_n cos^n(φ − π)   Ryckaert and Bellemans 1978, 10.1039/DC9786600095
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.energies.columns import Column
from hpcfit.energies.geometry import angle, dihedral, minimum_image
from hpcfit.physics.internal_coordinates import length
from hpcfit.pytrees import pytree


@pytree
@dataclass(frozen=True, kw_only=True)
class Bonded:
    """Groups of atoms. atoms: [T, n]. periodic: separations are those of nearest images."""

    atoms: np.ndarray
    periodic: bool = field(default=False, metadata={"static": True})

    def steps(self, frame) -> tuple[jax.Array, ...]:
        """The separations of successive atoms of each group, n − 1 arrays [3, T] nm."""
        box = frame.box if self.periodic else None
        return tuple(minimum_image(after - before, box, axis=0) for before, after in pairwise(self.places(frame)))

    def places(self, frame) -> tuple[jax.Array, ...]:
        """The places of the atoms of each group, n arrays [3, T] nm."""
        by_component = jnp.asarray(frame.positions).T
        return tuple(jnp.take(by_component, atoms, axis=1, mode="clip") for atoms in jnp.asarray(self.atoms).T)

    def distances(self, frame) -> jax.Array:
        """The lengths of bonds, [T] nm."""
        return length(*self.steps(frame), axis=0)

    def angles(self, frame) -> jax.Array:
        """The angles at the second of three atoms, [T] rad."""
        first, second = self.steps(frame)
        return angle(-first, second)

    def dihedrals(self, frame) -> jax.Array:
        """The dihedrals of four atoms, [T] rad."""
        return dihedral(*self.steps(frame))


@pytree
@dataclass(frozen=True, kw_only=True)
class HarmonicBonds(Bonded):
    """atoms: [T, 2]. length: nm. k: kJ/mol/nm²."""

    length: Column
    k: Column

    def energy(self, frame, parameters) -> jax.Array:
        """The energy of all bonds, kJ/mol."""
        stretch = self.distances(frame) - self.length.values(parameters)
        return jnp.sum(0.5 * self.k.values(parameters) * stretch**2)


@pytree
@dataclass(frozen=True, kw_only=True)
class HarmonicAngles(Bonded):
    """atoms: [T, 3]. angle: rad. k: kJ/mol/rad²."""

    angle: Column
    k: Column

    def energy(self, frame, parameters) -> jax.Array:
        """The energy of all angles, kJ/mol."""
        bend = self.angles(frame) - self.angle.values(parameters)
        return jnp.sum(0.5 * self.k.values(parameters) * bend**2)


@pytree
@dataclass(frozen=True, kw_only=True)
class PeriodicTorsions(Bonded):
    """atoms: [T, 4]. phase: rad. k: kJ/mol. periodicity: [T]."""

    phase: Column
    k: Column
    periodicity: np.ndarray

    def energy(self, frame, parameters) -> jax.Array:
        """The energy of all torsions, kJ/mol."""
        turn = self.periodicity * self.dihedrals(frame) - self.phase.values(parameters)
        return jnp.sum(self.k.values(parameters) * (1 + jnp.cos(turn)))


@pytree
@dataclass(frozen=True, kw_only=True)
class HarmonicImpropers(Bonded):
    """atoms: [T, 4]. angle: rad. k: kJ/mol/rad². wrapped: the difference of angles is taken between −π and π."""

    angle: Column
    k: Column
    wrapped: bool = field(default=True, metadata={"static": True})

    def energy(self, frame, parameters) -> jax.Array:
        """The energy of all impropers, kJ/mol."""
        turn = self.dihedrals(frame) - self.angle.values(parameters)
        if self.wrapped:
            turn = turn - 2 * jnp.pi * jax.lax.stop_gradient(jnp.round(turn / (2 * jnp.pi)))
        return jnp.sum(self.k.values(parameters) * turn**2)


@pytree
@dataclass(frozen=True, kw_only=True)
class RyckaertBellemansTorsions(Bonded):
    """atoms: [T, 4]. c: six columns, kJ/mol."""

    c: tuple[Column, ...]

    def energy(self, frame, parameters) -> jax.Array:
        """The energy of all torsions, kJ/mol."""
        cosine, total = jnp.cos(self.dihedrals(frame) - jnp.pi), 0.0
        for column in reversed(self.c):
            total = total * cosine + column.values(parameters)
        return jnp.sum(total)
