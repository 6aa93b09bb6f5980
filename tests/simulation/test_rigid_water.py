"""Eight rigid waters in a trap: the mean energies of OpenMM's dynamics with the same step and constraints."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.simulation.langevin import Bath, Course, Motion, PhasePoint, noise_key, thermal, walk
from tests.simulation.rigid_systems import constrained, loaded, settled

WALKS, BEFORE, STEPS, STRIDE = 8, 1500, 4500, 25
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


def energies_of_openmm(system, x) -> np.ndarray:
    """The potential energies of walks, [WALKS, frames] kJ/mol."""
    import openmm

    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, BATH.friction, BATH.step)
    integrator.setRandomNumberSeed(7)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    found = []
    for number in range(WALKS):
        context.setPositions(x)
        context.setVelocitiesToTemperature(TEMPERATURE, number + 1)
        integrator.step(BEFORE)
        for _ in range(STEPS // STRIDE):
            integrator.step(STRIDE)
            found.append(context.getState(energy=True).getPotentialEnergy()._value)
    return np.reshape(found, (WALKS, -1))


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
    """The potential energy within 3 sigma, of at most 1.5 %; the kinetic one is that of 6 degrees of freedom a molecule,
    but for half-step velocities of librations, whose (omega dt)^2 / 4 is below 2 % at 2 fs."""
    pytest.importorskip("openmm")
    system, positions = trapped()
    found, x = loaded(system, positions)
    potential, kinetic = map(
        mean_and_error, energies(found.energy, found.constraints, found.parameters, x, tuple(found.masses))
    )
    expected = mean_and_error(energies_of_openmm(system, x))
    sigma = np.hypot(potential[1], expected[1])
    assert sigma < 0.015 * abs(expected[0])
    assert potential[0] == pytest.approx(expected[0], abs=3 * sigma)
    of_degrees = 0.5 * 6 * 8 * BATH.kT
    assert kinetic[0] == pytest.approx(of_degrees, abs=3 * kinetic[1] + 0.02 * of_degrees)
