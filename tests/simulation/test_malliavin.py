"""Malliavin weights against what they must be in the mean over the noise, which quadrature gives exactly."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.simulation.langevin import SCHEMES, Bath, Course, Motion, PhasePoint, middle, noise_key, walk
from hpcfit.simulation.malliavin import Weighed, Weighing

BATH, MASSES = Bath(1.3, 1.7, 0.4), np.array([1.4])
START = PhasePoint(np.array([[0.7]]), np.array([[-0.3]]))
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(16)


def force(x, k):
    """Of a well that is none of a spring."""
    return -k * x - 0.2 * k**2 * x**3


def ends(kicked, point, k, noises):
    for n in noises:
        point = kicked(point, force(point.x, k), n.reshape(1, 1))
    return point


def observed(point, k):
    """A number that knows its parameter too."""
    return jnp.sum(point.x**3 + k * point.x**2)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("make", SCHEMES.values())
def test_the_mean_over_the_noise_is_the_derivative_of_the_mean(make, steps):
    """d<O>/dk = <dO/dk> + <O q> for each start, <q> = 0; polynomials of up to two normal numbers, so that 16 nodes are
    exact. A second step has velocities that changed with the first."""
    scheme, k = make(BATH, MASSES), 0.8
    noises = np.array(list(product(NODES, repeat=steps)))
    weights = np.prod(list(product(WEIGHTS, repeat=steps)), axis=1) / WEIGHTS.sum() ** steps
    over_noise = jax.vmap(lambda k, n: observed(ends(scheme.kicked, START, k, n), k), (None, 0))
    exact = jax.grad(lambda k: weights @ over_noise(k, noises))(k)

    def weighed(n):
        begun = Weighed(*map(jnp.asarray, START[:2]), jnp.zeros(()))
        end = lambda k: ends(Weighing(scheme).kicked, begun, k, n)  # noqa: E731
        at, q = end(k), jax.grad(lambda k: end(k).likelihood)(k)
        return observed(at, k), jax.grad(lambda k: observed(end(k), k))(k), q

    O, direct, q = jax.vmap(weighed)(noises)
    assert weights @ q == pytest.approx(0, abs=1e-12)
    assert weights @ (direct + O * q) == pytest.approx(float(exact), rel=1e-10)


def test_a_walk_with_weights_is_the_same_walk():
    """And where tangents begin anew weights do, as in a walk from there."""
    scheme, key = middle(BATH, MASSES), noise_key(0, 1, 2)

    def walked(k, scheme, start, course):
        return walk(Motion(lambda x, _: force(x, k), scheme), start, key, course).seen

    def weights(start, course):
        of_k = lambda k: walked(k, Weighing(scheme), Weighed(start.x, start.v, 0.0), course)  # noqa: E731
        found = jax.jacfwd(of_k)(0.8)
        assert not np.any(found.x)
        return of_k(0.8), found.likelihood

    whole = walked(0.8, scheme, START, Course(8, 2))
    same, q = weights(START, Course(8, 2))
    np.testing.assert_allclose(same.x, whole.x, rtol=1e-13)
    _, anew = weights(START, Course(8, 2, anew=2))
    _, rest = weights(jax.tree.map(lambda leaf: leaf[1], whole), Course(4, 2, 4))
    np.testing.assert_allclose(anew, np.concatenate([q[:2], rest]), rtol=1e-11)
