"""Many minimisations by one L-BFGS: each does, bit for bit, what it would do alone."""

import zlib

import numpy as np
import pytest

from hpcfit.fit.gradient import Evaluation
from hpcfit.fit.inner import InnerProduct, OfMany, OfRows
from hpcfit.fit.lbfgs import MAX_STEPS, NOT_FINITE, PRECISION, SMALL_CHANGE, SMALL_GRADIENT, Ends, Lbfgs
from hpcfit.fit.problem import Params

BLOCKS, WIDTH = 3, 4


class OneRank:
    """Sums of a rank that is alone."""

    def columns(self, parts):
        return parts.sum(axis=0)


def rosenbrock(u, sharpness=100.0):
    """The valley along all numbers of u, one after another, and its gradient."""
    x = u.ravel()
    a, b = x[:-1], x[1:]
    gradient = np.zeros_like(x)
    gradient[:-1] += -4 * sharpness * a * (b - a * a) - 2 * (1 - a)
    gradient[1:] += 2 * sharpness * (b - a * a)
    return np.sum(sharpness * (b - a * a) ** 2 + (1 - a) ** 2), gradient.reshape(u.shape)


def barrier(u):
    """A parabola that is not defined beyond 1 from its minimum: the first trials of a long step are not finite."""
    if np.max(np.abs(u)) > 1:
        return np.nan, np.full(u.shape, np.nan)
    return np.sum(u * u), 2 * u


def starts(number, scale=1.0):
    return [scale * np.random.default_rng([number, n]).normal(size=(BLOCKS, WIDTH)) for n in range(number)]


def evaluation(loss, gradient, params):
    return Evaluation(np.asarray(loss), Params((), {"u": gradient}), params, None, None, {})


def side_by_side(functions):
    """The evaluation of minimisations on the last axis."""

    def evaluate(params):
        found = [one(params.local["u"][..., n]) for n, one in enumerate(functions)]
        losses, gradients = zip(*found)
        return evaluation(losses, np.stack(gradients, axis=-1), params)

    return evaluate


def minimised(optimizer, params, evaluate):
    """(the last state, the trials)"""
    state, trials = optimizer.begun(params, evaluate(params)), []
    while np.any(state.going):
        trials.append(optimizer.trial(state))
        state = optimizer.told(state, evaluate(trials[-1]))
    return state, trials


def many(functions, begun, ends, **options):
    params = Params((), {"u": np.stack(begun, axis=-1)})
    return minimised(Lbfgs(OfMany(OneRank(), len(begun)), ends=ends, **options), params, side_by_side(functions))


def alone(function, begun, ends, **options):
    """The same as an optimizer of one minimisation."""
    evaluate = lambda params: evaluation(*function(params.local["u"]), params)  # noqa: E731
    return minimised(Lbfgs(InnerProduct(OneRank()), ends=ends, **options), Params((), {"u": begun}), evaluate)


def test_each_takes_the_trials_that_it_would_take_alone():
    functions = [lambda u, k=k: rosenbrock(u, 10.0 * (k + 1)) for k in range(5)]
    ends = Ends(40, relative=1e-9, patience=3)
    together, trials = many(functions, starts(5), ends)
    for n, (function, begun) in enumerate(zip(functions, starts(5))):
        one, own = alone(function, begun, ends)
        for what in ("loss", "steps", "status"):
            assert getattr(one, what) == getattr(together, what)[n]
        for mine, theirs in zip(own, trials):
            np.testing.assert_array_equal(mine.local["u"], theirs.local["u"][..., n])
        for rest in trials[len(own) :]:  # it keeps its place while others go on
            np.testing.assert_array_equal(rest.local["u"][..., n], one.params.local["u"])


def test_a_row_is_a_minimisation_of_its_own():
    """With numbers of several axes in two leaves, on ranks that hold other rows or none."""

    def evaluate(params):
        x, y = params.local["x"], params.local["y"]
        joined = np.concatenate([x.reshape(*x.shape[:2], 6), y[..., None]], axis=-1)
        found = [[rosenbrock(row) for row in block] for block in joined]
        losses = np.array([[loss for loss, _ in block] for block in found]).reshape(x.shape[:2])
        gradient = np.array([[g for _, g in block] for block in found]).reshape(joined.shape)
        by = {"x": gradient[..., :-1].reshape(x.shape), "y": gradient[..., -1]}
        return Evaluation(losses, Params((), by), params, None, None, {})

    def of_rows(x, y):
        return minimised(Lbfgs(OfRows(x.shape[:2]), ends=Ends(30)), Params((), {"x": x, "y": y}), evaluate)[0]

    random = np.random.default_rng(3)
    x, y = random.normal(size=(BLOCKS, 2, 3, 2)), random.normal(size=(BLOCKS, 2))
    whole = of_rows(x, y)
    for block in range(BLOCKS):
        part = of_rows(x[block : block + 1], y[block : block + 1])
        np.testing.assert_array_equal(part.params.local["x"][0], whole.params.local["x"][block])
        np.testing.assert_array_equal(part.loss[0], whole.loss[block])
    assert of_rows(x[:0], y[:0]).loss.shape == (0, 2)


