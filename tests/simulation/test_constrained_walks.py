"""Dynamics with constraints: OpenMM's trajectory, derivatives against differences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.simulation.langevin import Bath, Course, Motion, PhasePoint, noise_key, walk
from tests.simulation.rigid_systems import constrained, loaded, mixture

BATH, COURSE = Bath(2.494, 10.0, 0.001), Course(50, 50)


@pytest.fixture(scope="module")
def system():
    """(System, its energy, positions and velocities on the constraints, masses, infinite of the site)"""
    pytest.importorskip("openmm")
    made, positions = mixture()
    found, x = loaded(made, positions)
    v = np.random.default_rng(0).normal(size=x.shape) * (found.masses > 0)[:, None]
    start = PhasePoint(x, np.asarray(found.constraints.velocities(v, x)))
    return made, found, start, np.where(found.masses > 0, found.masses, np.inf)


@partial(jax.jit, static_argnames=("bath", "course"))
def walked(energy, constraints, parameters, start, masses, bath=BATH, course=COURSE):
    """The walk, with the largest violation of a constraint at each frame."""
    scheme = constrained(constraints, masses, bath, parameters)
    motion = Motion(lambda x, _: -jax.grad(energy)(x, parameters), scheme)
    seen = lambda point: constraints.violation(point.x, parameters)  # noqa: E731
    return walk(motion, scheme.begun(start), noise_key(0, 0, 0), course, seen)


def test_derivatives_along_constrained_walks_are_those_of_differences(system):
    """Of where and how fast a walk of 50 steps ends, both ways: SHAKE, SETTLE and a virtual site in one system."""
    _, found, start, masses = system
    weights = np.random.default_rng(1).normal(size=(2, *start.x.shape))
    # CH, OH and HH of either water; a charge and a sigma of each molecule.
    moving = [("constraint.length", k) for k in range(5)] + [("charge", k) for k in (0, 2, 4)] + [("lj.sigma", 0)]

    def value(shares, energy, constraints, start):
        """The parameters that move are multiplied by the shares."""
        theta = {leaf: jnp.asarray(values) for leaf, values in found.parameters.items()}
        for share, (leaf, entry) in zip(shares, moving):
            theta[leaf] = theta[leaf].at[entry].multiply(share)
        end = walked(energy, constraints, theta, start, masses).end
        return jnp.sum(weights[0] * end.x + 0.01 * weights[1] * end.v)

    given = found.energy, found.constraints, start
    assert len(found.parameters["constraint.length"]) == 5
    value_and_slopes = jax.jit(jax.value_and_grad(value))
    ones, by = np.ones(len(moving)), 1e-5 * np.eye(len(moving))
    _, reverse = value_and_slopes(ones, *given)
    along = np.random.default_rng(2).normal(size=len(moving))
    _, forward = jax.jit(lambda *a: jax.jvp(lambda shares: value(shares, *a), (ones,), (along,)))(*given)
    assert forward == pytest.approx(float(along @ reverse), rel=1e-10)
    for number, change in enumerate(by):
        up, down = (value_and_slopes(ones + sign * change, *given)[0] for sign in (1, -1))
        assert reverse[number] == pytest.approx(float(up - down) / 2e-5, rel=1e-6), moving[number]


def test_openmm_walks_alike_on_constraints_without_noise(system):
    """50 steps; OpenMM's SETTLE keeps lengths of water to 8e-9 only, of 0.15 nm, which grow a few times."""
    import openmm

    made, found, start, masses = system
    integrator = openmm.LangevinMiddleIntegrator(0, 5.0, 0.001)
    integrator.setConstraintTolerance(1e-12)
    context = openmm.Context(made, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(start.x)
    context.computeVirtualSites()
    context.setVelocities(start.v)
    integrator.step(50)
    state = context.getState(positions=True, velocities=True)
    end = walked(found.energy, found.constraints, found.parameters, start, masses, bath=Bath(0.0, 5.0, 0.001)).end
    expected = state.getPositions(asNumpy=True)._value
    np.testing.assert_allclose(found.energy.sites.place(end.x), expected, rtol=0, atol=1e-8)
    v = found.constraints.velocities(state.getVelocities(asNumpy=True)._value, end.x)
    np.testing.assert_allclose(end.v, np.where(np.isfinite(masses)[:, None], v, 0.0), rtol=0, atol=1e-5)


def test_constraints_hold_along_a_walk_and_a_site_does_not_move_by_itself(system):
    _, found, start, masses = system
    far = walked(found.energy, found.constraints, found.parameters, start, masses, course=Course(2000, 20))
    assert np.max(far.seen) < 1e-9
    np.testing.assert_array_equal(far.end.x[14], start.x[14])
    assert np.all(far.end.v[14] == 0)
    assert np.all(np.abs(far.end.x[:14] - start.x[:14]).max(axis=1) > 1e-3)
