"""Elastic networks: rigid motions, finite differences of the energy, and the covariance of what is drawn."""

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.physics.network_model import hessian, normal_modes

BOX, CUTOFF = np.array([14.0, 15.0, 16.0]), 6.5
SITES = np.random.default_rng(0).random((60, 3)) * BOX


def energy(sites, pairs_of, box):
    """Springs at rest at SITES, each pair by itself."""
    total = 0.0
    for i in range(len(sites)):
        for j in range(i):
            rest, now = pairs_of[i] - pairs_of[j], sites[i] - sites[j]
            image = 0 if box is None else box * np.round(rest / box)
            length = np.linalg.norm(rest - image)
            if length <= CUTOFF:
                total += (np.linalg.norm(now - image) - length) ** 2 / 2
    return total


@pytest.mark.parametrize("box", [None, BOX])
def test_the_hessian_is_the_second_derivative_of_the_energy(box):
    found, step = hessian(SITES, CUTOFF, box).toarray(), 1e-4
    rng = np.random.default_rng(1)
    for _ in range(3):
        direction = rng.standard_normal(SITES.shape)
        direction /= np.linalg.norm(direction)
        # the energy at rest is 0, its slope too: E(s) + E(-s) = s^2 d^T H d + terms of s^4, 1e-8 of them
        second = sum(energy(SITES + sign * step * direction, SITES, box) for sign in (1, -1)) / step**2
        assert second == pytest.approx(direction.ravel() @ found @ direction.ravel(), rel=1e-6)


@pytest.mark.parametrize(("box", "rigid"), [(None, 6), (BOX, 3)])
def test_rigid_motions_cost_nothing_and_are_left_out(box, rigid):
    matrix = hessian(SITES, CUTOFF, box)
    exact = np.linalg.eigvalsh(matrix.toarray())
    assert np.sum(exact < 1e-10 * exact[-1]) == rigid
    found = normal_modes(matrix, 20)
    np.testing.assert_allclose(1 / found.variance, exact[rigid : rigid + 20], rtol=1e-8)
    # nothing shifts the whole: the vectors are orthonormal, so that rounding is some 1e-15 an element
    np.testing.assert_allclose(found.vector.sum(axis=1), 0, atol=1e-9)


def test_samples_have_the_covariance_of_the_pseudo_inverse():
    matrix, n = hessian(SITES, CUTOFF, BOX), 20000
    exact = np.linalg.pinv(matrix.toarray(), rcond=1e-10, hermitian=True)
    modes = normal_modes(matrix, 3 * len(SITES) - 4)  # all but three shifts and the stiffest mode
    u = modes.sample(n, seed=2).reshape(n, -1)
    truncated = np.einsum("k,ki,kj->ij", modes.variance, *[modes.vector.reshape(len(modes.variance), -1)] * 2)
    stiffest = np.linalg.eigvalsh(matrix.toarray())[-1]
    assert np.abs(truncated - exact).max() <= 1 / stiffest
    # var of a sample covariance: (C_ii C_jj + C_ij^2) / n; 5.5 sigma for the 16,290 different elements
    diagonal = np.diag(truncated)
    error = np.sqrt((np.outer(diagonal, diagonal) + truncated**2) / n)
    assert np.all(np.abs(u.T @ u / n - truncated) < 5.5 * error)


def test_the_mean_b_factor_is_the_one_asked_for():
    modes = normal_modes(hessian(SITES, CUTOFF, BOX), 30).scaled_to_b_factor(20.0)
    u = modes.sample(4000, seed=3)
    found = 8 * np.pi**2 / 3 * np.mean(np.sum(u**2, axis=2))
    # B is a sum over modes of squares of amplitudes, each with a relative variance of 2 / n
    share = modes.variance / modes.variance.sum()
    assert found == pytest.approx(20.0, rel=5 * np.sqrt(2 * np.sum(share**2) / 4000))
    assert 8 * np.pi**2 / 3 * modes.mean_square().mean() == pytest.approx(20.0, rel=1e-12)


def test_the_same_seed_gives_the_same_frames_and_another_others():
    modes, again = (normal_modes(hessian(SITES, CUTOFF, BOX), 5) for _ in range(2))
    np.testing.assert_array_equal(modes.sample(3, seed=1), again.sample(3, seed=1))
    assert not np.allclose(modes.sample(3, seed=1), modes.sample(3, seed=2))


def test_a_network_in_pieces_is_refused():
    apart = np.concatenate([SITES, SITES + 1000.0])
    with pytest.raises(InputError, match="12 modes of the network cost nothing"):
        normal_modes(hessian(apart, CUTOFF), 10)
    with pytest.raises(InputError, match="site 60 and 0 others have no neighbour within 6"):
        hessian(np.concatenate([SITES, [[100.0, 0.0, 0.0]]]), CUTOFF)
    with pytest.raises(InputError, match="half the shortest"):
        hessian(SITES, 7.0, BOX)
