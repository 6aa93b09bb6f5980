"""Virtual sites: particles without mass whose places follow from others'; forces on them act on their parents.

average        x = Σ_j w_j x_j                                            two or three parents
out of plane   x = x_1 + w_12 r_12 + w_13 r_13 + w_× r_12 × r_13
local          x = Σ_j o_j x_j + p_x X̂ + p_y Ŷ + p_z Ẑ
               X = Σ_j X_j x_j,  Z = X × Σ_j Y_j x_j,  Ŷ = Ẑ × X̂
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.physics.internal_coordinates import length
from hpcfit.pytrees import pytree


@pytree
@dataclass(frozen=True)
class AverageSites:
    """site: [S]. parents: [S, n]. weights: [S, n]."""

    site: np.ndarray
    parents: np.ndarray
    weights: np.ndarray

    def places(self, positions: jax.Array) -> jax.Array:
        """The places of the sites, [S, 3] nm."""
        return jnp.einsum("sj,sjk->sk", self.weights, positions[self.parents])


@pytree
@dataclass(frozen=True)
class OutOfPlaneSites:
    """site: [S]. parents: [S, 3]. weights: [S, 3], of r_12, r_13 and their cross product (1/nm)."""

    site: np.ndarray
    parents: np.ndarray
    weights: np.ndarray

    def places(self, positions: jax.Array) -> jax.Array:
        """The places of the sites, [S, 3] nm."""
        one, two, three = jnp.moveaxis(positions[self.parents], 1, 0)
        arms = jnp.stack([two - one, three - one, jnp.cross(two - one, three - one)], axis=1)
        return one + jnp.einsum("sj,sjk->sk", self.weights, arms)


@pytree
@dataclass(frozen=True)
class LocalSites:
    """site: [S]. parents: [S, n]. origin, x, y: [S, n], weights of the origin and the two axes. local: [S, 3] nm."""

    site: np.ndarray
    parents: np.ndarray
    origin: np.ndarray
    x: np.ndarray
    y: np.ndarray
    local: np.ndarray

    def places(self, positions: jax.Array) -> jax.Array:
        """The places of the sites, [S, 3] nm."""
        around = positions[self.parents]
        origin, x, y = (jnp.einsum("sj,sjk->sk", weights, around) for weights in (self.origin, self.x, self.y))
        x, z = _unit(x), _unit(jnp.cross(x, y))
        axes = jnp.stack([x, jnp.cross(z, x), z], axis=1)
        return origin + jnp.einsum("sj,sjk->sk", self.local, axes)


@pytree
@dataclass(frozen=True)
class Sites:
    """Groups of virtual sites, in an order in which parents are placed before what hangs on them."""

    groups: tuple[AverageSites | OutOfPlaneSites | LocalSites, ...] = ()

    def place(self, positions: jax.Array) -> jax.Array:
        """The positions with every site in its place, [N, 3] nm."""
        for group in self.groups:
            positions = positions.at[group.site].set(group.places(positions), unique_indices=True)
        return positions


def _unit(vectors: jax.Array) -> jax.Array:
    size = length(vectors)[:, None]
    return vectors / jnp.where(size > 0, size, 1.0)
