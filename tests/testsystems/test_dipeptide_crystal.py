"""The crystal's physics: energy kept, temperature as set, restraints and tethers as wide as k says; its files.

Not proved: that real alanine dipeptide packs like this (it does not), nor that 128 frames sample the crystal well.
"""

import numpy as np
import pytest

from hpcfit.testsystems import dipeptide
from hpcfit.testsystems.dipeptide_crystal import (
    STATES,
    TETHERED,
    Crystal,
    build_system,
    lattice,
    write_system,
)

openmm = pytest.importorskip("openmm")

BOLTZMANN = 8.314462618e-3  # kJ/mol/K
TEMPERATURE, FRICTION = 300.0, 5.0  # K, 1/ps
# Half the box of the demo: the cutoff must stay below half of the shortest edge, 14.4 A.
SMALL = Crystal(supercell=(2, 2, 3), cutoff=7.0)


def start(crystal, state, seed):
    """An OpenMM Simulation on one CPU thread, minimised and with velocities."""
    topology, system = build_system(crystal, state)
    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE, FRICTION, 0.002)
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatformByName("CPU")
    simulation = openmm.app.Simulation(topology, system, integrator, platform, {"Threads": "1"})
    simulation.context.setPositions(lattice(crystal, state) / 10)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(TEMPERATURE, seed)
    return simulation


def positions_of(simulation):
    """The present positions [N, 3] in A."""
    return 10 * simulation.context.getState(positions=True).getPositions(asNumpy=True)._value


@pytest.fixture(scope="module", params=sorted(STATES))
def sampled(request):
    """(state, positions [T, molecules, 22, 3] in A, kinetic temperatures [T] in K) of 30 samples, 0.2 ps apart."""
    simulation = start(SMALL, request.param, seed=1)
    simulation.step(1000)
    freedoms = 3 * simulation.system.getNumParticles() - simulation.system.getNumConstraints()
    positions, temperatures = [], []
    for _ in range(30):
        simulation.step(100)
        kinetic = simulation.context.getState(energy=True).getKineticEnergy()._value
        temperatures.append(2 * kinetic / (freedoms * BOLTZMANN))
        positions.append(positions_of(simulation).reshape(SMALL.molecules, -1, 3))
    return request.param, np.array(positions), np.array(temperatures), freedoms


def test_temperature_is_the_one_set(sampled):
    _, _, temperatures, freedoms = sampled
    # A canonical kinetic energy scatters by sqrt(2/freedoms); with a friction of 5/ps it forgets as exp(-10 t/ps), so
    # samples 0.2 ps apart are correlated by exp(-2) and the error of the mean grows by sqrt((1+c)/(1-c)).
    c = np.exp(-2.0)
    error = TEMPERATURE * np.sqrt(2 / freedoms / len(temperatures) * (1 + c) / (1 - c))
    # 1 %: what a step of 2 fs with unconstrained angles of hydrogen shifts the kinetic temperature by.
    assert abs(temperatures.mean() - TEMPERATURE) < 4 * error + 0.01 * TEMPERATURE


def test_restraints_hold_the_state(sampled):
    state, positions, _, _ = sampled
    for atoms, centre in zip((dipeptide.PHI, dipeptide.PSI), STATES[state]):
        off = (dipeptide.dihedral(positions, atoms) - centre + 180) % 360 - 180
        alone = np.degrees(np.sqrt(BOLTZMANN * TEMPERATURE / SMALL.restraint))
        # The force field adds its own well or slope: the mean may shift by about one width, the width stays similar.
        assert abs(off.mean()) < 1.5 * alone
        assert 0.5 * alone < off.std() < 1.3 * alone
        assert np.abs(off).max() < 7 * alone  # no molecule leaves its state: 40 degrees part C7eq and alphaR by far


def test_tethered_atoms_stay_at_their_sites(sampled):
    state, positions, _, _ = sampled
    tethered = [dipeptide.ATOMS.index(atom) for atom in TETHERED]
    sites = lattice(SMALL, state).reshape(SMALL.molecules, -1, 3)[:, tethered]
    off = positions[:, :, tethered] - sites
    alone = 10 * np.sqrt(BOLTZMANN * TEMPERATURE / SMALL.tether)  # A an axis
    # Atoms of a stiff molecule share the three tethers, so they move less than one alone; strain adds an offset.
    assert np.sqrt(np.mean(off**2)) < 2 * alone


def test_energy_is_conserved_without_a_thermostat():
    from openmm import app, unit

    # Start from an equilibrated point, then Newton's equations with a step of 0.5 fs.
    simulation = start(SMALL, "C7eq", seed=2)
    simulation.step(250)
    topology, system = build_system(SMALL, "C7eq")
    integrator = openmm.VerletIntegrator(0.0005 * unit.picosecond)
    platform = openmm.Platform.getPlatformByName("CPU")
    newton = app.Simulation(topology, system, integrator, platform, {"Threads": "1"})
    state = simulation.context.getState(positions=True, velocities=True)
    newton.context.setPositions(state.getPositions())
    newton.context.setVelocities(state.getVelocities())
    energies = []
    for _ in range(40):
        newton.step(25)
        now = newton.context.getState(energy=True)
        energies.append((now.getPotentialEnergy() + now.getKineticEnergy())._value)
    kinetic = now.getKineticEnergy()._value
    # Drift over 0.5 ps against the kinetic energy: a wrong force (restraint, tether) that is not the gradient of its
    # energy would exchange a sizeable part of it; single precision and the shift of leapfrog leave well under 1 %.
    assert abs(np.mean(energies[-10:]) - np.mean(energies[:10])) < 0.01 * kinetic
    assert np.std(energies) < 0.01 * kinetic


def test_files_are_the_same_every_time_and_describe_one_system(tmp_path):
    import MDAnalysis

    for folder in (tmp_path / "first", tmp_path / "second"):
        write_system(SMALL, "alphaR", folder)
    for name in ("alphaR.pdb", "alphaR.xml"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    universe = MDAnalysis.Universe(tmp_path / "first" / "alphaR.pdb", to_guess=())
    assert universe.dimensions == pytest.approx([*SMALL.box, 90, 90, 90], rel=1e-6)
    assert "".join(universe.atoms.elements[:22]) == "CCOHHHNCHCCHOHHHNCHHHH"
    system = openmm.XmlSerializer.deserialize((tmp_path / "first" / "alphaR.xml").read_text())
    assert system.getNumParticles() == len(universe.atoms)
