"""Coordinates of structures: gradients against finite differences, starts, and the metric of a graph."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse

from hpcfit.errors import InputError
from hpcfit.kinds.structure.parametrisations import (
    STIFFENED,
    Direct,
    Graph,
    Linear,
    Network,
    Preconditioned,
    SharedWeights,
)

N, D, R = 9, 3, 2
RANDOM = np.random.default_rng(2)
X = RANDOM.normal(size=(R, N, D))
SEEDS = np.array([3, 4])


def ring(n, weight=1.0):
    i = np.arange(n)
    whole = scipy.sparse.coo_array((np.full(n, weight), (i, (i + 1) % n)), shape=(n, n))
    return scipy.sparse.csr_array(whole + whole.T)


def laplacian(weights):
    return np.diag(weights.sum(axis=1)) - weights.toarray()


def modes(m):
    return np.linalg.eigh(laplacian(ring(N)))[1][:, :m]


def networks():
    edges = scipy.sparse.coo_array(ring(N, 0.5))
    bonds = Graph(from_=edges.row, to=edges.col, weight=edges.data)
    slow = Graph(modes=modes(4), strength=np.linspace(1, 2, 4))
    shape = (N, D)
    return [
        Network(slow, shape, (3, 2)),
        Network(bonds, shape, (3, 2), "attention"),
        Network(Graph(), shape, (3,), "mlp"),
    ]


FEW = Linear(modes(4))
EVERY = [Direct((N, D)), Linear(modes(N)), FEW, Preconditioned.of(ring(N)), *networks()]


@pytest.mark.parametrize("parametrisation", EVERY)
def test_pulled_back_derivatives_are_those_of_differences(parametrisation):
    z, chart = parametrisation.begun(X, SEEDS)
    slope, h = RANDOM.normal(size=X.shape), 1e-6
    found = chart.pulled_back(z, slope)
    for place in RANDOM.choice(z.shape[1], 5):
        step = np.zeros_like(z)
        step[:, place] = h
        change = (chart.positions(z + step) - chart.positions(z - step)) / (2 * h)
        np.testing.assert_allclose(found[:, place], np.sum(slope * change, axis=(1, 2)), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("parametrisation", [one for one in EVERY if one is not FEW])
def test_all_begin_where_the_others_do(parametrisation):
    z, chart = parametrisation.begun(X, SEEDS)
    np.testing.assert_allclose(chart.positions(z), X, atol=1e-12)


def test_few_modes_begin_as_wide_as_the_start():
    z, chart = Linear(modes(4)).begun(X, SEEDS)
    spread = lambda x: np.std(x - x.mean(axis=1, keepdims=True), axis=(1, 2))  # noqa: E731
    np.testing.assert_allclose(spread(chart.positions(z)), spread(X), rtol=1e-12)


def test_a_graph_s_energy_is_a_sphere_in_its_own_metric():
    """x^T (L + mu) x = |y|^2, so that steepest descent is Newton's method."""
    weights = ring(40)
    one = Preconditioned.of(weights)
    x = np.random.default_rng(5).normal(size=(1, 40, 2))
    [y] = one.begun(x, SEEDS)[0]
    matrix = laplacian(weights) / 2 + STIFFENED * np.eye(40)  # 2: the mean sum of couplings
    assert y @ y == pytest.approx(np.einsum("nd,nm,md->", x[0], matrix, x[0]), rel=1e-12)
    assert len(one.factor.band) < 8  # a band, whatever the labels
    shuffled = np.random.default_rng(6).permutation(40)
    assert len(Preconditioned.of(ring(40)[shuffled][:, shuffled]).factor.band) == len(one.factor.band)


def test_neighbours_of_attention_are_averaged_where_all_say_the_same():
    edges = scipy.sparse.coo_array(ring(N, 0.5))
    from hpcfit.kinds.structure.parametrisations import _attended

    h = jnp.ones((N, 2))
    np.testing.assert_allclose(_attended(Graph(from_=edges.row, to=edges.col, weight=edges.data), h), h)


def test_a_graph_without_edges_is_an_error():
    with pytest.raises(InputError, match="no edges"):
        Preconditioned.of(scipy.sparse.csr_array((5, 5)))


def test_shared_weights_have_the_derivative_of_the_mean_and_latents_their_own():
    """A block of two replicas, filled up by the first one."""
    shared = SharedWeights(networks()[0])
    seeds, x, latent = np.array([3, 4, 3]), X[[0, 1, 0]], N * 3
    z, chart = shared.begun(x, seeds)
    np.testing.assert_allclose(chart.positions(z), x, atol=1e-12)
    assert len(np.unique(z[:, latent:], axis=0)) == 1
    assert np.all(z[0, :latent] != z[1, :latent])
    slope, h = RANDOM.normal(size=X.shape)[[0, 1, 0]], 1e-6
    found = chart.pulled_back(z, slope)
    for place in (2, latent, latent + 5, z.shape[1] - 1):
        step = np.zeros_like(z)
        step[:, place] = h
        change = np.sum(slope * (chart.positions(z + step) - chart.positions(z - step)), axis=(1, 2)) / (2 * h)
        expected = change if place < latent else np.full(3, np.mean(change[:2]))
        np.testing.assert_allclose(found[:, place], expected, rtol=1e-6, atol=1e-8)
