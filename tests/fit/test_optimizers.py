"""Optimizers on problems with known minima, each through the contract with the loop."""

from typing import NamedTuple

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.fit.gradient import Evaluation, OverFrames
from hpcfit.fit.grid import Shape, make_grid
from hpcfit.fit.inner import InnerProduct
from hpcfit.fit.optimizers import choose_optimizer
from hpcfit.fit.problem import Params
from hpcfit.fit.reduction import ReproducibleSum
from hpcfit.ranks import Ranks
from tests.kinds.frame_weights.systems import system


class Problem(NamedTuple):
    """A function of x [n] in Params with a shared and a local part, its gradient, start and minimum."""

    value: object
    gradient: object
    start: np.ndarray
    minimum: np.ndarray


def quadratic():
    scales = np.geomspace(1, 100, 128)
    centre = np.linspace(-1, 1, 128)
    return Problem(
        lambda x: 0.5 * np.sum(scales * (x - centre) ** 2), lambda x: scales * (x - centre), np.zeros(128), centre
    )


def rosenbrock():
    # sum over pairs of (1 - a)^2 + 100 (b - a^2)^2, minimum at 1
    def split(x):
        return x.reshape(-1, 2).T

    def value(x):
        a, b = split(x)
        return np.sum((1 - a) ** 2 + 100 * (b - a * a) ** 2)

    def gradient(x):
        a, b = split(x)
        return np.stack([-2 * (1 - a) - 400 * a * (b - a * a), 200 * (b - a * a)], axis=1).ravel()

    return Problem(value, gradient, np.tile([-1.2, 1.0], 64), np.ones(128))


def as_params(x):
    return Params({"p": x[:64].copy()}, {"q": x[64:].reshape(1, 64).copy()})


def as_vector(params):
    return np.concatenate([params.shared["p"], params.local["q"].ravel()])


def inner_product():
    return InnerProduct(ReproducibleSum(make_grid(Ranks(), Shape(1, 1, ""), 1, 1)))


def minimise(problem, name, options, steps):
    """Loss after each step, where it ended, and the number of evaluations."""
    calls = []

    def evaluate(params):
        x = as_vector(params)
        calls.append(problem.value(x))
        return Evaluation(float(calls[-1]), as_params(problem.gradient(x)), params, None, None, {})

    optimizer = choose_optimizer(name, options, None, inner_product())
    state = optimizer.start(as_params(problem.start), evaluate)
    losses = [state.loss]
    for _ in range(steps):
        state = optimizer.step(state, evaluate)
        losses.append(state.loss)
        if state.stalled:
            break
    return losses, as_vector(state.params), len(calls)


@pytest.mark.parametrize("problem", [quadratic(), rosenbrock()], ids=["quadratic", "rosenbrock"])
def test_lbfgs_reaches_the_minimum_and_never_climbs(problem):
    losses, x, calls = minimise(problem, "lbfgs", {}, 100)
    assert np.abs(x - problem.minimum).max() < 1e-6
    assert np.all(np.diff(losses) <= 0)
    assert calls < 2 * len(losses) + 20


def test_lbfgs_direction_equals_the_textbook_recursion():
    """The recursion on coefficients of the Gram matrix against that on vectors (Nocedal and Wright, algorithm 7.4)."""
    problem = rosenbrock()
    optimizer = choose_optimizer("lbfgs", {"memory": 5}, None, inner_product())

    def evaluate(params):
        x = as_vector(params)
        return Evaluation(float(problem.value(x)), as_params(problem.gradient(x)), params, None, None, {})

    state = optimizer.start(as_params(problem.start), evaluate)
    for _ in range(8):
        state = optimizer.step(state, evaluate)
    q = as_vector(state.gradient)
    s, y = ([as_vector(v) for v in vectors] for vectors in (state.s, state.y))
    alpha = []
    for s_i, y_i in zip(reversed(s), reversed(y)):
        alpha.append(s_i @ q / (s_i @ y_i))
        q = q - alpha[-1] * y_i
    q = q * (s[-1] @ y[-1]) / (y[-1] @ y[-1])
    for s_i, y_i, a in zip(s, y, reversed(alpha)):
        q = q + (a - y_i @ q / (s_i @ y_i)) * s_i
    np.testing.assert_allclose(as_vector(state.search.direction), -q, rtol=1e-8, atol=1e-10)
    assert state.search.slope == pytest.approx(-q @ as_vector(state.gradient), rel=1e-8)


