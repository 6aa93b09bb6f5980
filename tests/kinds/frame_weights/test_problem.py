"""The problem against independent float64 formulas: intensity, kinds of weights, regularisers, gauge, metrics.

Objectives are in ``test_objectives``; here the loss is a correlation.
"""

import jax
import numpy as np
import pytest

from hpcfit.fit.problem import Cell, FrameRows, Params, Statistics
from hpcfit.fit.reduction import FastSum
from hpcfit.kinds.frame_weights.objectives import part_of
from hpcfit.kinds.frame_weights.problem import PriorRows, shell_correlations
from hpcfit.physics.scattering import diffuse_intensity
from tests.kinds.frame_weights import systems
from tests.kinds.frame_weights.systems import (
    IDS,
    SHELLS,
    T,
    all_orbits,
    amplitudes,
    difference,
    params_of,
    pearson,
    system,
)

FRAMES = (0, 17, 39, 40, 63, 64, T - 1)  # the borders of blocks and trajectories among them


@pytest.fixture(scope="module")
def u_t():
    """Amplitudes of both signs."""
    rng = np.random.default_rng(7)
    return amplitudes(0.7 * rng.standard_normal(T)) * rng.choice([-1, 1], T)


@pytest.fixture(scope="module")
def made():
    return system()


@pytest.fixture(scope="module")
def evaluate(made):
    return made.reverse()


def flat(made):
    """Parameters near uniform weights, of any kind."""
    noise, weights = np.random.default_rng(8).standard_normal(T), made.choice.weights
    return {"simplex": amplitudes(noise), "sigmoid": noise / 3 - np.log(T - 1), "free": 1 + noise / 2}[weights]


