"""Derivatives of a trajectory of the chain by its nine parameters: every way there is, and finite differences."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.simulation.langevin import SCHEMES, Bath, Course, Motion, PhasePoint, middle, noise_key, stochastic, walk
from hpcfit.simulation.tangents import (
    ClosedForm,
    Recurrence,
    Window,
    by_matrix,
    by_products,
    walk_with_tangents,
)
from hpcfit.testsystems import chain

BATH, STEPS = Bath(2.494, 20.0, 0.0005), 300
NAMES = list(chain.PARAMETERS)
DIRECTIONS = dict(zip(NAMES, np.eye(len(NAMES))))
START, KEY = PhasePoint(chain.start(), np.zeros((7, 3))), noise_key(0, 0, 0)
REST = PhasePoint(np.zeros((len(NAMES), 7, 3)), np.zeros((len(NAMES), 7, 3)))


@cache
def carried(make=middle, bath=BATH, steps=STEPS, **ways):
    """(point, tangents) at the end of a trajectory of the chain."""
    scheme = make(bath, chain.MASSES)
    walk = partial(walk_with_tangents, chain.forces, chain.PARAMETERS, DIRECTIONS, scheme, START, REST, KEY, steps)
    return jax.jit(partial(walk, **ways))()


def end(values, scheme, steps=STEPS):
    return walk(Motion(lambda x, _: chain.forces(x, values), scheme), START, KEY, Course(steps)).end


def assert_close(found, expected, tolerance):
    """Of each parameter, relative to the largest of its tangents."""
    for one, other in zip(found, expected):
        scale = np.max(np.abs(other), axis=(1, 2), keepdims=True)
        assert np.max(np.abs(one - other) / scale) < tolerance


@pytest.fixture(scope="module", params=SCHEMES)
def differentiated(request):
    """(scheme, its recurrence's tangents, those of forward differentiation through the whole loop)"""
    make = SCHEMES[request.param]
    scheme = make(BATH, chain.MASSES)
    by_name = jax.jit(jax.jacfwd(lambda values: end(values, scheme)))(chain.PARAMETERS)
    expected = [jnp.stack([leaf[name] for name in NAMES]) for leaf in by_name]
    return scheme, carried(make), expected


def test_the_recurrence_is_the_derivative(differentiated):
    scheme, (point, tangents), (X, V) = differentiated
    np.testing.assert_allclose(point.x, jax.jit(end, static_argnums=2)(chain.PARAMETERS, scheme, STEPS).x, rtol=1e-13)
    assert_close([tangents.x], [X], 1e-12)
    if np.any(V):
        assert_close([tangents.v], [V], 1e-12)


@pytest.mark.parametrize("ways", [{"carrier": ClosedForm()}, {"carrier": Window(2500)}, {"response": by_matrix}])
def test_other_ways_agree_with_the_recurrence(ways):
    """The closed form subtracts sums of 300 terms that are 1 / (1 - a) = 100 times their difference: 1e-12."""
    for make in (middle, stochastic):
        assert_close(carried(make, **ways)[1], carried(make)[1], 1e-12)


def test_central_differences_agree(differentiated):
    scheme, (_, tangents), _ = differentiated
    run = jax.jit(lambda values: end(values, scheme).x)
    for p, name in enumerate(NAMES):
        h = 1e-5 * float(chain.PARAMETERS[name])
        up, down = (run(chain.PARAMETERS | {name: chain.PARAMETERS[name] + sign * h}) for sign in (1, -1))
        expected = (up - down) / (2 * h)
        assert np.max(np.abs(tangents.x[p] - expected)) < 1e-6 * np.max(np.abs(expected))


def test_the_adjoint_agrees():
    """A loss of the end: one pull-back for all parameters."""
    scheme, g = middle(BATH, chain.MASSES), jnp.asarray(np.random.default_rng(0).normal(size=(7, 3)))
    pulled = jax.jit(jax.grad(lambda values: jnp.sum(g * end(values, scheme).x)))(chain.PARAMETERS)
    _, tangents = carried()
    forward = jnp.sum(g * tangents.x, axis=(1, 2))
    np.testing.assert_allclose(forward, [pulled[name] for name in NAMES], rtol=1e-11)


@pytest.mark.parametrize("carrier", [Recurrence(), ClosedForm()])
def test_a_trajectory_that_is_cut_goes_on_with_its_tangents(carrier):
    scheme = middle(BATH, chain.MASSES)
    go = jax.jit(
        lambda point, tangents, first, steps: walk_with_tangents(
            chain.forces, chain.PARAMETERS, DIRECTIONS, scheme, point, tangents, KEY, steps, carrier, first=first
        ),
        static_argnums=3,
    )
    whole = go(START, REST, 0, 200)
    rest = go(*go(START, REST, 0, 100), 100, 100)
    if carrier == Recurrence():
        jax.tree.map(np.testing.assert_array_equal, whole, rest)
    assert_close(rest[1], whole[1], 1e-12)
    fresh = go(go(START, REST, 0, 100)[0], REST, 100, 100)  # tangents that were forgotten would be another derivative
    assert np.max(np.abs(fresh[1].x - whole[1].x)) > 1e-3 * np.max(np.abs(whole[1].x))


def test_a_window_forgets_a_share_of_its_last_term():
    """Where it is admitted the error is at most 100 a^k of the largest tangent."""
    bath = Bath(2.494, 100.0, 0.0005)
    errors, whole = [], carried(stochastic, bath, 1000)[1]
    for k in (300, 400):
        window = carried(stochastic, bath, 1000, carrier=Window(k))[1]
        errors.append(float(np.max(np.abs(window.x - whole.x) / np.max(np.abs(whole.x), axis=(1, 2), keepdims=True))))
        assert errors[-1] < 100 * bath.kept**k
    assert errors[1] < errors[0]
    with pytest.raises(InputError, match=r"a window of 200 steps keeps a\^k = 4.5e-05"):
        carried(stochastic, bath, carrier=Window(200))
    with pytest.raises(InputError, match="no closed form"):
        carried(middle, Bath(2.494, 0.0, 0.0005), carrier=ClosedForm())


def test_products_and_the_matrix_give_one_response():
    X = jnp.asarray(np.random.default_rng(1).normal(size=(len(NAMES), 7, 3)))
    ways = [jax.jit(partial(way, chain.forces)) for way in (by_products, by_matrix)]
    found = [way(START.x, chain.PARAMETERS, X, DIRECTIONS) for way in ways]
    np.testing.assert_allclose(*found, rtol=1e-10, atol=1e-9)