def test_adam_equals_its_formula():
    """Two steps by hand: m and v with bias correction (Kingma and Ba 2015)."""
    problem, rate = quadratic(), 0.1
    losses, x, _ = minimise(problem, "adam", {"learning_rate": rate}, 2)
    expected, m, v = problem.start, 0, 0
    for k in (1, 2):
        g = problem.gradient(expected)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        expected = expected - rate * (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
    np.testing.assert_allclose(x, expected, rtol=1e-6)
    assert losses[2] < losses[0]


@pytest.mark.parametrize("name", ["adamw", "rmsprop", "sgd", "lion", "yogi", "radam", "nadam"])
def test_optax_chains_descend(name):
    losses, *_ = minimise(quadratic(), name, {"learning_rate": 1e-3}, 30)
    assert losses[-1] < losses[0]


def test_schedule_from_the_config():
    constant, *_ = minimise(quadratic(), "sgd", {"learning_rate": 1e-3}, 5)
    schedule = {"schedule": "cosine_decay_schedule", "init_value": 1e-3, "decay_steps": 3}
    decayed, *_ = minimise(quadratic(), "sgd", {"learning_rate": schedule}, 5)
    assert decayed[1] == pytest.approx(constant[1], rel=1e-6)
    assert decayed[-1] == decayed[-2]  # the rate has reached zero


def test_clipping_is_by_the_norm_of_the_whole_vector():
    problem, clip = quadratic(), 0.5
    optimizer = choose_optimizer("sgd", {"learning_rate": 1.0}, clip, inner_product())

    def evaluate(params):
        return Evaluation(0.0, as_params(problem.gradient(as_vector(params))), params, None, None, {})

    state = optimizer.start(as_params(problem.start), evaluate)
    moved = as_vector(optimizer.step(state, evaluate).params) - problem.start
    assert np.linalg.norm(moved) == pytest.approx(clip, rel=1e-12)


def test_exponentiated_gradient_is_multiplicative():
    """min <c, w> on the simplex: the weights after one step are w exp(-eta c) / Z."""
    weighing = system().reverse()
    problem, rows = weighing.problem, weighing.frames.rows
    cost = np.linspace(0, 1, rows.ids.size).reshape(rows.ids.shape)

    def evaluate(params):
        params = problem.gauge(params, rows, OverFrames(weighing.grid, weighing.add))
        w = problem.weights_of(params, rows)
        loss = np.sum(cost * w)
        gradient = np.divide(2 * w * (cost - loss), params.local["u"], out=np.zeros_like(w), where=rows.ids >= 0)
        return Evaluation(float(loss), Params({}, {"u": gradient}), params, None, None, {})

    optimizer = choose_optimizer("exponentiated-gradient", {"step_length": 0.7}, None, inner_product(), weighing)
    state = optimizer.step(optimizer.start(problem.init(0, rows), evaluate), evaluate)
    expected = np.where(rows.ids >= 0, np.exp(-0.7 * cost), 0.0)
    np.testing.assert_allclose(problem.weights_of(state.params, rows), expected / expected.sum(), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lbgfs", {}, "did you mean 'lbfgs'"),
        ("adam", {"learning_rat": 1}, "did you mean 'learning_rate'"),
        ("lbfgs", {"memory_size": 3}, "did you mean 'memory'"),
        ("adam", {"learning_rate": {"schedule": "cosine"}}, "schedule = 'cosine' is unknown"),
        ("clip_by_global_norm", {}, "is unknown"),
        ("lbfgs", {"memory": 0}, "memory and max_trials"),
        ("lbfgs", {"memory": "10"}, "memory and max_trials"),
        ("lbfgs", {"curvature": 1e-5}, "armijo < curvature"),
        ("exponentiated-gradient", {"shrink": 2}, "shrink"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name, options, message):
    with pytest.raises(InputError, match=message):
        choose_optimizer(name, options, None, inner_product())


def test_clip_norm_has_no_silent_no_effect():
    with pytest.raises(InputError, match="clip_norm"):
        choose_optimizer("lbfgs", {}, 1.0, inner_product())
