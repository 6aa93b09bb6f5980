"""The gradient of the loss by every estimator: closed forms, finite differences of one draw, errors and bias."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from hpcfit.kinds.force_field.parameters import Moving
from hpcfit.kinds.force_field.simulated import gradient
from hpcfit.kinds.force_field.simulated.averages import Differences, Measured
from hpcfit.kinds.force_field.simulated.derivatives import Derivatives, by_parts
from hpcfit.kinds.force_field.simulated.gradient import WAYS, gradients, unbiased
from hpcfit.observables.curves import curve_of
from hpcfit.observables.geometry import Powers
from hpcfit.observables.motion import MeanSquareDisplacement
from hpcfit.observables.nmr import ScalarCouplings
from hpcfit.ranks import Ranks
from hpcfit.simulation.langevin import PhasePoint
from tests.kinds.force_field.test_averages import KT, MEASURED, SIGMA, K, boltzmann, windows

N = 16  # windows


def measured(values, sigmas, sides, counts):
    return Measured(*(np.array([leaf], float) for leaf in (values, sigmas, sides, counts)))


def drawn(problem, u, starts, draw=7):
    """The product of a draw of all windows, which begin at ``starts`` in each system."""
    work = Derivatives(problem, u, [starts] * len(problem.ensembles), range(draw, draw + 1), Ranks())
    assert list(work.run(range(len(starts.x)))) == list(range(len(starts.x)))
    return work.product()


def known_of(problem, u, starts, draw=7):
    found = drawn(problem, u, starts, draw)
    slopes = problem.moving.of_energies.own_slopes(u)
    estimated = {n: by_parts(one, slopes, found, n) for n, one in enumerate(problem.along(u))}
    return gradient.of_draws(problem, u, found, estimated)


def starts_of(seed, n=N):
    return PhasePoint(*boltzmann(n, seed))


def loss(problem, u, starts):
    """(chi2 + priors) / 2 of averages over the frames that count, of one draw."""
    found = drawn(problem, u, starts)
    means = []
    for number, ensemble in enumerate(problem.along(u)):
        means += [found[f"{number} motion"].mean(axis=(0, 1))]  # numbers that are compared as they are
        means += [found[f"{number} O"][:, 0, 1:][:, ensemble.counted].mean(axis=(0, 1))]
    compared = problem.compared(problem.differences.behind(np.concatenate(means)), problem.tile)
    return 0.5 * float(np.sum(np.asarray(problem.residuals(compared, u)) ** 2))


def two_systems(of_motion=0.0):
    """Wells at two temperatures: a datum, one held out, two bounds, of which one is kept, and a difference.
    of_motion: how often a mean square displacement counts."""
    problem = windows(skipped=2)
    [cold], moving = problem.ensembles, problem.moving
    moved = MeanSquareDisplacement((0,), (2,), 0)
    cold = replace(cold, observables=(moved, Powers(0, 0, (2, 4))))
    warm = replace(cold, kT=np.array(1.5), observables=(Powers(0, 0, (2, 1, 4)),))
    tiles = (
        (measured([0.5], [0.1], [0], [of_motion]), measured([MEASURED, 0.9], [SIGMA, 0.3], [0, 1], [1, 1])),
        (measured([0.7, 0.1, 0.2], [0.05, 0.1, 0.2], [0, 0, 1], [0, 0, 1]),),
        (measured([0.5], [0.07], [0], [1]),),
    )
    held = replace(moving.classes["k"], precision=np.array([0.3]))
    differences = Differences(np.array([3]), np.array([1]), np.array([1.3]), np.array([0.2]))
    return replace(
        problem, ensembles=(cold, warm), tiles=tiles, differences=differences, moving=Moving({"k": held}, ("k",))
    )


def test_the_pathwise_gradient_is_that_of_finite_differences_of_one_draw():
    """Of all data that count, one of a motion too, a difference, bounds on either side and a prior; by k itself."""
    problem, starts, u = two_systems(1.0), starts_of(0), {"k": np.array([0.4])}
    known = known_of(problem, u, starts)
    averages, numbers = gradient.by_factors(problem, u, tuple(one.averaged for one in known))
    slopes = np.concatenate([one.slopes["pathwise"][0] for one in known])
    found = np.asarray(averages)[0] @ slopes[:, 0] + float(numbers["k"][0, 0]) / 0.5
    up, down = (loss(problem, {"k": np.array([0.4 + by])}, starts) for by in (1e-5, -1e-5))
    assert found == pytest.approx((up - down) / 2e-5 / 0.5, rel=1e-6)  # k = K + 0.5 u
    assert np.all(np.asarray(averages)[:, 4] == 0)  # held out, and in no difference
    assert np.all(np.asarray(averages)[:, 2] == 0)  # below its bound
    assert np.asarray(averages)[0, 5] > 0  # above it


def test_averages_that_do_not_count_need_no_derivative():
    problem, u = two_systems(), {"k": np.array([0.4])}
    known = known_of(problem, u, starts_of(0))
    expected = gradients(problem, u, known, 0.0)
    blind = [{way: leaf.copy() for way, leaf in one.slopes.items()} for one in known]
    for leaf in blind[1].values():
        leaf[:, 1] = np.nan
    found = gradients(problem, u, [one._replace(slopes=of) for one, of in zip(known, blind)], 0.0)
    for way in WAYS:
        np.testing.assert_array_equal(found[way], expected[way])
    motion = gradients(two_systems(1.0), u, known, 0.0)  # which samples of single frames do not know
    assert [way for way in WAYS if np.isfinite(motion[way][0]).all()] == ["pathwise"]


@pytest.mark.parametrize("k", [K, KT / MEASURED])
def test_gradients_of_a_well_scatter_about_the_exact_one_by_their_errors(k):
    """L = ((kT/k - measured) / sigma)^2 / 2, also at its minimum: 24 repeats of 16 windows of 20 relaxation times.

    Of the derivative, the first relaxation of a window is a bias of 6 % (see ``test_averages``). The spread of 24
    numbers has an error of 15 % if they are normal; these have longer tails, being products.
    """
    problem, u = windows(400, 10), {"k": np.array([(k - K) / 0.5])}
    exact = (KT / k - MEASURED) / SIGMA**2 * (-KT / k**2)
    found = {way: [] for way in WAYS}
    for repeat in range(24):
        x, v = boltzmann(N, repeat)
        starts = PhasePoint(x * np.sqrt(K / k), v)
        for way, of_way in gradients(problem, u, known_of(problem, u, starts, repeat), 0.0).items():
            found[way].append(np.ravel(of_way))
    for way, of_way in found.items():
        values, errors, of_derivatives = np.transpose(of_way)
        spread = np.std(values, ddof=1)
        assert np.mean(values) == pytest.approx(exact, abs=3.5 * spread / np.sqrt(24) + 0.06 * abs(exact)), way
        assert np.sqrt(np.mean(errors**2)) == pytest.approx(spread, rel=0.6), way
        if abs(exact) < 1e-9:  # deviations are noise alone: derivatives add what is of second order
            assert np.mean(of_derivatives**2) < np.mean(errors**2), way


def test_a_product_of_noisy_factors_is_freed_of_its_bias():
    """x y of means of 12 pairs with a covariance: what is left out says all of its bias, cov / 12."""
    random = np.random.default_rng(5)
    pairs = random.normal(size=(12, 2)) @ [[1.0, 0.8], [0.0, 0.6]] + [2.0, 3.0]
    means = np.stack([pairs.mean(axis=0), *(np.delete(pairs, one, axis=0).mean(axis=0) for one in range(12))])
    value, error = unbiased(means[:, 0] * means[:, 1])
    covariance = np.cov(pairs.T)[0, 1]
    assert value == pytest.approx(means[0, 0] * means[0, 1] - covariance / 12, rel=1e-12)
    assert error > 0
    alone = unbiased(np.array([3.0, np.nan]))
    assert alone[0] == 3.0
    assert np.isnan(alone[1])


def test_curves_move_averages_that_stand_still():
    """Of J = A <cos^2> + B <cos> + C: dL/dA = (J - measured) / sigma^2 <cos^2>, and so on; and of the priors of k and
    of the curve, u^2 / 2 each, whose u is linear in the coefficients. What stands beside is by u."""
    curve = curve_of(SimpleNamespace(coefficients=(6.0, -1.5, 0.4), prior=0.7, name="curve"))
    problem = windows()
    one = replace(problem.moving.classes["k"], precision=np.array([0.3]))
    moving = Moving({"k": one, "~curve": curve}, ("k", "A", "B", "C"))
    couplings = ScalarCouplings(np.zeros(3), np.zeros(1), ((0, 1, 2, 3),), "curve")
    ensemble = replace(problem.ensembles[0], observables=(couplings,))
    tiles = ((measured([3.0], [0.5], [0], [1]),), ())
    problem = replace(problem, ensembles=(ensemble,), moving=moving, tiles=tiles)
    u, means, slope, beside = {"k": np.array([0.2]), "~curve": np.array([0.3, -0.2, 0.5])}, (0.4, 0.1), 0.7, 0.01
    averaged = {"observed": (np.full((3, 2, 1), np.array(means)[:, None]),), "weight": np.ones(3)}
    known = [gradient.Known(averaged, {"fluctuation": np.full((3, 1, 1), slope)})]
    value, *errors = gradients(problem, u, known, np.array([beside, 0.0, 0.0, 0.0]))["fluctuation"]
    coefficients = curve.start + curve.change @ u["~curve"]
    off = (coefficients @ [*means, 1.0] - 3.0) / 0.25
    of_priors = np.linalg.solve(curve.change.T, u["~curve"])
    expected = [off * slope + (0.3 * 0.2 + beside) / 0.5, *(off * np.array([*means, 1.0]) + of_priors)]
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(errors, 0.0, atol=1e-12)
