"""Constraints of distances: positions and velocities are projected onto them; derivatives are exact.

    x = x_u − M⁻¹ G(x_old)ᵀ λ,   σ_c(x) = ½ (|r_c|² − d_c²) = 0,   G = ∂σ/∂x        SHAKE, SETTLE
    v = v_u − M⁻¹ Gᵀ μ,          G v = 0                                             RATTLE

Constraints that share atoms are a cluster, and each cluster is solved by itself with Newton's method. The derivative is
that of the implicit function λ(x_u, x_old, d): one solve with the same matrix A = G(x) M⁻¹ G(x_old)ᵀ.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.energies.columns import Column
from hpcfit.errors import InputError
from hpcfit.pytrees import pytree

NEAR = 1e-9  # relative violation from which one more step of Newton's method reaches the last digit
STEPS = 50  # of Newton's method at most; two or three from a start that is off by O(δt²)


@pytree
@dataclass(frozen=True)
class Constraints:
    """atoms: [C, m, 2], of each cluster's constraints, padded with (0, 0). there: [C, m]. place: [C, m], each among the
    lengths. lengths: [T] nm. inverse_masses: [N], 1/amu, 0 for a particle without mass."""

    atoms: np.ndarray
    there: np.ndarray
    place: np.ndarray
    lengths: Column
    inverse_masses: np.ndarray

    def positions(self, moved: jax.Array, before: jax.Array, parameters) -> jax.Array:
        """The positions [N, 3] nearest to `moved` along the constraints' directions at `before`, which fulfil them; NaN
        where Newton's method does not find them."""
        old, d_squared = self._arms(before), self.lengths.values(parameters)[self.place] ** 2
        multipliers, held = self._multipliers(self._arms(moved), old, d_squared)
        return jnp.where(held, self._push(moved, old, multipliers), jnp.nan)

    def velocities(self, velocities: jax.Array, positions: jax.Array) -> jax.Array:
        """The velocities without their parts along the constraints, [N, 3]."""
        arms = self._arms(positions)
        along = jnp.sum(arms * self._arms(velocities), axis=-1)
        return self._push(velocities, arms, _solve(self._matrix(arms, arms), along))

    @property
    def rigid(self) -> bool:
        """True where every cluster is a rigid body: two atoms, or three with all their distances."""
        size = self.there.sum(axis=1)
        return bool(np.all((size == 1) | ((size == 3) & (self._atoms_of_clusters() == 3))))

    def _atoms_of_clusters(self) -> np.ndarray:
        return np.array([len(np.unique(atoms[there])) for atoms, there in zip(self.atoms, self.there)], dtype=int)

    def violation(self, positions: jax.Array, parameters) -> jax.Array:
        """The largest relative deviation of a constrained distance."""
        arms, d = self._arms(positions), self.lengths.values(parameters)[self.place]
        return jnp.max(jnp.where(self.there, jnp.abs(jnp.sqrt(jnp.sum(arms**2, axis=-1)) / d - 1), 0.0), initial=0.0)

    def _arms(self, positions) -> jax.Array:
        """x_1 − x_2 of each constraint, [C, m, 3]; (1, 0, 0) of those that only fill a cluster."""
        arms = positions[self.atoms[..., 0]] - positions[self.atoms[..., 1]]
        return jnp.where(self.there[..., None], arms, jnp.array([1.0, 0.0, 0.0]))

    def _push(self, values, arms, multipliers) -> jax.Array:
        push = jnp.where(self.there, multipliers, 0.0)[..., None] * arms
        one, two = self.atoms[..., 0], self.atoms[..., 1]
        values = jnp.asarray(values).at[one].add(-push * self.inverse_masses[one][..., None])
        return values.at[two].add(push * self.inverse_masses[two][..., None])

    def _coupling(self) -> jax.Array:
        """The change of arm c by a unit push along arm e, [C, m, m]: ±1/m of shared atoms; 1 for filling ones."""
        same = self.atoms[:, :, None, :, None] == self.atoms[:, None, :, None, :]  # [C, c, e, end of c, end of e]
        sign = np.array([[1.0, -1.0], [-1.0, 1.0]])
        inverse = jnp.asarray(self.inverse_masses)[self.atoms][:, :, None, :, None]
        coupling = jnp.sum(same * sign * inverse, axis=(-2, -1))
        both = self.there[:, :, None] & self.there[:, None, :]
        return jnp.where(both, coupling, jnp.eye(self.there.shape[1]))

    def _matrix(self, new, old) -> jax.Array:
        return self._coupling() * jnp.einsum("cmk,cnk->cmn", new, old)

    def _multipliers(self, free, old, d_squared) -> tuple[jax.Array, jax.Array]:
        """(λ with |free − coupling λ old|² = d², [C, m]; True if Newton's method has found all of them)"""
        coupling, d_squared = self._coupling(), jnp.where(self.there, d_squared, 1.0)

        def off(λ, free, old, d_squared):
            arms = free - jnp.einsum("cmn,cn,cnk->cmk", coupling, λ, old)
            return arms, 0.5 * (jnp.sum(arms**2, axis=-1) - d_squared)

        def newton(λ, free, old, d_squared):
            arms, violation = off(λ, free, old, d_squared)
            return λ + _solve(coupling * jnp.einsum("cmk,cnk->cmn", arms, old), violation)

        def near(λ):
            return jnp.all(jnp.abs(off(λ, *given)[1]) <= NEAR * given[2], axis=1)

        given = jax.lax.stop_gradient((free, old, d_squared))
        start = jnp.zeros(self.there.shape), 0
        found, _ = jax.lax.while_loop(
            lambda state: ~jnp.all(near(state[0])) & (state[1] < STEPS),
            lambda state: (newton(state[0], *given), state[1] + 1),
            start,
        )
        held = near(found)[:, None]
        found, free = jnp.where(held, found, 0.0), jnp.where(held[..., None], free, old)  # 0 times NaN is no derivative
        # One more step, from a start that is a constant, has the derivative of the implicit function.
        return newton(jax.lax.stop_gradient(found), free, old, d_squared), jnp.all(held)