# ---- intensity -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["simplex", "sigmoid", "free"])
def test_intensity_is_the_second_moment_less_that_of_the_mean(weights):
    """M2 - |M1|^2 of uncentred structure factors, whatever the weights sum to; on the simplex Guinier's formula."""
    made = system(weights=weights)
    evaluate, u_t = made.reverse(), flat(made)
    result, w_t = evaluate.value(params_of(u_t)), made.weights(u_t)
    expected = made.x(w_t)
    if weights == "simplex":
        np.testing.assert_allclose(
            systems.orbit_means(made.orbits, diffuse_intensity(made.F_th, w_t)), expected, rtol=1e-10
        )
    else:
        assert abs(w_t.sum() - 1) > 0.01
    for number, places in enumerate(made.case.tiling.orbits):

        def at(tree, number=number):
            return jax.tree.map(lambda leaf: leaf[number], tree)

        statistics = Statistics(result.statistics.common, at(result.statistics.sliced))
        x = np.asarray(evaluate.problem.intensity(statistics, at(evaluate.problem.tiles)))
        # |M1|^2 is up to 1e3 times x: what is left of it keeps 1e-12 of the larger.
        np.testing.assert_allclose(x[places >= 0], expected[places[places >= 0]], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("weights", ["sigmoid", "free"])
def test_leakage_is_the_share_of_bragg_intensity(weights):
    """x = W Var(F) + W (1 - W) |<F>|^2 with <F> = M1 / W; the share of the last term, absolute, over orbits."""
    made = all_orbits(system(weights=weights))
    evaluate, u_t = made.reverse(), flat(made)
    metrics, w_t = evaluate.metrics(evaluate.value(params_of(u_t))), made.weights(u_t)
    W = w_t.sum()
    bragg_h = W * (1 - W) * np.abs(w_t @ made.F_th / W) ** 2
    x_h = W * diffuse_intensity(made.F_th, w_t / W) + bragg_h
    share = (
        systems.orbit_means(made.orbits, np.abs(bragg_h)).sum() / systems.orbit_means(made.orbits, np.abs(x_h)).sum()
    )
    assert metrics["bragg_leakage"] == pytest.approx(share, rel=1e-9)
    assert metrics["sum_w"] == pytest.approx(W, rel=1e-12)
    assert 0.1 < share < 10
    assert "kl" not in metrics


# ---- regularisers --------------------------------------------------------------------------------------------------

PRICES = {
    "kl": ("simplex", {"theta": 0.3}),
    "l2": ("simplex", {"l2": 0.5}),
    "smoothness": ("simplex", {"smoothness": 0.4}),
    "everything on the simplex": ("simplex", {"theta": 0.02, "l2": 0.1, "smoothness": 0.1}),
    "l1 of single weights": ("sigmoid", {"l1": 0.3, "l2": 0.5}),
    "everything of free weights": ("free", {"l1": 0.3, "l2": 0.5, "smoothness": 0.2}),
}


@pytest.mark.parametrize("name", PRICES)
def test_regularisers_and_their_gradients_are_those_of_the_definitions(name):
    weights, prices = PRICES[name]
    made = system(weights=weights, **prices)
    u_t = flat(made)
    found = made.reverse()(params_of(u_t))
    assert found.loss == pytest.approx(made.loss(u_t), rel=1e-10, abs=1e-11)
    assert made.penalty(u_t, made.weights(u_t), np.full(T, 1 / T)) > 1e-3
    gradient = found.gradient.local["u"].ravel()
    for t in FRAMES:
        expected = difference(lambda u, t=t: made.loss(np.where(np.arange(T) == t, u, u_t)), u_t[t], 1e-5)
        # Rounding of the loss (1e-13, Bragg intensity included) over 2e-5.
        assert gradient[t] == pytest.approx(expected, rel=1e-6, abs=3e-8)
    assert np.all(gradient[T:] == 0)


@pytest.mark.parametrize("prior", ["uniform", "other"])
def test_theta_prices_the_divergence_within_groups_and_of_frames_alone(prior):
    """Value and gradient are those of the definition, group by group, also where prior weights do not sum to 1."""
    w0_t = np.full(T, 1 / T)
    if prior == "other":
        w0_t = np.random.default_rng(9).random(T) + 0.1
        w0_t /= w0_t.sum()
    made = system(theta=0.3, groups=systems.GROUPS)
    u_t, evaluate = flat(made), made.reverse(np.pad(np.log(w0_t), (0, 128 - T)).reshape(2, 64))
    found, w_t = evaluate(params_of(u_t)), made.weights(u_t, w0_t)
    assert found.loss == pytest.approx(made.loss(u_t, w0_t=w0_t), rel=1e-10, abs=1e-11)
    metrics = evaluate.metrics(found)
    assert metrics["kl_within"] == pytest.approx(made.divergence(w_t, w0_t), rel=1e-9)
    assert metrics["kl"] == pytest.approx(np.sum(w_t * np.log(w_t / w0_t)), rel=1e-9)
    u_t = found.params.local["u"].ravel()[:T]  # gauged: its gradient is the one that is given
    for t in (*FRAMES, T - 1):
        expected = difference(lambda u, t=t: made.loss(np.where(np.arange(T) == t, u, u_t), w0_t=w0_t), u_t[t], 1e-5)
        # As above: the rounding of the loss over 2e-5.
        assert found.gradient.local["u"].ravel()[t] == pytest.approx(expected, rel=1e-6, abs=3e-8)


def test_sums_of_groups_are_free_of_the_price_of_leaving_the_prior():
    """Moving a group as a whole costs nothing where its frames keep their shares; a frame alone costs as it moves."""
    plain, priced = system(groups=systems.GROUPS).reverse(), system(theta=5.0, groups=systems.GROUPS).reverse()
    number = systems.GROUPS.number.ravel()[:T]

    def cost(w_t):
        params = params_of(np.sqrt(w_t * T))
        return priced.value(params).loss - plain.value(params).loss

    alone = 1 / T
    moved = np.where(number == 0, 0.7 * (1 - alone) / 40, np.where(number == 1, 0.3 * (1 - alone) / 49, alone))
    assert cost(moved) == pytest.approx(0, abs=1e-12)
    w = np.where(number == 2, 3 * alone, (1 - 3 * alone) / (T - 1))
    assert cost(w) == pytest.approx(5 * (3 * alone * np.log(3) - 2 * alone), rel=1e-9)


def test_smoothness_is_closed_for_a_ramp():
    """Steps of ln w of equal size within trajectories: 88 frames of 90 follow another one (0 and 40 begin)."""
    ramp = np.exp(0.005 * np.arange(T))
    plain, smooth = system().reverse(), system(smoothness=3.0).reverse()
    costs = smooth.value(params_of(ramp)).loss - plain.value(params_of(ramp)).loss
    assert costs == pytest.approx(3.0 / T * 88 * 1e-4, rel=1e-9)
    jump = np.where(np.arange(T) < 40, 1.0, np.exp(2.5))  # at the border of the trajectories: free of charge
    assert smooth.value(params_of(jump)).loss == pytest.approx(plain.value(params_of(jump)).loss, abs=1e-12)
    beside = np.where(np.arange(T) < 41, 1.0, np.exp(2.5))
    dear = smooth.value(params_of(beside)).loss - plain.value(params_of(beside)).loss
    assert dear == pytest.approx(3.0 / T * 25, rel=1e-9)
    assert np.count_nonzero(systems.FOLLOWS) == 88


def test_l1_is_the_sum_where_weights_are_positive_and_distance_is_of_shares():
    """Two closed forms at w = 2 w0 (free): l1 sum |w| = 2 l1, and l2 T sum (w - w0)^2 = l2."""
    made = system(weights="free", l1=0.25, l2=0.5)
    u_t = np.full(T, 2.0)
    assert made.reverse().value(params_of(u_t)).loss - system(weights="free").reverse().value(
        params_of(u_t)
    ).loss == pytest.approx(2 * 0.25 + 0.5, rel=1e-10)


# ---- gauge, prior, padding -----------------------------------------------------------------------------------------


def test_the_loss_does_not_see_the_gauge(u_t):
    evaluate = system(theta=0.1).reverse()
    here, scaled = evaluate(params_of(u_t)), evaluate(params_of(u_t * -5))
    assert scaled.loss == pytest.approx(here.loss, abs=1e-13)
    np.testing.assert_allclose(scaled.gradient.local["u"], -here.gradient.local["u"], atol=1e-13)
    # sum_t u_t dL/du_t = 0 because a common factor changes nothing
    assert abs(np.sum(here.params.local["u"] * here.gradient.local["u"])) < 1e-13


def test_weights_far_apart_do_not_overflow(evaluate):
    result = evaluate.value(params_of(np.geomspace(1e-300, 1e300, T)))
    assert float(result.statistics.common.w) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("way", ["reverse", "adjoint"])
def test_padding_and_absent_frames_carry_no_weight(made, u_t, way):
    evaluate = getattr(made, way)()
    params = params_of(u_t)
    noisy = Params({}, {"u": params.local["u"] + np.where(IDS < 0, 50.0, 0.0)})
    here, there = evaluate(params), evaluate(noisy)
    assert there.loss == here.loss
    assert np.array_equal(there.gradient.local["u"], here.gradient.local["u"])


def test_fast_sums_agree_to_1e_10(made, u_t):
    exact = made.reverse()
    fast = type(exact)(exact.problem, exact.frames, exact.grid, FastSum(exact.grid))
    one, other = exact(params_of(u_t)), fast(params_of(u_t))
    assert other.loss == pytest.approx(one.loss, abs=1e-10)
    np.testing.assert_allclose(other.gradient.local["u"], one.gradient.local["u"], atol=1e-10)


def test_a_weight_of_zero_is_a_regular_point(made, u_t):
    """Its gradient is 0, with a divergence and a smoothness as without; nothing is infinite."""
    evaluate = system(theta=0.3, smoothness=0.1).reverse()
    found = evaluate(params_of(np.where(np.arange(T) == 17, 0.0, u_t)))
    assert np.isfinite(found.loss)
    assert np.all(np.isfinite(found.gradient.local["u"]))
    assert found.gradient.local["u"].ravel()[17] == 0


def test_a_natural_step_multiplies_weights_by_the_exponentials_of_their_gradient(u_t):
    """w exp(-eta dL/dw) / Z, dL/dw by differences; its slope is the change of the loss with eta."""
    w0_t = np.random.default_rng(9).random(T) + 0.1
    w0_t /= w0_t.sum()
    made = system(theta=0.2)
    evaluate = made.reverse(np.pad(np.log(w0_t), (0, 128 - T)).reshape(2, 64))
    here, rows, problem = evaluate(params_of(u_t)), evaluate.frames.rows, evaluate.problem
    direction = problem.natural_direction(here.gradient, rows)

    def after(length):
        return problem.multiplied(here.params, direction, length)

    w_t = made.weights(u_t, w0_t)

    def loss(w):
        return made.loss(np.sqrt(w / w0_t), w0_t=w0_t)

    eta = 0.5
    moved = problem.weights_of(evaluate(after(eta)).params, rows).ravel()
    slopes = {t: difference(lambda w, t=t: loss(np.where(np.arange(T) == t, w, w_t)), w_t[t], 1e-6) for t in FRAMES}
    # Of the normalisation nothing is left in the ratio of two weights.
    first = FRAMES[0]
    for t in FRAMES[1:]:
        expected = w_t[t] / w_t[first] * np.exp(-eta * (slopes[t] - slopes[first]))
        assert moved[t] / moved[first] == pytest.approx(expected, rel=1e-6)
    assert np.all(moved[T:] == 0)
    assert np.all(np.isfinite(after(1e9).local["u"])), "a step that is far too long"
    slope = np.sum(here.gradient.local["u"] * direction.local["u"])
    assert difference(lambda eta: evaluate.value(after(eta)).loss, 0.0, 1e-5) == pytest.approx(float(slope), rel=1e-6)


def test_partial_is_additive(made, evaluate, u_t):
    """partial(a ++ b) == partial(a) + partial(b): splitting a block by padding changes nothing but rounding."""
    chunk = next(evaluate.frames.chunks())
    data, ids = chunk.data[0, 0], IDS[0]
    params = Params({}, {"u": u_t[:64]})
    halves = [np.where(np.arange(64) < 20, ids, -1), np.where(np.arange(64) >= 20, ids, -1)]
    prior = [PriorRows(np.full(64, -np.log(T)), rows > 0, np.full(64, -1)) for rows in (ids, *halves)]
    whole, *parts = (
        evaluate.problem.partial(params, Cell(data, rows, more)) for rows, more in zip((ids, *halves), prior)
    )
    added = jax.tree.map(lambda a, b: a + b, *parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11), whole, added)


