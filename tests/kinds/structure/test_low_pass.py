"""Low-pass filters in place of eigenvectors: against projectors on them, gradients by differences, whole runs."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import chebyshev

from hpcfit.kinds.structure.landscapes.loops import Loops
from hpcfit.kinds.structure.modes.graph import edge_of_share, laplacian, step_series, top_of
from hpcfit.kinds.structure.parametrisations import _NEIGHBOURS, Graph, LowPass, Network
from tests.command import here, sets
from tests.conftest import assert_one_clear_error
from tests.kinds.structure.test_parametrisations import ring
from tests.kinds.structure.test_structure_run import CONFIG

N, DEGREE = 30, 90
WEIGHTS = ring(N)
MATRIX = laplacian(WEIGHTS)
VALUES, VECTORS = np.linalg.eigh(MATRIX.toarray())
EDGE = 0.5 * (VALUES[10] + VALUES[11])  # in the gap above mode 10 of a ring, whose modes come in pairs
SLOW = VECTORS[:, :11] @ VECTORS[:, :11].T
X = np.random.default_rng(0).normal(size=(2, N, 3))
SEEDS = np.array([1, 2])


def leak():
    """The largest deviation of the series from the step at an eigenvalue: no part of a vector is more wrong."""
    gain = chebyshev.chebval(2 * VALUES / top_of(MATRIX) - 1, step_series(2 * EDGE / top_of(MATRIX) - 1, DEGREE))
    return np.max(np.abs(gain - (VALUES < EDGE)))


def test_the_filter_is_the_projector_on_slow_modes_but_for_the_leak_of_its_step():
    assert leak() < 0.25
    found = LowPass(MATRIX, EDGE, DEGREE).positions(X.reshape(2, -1))
    assert np.linalg.norm(found - SLOW @ X) <= leak() * np.linalg.norm(X) * (1 + 1e-12)
    sharp = LowPass(MATRIX, EDGE, 2000).positions(X.reshape(2, -1))
    np.testing.assert_allclose(sharp, SLOW @ X, atol=1e-2)


def test_a_network_by_the_filter_has_the_operator_of_the_modes():
    """On a ring the couplings commute with the Laplacian: P W is V diag(v^T W v) V^T, but for the leak."""
    h = X[0]
    strength = np.einsum("nm,nm->m", VECTORS[:, :11], WEIGHTS @ VECTORS[:, :11])
    modes = _NEIGHBOURS["gcn"](Graph(modes=VECTORS[:, :11], strength=strength), jnp.asarray(h))
    found = _NEIGHBOURS["gcn"](Graph.filtered(WEIGHTS, EDGE, DEGREE), jnp.asarray(h))
    assert np.linalg.norm(found - modes) <= leak() * np.linalg.norm(WEIGHTS @ h) * (1 + 1e-12)


EVERY = [LowPass(MATRIX, EDGE, DEGREE), Network(Graph.filtered(WEIGHTS, EDGE, 20), (N, 3), (3, 2))]


@pytest.mark.parametrize("parametrisation", EVERY, ids=["linear", "gnn"])
def test_pulled_back_derivatives_are_those_of_differences(parametrisation):
    z, chart = parametrisation.begun(X, SEEDS)
    slope, h = np.random.default_rng(1).normal(size=X.shape), 1e-6
    found = chart.pulled_back(z, slope)
    for place in np.random.default_rng(2).choice(z.shape[1], 5):
        step = np.zeros_like(z)
        step[:, place] = h
        change = (chart.positions(z + step) - chart.positions(z - step)) / (2 * h)
        np.testing.assert_allclose(found[:, place], np.sum(slope * change, axis=(1, 2)), rtol=1e-6, atol=1e-8)


def test_a_start_is_as_wide_as_the_positions_and_no_replica_knows_of_others():
    z, chart = EVERY[0].begun(X, SEEDS)
    spread = lambda x: np.std(x - x.mean(axis=1, keepdims=True), axis=(1, 2))  # noqa: E731
    np.testing.assert_allclose(spread(chart.positions(z)), spread(X), rtol=1e-12)
    np.testing.assert_array_equal(chart.positions(z[1:]), chart.positions(z)[1:])


@pytest.mark.parametrize("share", [0.1, 1 / 3, 0.7])
def test_the_edge_has_a_share_of_the_modes_below_it(share):
    matrix = laplacian(Loops.of(400).couplings())
    values, edge = np.linalg.eigvalsh(matrix.toarray()), edge_of_share(matrix, share, 200)
    width = np.pi / 200 * top_of(matrix) / 2  # of the step
    error = 4 * np.sqrt(2 * share / (16 * 400))  # four standard errors of the trace
    assert np.mean(values < edge - width) - error < share < np.mean(values < edge + width) + error


def test_runs_need_no_modes(tmp_path):
    methods = [
        "{name='linear', parametrisation='linear', modes='filter', passed=0.4}",
        "{name='gnn', parametrisation='gnn', modes='filter', degree=20, optimizer='adam'}",
    ]
    (tmp_path / "config.toml").write_text(CONFIG.partition("[[problem.method]]")[0])
    done = here("optimize", tmp_path / "config.toml", *sets(f"problem.method=[{', '.join(methods)}]"))
    assert done.returncode == 0, done.stderr
    linear, gnn = json.loads((tmp_path / "run/metrics.json").read_text())["methods"]
    assert linear["best"] < 0 > gnn["best"]


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("{name='a', parametrisation='linear', passed=0.2}", ["passed", "no effect"]),
        ("{name='a', modes='filter'}", ["modes", "no effect"]),
        ("{name='a', parametrisation='linear', modes='filter', passed=1.5}", ["passed", "below 1"]),
    ],
)
def test_one_clear_error(method, words, tmp_path):
    (tmp_path / "config.toml").write_text(CONFIG)
    assert_one_clear_error(here("optimize", tmp_path / "config.toml", *sets(f"problem.method=[{method}]")), words)