def _solve(matrix, right) -> jax.Array:
    """The solutions of small systems, [C, m]; of up to three equations by cofactors, many at once."""
    size = matrix.shape[-1]
    if size > 3:
        return jnp.linalg.solve(matrix, right[..., None])[..., 0]
    if size == 1:
        return right / matrix[..., 0]
    if size == 2:
        (a, b), (c, d) = jnp.moveaxis(matrix, (-2, -1), (0, 1))
        x, y = jnp.moveaxis(right, -1, 0)
        return jnp.stack([d * x - b * y, a * y - c * x], axis=-1) / (a * d - b * c)[..., None]
    one, two, three = (matrix[..., k] for k in range(3))  # columns
    cofactors = jnp.stack([jnp.cross(two, three), jnp.cross(three, one), jnp.cross(one, two)], axis=-2)
    return jnp.einsum("...mk,...k->...m", cofactors, right) / jnp.sum(one * cofactors[..., 0, :], axis=-1)[..., None]


def clusters(pairs: np.ndarray, lengths: Column, masses: np.ndarray) -> Constraints:
    """Constraints between pairs [T, 2] of atoms with masses [N] amu."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs, masses = np.asarray(pairs, dtype=np.int32).reshape(-1, 2), np.asarray(masses, dtype=float)
    weightless = pairs[np.all(masses[pairs] == 0, axis=1)] if len(pairs) else pairs
    if len(weightless):
        raise InputError(
            f"a constraint joins the particles {weightless[0].tolist()}, neither of which has a mass",
            remedy="remove the constraint",
        )
    edges = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(masses), len(masses)))
    cluster = connected_components(edges, directed=False)[1][pairs[:, 0]] if len(pairs) else np.zeros(0, int)
    groups = [np.flatnonzero(cluster == number) for number in np.unique(cluster)]
    most = max(map(len, groups), default=1)
    place, there = np.zeros((len(groups), most), dtype=np.int32), np.zeros((len(groups), most), dtype=bool)
    for row, group in enumerate(groups):
        place[row, : len(group)], there[row, : len(group)] = group, True
    atoms = np.where(there[..., None], pairs[place], 0) if len(pairs) else np.zeros((0, 1, 2), dtype=np.int32)
    inverse = np.divide(1.0, masses, out=np.zeros_like(masses), where=masses > 0)
    return Constraints(atoms, there, place, lengths, inverse)