def test_each_ends_for_a_reason_of_its_own():
    flat = lambda u: (1.0, np.zeros_like(u))  # noqa: E731
    wrong = lambda u: (np.sum(u * u), -2 * u)  # a gradient that points uphill  # noqa: E731
    nowhere = lambda u: (np.nan, np.full(u.shape, np.nan))  # noqa: E731
    parabola = lambda u: (np.sum(u * u), 2 * u)  # noqa: E731
    slow = lambda u: (1e12 + rosenbrock(u)[0], rosenbrock(u)[1])  # noqa: E731
    functions = [flat, wrong, nowhere, parabola, slow, rosenbrock]
    state, _ = many(functions, starts(6), Ends(5, gradient=1e-9, relative=1e-6, patience=2))
    assert list(state.status) == [SMALL_GRADIENT, PRECISION, NOT_FINITE, SMALL_GRADIENT, SMALL_CHANGE, MAX_STEPS]
    np.testing.assert_array_equal(state.params.local["u"][..., 1], starts(6)[1])


ROUNDING = 2.0**-24  # of float32


@pytest.mark.parametrize("seed", range(5))
def test_a_loss_that_is_rounding_ends_a_fit(seed):
    """A quadratic form on a level of 1, whose loss is off by as much as float32 numbers are, otherwise at every point:
    the gradient alone would lead on for ever. It ends where the loss cannot be told from the least one."""
    curvature = np.geomspace(1, 300, BLOCKS * WIDTH).reshape(BLOCKS, WIDTH)
    exact = lambda u: 1 + np.sum(curvature * u * u)  # noqa: E731

    def rounded(u):
        off = np.random.default_rng(zlib.crc32(u.tobytes())).uniform(-ROUNDING, ROUNDING)
        return exact(u) * (1 + off), 2 * curvature * u

    begun = np.random.default_rng(seed).normal(size=(BLOCKS, WIDTH))
    state, trials = alone(rounded, begun, Ends(500), noise=2 * ROUNDING)
    assert state.status == PRECISION
    assert exact(state.params.local["u"]) - 1 < 2 * ROUNDING
    assert len(trials) < 100


def test_a_loss_that_tells_all_steps_apart_does_not_end_a_fit_early():
    """Changes far below ``noise`` that are none of rounding: those of a minimum at 0, and in float64."""
    state, _ = alone(rosenbrock, starts(1)[0], Ends(500, gradient=1e-7), noise=1.0)
    assert state.status == SMALL_GRADIENT


def test_a_search_turns_back_from_where_the_loss_is_not_finite():
    begun = starts(3, scale=0.3)
    state, trials = many([barrier, rosenbrock, barrier], begun, Ends(60, gradient=1e-8), first_step=1e3)
    assert np.max(np.abs(trials[0].local["u"][..., 0])) > 1
    assert list(state.status[[0, 2]]) == [SMALL_GRADIENT] * 2
    np.testing.assert_allclose(state.params.local["u"][..., 0], 0, atol=1e-8)


def test_first_trials_are_no_longer_than_the_longest():
    """Of each step: later trials of a search may double."""
    begun = starts(1)[0]
    evaluate = lambda params: evaluation(*rosenbrock(params.local["u"]), params)  # noqa: E731

    def first_lengths(**options):
        optimizer = Lbfgs(InnerProduct(OneRank()), **options)
        state, found = optimizer.start(Params((), {"u": begun}), evaluate), []
        for _ in range(20):
            trial = optimizer.trial(state).local["u"]
            found.append(np.linalg.norm(trial - state.params.local["u"]))
            state = optimizer.step(state, evaluate)
        return found

    assert max(first_lengths(longest=0.05)) <= 0.05 * (1 + 1e-12) < max(first_lengths())


@pytest.mark.parametrize("wrong", [{"memory": 0}, {"armijo": 0.6}, {"curvature": 1.0}, {"longest": 0.0}])
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Lbfgs(InnerProduct(OneRank()), **wrong)
