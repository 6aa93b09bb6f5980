"""The choice of a window: what counts as its error, and what noise must not do to it."""

from types import SimpleNamespace

import numpy as np
import pytest

from hpcfit.kinds.force_field.simulated.averages import Differences, Measured
from hpcfit.kinds.force_field.simulated.derivatives import Errors, behind_each
from hpcfit.kinds.force_field.simulated.window import choice, weights_of_data
from hpcfit.observables.geometry import Powers

L = 20
LENGTHS = np.arange(1, L + 1)


def estimates(slopes, errors):
    """(values, errors) of derivatives [M, P] that all estimators agree on."""
    names = ("pathwise", "fluctuation", "malliavin", "combined")
    return tuple(SimpleNamespace(**dict.fromkeys(names, np.array(one))) for one in (slopes, errors))


def test_the_best_window_has_the_least_sum_of_squares():
    """Bias exp(-n / 2) and noise that doubles each four frames: their squares have the least sum at n = 7."""
    bias, noise = np.exp(-LENGTHS / 2), 0.02 * 2 ** (LENGTHS / 4)
    errors = Errors(*(np.broadcast_to((2.0 * part)[:, None, None] ** 2, (L, 1, 1)) for part in (bias, noise)))
    found = choice(errors, np.ones(1), estimates([[2.0]], [[0.1]]), draws=4)
    assert found.best() == 1 + np.argmin(bias**2 + noise**2) == 7
    assert found.best(20) == 5  # the best of 1, 2, 4, 5, 10, 20
    np.testing.assert_allclose(found.of_all.total, bias**2 + noise**2, rtol=1e-12)
    assert found.signals["pathwise"] == pytest.approx([2.0 / (0.1 * 2)])  # of one draw of four


def test_a_memory_that_crosses_zero_makes_no_window_look_good():
    bias = np.array([1.0, 0.3, 0.0, -0.2, 0.1])
    careful = Errors(bias**2, np.full(5, 1e-4)).careful()
    np.testing.assert_allclose(careful.bias, [1.0, 0.09, 0.04, 0.04, 0.01])
    assert careful.best == 5


def test_data_and_parameters_that_say_nothing_do_not_count():
    """The second datum has no weight, the second parameter no effect on the first."""
    slopes = np.array([[3.0, 0.0], [5.0, 7.0]])
    errors = Errors(*np.random.default_rng(0).random((2, L, 2, 2)))
    found = choice(errors, np.array([4.0, 0.0]), estimates(slopes, np.ones((2, 2))), draws=1)
    assert found.parameters.tolist() == [0]
    np.testing.assert_allclose(found.of_parameters.variance[:, 0], errors.variance[:, 0, 0] / 9, rtol=1e-12)
    assert choice(errors, np.zeros(2), estimates(slopes, np.ones((2, 2))), draws=1) is None


def test_frames_count_behind_a_share_of_each_window():
    values = np.random.default_rng(1).random((L, 3))
    found = behind_each(SimpleNamespace(skipped=8), values)
    for n in (1, 2, 7, L):
        np.testing.assert_allclose(found[n - 1], values[8 * n // L : n].mean(axis=0), rtol=1e-12)


def test_averages_count_through_their_differences():
    """Two systems of one number each: the first is held out, the second counts in a difference alone."""
    tile = lambda sigma, count: Measured(*np.array([[[0.0]], [[sigma]], [[0.0]], [[count]]]))  # noqa: E731
    ensembles = [SimpleNamespace(observables=(Powers(0, 0, (2,)),))] * 2
    half = Differences(np.array([1]), np.array([1]), np.array([0.5]), np.array([0.0]))
    tiles = ((tile(0.5, 0.0),), (tile(np.inf, 0.0),), (tile(0.1, 1.0),))
    problem = SimpleNamespace(ensembles=ensembles, tiles=tiles, differences=half)
    assert weights_of_data(problem, 0) == pytest.approx([4.0])
    assert weights_of_data(problem, 1) == pytest.approx([2 * 0.25 / 0.01])