def test_a_prior_shifts_weights_and_divergence(u_t):
    """Weights w0 u^2 / Z; KL and the square distance are to w0; uniform weights are u = 1 / sqrt(w0)."""
    w0_t = np.random.default_rng(9).random(T) + 0.1
    w0_t /= w0_t.sum()
    log_prior = np.pad(np.log(w0_t), (0, 128 - T)).reshape(2, 64)
    made = system(theta=0.2, l2=0.1)
    evaluate = made.reverse(log_prior)
    result = evaluate(params_of(u_t))
    assert result.loss == pytest.approx(made.loss(u_t, w0_t=w0_t), abs=1e-11)
    rows, problem = evaluate.frames.rows, evaluate.problem
    uniform = problem.at_weights(np.full(IDS.shape, 1 / T), rows)
    assert evaluate.metrics(evaluate.value(uniform))["ess"] == pytest.approx(T, rel=1e-12)
    w_t = made.weights(u_t, w0_t)
    np.testing.assert_allclose(problem.weights_of(result.params, rows).ravel()[:T], w_t, rtol=1e-12)
    assert evaluate.metrics(evaluate.value(problem.init(0, rows)))["kl"] == pytest.approx(0, abs=1e-12)


# ---- kinds of weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["simplex", "sigmoid", "free"])
def test_parameters_of_weights_give_these_weights(weights):
    made = system(weights=weights)
    rows, problem = made.rows(), made.reverse().problem
    w = np.where(IDS >= 0, np.random.default_rng(0).random(IDS.shape), 0.0)
    w /= w.sum()
    found = problem.weights_of(problem.at_weights(w, rows), rows)
    np.testing.assert_allclose(found, w, rtol=1e-12)
    assert np.all(found[IDS < 0] == 0)


