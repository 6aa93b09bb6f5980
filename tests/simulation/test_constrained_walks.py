"""Dynamics with constraints: OpenMM's trajectory, derivatives against differences, degrees of freedom."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.energies.columns import entries
from hpcfit.energies.constraints import clusters
from hpcfit.simulation.langevin import (
    SCHEMES,
    Bath,
    Course,
    Motion,
    PhasePoint,
    calm,
    noise_key,
    walk,
)
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
    forward = jax.jit(jax.jacfwd(value))(ones, *given)
    np.testing.assert_allclose(forward, reverse, rtol=1e-9, atol=1e-9 * np.abs(reverse).max())
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


@pytest.mark.parametrize("name", ["middle", "stochastic"])
def test_rigid_waters_have_six_degrees_of_freedom(name):
    """400 of them without forces: K of one is kT/2 times chi^2 with 6 degrees, of which e^-4 is left from frame to
    frame: 25 frames count as independent ones."""
    n, bath, rng = 400, Bath(2.5, 100.0, 0.0005), np.random.default_rng(2)
    masses = np.tile([16.0, 1.0, 1.0], n)
    pairs = np.concatenate([np.array([(0, 1), (0, 2), (1, 2)]) + 3 * k for k in range(n)])
    constraints = clusters(pairs, entries("constraint.length", np.tile([0, 0, 1], n)), masses)
    x = np.tile([[0, 0, 0], [0.0957, 0, 0], [-0.024, 0.0927, 0]], (n, 1))
    parameters = {"constraint.length": np.array([0.09572, 0.15139])}

    @jax.jit
    def kinetic(constraints, x, v):
        scheme = constrained(constraints, masses, bath, parameters, SCHEMES[name])
        energy = lambda point: 0.5 * jnp.sum(masses[:, None] * point.v**2)  # noqa: E731
        begun = scheme.begun(PhasePoint(x, v))
        motion = Motion(lambda x, _: jnp.zeros_like(x), scheme)
        return walk(motion, begun, noise_key(0, 0, 0), Course(1000, 40), energy).seen

    v = rng.normal(size=x.shape) * np.sqrt(bath.kT / masses)[:, None]
    found = np.mean(kinetic(constraints, x, v)) / n
    assert found == pytest.approx(3 * bath.kT, abs=3 * np.sqrt(2 / 6 / (25 * n)) * 3 * bath.kT)


def test_a_walk_whose_constraints_fail_stands_still_and_its_derivative_is_a_number():
    """A molecule that is shot across its bond: no push along the old bond brings its atoms back."""
    masses = np.array([16.0, 1.0])
    constraints = clusters(np.array([(0, 1)]), entries("constraint.length", [0]), masses)
    x = jnp.array([[0.0, 0, 0], [0.1, 0, 0]])

    @jax.jit
    def ended(push):
        scheme = constrained(constraints, masses, Bath(0.0, 1.0, 0.01), {"constraint.length": jnp.array([0.1])})
        fine = partial(calm, masses=masses, hottest=1e6, furthest=10.0)
        forces = lambda x, _: push * jnp.array([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]]) * (1 + 100 * x**2)  # noqa: E731
        return walk(Motion(forces, scheme, fine), PhasePoint(x, jnp.zeros_like(x)), noise_key(0, 0, 0), Course(40, 40))

    assert ended(1.0).broke == -1
    far = ended(1e3)
    assert 0 <= far.broke < 40
    assert np.all(np.isfinite(far.end.x))
    slope = jax.grad(lambda push: jnp.sum(ended(push).end.x[1] * jnp.array([1.0, 2.0, 3.0])))(1e3)
    assert np.isfinite(slope)
