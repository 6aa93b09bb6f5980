"""Quadratic programs against the KKT system, with equalities that repeat, contradict or leave nothing free."""

import numpy as np
import pytest

from hpcfit.physics.equality_qp import minimise, solve_equalities

K = 12


def problem(seed=0, rank=2 * K):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rank, K))
    return x.T @ x, rng.uniform(1, 3, K), rng.standard_normal((3, K)), rng.standard_normal((3, 2)), rng


@pytest.mark.parametrize("pull", [0.0, 0.7])
def test_the_minimum_solves_the_kkt_system_however_often_an_equality_is_said(pull):
    P, D, A, e, rng = problem()
    t = rng.standard_normal((K, 2))
    kkt = np.block([[P + pull * np.diag(D), A.T], [A, np.zeros((3, 3))]])
    exact = np.linalg.solve(kkt, np.vstack([pull * D[:, None] * t, e]))[:K]
    mix = rng.standard_normal((5, 3))
    for said in (np.eye(3), np.vstack([np.eye(3), mix])):
        equalities = solve_equalities(said @ A, said @ e)
        assert np.all(equalities.violation < 1e-13)
        assert len(equalities.free) == K - 3
        np.testing.assert_allclose(minimise(P, D, equalities, pull, t), exact, atol=1e-11)


def test_scales_that_differ_by_twelve_orders_do_not_matter():
    P, D, A, e, _ = problem()
    scale = np.logspace(-6, 6, K)
    expected = minimise(P, D, solve_equalities(A, e), 0.0, np.zeros((K, 2)))
    scaled = P * scale[:, None] * scale
    # the unknowns of the equalities are chosen among the scaled columns: digits are lost with the worst of them
    found = minimise(scaled, D, solve_equalities(A * scale, e), 0.0, np.zeros((K, 2)))
    np.testing.assert_allclose(scale[:, None] * found, expected, atol=1e-6)


def test_what_the_objective_leaves_open_is_as_near_to_the_target_as_can_be():
    P, D, A, e, rng = problem(rank=4)
    t = rng.standard_normal((K, 2))
    found = minimise(P, D, solve_equalities(A, e), 0.0, t)
    np.testing.assert_allclose(A @ found, e, atol=1e-12)
    null = np.linalg.svd(np.vstack([A, P]))[2][7:]  # neither equalities nor objective notice these
    np.testing.assert_allclose(null @ P, 0, atol=1e-10)
    np.testing.assert_allclose(null @ (D[:, None] * (found - t)), 0, atol=1e-11)
    np.testing.assert_allclose(found, minimise(P, D, solve_equalities(A, e), 1e-9, t), atol=1e-6)
    nothing = minimise(np.zeros((K, K)), D, solve_equalities(A, e), 0.0, t)
    inverse = A / D
    np.testing.assert_allclose(nothing, t + inverse.T @ np.linalg.solve(inverse @ A.T, e - A @ t), atol=1e-11)


def test_equalities_that_contradict_or_leave_nothing():
    P, D, A, e, _ = problem()
    contradiction = solve_equalities(np.vstack([A, A[:1]]), np.vstack([e, e[:1] + np.array([0.0, 0.3])]))
    assert contradiction.violation[0] < 1e-13
    assert contradiction.violation[1] == pytest.approx(0.15)  # halfway between both
    square = np.eye(K) + 0.1 * np.arange(K)
    only = minimise(P, D, solve_equalities(square, np.ones((K, 1))), 0.0, np.zeros((K, 1)))
    np.testing.assert_allclose(square @ only, 1, atol=1e-12)
