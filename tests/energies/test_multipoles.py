"""Polarizable multipoles against OpenMM's AmoebaMultipoleForce with mutual polarization, and against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.energies.columns import fixed
from hpcfit.energies.constants import COULOMB
from hpcfit.energies.lists import Frame
from hpcfit.energies.multipoles import NO_AXES, PolarizableMultipoles
from hpcfit.energies.systems import from_system
from hpcfit.errors import InputError
from tests.energies.openmm_cases import Case, Reference, along, waters
from tests.energies.test_openmm_systems import assert_same_energy_and_forces, value_and_gradients

TIGHT = 1e-12  # of OpenMM's induced dipoles


def polarizable_waters(number: int) -> Case:
    """AMOEBA 2013 waters, with their multipoles alone."""
    from openmm import app

    topology, positions = waters(number)
    system = app.ForceField("amoeba2013.xml").createSystem(
        topology, nonbondedMethod=app.NoCutoff, polarization="mutual"
    )
    for place in reversed(range(system.getNumForces())):
        if system.getForce(place).__class__.__name__ != "AmoebaMultipoleForce":
            system.removeForce(place)
    system.getForce(0).setMutualInducedTargetEpsilon(TIGHT)
    system.getForce(0).setMutualInducedMaxIterations(200)
    return Case(system, topology, positions)


@pytest.mark.parametrize("number", [2, pytest.param(8, marks=pytest.mark.nightly)])
def test_waters_are_those_of_openmm(number):
    case = polarizable_waters(number)
    loaded = from_system(case.system, case.topology)
    assert_same_energy_and_forces(loaded, case.positions, loaded.parameters)
    rng = np.random.default_rng(3)
    # OpenMM wants quadrupoles without a trace: all of them by one factor.
    factors = {leaf: rng.uniform(0.9, 1.1, values.shape) for leaf, values in loaded.parameters.items()}
    factors["multipole.quadrupole"] = 1.07
    moved = {leaf: values * factors[leaf] for leaf, values in loaded.parameters.items()}
    assert_same_energy_and_forces(loaded, case.positions, moved)
    _, (_, gradient) = value_and_gradients(loaded.energy, case.positions, moved, None)
    for leaf, values in moved.items():
        direction = values * (1.0 if "quadrupole" in leaf else rng.normal(size=values.shape))
        found = along(loaded, case.positions, moved, leaf, direction)
        scale = np.sqrt(np.sum((np.asarray(gradient[leaf]) * direction) ** 2))
        assert found == pytest.approx(np.sum(np.asarray(gradient[leaf]) * direction), abs=1e-5 * scale), leaf


def charge_and_atom(distance: float, α: float) -> float:
    """The energy of a unit charge and a polarizable atom that Thole does not damp."""
    zeros, apart = np.zeros(2), 1 - np.eye(2)
    term = PolarizableMultipoles(
        charge=fixed([1.0, 0.0]), dipole=fixed(np.zeros(6)), quadrupole=fixed(np.zeros(18)),
        polarizability=fixed([0.0, α]), thole=fixed(zeros), frame=np.full(2, NO_AXES), axes=np.zeros((2, 3), int),
        permanent=apart, direct=apart, induced=apart,
    )  # fmt: skip
    positions = jnp.array([[0.0, 0.0, 0.0], [0.0, distance, 0.0]])
    return jax.jit(lambda term: term.energy(Frame(positions), {}))(term)


def test_a_charge_and_a_polarizable_atom():
    assert float(charge_and_atom(0.3, 0.001)) == pytest.approx(-0.5 * COULOMB * 0.001 / 0.3**4, rel=1e-12)


@pytest.mark.nightly
def test_second_derivatives_pass_through_the_solution():
    case = polarizable_waters(2)
    loaded = from_system(case.system)

    @jax.jit
    def slope(energy, x, parameters):
        return jax.grad(energy)(x, parameters)

    direction = np.random.default_rng(1).normal(size=case.positions.shape)
    product = jax.jit(lambda e, x, d, p: jax.jvp(lambda x: slope(e, x, p), (x,), (d,))[1])(
        loaded.energy, case.positions, direction, loaded.parameters
    )
    h = 1e-5
    ends = [slope(loaded.energy, case.positions + s * h * direction, loaded.parameters) for s in (1, -1)]
    np.testing.assert_allclose(product, (ends[0] - ends[1]) / (2 * h), rtol=0, atol=1e-6 * np.abs(product).max())


def test_what_is_not_computed_is_one_error():
    import openmm

    case = polarizable_waters(2)
    case.system.getForce(0).setPolarizationType(openmm.AmoebaMultipoleForce.Direct)
    with pytest.raises(InputError, match="no mutual polarization"):
        from_system(case.system)
    case = polarizable_waters(2)
    force = case.system.getForce(0)
    parameters = force.getMultipoleParameters(0)
    parameters[8] = 0.338
    force.setMultipoleParameters(0, *parameters)
    with pytest.raises(InputError, match=r"the damping of atom 0 is 0\.338, but polarizability\^\(1/6\) is 0\.306988"):
        from_system(case.system)


def test_reference_is_tight():
    """What the bounds rest on: OpenMM's own dipoles are converged."""
    case = polarizable_waters(2)
    tight = Reference(case.system, case.positions).energy()
    case.system.getForce(0).setMutualInducedTargetEpsilon(1e-8)
    assert Reference(case.system, case.positions).energy() == pytest.approx(tight, rel=1e-7)
