"""Sums over all pairs of particles, without an array of all of them: memory is that of some rows.

    E = Σ_{i<j} u(r_ij),    ∂E/∂x_i = Σ_j u'(r_ij) (x_i − x_j)/r_ij

Energy and gradient come from one pass over rows, in which each pair stands twice: that needs no scatter, and it is what
a compiler vectorises. Coincident particles have no direction, and give no force on each other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import cKDTree

AT_ONCE = 1 << 14  # pairs that are computed at a time: they stay in the cache


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def pair_sum(u: Callable[..., jax.Array], x: jax.Array, *constants: Any) -> jax.Array:
    """Σ_{i<j} u(r_ij, *constants) of coordinates [n, d].

    u: elementwise, without derivatives by its constants; finite at r = 1, which stands in for a particle and itself.
    """
    return 0.5 * jnp.sum(_over_rows(lambda row, x: _row(u, row, x, constants)[0], x))


@pair_sum.defjvp
def _(u, arguments, tangents):
    (x, *constants), along = arguments, tangents[0]
    energies, slopes = _over_rows(lambda row, x: _row(u, row, x, constants), x)
    return 0.5 * jnp.sum(energies), jnp.sum(slopes * along)


def _over_rows(function: Callable, x: jax.Array) -> Any:
    """A function of (row, x) for each of the n rows, some at a time. What a row computes is computed again where it is
    pulled back, and so is not kept for all pairs."""
    n = len(x)
    size = max(1, AT_ONCE // n)
    function = jax.checkpoint(function)
    if n <= size:
        return jax.vmap(function, (0, None))(jnp.arange(n), x)
    return jax.lax.map(lambda row: function(row, x), jnp.arange(n), batch_size=size)


def _row(u: Callable, row: jax.Array, x: jax.Array, constants) -> tuple[jax.Array, jax.Array]:
    """The energy of one particle with all others, and its gradient [d]."""
    constants = jax.lax.stop_gradient(constants)
    apart = [component[row] - component for component in x.T]  # vectors of few numbers would not fill a processor's
    squared = sum(one**2 for one in apart)
    other = jnp.arange(len(x)) != row
    distinct = squared > 0
    length = jnp.sqrt(jnp.where(distinct, squared, 1.0))
    r = jnp.where(distinct | ~other, length, 0.0)
    value, slope = jax.jvp(lambda r: u(r, *constants), (r,), (jnp.ones_like(r),))
    along = jnp.where(distinct & other, slope / length, 0.0)
    return jnp.sum(jnp.where(other, value, 0.0)), jnp.stack([jnp.sum(along * one) for one in apart])


def near_pair_sum(
    u: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], x: np.ndarray, cutoff: float
) -> tuple[float, np.ndarray]:
    """Σ_{r_ij < cutoff} u(r_ij) of coordinates [n, d] and its derivatives [n, d], by a list of these pairs, in NumPy.

    u: of distances, gives values and slopes, both 0 at the cut-off.
    """
    pairs = cKDTree(x).query_pairs(cutoff, output_type="ndarray")
    apart = x[pairs[:, 0]] - x[pairs[:, 1]]
    r = np.sqrt(np.einsum("pd,pd->p", apart, apart))
    value, slope = u(r)
    along = np.where(r > 0, slope / np.where(r > 0, r, 1.0), 0.0)[:, None] * apart
    found = [
        np.bincount(pairs[:, 0], part, len(x)) - np.bincount(pairs[:, 1], part, len(x)) for part in along.T
    ]  # fmt: skip
    return float(np.sum(value)), np.stack(found, axis=1)
