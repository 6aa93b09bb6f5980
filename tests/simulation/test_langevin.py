"""Langevin integrators in JAX: OpenMM's trajectory where there is no noise, and closed forms of what the noise does."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from hpcfit.errors import InputError
from hpcfit.simulation.langevin import (
    SCHEMES,
    Bath,
    Course,
    Motion,
    PhasePoint,
    always,
    calm,
    middle,
    noise_key,
    overdamped,
    stochastic,
    thermal,
    walk,
)
from hpcfit.testsystems import chain

K, M = 1000.0, np.array([12.0])  # kJ/mol/nm^2, amu
BATH = Bath(kT=2.5, friction=5.0, step=0.002)


def covariance(scheme, k=K):
    """Of (x, v) in a harmonic well, where the scheme is at rest: a linear map and noise."""
    xv, xf, xn, vv, vf, vn = (float(np.ravel(c)[0]) for c in scheme)
    step, shake = np.array([[1 - xf * k, xv], [-vf * k, vv]]), np.array([[xn], [vn]])
    return scipy.linalg.solve_discrete_lyapunov(step, shake @ shake.T)


@pytest.mark.parametrize("dt", [0.0005, 0.002, 0.01])
def test_configurations_of_the_middle_scheme_are_those_of_boltzmann_in_a_harmonic_well(dt):
    """At any step that is stable: 1e-12 of the solution of a linear equation with a condition of 1e3."""
    found = covariance(middle(Bath(2.5, 5.0, dt), M))
    assert found[0, 0] == pytest.approx(2.5 / K, rel=1e-12)
    assert found[1, 1] == pytest.approx(2.5 / 12, rel=K * dt**2 / 12)  # velocities of half steps


def test_the_other_schemes_reach_boltzmann_as_the_step_shortens():
    for scheme, order in ((stochastic, 2), (overdamped, 1)):
        off = [covariance(scheme(Bath(2.5, 5.0, dt), M))[0, 0] / (2.5 / K) - 1 for dt in (4e-4, 2e-4)]
        assert off[0] / off[1] == pytest.approx(2**order, rel=0.1)


def test_a_trajectory_has_the_variance_of_its_scheme():
    """4000 oscillators: the standard error of a variance is sqrt(2 / 4000)."""
    scheme, N = middle(BATH, np.full(4000, 12.0)), 4000
    start = PhasePoint(jnp.zeros((N, 1)), thermal(jax.random.key(1), BATH, np.full(N, 12.0), jnp.zeros((N, 1))))
    end = walk(Motion(lambda x, _: -K * x, scheme), start, noise_key(0, 0, 0), Course(1000, 1000)).end
    expected = covariance(middle(BATH, M))
    assert np.var(end.x) == pytest.approx(expected[0, 0], rel=4 * np.sqrt(2 / N))
    assert np.var(end.v) == pytest.approx(expected[1, 1], rel=4 * np.sqrt(2 / N))
    assert abs(np.corrcoef(start.v[:, 0], end.v[:, 0])[0, 1]) < 4 / np.sqrt(N)


def test_openmm_walks_alike_without_noise():
    openmm = pytest.importorskip("openmm")
    system, bonds = openmm.System(), openmm.HarmonicBondForce()
    for mass in chain.MASSES:
        system.addParticle(mass)
    for i in range(6):
        bonds.addBond(i, i + 1, 0.15, 2e4)
    system.addForce(bonds)
    context = openmm.Context(
        system, openmm.LangevinMiddleIntegrator(0, 5.0, 0.001), openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(chain.start())
    velocities = np.random.default_rng(0).normal(size=(7, 3))
    context.setVelocities(velocities)
    context.getIntegrator().step(200)
    state = context.getState(positions=True, velocities=True)
    values = chain.parameters() | dict.fromkeys(("angle k", "torsion k", "epsilon", "scale"), 0.0)
    scheme = middle(Bath(0.0, 5.0, 0.001), chain.MASSES)
    start = PhasePoint(jnp.asarray(chain.start()), jnp.asarray(velocities))
    end = walk(Motion(lambda x, _: chain.forces(x, values), scheme), start, noise_key(0, 0, 0), Course(200)).end
    np.testing.assert_allclose(end.x, state.getPositions(asNumpy=True)._value, rtol=0, atol=1e-11)
    np.testing.assert_allclose(end.v, state.getVelocities(asNumpy=True)._value, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", SCHEMES)
def test_a_trajectory_that_is_cut_goes_on_with_the_same_bits(name):
    scheme, values = SCHEMES[name](Bath(2.5, 20.0, 0.0005), chain.MASSES), chain.parameters()
    start, key = PhasePoint(jnp.asarray(chain.start()), jnp.zeros((7, 3))), noise_key(3, 1, 5)
    motion = Motion(lambda x, _: chain.forces(x, values), scheme)
    go = jax.jit(lambda point, first, steps: walk(motion, point, key, Course(steps, 5, first))[:2], static_argnums=2)
    end, frames = go(start, 0, 100)
    half, before = go(start, 0, 50)
    rest, behind = go(half, 50, 50)
    jax.tree.map(np.testing.assert_array_equal, end, rest)
    np.testing.assert_array_equal(frames.x, jnp.concatenate([before.x, behind.x]))
    assert np.all(np.isfinite(end.x))
    assert np.any(go(start, 7, 100)[0].x != end.x)


def test_recomputing_steps_changes_no_gradient():
    scheme, start = middle(BATH, chain.MASSES), PhasePoint(jnp.asarray(chain.start()), jnp.zeros((7, 3)))

    def far(k, checkpoint):
        motion = Motion(lambda x, _: -k * x - 100 * x**3, scheme)
        end = walk(motion, start, noise_key(0, 0, 0), Course(60, 6), checkpoint=checkpoint).end
        return jnp.sum((end.x[0] - end.x[-1]) ** 2)

    gradient = jax.jit(jax.grad(far), static_argnums=1)
    kept, again = (gradient(1000.0, checkpoint) for checkpoint in (False, True))
    assert again == pytest.approx(float(kept), rel=1e-12)
    assert abs(kept) > 1e-9


def test_a_walk_that_explodes_stands_still_and_its_derivative_is_a_number():
    """A particle that falls off a cubic hill: x grows beyond any bound in a finite time."""
    scheme, fine = middle(Bath(0.0, 1.0, 0.01), M), partial(calm, masses=M, hottest=1e6, furthest=0.5)

    def at(x0, fine):
        start = PhasePoint(jnp.full((1, 1), x0), jnp.zeros((1, 1)))
        return walk(Motion(lambda x, _: 100 * x**3, scheme, fine), start, noise_key(0, 0, 0), Course(400, 400))

    assert not np.isfinite(at(1.0, always).end.x).all()
    found = at(1.0, fine)
    assert 0 < found.broke < 400
    assert np.isfinite(found.end.x).all()
    assert at(0.01, fine).broke == -1
    slope = jax.grad(lambda x0: at(x0, fine).end.x[0, 0])(1.0)
    assert np.isfinite(slope)
    expected = (at(1.0 + 1e-6, fine).end.x - at(1.0 - 1e-6, fine).end.x)[0, 0] / 2e-6
    assert slope == pytest.approx(float(expected), rel=1e-6)


def test_what_is_no_dynamics_is_one_clear_error():
    with pytest.raises(InputError, match=r"friction = -1"):
        Bath(1.0, -1.0, 0.1)
    with pytest.raises(InputError, match="friction = 0"):
        overdamped(Bath(1.0, 0.0, 0.1), M)
    start = PhasePoint(jnp.zeros((1, 1)), jnp.zeros((1, 1)))
    with pytest.raises(InputError, match="7 steps are no multiple of 2"):
        walk(Motion(lambda x, _: -x, middle(BATH, M)), start, noise_key(0, 0, 0), Course(7, 2))
