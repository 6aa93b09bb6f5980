"""Derivatives of a trajectory of the chain by its nine parameters: every way there is, and finite differences."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.simulation.langevin import SCHEMES, Bath, Course, Motion, PhasePoint, middle, noise_key, stochastic, walk
from hpcfit.simulation.tangents import Carried, ClosedForm, Recurrence, Window, by_matrix, walk_with_tangents
from hpcfit.testsystems import chain

BATH, STEPS = Bath(2.494, 20.0, 0.0005), 300
NAMES = list(chain.PARAMETERS)
DIRECTIONS = dict(zip(NAMES, np.eye(len(NAMES))))
START, KEY = PhasePoint(chain.start(), np.zeros((7, 3))), noise_key(0, 0, 0)
WHOLE = by_matrix(chain.forces)
REST = PhasePoint(np.zeros((len(NAMES), 7, 3)), np.zeros((len(NAMES), 7, 3)))


@partial(jax.jit, static_argnames=("make", "bath", "steps", "carrier", "forces"))
def go(point, tangents, first, make=middle, bath=BATH, steps=STEPS, carrier=Recurrence(), forces=chain.forces):  # noqa: B008
    """(point, tangents) after some steps of the chain."""
    motion = Carried(forces, chain.PARAMETERS, DIRECTIONS, make(bath, chain.MASSES), carrier)
    return walk_with_tangents(motion, point, tangents, KEY, steps, first)


@cache
def carried(**ways):
    """(point, tangents) at the end of a trajectory of the chain."""
    return go(START, REST, 0, **ways)


def end(values, scheme, steps=STEPS, forces=chain.forces):
    return walk(Motion(lambda x, _: forces(x, values), scheme), START, KEY, Course(steps)).end


def assert_close(found, expected, tolerance):
    """Of each parameter, relative to the largest of its tangents."""
    for one, other in zip(found, expected[:2]):
        scale = np.max(np.abs(other), axis=(1, 2), keepdims=True)
        assert np.max(np.abs(one - other) / scale) < tolerance


@pytest.fixture(scope="module", params=SCHEMES)
def differentiated(request):
    """(the end as a function of the parameters, the recurrence's point and tangents, the tangents of forward
    differentiation through the whole loop)"""
    make = SCHEMES[request.param]
    scheme = make(BATH, chain.MASSES)
    by_name = jax.jit(jax.jacfwd(lambda values: end(values, scheme)))(chain.PARAMETERS)
    expected = [np.stack([leaf[name] for name in NAMES]) for leaf in by_name[:2]]
    return jax.jit(lambda values: end(values, scheme).x), carried(make=make), expected


def test_the_recurrence_is_the_derivative(differentiated):
    run, (point, tangents), (X, V) = differentiated
    np.testing.assert_allclose(point.x, run(chain.PARAMETERS), rtol=1e-13)
    assert_close([tangents.x], [X], 1e-12)
    if np.any(V):
        assert_close([tangents.v], [V], 1e-12)


@pytest.mark.parametrize(
    ("make", "ways"),
    [
        (middle, {"carrier": ClosedForm()}), (stochastic, {"carrier": Window(2500)}), (middle, {"forces": WHOLE}),
        pytest.param(stochastic, {"carrier": ClosedForm()}, marks=pytest.mark.nightly),
        pytest.param(middle, {"carrier": Window(2500)}, marks=pytest.mark.nightly),
        pytest.param(stochastic, {"forces": WHOLE}, marks=pytest.mark.nightly),
    ],
)  # fmt: skip
def test_other_ways_agree_with_the_recurrence(make, ways):
    """The closed form subtracts sums of 300 terms that are 1 / (1 - a) = 100 times their difference: 1e-12."""
    assert_close(carried(make=make, **ways)[1], carried(make=make)[1], 1e-12)


def test_central_differences_agree(differentiated):
    run, (_, tangents), _ = differentiated
    for p, name in enumerate(NAMES):
        h = 1e-5 * float(chain.PARAMETERS[name])
        up, down = (run(chain.PARAMETERS | {name: chain.PARAMETERS[name] + sign * h}) for sign in (1, -1))
        expected = (up - down) / (2 * h)
        assert np.max(np.abs(tangents.x[p] - expected)) < 1e-6 * np.max(np.abs(expected))


@pytest.mark.parametrize("forces", [chain.forces, WHOLE], ids=["products", "matrix"])
def test_the_adjoint_agrees(forces):
    """A loss of the end: one pull-back for all parameters."""
    scheme, g = middle(BATH, chain.MASSES), jnp.asarray(np.random.default_rng(0).normal(size=(7, 3)))
    loss = lambda values: jnp.sum(g * end(values, scheme, forces=forces).x)  # noqa: E731
    pulled = jax.jit(jax.grad(loss))(chain.PARAMETERS)
    _, tangents = carried(make=middle)
    forward = jnp.sum(g * tangents.x, axis=(1, 2))
    np.testing.assert_allclose(forward, [pulled[name] for name in NAMES], rtol=1e-11)


@pytest.mark.parametrize("carrier", [Recurrence(), ClosedForm()])
def test_a_trajectory_that_is_cut_goes_on_with_its_tangents(carrier):
    whole = carried(make=middle) if carrier == Recurrence() else carried(make=middle, carrier=carrier)
    half = partial(go, make=middle, steps=STEPS // 2, carrier=carrier)
    point, tangents = half(START, REST, 0)
    rest = half(point, tangents, STEPS // 2)
    if carrier == Recurrence():
        jax.tree.map(np.testing.assert_array_equal, whole, rest)
    assert_close(rest[1], whole[1], 1e-12)
    fresh = half(point, REST, STEPS // 2)  # tangents that were forgotten would be another derivative
    assert np.max(np.abs(fresh[1].x - whole[1].x)) > 1e-3 * np.max(np.abs(whole[1].x))


@pytest.mark.parametrize("windows", [(300,), pytest.param((300, 400), marks=pytest.mark.nightly)])
def test_a_window_forgets_a_share_of_its_last_term(windows):
    """Where it is admitted the error is at most 100 a^k of the largest tangent."""
    bath = Bath(2.494, 100.0, 0.0005)
    errors, whole = [], carried(make=stochastic, bath=bath, steps=1000)[1]
    for k in windows:
        window = carried(make=stochastic, bath=bath, steps=1000, carrier=Window(k))[1]
        errors.append(float(np.max(np.abs(window.x - whole.x) / np.max(np.abs(whole.x), axis=(1, 2), keepdims=True))))
        assert errors[-1] < 100 * bath.kept**k
    assert errors == sorted(errors, reverse=True)
    with pytest.raises(InputError, match=r"a window of 200 steps keeps a\^k = 4.5e-05"):
        carried(make=stochastic, bath=bath, carrier=Window(200))
    with pytest.raises(InputError, match="no closed form"):
        carried(make=middle, bath=Bath(2.494, 0.0, 0.0005), carrier=ClosedForm())
