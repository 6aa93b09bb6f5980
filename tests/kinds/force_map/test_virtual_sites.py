"""Forces on virtual sites against OpenMM: its forces on the parents, and the gradient of its energy."""

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.force_map.virtual_sites import Average, OutOfPlane, sites_of_system, spread_forces

openmm = pytest.importorskip("openmm")
unit = openmm.unit

NM, KJ_A = 0.1, 10.0  # nm in an A; kJ/mol/nm in a kJ/mol/A


def system():
    """Eight atoms; sites 8 to 11 of all kinds, and 12 made of site 8 and an atom; charges on all."""
    of = openmm.System()
    rng = np.random.default_rng(0)
    nonbonded = openmm.NonbondedForce()
    for number in range(13):
        of.addParticle(12.0 if number < 8 else 0.0)
        nonbonded.addParticle(rng.uniform(-1, 1), 0.2, 0.0)
    of.setVirtualSite(8, openmm.TwoParticleAverageSite(0, 1, 0.3, 0.7))
    of.setVirtualSite(9, openmm.ThreeParticleAverageSite(1, 2, 3, 0.5, 0.7, -0.2))
    of.setVirtualSite(10, openmm.OutOfPlaneSite(2, 3, 4, 0.3, 0.4, 6.0))
    weights = [0.2, 0.3, 0.4, 0.1], [-1.0, 0.4, 0.6, 0.0], [0.1, -1.0, 0.2, 0.7]
    of.setVirtualSite(11, openmm.LocalCoordinatesSite([4, 5, 6, 7], *weights, openmm.Vec3(0.03, -0.05, 0.08)))
    of.setVirtualSite(12, openmm.TwoParticleAverageSite(8, 7, 0.4, 0.6))
    of.addForce(nonbonded)
    return of


def bare(of):
    """The same system whose sites are particles as all others: its forces are those before they are handed on."""
    plain = openmm.System()
    for _ in range(of.getNumParticles()):
        plain.addParticle(1.0)
    plain.addForce(openmm.NonbondedForce(of.getForce(0)))
    return plain


def state(of, positions, sites=False):
    context = openmm.Context(of, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(positions * NM)
    if sites:
        context.computeVirtualSites()
    return context.getState(positions=True, forces=True, energy=True)


def forces_of(of, positions):
    return state(of, positions).getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer) / KJ_A


@pytest.fixture(scope="module")
def frames():
    """(System, positions with sites [2, 13, 3] A, forces of each particle by itself, forces of the real atoms)."""
    of, positions = system(), np.random.default_rng(1).uniform(0, 6, (2, 13, 3))
    whole = [state(of, r, sites=True) for r in positions]
    positions = np.array([s.getPositions(asNumpy=True).value_in_unit(unit.angstrom) for s in whole])
    handed = np.array([s.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.angstrom) for s in whole])
    return of, positions, np.array([forces_of(bare(of), r) for r in positions]), handed


def test_parents_get_what_openmm_gives_them(frames):
    of, positions, before, handed = frames
    after = spread_forces(sites_of_system(of), positions, before)
    assert np.all(after[:, 8:] == 0)
    # forces of the order of 1e3 in float64, a dozen operations
    np.testing.assert_allclose(after[:, :8], handed[:, :8], atol=1e-12 * np.abs(before).max())
    np.testing.assert_allclose(after.sum(axis=1), before.sum(axis=1), atol=1e-12 * np.abs(before).max())
    single = spread_forces(sites_of_system(of), positions.astype("f4"), before.astype("f4"))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, after, atol=1e-5 * np.abs(before).max())


def test_parents_get_the_gradient_of_the_energy(frames):
    of, positions, before, _ = frames
    after, step, rng = spread_forces(sites_of_system(of), positions, before)[0], 1e-4, np.random.default_rng(2)
    for _ in range(4):
        direction = np.zeros((13, 3))
        direction[:8] = rng.standard_normal((8, 3))
        direction /= np.linalg.norm(direction)
        up, down = (
            state(of, positions[0] + sign * step * direction, sites=True).getPotentialEnergy()._value
            for sign in (1, -1)
        )
        # (2e-4 A)^2 of the third derivative, relative to charges an A apart
        assert -(up - down) / (2 * step) == pytest.approx(np.sum(after * direction), rel=1e-6, abs=1e-3)


def test_parents_on_different_sides_of_the_box_are_brought_together(frames):
    of, positions, before, _ = frames
    box = np.array([[20.0, 0, 0], [6, 18, 0], [-5, 4, 21]])
    images = np.random.default_rng(3).integers(-2, 3, positions.shape) @ box
    boxes = np.broadcast_to(box, (2, 3, 3))
    expected = spread_forces(sites_of_system(of), positions, before)
    found = spread_forces(sites_of_system(of), positions + images, before, boxes)
    np.testing.assert_allclose(found, expected, atol=1e-11 * np.abs(before).max())


def test_sites_that_cannot_be_are_one_error():
    positions = np.zeros((1, 3, 3))
    with pytest.raises(InputError, match="names atom 3, but there are 3"):
        spread_forces([Average(2, (0, 3), (0.5, 0.5))], positions, positions)
    with pytest.raises(InputError, match="virtual site 1 is made of itself"):
        spread_forces([Average(1, (0, 2), (0.5, 0.5)), OutOfPlane(2, (0, 1, 0), 0, 0, 1)], positions, positions)
    of = openmm.System()
    for _ in range(2):
        of.addParticle(1.0)
    of.setVirtualSite(1, openmm.SymmetrySite(0, *(openmm.Vec3(*row) for row in [*np.eye(3), np.zeros(3)]), False))
    with pytest.raises(InputError, match="particle 1 is a virtual site that is no average"):
        sites_of_system(of)
