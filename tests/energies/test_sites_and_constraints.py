"""Virtual sites against OpenMM; projections onto constraints against OpenMM, their tangents against differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.energies.columns import entries, fixed
from hpcfit.energies.constraints import _solve, clusters
from hpcfit.energies.openmm_sites import read_sites
from hpcfit.energies.systems import from_system
from hpcfit.errors import InputError
from tests.energies.openmm_cases import CASES, Reference

MASSES = np.array([16.0, 1.0, 1.0, 16.0, 1.0, 1.0, 12.0, 1.0, 1.0, 1.0])
PAIRS = np.array([(0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5), (6, 7), (6, 8), (6, 9)])  # two waters, a methyl
KIND = [0, 0, 1, 0, 0, 1, 2, 2, 2]
PARAMETERS = {"constraint.length": np.array([0.09572, 0.15139, 0.109])}


def sites():
    """A System with each sort of virtual site, and one that hangs on another."""
    import openmm

    system = openmm.System()
    for mass in (16.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0):
        system.addParticle(mass)
    system.setVirtualSite(3, openmm.TwoParticleAverageSite(0, 1, 0.3, 0.7))
    system.setVirtualSite(4, openmm.ThreeParticleAverageSite(0, 1, 2, 0.5, 0.2, 0.3))
    system.setVirtualSite(5, openmm.OutOfPlaneSite(0, 1, 2, 0.3, 0.2, 4.0))
    local = openmm.LocalCoordinatesSite(0, 1, 2, [0.6, 0.3, 0.1], [-1, 0.5, 0.5], [-1, 0.2, 0.8], [0.1, 0.05, -0.02])
    system.setVirtualSite(6, local)
    system.setVirtualSite(7, openmm.TwoParticleAverageSite(5, 6, 0.5, 0.5))
    return system


def test_sites_stand_where_openmm_places_them():
    system, positions = sites(), np.random.default_rng(0).normal(0, 0.2, (8, 3))
    placed = read_sites(system).place(jnp.asarray(positions))
    np.testing.assert_allclose(placed, Reference(system, positions).positions(), rtol=0, atol=1e-15)


def test_sites_that_hang_on_each_other_are_one_error():
    import openmm

    system = sites()
    system.setVirtualSite(3, openmm.TwoParticleAverageSite(0, 7, 0.5, 0.5))
    system.setVirtualSite(5, openmm.OutOfPlaneSite(0, 1, 3, 0.3, 0.2, 4.0))
    with pytest.raises(InputError, match="hang on each other"):
        read_sites(system)


@pytest.fixture(scope="module")
def constraints():
    return clusters(PAIRS, entries("constraint.length", KIND), MASSES)


@pytest.fixture(scope="module")
def before():
    """Positions that fulfil the constraints, by projection of near ones onto them."""
    rng = np.random.default_rng(3)
    return rng.normal(0, 0.02, (10, 3)) + np.array([[0, 0, 0], [0.096, 0, 0], [-0.02, 0.09, 0]] * 3 + [[0, -0.05, 0.1]])


def test_projected_positions_and_velocities_fulfil_the_constraints(constraints, before):
    rng = np.random.default_rng(4)
    on = constraints.positions(before, before, PARAMETERS)
    moved = on + rng.normal(0, 0.005, on.shape)
    projected = constraints.positions(moved, on, PARAMETERS)
    assert float(constraints.violation(projected, PARAMETERS)) < 1e-13
    # No force of a constraint moves the centre of mass or turns it: pushes are along the bonds at `on`.
    np.testing.assert_allclose(MASSES @ np.asarray(projected - moved), 0.0, atol=1e-14)
    torque = np.sum(MASSES[:, None] * np.cross(on, projected - moved), axis=0)
    np.testing.assert_allclose(torque, 0.0, atol=1e-14)
    velocities = constraints.velocities(rng.normal(size=on.shape), projected)
    arms = np.asarray(projected)[PAIRS[:, 0]] - np.asarray(projected)[PAIRS[:, 1]]
    along = np.sum(arms * (np.asarray(velocities)[PAIRS[:, 0]] - np.asarray(velocities)[PAIRS[:, 1]]), axis=1)
    np.testing.assert_allclose(along, 0.0, atol=1e-13)


def test_a_projection_is_that_of_openmm(before):
    """SETTLE for the waters, SHAKE/CCMA for the methyl."""
    import openmm

    system = openmm.System()
    for mass in MASSES:
        system.addParticle(mass)
    for (first, second), kind in zip(PAIRS.tolist(), KIND):
        system.addConstraint(first, second, PARAMETERS["constraint.length"][kind])
    loaded = from_system(system)
    integrator = openmm.CustomIntegrator(0.001)
    integrator.addPerDofVariable("step", 0.0)
    integrator.addComputePerDof("x", "x + step")
    integrator.addConstrainPositions()
    integrator.setConstraintTolerance(1e-13)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    on = np.asarray(loaded.constraints.positions(before, before, loaded.parameters))
    step = np.random.default_rng(5).normal(0, 0.003, on.shape)
    context.setPositions(on)
    integrator.setPerDofVariable(0, list(map(tuple, step)))
    integrator.step(1)
    found = loaded.constraints.positions(on + step, on, loaded.parameters)
    expected = context.getState(getPositions=True).getPositions(asNumpy=True)._value
    np.testing.assert_allclose(found[6:], expected[6:], rtol=0, atol=1e-13)
    # OpenMM's SETTLE itself keeps lengths to 8e-9 only.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 * 0.15)


def test_tangents_are_those_of_differences(constraints, before):
    """By the free positions, the former ones and the constrained lengths; forwards and backwards."""
    on = np.asarray(constraints.positions(before, before, PARAMETERS))
    rng = np.random.default_rng(6)
    free, weights = on + rng.normal(0, 0.004, on.shape), rng.normal(size=on.shape)

    @jax.jit
    def value(free, old, parameters):
        new = constraints.positions(free, old, parameters)
        return jnp.sum(weights * new) + jnp.sum(constraints.velocities(weights, new) ** 2)

    arguments = (free, on, {"constraint.length": jnp.asarray(PARAMETERS["constraint.length"])})
    direction = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), arguments)
    h = 1e-6
    ends = [value(*jax.tree.map(lambda x, d, s=s: x + s * h * d, arguments, direction)) for s in (1, -1)]
    by_differences = float((ends[0] - ends[1]) / (2 * h))
    forwards = float(jax.jvp(value, arguments, direction)[1])
    backwards = jax.tree.leaves(
        jax.tree.map(lambda g, d: float(jnp.sum(g * d)), jax.grad(value, (0, 1, 2))(*arguments), direction)
    )
    assert forwards == pytest.approx(by_differences, rel=1e-6)
    assert sum(backwards) == pytest.approx(forwards, rel=1e-10)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_small_systems_are_solved_as_by_numpy(size):
    rng = np.random.default_rng(7)
    matrix, right = rng.normal(size=(5, size, size)), rng.normal(size=(5, size))
    expected = np.linalg.solve(matrix, right[..., None])[..., 0]
    np.testing.assert_allclose(_solve(jnp.asarray(matrix), jnp.asarray(right)), expected, rtol=1e-10)


def test_constraints_that_cannot_be_met_give_nan(constraints, before):
    on = constraints.positions(before, before, PARAMETERS)
    far = on.at[1].add(jnp.array([0.0, 0.0, 3.0]))  # a bond as long as thirty, across its old direction
    assert np.all(np.isnan(constraints.positions(far, on, PARAMETERS)[1]))


def test_a_system_without_constraints_is_left_alone():
    none = clusters(np.zeros((0, 2)), fixed([]), MASSES)
    positions = np.ones((10, 3))
    assert np.array_equal(none.positions(positions, positions, {}), positions)
    assert np.array_equal(none.velocities(positions, positions), positions)
    assert float(none.violation(positions, {})) == 0


def test_constraints_of_a_rigid_water_model_are_parameters():
    loaded = from_system(CASES["TIP4P-Ew, PME"](None).system)
    assert loaded.parameters["constraint.length"] == pytest.approx([0.09572, 0.15139], rel=1e-4)
    assert loaded.constraints.atoms.shape == (27, 3, 2)
    longer = loaded.to_system({"constraint.length": 1.1 * loaded.parameters["constraint.length"]})
    assert longer.getConstraintParameters(0)[2]._value == pytest.approx(1.1 * 0.09572, rel=1e-4)


def test_a_constraint_between_particles_without_mass_is_one_error():
    with pytest.raises(InputError, match="neither of which has a mass"):
        clusters(np.array([[0, 1]]), entries("constraint.length", [0]), np.zeros(2))
