"""Modes of graphs against closed forms and dense solutions, whatever the solver; components, filters, angles."""

import numpy as np
import pytest
from numpy.polynomial import chebyshev
from scipy.sparse import block_diag, csr_array

from hpcfit.errors import InputError
from hpcfit.kinds.structure.landscapes.loops import Loops
from hpcfit.kinds.structure.modes import eigensolvers, graph


def path(n):
    """The weights of a chain of n particles, whose eigenvalues are 2 − 2 cos(π m/n)."""
    ones = np.ones(n - 1)
    return csr_array(np.diag(ones, 1) + np.diag(ones, -1))


def test_the_modes_of_a_chain_are_cosines():
    found = graph.lowest_modes(graph.laplacian(path(30)), 6)
    m, place = np.arange(1, 7), np.arange(30)[:, None]
    np.testing.assert_allclose(found.values, 2 - 2 * np.cos(np.pi * m / 30), rtol=1e-10)
    expected = np.cos(np.pi * m * (place + 0.5) / 30) * np.sqrt(2 / 30)
    np.testing.assert_allclose(np.abs(np.sum(expected * found.vectors, axis=0)), 1, rtol=1e-12)
    np.testing.assert_allclose(found.participation, 20, rtol=1e-9)  # ⟨cos²⟩²/⟨cos⁴⟩ = 2/3 of the particles
    assert found.n_components == 1
    assert found.residuals.max() < 1e-12


@pytest.mark.parametrize("solver", ["shift-invert", "lobpcg", "slepc"])
def test_iterations_find_what_a_dense_solution_does(solver):
    if solver == "slepc":
        pytest.importorskip("slepc4py")
    matrix = graph.laplacian(Loops.of(300, seed=0).couplings())
    expected = graph.lowest_modes(matrix, 12)
    found = graph.lowest_modes(matrix, 12, solver)
    assert found.residuals.max() < 10 * eigensolvers.TOLERANCE
    # |λ − μ| is at most the residual r, and the angle to the space of others at a distance g at most about r/g.
    degree = matrix.diagonal().max()
    away = np.linalg.norm(found.residuals) * degree
    assert np.abs(found.values - expected.values).max() <= away + 1e-12
    gap = graph.lowest_modes(matrix, 13).values[12] - expected.values[11]
    assert graph.subspace_angles(found.vectors, expected.vectors).max() < 2 * away / gap + 1e-6
    if solver == "shift-invert":
        np.testing.assert_allclose(found.vectors, expected.vectors, atol=1e-7)  # signs too


def test_the_preconditioner_is_positive_and_nearly_an_inverse_of_the_fast_part():
    matrix = graph.laplacian(Loops.of(80, seed=0).couplings())
    values, vectors = np.linalg.eigh(matrix.toarray())
    near = vectors.T @ eigensolvers.polynomial(matrix, 20).matmat(vectors)
    np.testing.assert_allclose(near - np.diag(np.diag(near)), 0, atol=1e-9 * np.abs(near).max())
    assert np.diag(near).min() > 0
    fast = values > 2 * matrix.diagonal().max() * (1.7 / 20) ** 2
    assert np.abs(np.diag(near)[fast] * values[fast] - 1).max() < 2 * np.exp(-3.4) * (1 + 1e-2)


def test_a_solver_that_is_not_installed_is_an_input_error(monkeypatch):
    monkeypatch.setattr(eigensolvers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="slepc4py"):
        eigensolvers.require_solver("slepc")
    eigensolvers.require_solver("lobpcg")


def test_components_are_counted_and_their_rigid_modes_left_out():
    weights = csr_array(block_diag([path(12), path(5), csr_array((1, 1))]))
    mixed = np.random.default_rng(0).permutation(18)
    matrix = graph.laplacian(weights[mixed][:, mixed])
    found = graph.lowest_modes(matrix, 15)
    dense = np.linalg.eigvalsh(matrix.toarray())
    assert found.n_components == 3
    np.testing.assert_allclose(found.values, dense[3:], rtol=1e-9)
    whole = np.concatenate([found.vectors, found.null.toarray()], axis=1)
    np.testing.assert_allclose(whole.T @ whole, np.eye(18), atol=1e-12)
    np.testing.assert_allclose(matrix @ found.null.toarray(), 0, atol=1e-12)
    with pytest.raises(InputError, match="18 particles in 3 connected pieces have 15"):
        graph.lowest_modes(matrix, 16)


def test_a_filter_is_a_step_of_the_spectrum():
    matrix = graph.laplacian(Loops.of(60, seed=0).couplings())
    values, vectors = np.linalg.eigh(matrix.toarray())
    x = np.random.default_rng(1).standard_normal((60, 2))
    edge, top = 1.0, 2 * matrix.diagonal().max()
    gain = chebyshev.chebval(2 * values / top - 1, graph.step_series(2 * edge / top - 1, 80))
    np.testing.assert_allclose(
        graph.filter_modes(matrix, x, edge, 80), vectors @ (gain[:, None] * (vectors.T @ x)), atol=1e-12
    )
    width = np.pi / 80 * top / 2
    assert gain[values < edge - 2 * width].min() > 0.95
    assert gain[values > edge + 2 * width].max() < 0.05
    assert gain.min() > -1e-12
    assert gain.max() < 1 + 1e-12


def test_angles_and_overlaps_of_spaces():
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 40)))[0]
    turned = basis[:, :5] @ np.linalg.qr(np.random.default_rng(1).standard_normal((5, 5)))[0]
    assert graph.overlap(basis[:, :5], turned) == pytest.approx((1, 5 / 40))
    assert graph.overlap(basis[:, :5], basis[:, 3:8]).share == pytest.approx(2 / 5)
    assert graph.subspace_angles(basis[:, :5], basis[:, 3:8])[0] == pytest.approx(np.pi / 2)


def test_a_mode_is_viewed_by_swinging_along_it():
    x = np.random.default_rng(0).standard_normal((30, 3))
    vector = graph.lowest_modes(graph.laplacian(path(30)), 1).vectors[:, 0]
    frames = graph.moving(x, vector, 0.3, 8)
    np.testing.assert_allclose(frames[0], x)
    assert np.sqrt(np.mean(np.sum((frames[2] - x) ** 2, axis=1))) == pytest.approx(0.3)
    rest = np.eye(30) - np.outer(vector, vector)
    np.testing.assert_allclose(rest @ (frames[2] - x), 0, atol=1e-12)


@pytest.mark.parametrize(("weights", "said"), [([[0, 1], [2, 0]], "symmetric"), ([[0, -1], [-1, 0]], "weight is")])
def test_what_are_no_weights_is_an_input_error(weights, said):
    with pytest.raises(InputError, match=said):
        graph.laplacian(np.array(weights, float))
