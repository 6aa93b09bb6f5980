"""The waters that OpenMM is given: forces that are differences of energies, masses, constraints, and the field.

Not proved: that TIP3P is like water.
"""

import numpy as np
import pytest

from hpcfit.testsystems import water_box, water_dimer

openmm = pytest.importorskip("openmm")


def context(system, positions):
    """An OpenMM Context on the Reference platform at positions [n, 3], A."""
    integrator = openmm.VerletIntegrator(0.001)
    found = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    found.setPositions(np.asarray(positions) / 10)
    return found


def energy(found):
    return found.getState(energy=True).getPotentialEnergy()._value


@pytest.mark.parametrize("kind", ["rigid", "flexible"])
def test_the_field_adds_its_energy_and_the_molecules_are_as_said(tmp_path, kind):
    topology, systems = water_dimer.write_simulated(tmp_path)
    system = openmm.XmlSerializer.deserialize(systems[kind].read_text())
    positions = 10 * openmm.app.PDBFile(str(topology)).getPositions(asNumpy=True)._value
    assert system.getNumConstraints() == (6 if kind == "rigid" else 0)
    assert not any(isinstance(force, openmm.CMMotionRemover) for force in system.getForces())
    for number in range(system.getNumConstraints()):
        a, b, length = system.getConstraintParameters(number)
        pair = (min(a, b) % 3, max(a, b) % 3)
        assert length._value == pytest.approx(water_dimer.DISTANCES[pair], abs=1e-5)
    # Moved as a whole by d, the molecules keep their energy; the field changes by K/2 sum(2 r d + d^2), nm.
    moved = np.array([1.0, -2.0, 0.5])
    expected = water_dimer.FIELD / 2 * (2 * (positions / 10).sum(axis=0) @ (moved / 10) + 6 * (moved / 10) @ moved / 10)
    found = energy(context(system, positions + moved)) - energy(context(system, positions))
    assert found == pytest.approx(expected, abs=1e-9 * abs(energy(context(system, positions))) + 1e-9)


def test_the_molecule_has_the_distances_of_its_constraints():
    apart = np.linalg.norm(water_dimer.molecule()[:, None] - water_dimer.molecule(), axis=2) / 10
    for (a, b), length in water_dimer.DISTANCES.items():
        assert apart[a, b] == pytest.approx(length, abs=1e-5)


def test_a_box_of_water_is_unconstrained_and_dense_as_water(tmp_path):
    _, path = water_box.write_simulated(tmp_path)
    system = openmm.XmlSerializer.deserialize(path.read_text())
    assert (system.getNumParticles(), system.getNumConstraints()) == (3 * water_box.SIDE**3, 0)
    edges = [vector[axis]._value for axis, vector in enumerate(system.getDefaultPeriodicBoxVectors())]
    assert edges == pytest.approx([water_box.EDGE / 10] * 3, abs=1e-4)  # the PDB has three digits
    mass = sum(system.getParticleMass(atom)._value for atom in range(system.getNumParticles()))
    assert mass * 1.66054 / water_box.EDGE**3 == pytest.approx(0.99, abs=0.01)  # amu/A^3 in g/cm^3
    oxygens = water_box.lattice()[::3]
    apart = oxygens[:, None] - oxygens
    apart -= water_box.EDGE * np.round(apart / water_box.EDGE)
    nearest = np.where(np.eye(len(oxygens), dtype=bool), np.inf, np.linalg.norm(apart, axis=2)).min()
    assert nearest == pytest.approx(water_box.EDGE / water_box.SIDE)


def test_another_seed_turns_the_molecules_otherwise():
    assert np.array_equal(water_box.lattice(1), water_box.lattice(1))
    assert not np.allclose(water_box.lattice(1), water_box.lattice(2))
