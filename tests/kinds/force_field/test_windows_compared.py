"""The choice of a window: what counts as its error, and what noise must not do to it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from hpcfit.kinds.force_field.simulated.derivatives import Errors, Estimates, Seen, behind_each, estimates
from hpcfit.kinds.force_field.simulated.measured import Differences, Measured
from hpcfit.kinds.force_field.simulated.window import choice, weights_of_data
from hpcfit.observables.geometry import Powers
from tests.kinds.force_field.test_averages import windows

L = 20
LENGTHS = np.arange(1, L + 1)


def of_all_estimators(slopes, errors):
    """(values, errors) of derivatives [M, P] that all estimators agree on."""
    names = ("pathwise", "fluctuation", "malliavin", "combined")
    return tuple(SimpleNamespace(**dict.fromkeys(names, np.array(one))) for one in (slopes, errors))


def test_the_best_window_has_the_least_sum_of_squares():
    """Bias exp(-n / 2) and noise that doubles each four frames: their squares have the least sum at n = 7."""
    bias, noise = np.exp(-LENGTHS / 2), 0.02 * 2 ** (LENGTHS / 4)
    errors = Errors(*(np.broadcast_to((2.0 * part)[:, None, None] ** 2, (L, 1, 1)) for part in (bias, noise)))
    found = choice(errors, np.ones(1), of_all_estimators([[2.0]], [[0.1]]), draws=4)
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
    found = choice(errors, np.array([4.0, 0.0]), of_all_estimators(slopes, np.ones((2, 2))), draws=1)
    assert found.parameters.tolist() == [0]
    np.testing.assert_allclose(found.of_parameters.variance[:, 0], errors.variance[:, 0, 0] / 9, rtol=1e-12)
    assert choice(errors, np.zeros(2), of_all_estimators(slopes, np.ones((2, 2))), draws=1) is None


def test_frames_count_behind_a_share_of_each_window():
    values = np.random.default_rng(1).random((L, 3))
    found = behind_each(SimpleNamespace(skipped=8), values)
    for n in (1, 2, 7, L):
        np.testing.assert_allclose(found[n - 1], values[8 * n // L : n].mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize("anew", [0, 4])
def test_a_parameter_without_effect_has_derivatives_of_0(anew):
    """And by the other each estimator is what its formula says of random numbers: 9 windows, 2 draws, 8 frames."""
    ensemble = replace(windows(40, 5, skipped=1).ensembles[0], anew=anew)
    random = np.random.default_rng(3).normal(size=(6, 9, 2, 9, 1, 2)) * [1.0, 0.0]
    seen = dict(zip(Seen._fields, random))
    for name in ("slope", "spread", "weight"):
        seen[name] = seen[name][:, :, :, 0]
    seen["O"] = seen["O"][..., 0]
    seen |= {"motion": np.zeros((9, 2, 0)), "of_motion": np.zeros((9, 2, 0, 2))}  # none is observed
    value, error = estimates(ensemble, np.ones(2), {f"0 {name}": leaf for name, leaf in seen.items()}, 0)
    for name in ("pathwise", "fluctuation", "malliavin", "combined", "left"):
        assert getattr(value, name)[0, 1] == getattr(error, name)[0, 1] == 0
    counted = [2, 3, 4, 6, 7, 8] if anew else range(2, 9)
    assert value.pathwise[0, 0] == pytest.approx(seen["total"][:, :, counted, 0, 0].mean(), rel=1e-12)
    dO, dU = (leaf[..., 0] - leaf[..., 0].mean() for leaf in (seen["O"], seen["slope"]))
    expected = seen["direct"][..., 0].mean() - np.mean(dO * dU)
    assert value.fluctuation[0, 0] == pytest.approx(expected, rel=1e-12)
    gone = np.mean([np.mean(dO[:, :, age:] * dU[:, :, :-age]) for age in ensemble.ages])
    assert value.left[0, 0] == pytest.approx(-gone / expected, rel=1e-12)  # of the whole derivative, kT = 1
    assert value.apart[0, 0] == pytest.approx(expected - value.pathwise[0, 0], rel=1e-12)
    if not anew:
        assert value.lacking[-1, 0, 0] == pytest.approx(gone, rel=1e-12)
    assert len(value.lacking) == (anew or 8)
    assert value.lacking[0, 0, 0] == pytest.approx(np.mean(dO[:, :, 1:] * dU[:, :, :-1]), rel=1e-12)


def test_either_sign_of_a_short_window_is_enough_and_noise_is_none():
    """Of a derivative of 1: by C, and by the two estimates."""

    def judged(lacking, apart, error):
        fields = dict.fromkeys(Estimates._fields, np.ones((1, 1)))
        of_value = Estimates(**fields | {"lacking": np.array([[[lacking]]]), "apart": np.array([[apart]])})
        of_error = Estimates(**fields | {"lacking": np.array([[[error]]]), "apart": np.array([[error]])})
        return bool(of_value.too_short(of_error)[0, 0])

    assert judged(0.2, 0.0, 0.05)
    assert judged(0.0, -0.2, 0.05)
    assert not judged(0.2, 0.2, 0.08)  # 2.5 errors
    assert not judged(0.04, 0.04, 0.001)  # below 5 %
    assert not judged(np.nan, np.nan, np.nan)  # constant pressure


def test_averages_count_through_their_differences():
    """Two systems of one number each: the first is held out, the second counts in a difference alone."""
    tile = lambda sigma, count: Measured(*np.array([[[0.0]], [[sigma]], [[0.0]], [[count]]]))  # noqa: E731
    ensembles = [SimpleNamespace(observables=(Powers(0, 0, (2,)),))] * 2
    half = Differences(np.array([1]), np.array([1]), np.array([0.5]), np.array([0.0]))
    tiles = ((tile(0.5, 0.0),), (tile(np.inf, 0.0),), (tile(0.1, 1.0),))
    problem = SimpleNamespace(ensembles=ensembles, tiles=tiles, differences=half)
    assert weights_of_data(problem, 0) == pytest.approx([4.0])
    assert weights_of_data(problem, 1) == pytest.approx([2 * 0.25 / 0.01])
