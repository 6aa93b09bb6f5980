"""Adam and FIRE of many minimisations: closed forms, the best point is kept, and each does what it would do alone."""

import numpy as np
import optax
import pytest

from hpcfit.fit.downhill import Adam, Fire
from hpcfit.fit.gradient import Evaluation
from hpcfit.fit.inner import OfRows
from hpcfit.fit.lbfgs import MAX_STEPS, NOT_FINITE, SMALL_GRADIENT, Ends
from hpcfit.fit.problem import Params

STIFF = np.array([1.0, 4.0, 25.0])


def parabola(params):
    """sum k u^2 / 2 of each row."""
    u = params.local["u"]
    loss = 0.5 * np.sum(STIFF * u * u, axis=-1)
    return Evaluation(loss, Params((), {"u": STIFF * u}), params, None, None, {})


def begun(rows):
    return Params((), {"u": np.random.default_rng(1).normal(size=(1, rows, 3))})


def minimised(make, params, evaluate=parabola):
    optimizer = make(OfRows(params.local["u"].shape[:2]))
    state = optimizer.begun(params, evaluate(params))
    while np.any(state.going):
        state = optimizer.told(state, evaluate(optimizer.trial(state)))
    return state


def test_adam_is_that_of_optax():
    params, rate = begun(2), 0.03
    state = minimised(lambda inner: Adam(inner, Ends(7), rate=rate, clip=None), params)
    u, chain = params.local["u"], optax.adam(rate)
    kept = chain.init(u)
    for _ in range(7):
        change, kept = chain.update(STIFF * u, kept)
        u = u + np.asarray(change)
    np.testing.assert_allclose(state.at.local["u"], u, rtol=1e-6)


@pytest.mark.parametrize("make", [lambda i: Adam(i, Ends(25), rate=0.1), lambda i: Fire(i, Ends(25))])
def test_each_does_what_it_would_do_alone(make):
    params = begun(4)
    together = minimised(make, params)
    for row in range(4):
        alone = minimised(make, Params((), {"u": params.local["u"][:, row : row + 1]}))
        np.testing.assert_array_equal(alone.params.local["u"][0, 0], together.params.local["u"][0, row])
        np.testing.assert_array_equal(alone.loss[0, 0], together.loss[0, row])


def test_fire_ends_at_the_minimum():
    state = minimised(lambda inner: Fire(inner, Ends(2000, gradient=1e-8), longest=1.0), begun(3))
    assert np.all(state.status == SMALL_GRADIENT)
    np.testing.assert_allclose(state.params.local["u"], 0, atol=1e-8)


def test_the_best_point_is_kept_where_a_rate_is_too_large():
    params = begun(1)
    losses = []

    def evaluate(at):
        here = parabola(at)
        losses.append(float(here.loss[0, 0]))
        return here

    state = minimised(lambda inner: Adam(inner, Ends(30), rate=3.0, clip=None), params, evaluate)
    assert state.loss[0, 0] == min(losses) < losses[-1]
    assert parabola(state.params).loss[0, 0] == state.loss[0, 0]


def test_a_loss_that_is_not_finite_ends_its_row_alone():
    def evaluate(at):
        here = parabola(at)
        loss = here.loss.copy()
        loss[0, 1] = np.nan
        return here._replace(loss=loss)

    state = minimised(lambda inner: Adam(inner, Ends(4)), begun(3), evaluate)
    assert state.status.tolist() == [[MAX_STEPS, NOT_FINITE, MAX_STEPS]]
    assert state.steps.tolist() == [[4, 0, 4]]
