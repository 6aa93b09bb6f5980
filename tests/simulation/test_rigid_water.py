"""Eight rigid waters in a trap: the mean energies of OpenMM's dynamics with the same step and constraints."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.simulation.langevin import Bath, Course, Motion, PhasePoint, noise_key, thermal, walk
from tests.simulation.rigid_systems import constrained, loaded, settled

WALKS, BEFORE, STEPS, STRIDE = 8, 1500, 7500, 25
TEMPERATURE = 400.0
BATH = Bath(8.31446261815324e-3 * TEMPERATURE, 10.0, 0.002)


def trapped():
    """(System, positions nm); oxygens are held by a spring to the origin."""
    import openmm

    system, _, positions = settled(8)
    trap = openmm.CustomExternalForce("20*(x^2+y^2+z^2)")
    for oxygen in range(0, 24, 3):
        trap.addParticle(oxygen, [])
    system.addForce(trap)
    return system, positions - positions.mean(axis=0)


def energies_of_openmm(system, found, x) -> tuple[np.ndarray, np.ndarray]:
    """(potential, kinetic) energies of walks three times as long, [WALKS, frames] kJ/mol each; kinetic ones without
    velocities along constraints, which OpenMM takes away in its next step only."""
    import openmm

    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, BATH.friction, BATH.step)
    integrator.setRandomNumberSeed(7)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    potential, points = [], []
    for number in range(WALKS):
        context.setPositions(x)
        context.setVelocitiesToTemperature(TEMPERATURE, number + 1)
        integrator.step(BEFORE)
        for _ in range(3 * STEPS // STRIDE):
            integrator.step(STRIDE)
            state = context.getState(energy=True, positions=True, velocities=True)
            potential.append(state.getPotentialEnergy()._value)
            points.append((state.getVelocities(asNumpy=True)._value, state.getPositions(asNumpy=True)._value))
    v = jax.jit(jax.vmap(found.constraints.velocities))(*map(jnp.array, zip(*points)))
    kinetic = 0.5 * jnp.sum(found.masses[:, None] * v**2, axis=(1, 2))
    return np.reshape(potential, (WALKS, -1)), np.reshape(kinetic, (WALKS, -1))


@partial(jax.jit, static_argnames="masses")
def energies(energy, constraints, parameters, x, masses):
    """(potential, kinetic) energies of walks, [WALKS, frames] kJ/mol each."""
    mass = np.array(masses)[:, None]
    scheme = constrained(constraints, mass[:, 0], BATH, parameters)
    motion = Motion(lambda x, _: -jax.grad(energy)(x, parameters), scheme)
    both = lambda point: (energy(point.x, parameters), 0.5 * jnp.sum(mass * point.v**2))  # noqa: E731

    def of_walk(number):
        start = scheme.begun(PhasePoint(x, thermal(noise_key(1, 0, number), BATH, mass[:, 0], x)))
        return walk(motion, start, noise_key(2, 0, number), Course(BEFORE + STEPS, STRIDE), both).seen

    return jax.tree.map(lambda leaf: leaf[:, BEFORE // STRIDE :], jax.vmap(of_walk)(jnp.arange(WALKS)))


def mean_and_error(of_walks) -> tuple[float, float]:
    means = np.asarray(of_walks).mean(axis=1)
    return means.mean(), means.std(ddof=1) / np.sqrt(len(means))


def test_rigid_water_has_the_energies_of_openmm():
    """Potential and kinetic energy within 3 sigma, which is at most 4 and 1 %."""
    pytest.importorskip("openmm")
    system, positions = trapped()
    found, x = loaded(system, positions)
    mine = energies(found.energy, found.constraints, found.parameters, x, tuple(found.masses))
    for one, other, most in zip(mine, energies_of_openmm(system, found, x), (0.04, 0.01)):
        (value, error), (expected, of_expected) = mean_and_error(one), mean_and_error(other)
        sigma = np.hypot(error, of_expected)
        assert sigma < most * abs(expected)
        assert value == pytest.approx(expected, abs=3 * sigma)