@pytest.mark.parametrize(("weights", "mean", "variance"), [("simplex", 0, 1), ("sigmoid", 0, 100 / 12), ("free", 1, 1)])
def test_a_random_start_is_a_function_of_seed_and_frame_id(weights, mean, variance):
    problem = system(weights=weights).reverse().problem
    ids = np.arange(640).reshape(10, 64)
    whole = problem.random_start(3, FrameRows(ids, 640)).local["u"]
    rank = problem.random_start(3, FrameRows(ids[4:], 640)).local["u"]
    assert np.array_equal(whole[4:], rank)
    assert not np.array_equal(whole, problem.random_start(4, FrameRows(ids, 640)).local["u"])
    # Standard errors of mean and variance from 640 numbers; four of them.
    drawn = np.log(whole**2) if weights == "simplex" else whole
    assert abs(drawn.mean() - mean) < 4 * np.sqrt(variance / 640)
    assert abs(drawn.var() - variance) < 4 * variance * np.sqrt(2 / 640)


# ---- metrics -------------------------------------------------------------------------------------------------------


def test_ess_and_divergence_of_two_levels(evaluate):
    # a frames of weight p/a each and T - a of (1 - p)/(T - a): closed forms of both
    a, p = 30, 0.7
    w_t = np.r_[np.full(a, p / a), np.full(T - a, (1 - p) / (T - a))]
    metrics = evaluate.metrics(evaluate.value(params_of(np.sqrt(w_t))))
    assert metrics["ess"] == pytest.approx(1 / (p**2 / a + (1 - p) ** 2 / (T - a)), rel=1e-12)
    assert metrics["kl"] == pytest.approx(p * np.log(p * T / a) + (1 - p) * np.log((1 - p) * T / (T - a)), rel=1e-12)


def test_shell_correlations_equal_numpy(made, evaluate, u_t):
    found = shell_correlations(part_of(evaluate.value(params_of(u_t)).sums.shells, 0))
    x, fitted = made.x(made.weights(u_t)), made.chosen.fitted
    m = made.orbits.multiplicity * made.chosen.drawn
    for shell in range(SHELLS):
        inside = (made.orbits.shell == shell) & fitted
        expected = pearson(np.where(inside, m, 0.0), x, made.orbits.observed)
        assert found[shell] == pytest.approx(expected, abs=1e-10)


def test_without_held_out_orbits_nothing_is_free(made, u_t):
    evaluate = all_orbits(made).reverse()
    assert not [name for name in evaluate.metrics(evaluate.value(params_of(u_t))) if "free" in name]
