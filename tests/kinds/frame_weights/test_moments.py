"""The kernel of the step: both spellings against NumPy in float64, values and pull-backs, from every stored type."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.kinds.frame_weights.moments import _looped, _spelled_out

N = 192


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return rng.random(64), rng.standard_normal((64, N)), rng.standard_normal(N), rng.standard_normal(N)


@pytest.mark.parametrize("kernel", [_looped, _spelled_out])
@pytest.mark.parametrize(
    ("kept", "dtype", "bits"), [("f8", "f8", 52), ("f4", "f4", 23), ("f2", "f4", 23), ("f4", "f8", 52)]
)
def test_moments_and_their_pull_back(arrays, kernel, kept, dtype, bits):
    w_t, F_th, a_h, b_h = arrays
    F_th = F_th.astype(kept)
    exact, w_t = F_th.astype(float), w_t.astype(dtype)
    (m1, m2), pull = jax.vjp(lambda w: kernel(w, jnp.asarray(F_th)), jnp.asarray(w_t))
    w_bar = pull((jnp.asarray(a_h.astype(dtype)), jnp.asarray(b_h.astype(dtype))))[0]
    assert m1.dtype == m2.dtype == w_bar.dtype == np.dtype(dtype)
    # a sum of n terms: n units of the largest possible sum
    unit = 2.0**-bits
    np.testing.assert_allclose(m1, w_t @ exact, atol=64 * unit * (w_t @ abs(exact)).max())
    np.testing.assert_allclose(m2, w_t @ exact**2, atol=64 * unit * (w_t @ exact**2).max())
    terms = abs(exact) @ abs(a_h) + exact**2 @ abs(b_h)
    np.testing.assert_allclose(w_bar, exact @ a_h + exact**2 @ b_h, atol=N * unit * terms.max())


def test_a_cell_has_the_same_bits_alone_and_among_others(arrays):
    w_t, F_th, *_ = (jnp.asarray(array, jnp.float32) for array in arrays)
    many = jax.jit(lambda F: jax.lax.map(lambda f: _looped(w_t, f), F))(jnp.stack([F_th, 2 * F_th, F_th]))
    alone = jax.jit(lambda F: jax.lax.map(lambda f: _looped(w_t, f), F))(F_th[None])
    for a, b in zip(many, alone):
        assert np.array_equal(a[2], b[0])
