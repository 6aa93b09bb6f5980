"""Dynamics with constraints: OpenMM's trajectory, derivatives against differences, degrees of freedom."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.energies.columns import entries
from hpcfit.energies.constraints import clusters
from hpcfit.simulation.langevin import (
    Bath,
    Constrained,
    Course,
    Motion,
    PhasePoint,
    calm,
    middle,
    noise_key,
    walk,
)
from tests.simulation.rigid_systems import RIGID, loaded

BATH = Bath(2.494, 10.0, 0.001)


def constrained(constraints, masses, bath, parameters):
    scheme = middle(bath, np.where(masses > 0, masses, np.inf))
    positions = lambda moved, before: constraints.positions(moved, before, parameters)  # noqa: E731
    return Constrained(scheme, bath.step, positions, constraints.velocities)


@partial(jax.jit, static_argnames=("bath", "course", "masses"))
def walked(energy, constraints, parameters, start, *, masses, bath=BATH, course):
    """The walk, with the largest violation of a constraint at each frame."""
    motion = Motion(
        lambda x, _: -jax.grad(energy)(x, parameters), constrained(constraints, np.array(masses), bath, parameters)
    )
    seen = lambda point: constraints.violation(point.x, parameters)  # noqa: E731
    start = motion.scheme.begun(start)
    return walk(motion, start, noise_key(0, 0, 0), course, seen)


@pytest.mark.parametrize("name", RIGID)
def test_derivatives_along_constrained_walks_are_those_of_differences(name):
    """Of where and how fast a walk of 40 steps ends, by a charge, a sigma and a constrained length, both ways."""
    pytest.importorskip("openmm")
    found, x = loaded(RIGID[name]())
    rng = np.random.default_rng(1)
    weights, start = rng.normal(size=(2, *x.shape)), PhasePoint(x, rng.normal(size=x.shape))
    of_mass = (found.masses > 0)[:, None]

    def value(shares, energy, constraints, start):
        """The first charge, sigma and length are multiplied by the shares."""
        theta = dict(found.parameters)
        for share, leaf in zip(shares, ("charge", "lj.sigma", "constraint.length")):
            theta[leaf] = jnp.asarray(theta[leaf]).at[0].multiply(share)
        end = walked(energy, constraints, theta, start, masses=tuple(found.masses), course=Course(40, 40)).end
        return jnp.sum(of_mass * (weights[0] * end.x + 0.01 * weights[1] * end.v))

    given = found.energy, found.constraints, start
    value_and_slopes = jax.jit(jax.value_and_grad(value))
    _, reverse = value_and_slopes(np.ones(3), *given)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(value))(np.ones(3), *given), reverse, rtol=1e-10)
    for number in range(3):
        ends = [value_and_slopes(1 + sign * 1e-5 * np.eye(3)[number], *given)[0] for sign in (1, -1)]
        assert reverse[number] == pytest.approx(float(ends[0] - ends[1]) / 2e-5, rel=1e-6)


@pytest.mark.parametrize(("name", "digits"), [("SHAKE", 1e-9), ("TIP4P", 1e-6)])
def test_openmm_walks_alike_on_constraints_without_noise(name, digits):
    """50 steps; OpenMM's own SETTLE keeps lengths to 8e-9 only, which its trajectory remembers."""
    openmm = pytest.importorskip("openmm")
    made = RIGID[name]()
    found, x = loaded(made)
    integrator = openmm.LangevinMiddleIntegrator(0, 5.0, 0.001)
    integrator.setConstraintTolerance(1e-12)
    context = openmm.Context(made[0], integrator, openmm.Platform.getPlatformByName("Reference"))
    velocities = np.random.default_rng(0).normal(size=x.shape) * (found.masses > 0)[:, None]
    velocities = np.asarray(found.constraints.velocities(velocities, x))
    context.setPositions(x)
    context.setVelocities(velocities)
    integrator.step(50)
    state = context.getState(positions=True, velocities=True)
    end = walked(
        found.energy, found.constraints, found.parameters, PhasePoint(x, velocities),
        masses=tuple(found.masses), bath=Bath(0.0, 5.0, 0.001), course=Course(50, 50),
    ).end  # fmt: skip
    placed = found.energy.sites.place(end.x)
    np.testing.assert_allclose(placed, state.getPositions(asNumpy=True)._value, rtol=0, atol=digits)
    expected = found.constraints.velocities(state.getVelocities(asNumpy=True)._value, end.x)
    has_mass = found.masses > 0
    np.testing.assert_allclose(end.v[has_mass], expected[has_mass], rtol=0, atol=1000 * digits)


def test_constraints_hold_along_a_walk_and_sites_do_not_move_by_themselves():
    pytest.importorskip("openmm")
    found, x = loaded(RIGID["TIP4P"]())
    walked_far = walked(
        found.energy, found.constraints, found.parameters, PhasePoint(x, np.zeros_like(x)),
        masses=tuple(found.masses), course=Course(2000, 20),
    )  # fmt: skip
    assert np.max(walked_far.seen) < 1e-9
    sites = found.masses == 0
    np.testing.assert_array_equal(walked_far.end.x[sites], x[sites])
    assert np.all(np.abs(walked_far.end.x[~sites] - x[~sites]).max(axis=1) > 1e-3)
    assert np.all(np.isfinite(walked_far.end.v))


def test_rigid_waters_have_six_degrees_of_freedom():
    """400 of them without forces: K of one is kT/2 times chi^2 with 6 degrees, of which e^-4 is left from frame to
    frame: 25 frames count as independent ones."""
    n, bath, rng = 400, Bath(2.5, 100.0, 0.0005), np.random.default_rng(2)
    masses = np.tile([16.0, 1.0, 1.0], n)
    pairs = np.concatenate([np.array([(0, 1), (0, 2), (1, 2)]) + 3 * k for k in range(n)])
    constraints = clusters(pairs, entries("constraint.length", np.tile([0, 0, 1], n)), masses)
    x = np.tile([[0, 0, 0], [0.0957, 0, 0], [-0.024, 0.0927, 0]], (n, 1))
    parameters = {"constraint.length": np.array([0.09572, 0.15139])}

    @jax.jit
    def kinetic(constraints, x, v, masses):
        scheme = constrained(constraints, masses, bath, parameters)
        energy = lambda point: 0.5 * jnp.sum(masses[:, None] * point.v**2)  # noqa: E731
        begun = scheme.begun(PhasePoint(x, v))
        motion = Motion(lambda x, _: jnp.zeros_like(x), scheme)
        return walk(motion, begun, noise_key(0, 0, 0), Course(1000, 40), energy).seen

    v = rng.normal(size=x.shape) * np.sqrt(bath.kT / masses)[:, None]
    found = np.mean(kinetic(constraints, x, v, masses)) / n
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
