"""``kinds.frame_weights.one_pass`` on any device of JAX: one tile after another, each of which the cache of a GPU
holds while one weight vector after another uses it.

Not one large batch: bits must not depend on how many tiles or weight vectors there are.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from hpcfit.kinds.frame_weights.orbit_sums import FRAMES, Coefficients, Orbits


def sums(
    w_rt: jax.Array,
    totals: jax.Array,
    data: jax.Array,
    F0: jax.Array,
    orbits: Orbits,
    coefficients: Coefficients,
    of: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """m1, m2 and G as ``orbit_sums.Sums``."""
    basis, powered, power = coefficients
    tiles, coefficients = (data, F0, orbits.share, orbits.orbit), (basis, powered)
    of_vectors = (jnp.asarray(w_rt), jnp.asarray(totals, float), jnp.asarray(of))
    return _all_tiles(of_vectors, *jax.tree.map(jnp.asarray, (tiles, coefficients)), power)


@partial(jax.jit, static_argnames="power")
def _all_tiles(of_vectors, tiles, coefficients, power):
    many, n_tiles = len(of_vectors[0]), len(tiles[0])

    def at(i):  # one loop over both, which is not unrolled where there is one vector
        tile, r = i // many, i % many
        w_t, total, of = (leaf[r] for leaf in of_vectors)
        return _one_tile(w_t, total, power, *(leaf[tile] for leaf in tiles), *(leaf[of, tile] for leaf in coefficients))

    found = jax.lax.map(at, jnp.arange(n_tiles * many))
    return tuple(jnp.swapaxes(leaf.reshape(n_tiles, many, *leaf.shape[1:]), 0, 1) for leaf in found)


def _one_tile(w_t, total, power, data, F0, share, orbit, basis, powered):
    kind, (strips, _, columns) = w_t.dtype, data.shape
    F0, share, basis, powered = (values.astype(float) for values in (F0, share, basis, powered))
    m1, squares = _moments(w_t, data.astype(kind))
    m2 = squares.reshape(-1, 2).sum(axis=1)
    e = -2 * (m1 + (total - 1) * F0)
    # m2 + 2 F0.m1 + W |F0|^2 - |m1 + W F0|^2, without the difference of large terms at W = 1
    x = m2 - jnp.sum(m1 * m1 - (1 - total) * F0 * (2 * m1 + total * F0), axis=1)
    x_o = jax.ops.segment_sum(share * x, orbit, len(share))
    last = jnp.where(powered != 0, powered * jnp.where(powered != 0, x_o, 1.0) ** power, 0.0)
    rows = jnp.concatenate([basis, last[None]])[:, orbit]
    c_kh = jnp.where(share != 0, share * rows, 0.0)  # an orbit of padding has x = 0
    c_ksj = jnp.repeat(c_kh, 2, axis=1).reshape(-1, strips, columns).astype(kind)
    return m1.astype(kind), m2.astype(kind), _gradients(data, e.reshape(strips, 1, columns).astype(kind), c_ksj)


def _moments(w_t, f_stj):
    """sum_t w_t f [width, 2] and sum_t w_t f^2, in float64 over blocks of 64 frames in the type of w_t."""
    strips, n_frames, columns = f_stj.shape
    f = f_stj.reshape(strips, n_frames // FRAMES, FRAMES, columns)
    wf = w_t.reshape(-1, FRAMES, 1) * f
    both = (jnp.sum(jnp.sum(values, axis=2).astype(float), axis=1) for values in (wf, wf * f))
    return tuple(values.reshape(-1, 2) for values in both)


def _gradients(f_stj, e_sj, c_ksj):
    """sum_sj c_ksj f (f + e), [K, T]; f_stj as stored."""
    f = f_stj.astype(e_sj.dtype)
    q = f * (f + e_sj)
    return jnp.stack([jnp.sum(jnp.sum(c_sj[:, None] * q, axis=2), axis=0) for c_sj in c_ksj])
