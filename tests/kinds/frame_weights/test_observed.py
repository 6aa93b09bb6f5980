"""What objectives compare with: splines, units, weights, and maps that do not suit."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.interpolate import BSpline

from hpcfit.errors import InputError
from hpcfit.kinds.frame_weights.config import FrameWeightsConfig
from hpcfit.kinds.frame_weights.observed import _b_splines, observe, splines
from tests.kinds.frame_weights.systems import bernstein, recursion, system

INVERSE_D = np.sort(np.random.default_rng(0).uniform(0.05, 0.6, 200))


def observed(orbits=None, **options):
    orbits = orbits or system().orbits
    choice = FrameWeightsConfig(kind="frame-weights", **options)
    return observe(orbits, np.ones(len(orbits.observed)), choice, "map.h5")


@pytest.mark.parametrize("even_in", [1, 3])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 12])
def test_splines_are_positive_and_sum_to_1(n, even_in):
    B = splines(INVERSE_D, n, even_in=even_in)
    assert B.shape == (n, 200)
    np.testing.assert_allclose(B.sum(axis=0), 1, rtol=1e-12)
    assert B.min() >= 0
    assert np.linalg.matrix_rank(B) == n


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_splines_without_inner_knots_are_bernstein_polynomials(n):
    np.testing.assert_allclose(splines(INVERSE_D, n, even_in=1), bernstein(INVERSE_D, n), atol=1e-12)


@pytest.mark.parametrize("even_in", [1, 3])
def test_splines_are_those_of_the_recursion(even_in):
    low, high = INVERSE_D[[0, -1]] ** even_in
    inner = np.linspace(low, high, 7) ** (1 / even_in)
    expected = recursion(np.r_[[inner[0]] * 3, inner, [inner[-1]] * 3], INVERSE_D)
    # The largest 1/d is a little below the end of the range: 1e-9 of it.
    np.testing.assert_allclose(splines(INVERSE_D, 9, even_in=even_in), expected, atol=1e-7)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_splines_have_the_bits_of_scipy(degree):
    inner = np.linspace(0.2, 0.9, 6) ** (1 / 3)
    knots, x = np.r_[[inner[0]] * degree, inner, [inner[-1]] * degree], np.linspace(inner[0], inner[-1] - 1e-9, 300)
    assert np.array_equal(_b_splines(x, knots, degree), BSpline.design_matrix(x, knots, degree).toarray().T)


@pytest.mark.parametrize("even_in", [1, 3])
def test_many_splines_follow_any_cubic(even_in):
    s, B = INVERSE_D, splines(INVERSE_D, 9, even_in=even_in)
    fitted = np.linalg.lstsq(B.T, 2 - s + 3 * s**2 - 7 * s**3)[0] @ B
    np.testing.assert_allclose(fitted, 2 - s + 3 * s**2 - 7 * s**3, rtol=1e-8)


def test_y_is_standardised_and_divided_by_sigmas_where_they_are_used():
    orbits = system().orbits
    plain, divided, likelihood = observed(), observed(sigmas=True), observed(objective="student-t")
    m = orbits.multiplicity
    assert np.average(plain.y, weights=m) == pytest.approx(0, abs=1e-12)
    assert np.average(plain.y**2, weights=m) == pytest.approx(1, rel=1e-12)
    np.testing.assert_allclose(plain.weight / m, plain.weight[0] / m[0])
    ratio = divided.weight * orbits.sigma**2 / m
    np.testing.assert_allclose(ratio, ratio[0])
    # A likelihood has the variances in its density.
    np.testing.assert_allclose(likelihood.weight, plain.weight)
    unit = np.std(np.repeat(orbits.observed, m))
    np.testing.assert_allclose(likelihood.variance, (orbits.sigma / unit) ** 2)


def test_resolution_power_weighs_by_1_over_d():
    orbits = system().orbits
    ratio = observed(resolution_power=3.0).weight / (orbits.multiplicity * orbits.inverse_d**3)
    np.testing.assert_allclose(ratio, ratio[0])


def test_sigmas_that_the_map_does_not_have():
    without = replace(system().orbits, sigma=None)
    with pytest.raises(InputError, match=r"sigmas = true, but the map map\.h5 has none"):
        observed(without, sigmas=True)
    assert np.all(observed(without, objective="gaussian").variance == 1)
    assert "log_sigma" in observed(without, objective="student-t").objective.start()
    assert "log_sigma" not in observed(objective="student-t").objective.start()


def test_counts_are_not_negative():
    orbits = system().orbits
    shifted = replace(orbits, observed=orbits.observed - np.sort(orbits.observed)[3] - 1e-6)
    with pytest.raises(InputError, match=rf"poisson', but 4 of {len(orbits.observed)} orbits of map\.h5 are negative"):
        observed(shifted, objective="poisson")
    assert observed(objective="poisson").y == pytest.approx(orbits.observed)


def test_negative_intensities_count_as_0_in_a_distribution_and_that_is_said(caplog):
    orbits = system().orbits
    shifted = replace(orbits, observed=orbits.observed - np.sort(orbits.observed)[3] - 1e-6)
    with caplog.at_level("WARNING", logger="hpcfit"):
        y = observed(shifted, objective="cross-entropy").y
    assert y.min() == 0
    assert "4 of" in caplog.text
