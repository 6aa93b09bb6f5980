"""Hessians of frames and normal modes: a chain of springs, OpenMM's forces, molecules at rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from hpcfit.energies.energy import Energy
from hpcfit.energies.normal_modes import columns, hessians, mass_weighted, normal_modes
from hpcfit.energies.systems import from_system
from hpcfit.testsystems import chain

SPRING, MASS, LENGTH = 300.0, 12.0, 0.1
TO_WAVENUMBER = 1 / (2 * np.pi * 2.99792458e-2)


def springs(x):
    """Of a straight chain, and of nothing across it."""
    return 0.5 * SPRING * jnp.sum((jnp.linalg.norm(x[1:] - x[:-1], axis=1) - LENGTH) ** 2)


def test_a_chain_of_springs_has_the_frequencies_of_a_lattice():
    """Of n masses with free ends: 2 sqrt(k/m) sin(pi q / 2n), q = 0 ... n - 1; all that bends it is free."""
    n = 9
    x = np.zeros((n, 3))
    x[:, 0] = LENGTH * np.arange(n)
    [hessian] = hessians(springs, x[None])
    found = normal_modes(hessian, np.full(n, MASS))
    exact = 2 * np.sqrt(SPRING / MASS) * np.sin(np.pi * np.arange(n) / (2 * n)) * TO_WAVENUMBER
    assert np.max(np.abs(found.frequencies[: 2 * n + 1])) < 1e-5  # roots of rounding
    np.testing.assert_allclose(found.frequencies[2 * n + 1 :], exact[1:], rtol=1e-10)
    stretch = found.directions[-1]
    assert np.allclose(stretch[:, 1:], 0, atol=1e-9)


def test_slabs_of_columns_are_the_hessian():
    """Seven sites have 21 columns; frames one after another give what each gives alone."""
    energy = lambda x: chain.energy(x, chain.parameters())  # noqa: E731
    frames = chain.start() + 0.002 * np.random.default_rng(0).normal(size=(2, 7, 3))
    found, whole = hessians(energy, frames), jax.jit(jax.hessian(energy))
    for x, hessian in zip(frames, found):
        expected = whole(x).reshape(21, 21)
        np.testing.assert_allclose(hessian, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
        np.testing.assert_allclose(columns(energy, x, [3, 20]), hessian[np.array([3, 20])], rtol=1e-12)


def test_a_free_molecule_at_rest_has_six_modes_of_no_frequency():
    energy = jax.jit(lambda x: chain.energy(x, chain.parameters()))
    slope = jax.jit(jax.grad(lambda flat: energy(flat.reshape(7, 3))))
    found = minimize(
        lambda flat: float(energy(flat.reshape(7, 3))), chain.start().ravel(), jac=lambda flat: np.asarray(slope(flat)),
        method="BFGS", options={"gtol": 1e-7, "maxiter": 3000},
    )  # fmt: skip
    [hessian] = hessians(energy, found.x.reshape(1, 7, 3))
    modes = normal_modes(hessian, chain.MASSES)
    assert np.max(np.abs(modes.frequencies[:6])) < 1e-2
    assert modes.frequencies[6] > 10
    gram = modes.directions.reshape(21, 21) @ modes.directions.reshape(21, 21).T
    np.testing.assert_allclose(gram, np.eye(21), atol=1e-10)


def test_differences_of_openmm_forces_agree():
    """A bent molecule of three atoms off its rest."""
    openmm = pytest.importorskip("openmm")
    system = openmm.System()
    for mass in (16.0, 1.0, 1.0):
        system.addParticle(mass)
    bonds, angle = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    bonds.addBond(0, 1, 0.1, 3e5)
    bonds.addBond(0, 2, 0.1, 3e5)
    angle.addAngle(1, 0, 2, 1.9, 400.0)
    for force in (bonds, angle):
        system.addForce(force)
    x = np.array([[0.0, 0.0, 0.0], [0.1, 0.01, 0.0], [-0.03, 0.095, 0.01]])
    reference = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), reference)

    def forces(flat):
        context.setPositions(flat.reshape(3, 3))
        return context.getState(getForces=True).getForces(asNumpy=True)._value.ravel()

    h, units = 1e-5, np.eye(9)
    expected = -np.stack([(forces(x.ravel() + h * e) - forces(x.ravel() - h * e)) / (2 * h) for e in units])
    loaded = from_system(system)
    [hessian] = hessians(lambda x: Energy.__call__(loaded.energy, x, loaded.parameters, loaded.box), x[None])
    np.testing.assert_allclose(hessian, expected, atol=1e-6 * np.abs(expected).max())


def test_particles_without_mass_have_no_modes():
    hessian = np.diag(np.repeat([4.0, 7.0, 9.0], 3))
    np.testing.assert_allclose(mass_weighted(hessian, [1.0, 0.0, 9.0]), np.diag(np.repeat([4.0, 1.0], 3)))
