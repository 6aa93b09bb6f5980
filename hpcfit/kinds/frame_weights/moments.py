"""First and second moments of a block of frames: the kernel that every step spends its time in.

    m1_h = sum_t w_t F_th        m2_h = sum_t w_t F_th^2         F real [64, n], n a multiple of 64

Each pass reads F once; both directions are written as loops whose running sums stay in the cache, which XLA on CPUs
turns into twice the speed of the two reductions spelled out. A GPU adds side by side instead.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

LANES = 64


def weighted_moments(w_t: jax.Array, F_th: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(m1, m2), each [n], in the type of ``w_t`` [64], whatever narrower type ``F_th`` [64, n] is stored in."""
    kernel = _looped if jax.default_backend() == "cpu" else _spelled_out
    return kernel(w_t, jnp.asarray(F_th))


def _spelled_out(w_t: jax.Array, F_th: jax.Array) -> tuple[jax.Array, jax.Array]:
    F_th = F_th.astype(w_t.dtype)
    wF = w_t[:, None] * F_th
    return jnp.sum(wF, axis=0), jnp.sum(wF * F_th, axis=0)


@jax.custom_vjp
def _looped(w_t: jax.Array, F_th: jax.Array) -> tuple[jax.Array, jax.Array]:
    def add_frame(t, sums):
        F_h = F_th[t].astype(w_t.dtype)
        wF = w_t[t] * F_h
        return sums[0] + wF, sums[1] + wF * F_h

    zero = jnp.zeros(F_th.shape[1], w_t.dtype)
    return jax.lax.fori_loop(0, F_th.shape[0], add_frame, (zero, zero), unroll=4)


def _forward(w_t, F_th):
    return _looped(w_t, F_th), F_th


def _backward(F_th, cotangents):
    """dL/dw_t = sum_h F_th (a_h + F_th b_h) with a = dL/dm1, b = dL/dm2: 64 columns at a time, each its own sum."""
    a_h, b_h = cotangents

    def add_columns(i, sums):
        def columns(values):
            return jax.lax.dynamic_slice_in_dim(values, i * LANES, LANES, axis=-1)

        F = columns(F_th).astype(a_h.dtype)
        return sums + F * (columns(a_h) + F * columns(b_h))

    zero = jnp.zeros((F_th.shape[0], LANES), a_h.dtype)
    sums = jax.lax.fori_loop(0, F_th.shape[1] // LANES, add_columns, zero)
    return jnp.sum(sums, axis=1), None  # the frames are data


_looped.defvjp(_forward, _backward)
