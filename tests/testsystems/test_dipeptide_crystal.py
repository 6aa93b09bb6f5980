"""The crystal's physics: energy kept, temperature as set, restraints and tethers as wide as k says, seeds.

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
    fractional_frames,
    lattice,
    positions_of,
    simulate,
    start,
    write_topology,
)

openmm = pytest.importorskip("openmm")

BOLTZMANN = 8.314462618e-3  # kJ/mol/K
# Half the box of the demo: the cutoff must stay below half of the shortest edge, 14.4 A.
SMALL = Crystal(supercell=(2, 2, 3), cutoff=7.0, frames=4, equilibration=0.1, interval=0.05)


@pytest.fixture(scope="module", params=sorted(STATES))
def sampled(request):
    """(state, positions [T, molecules, 22, 3] in A, kinetic temperatures [T] in K) of 60 samples, 0.2 ps apart."""
    simulation = start(SMALL, request.param, seed=1)
    simulation.step(1000)
    freedoms = 3 * simulation.system.getNumParticles() - simulation.system.getNumConstraints()
    positions, temperatures = [], []
    for _ in range(60):
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
    error = SMALL.temperature * np.sqrt(2 / freedoms / len(temperatures) * (1 + c) / (1 - c))
    # 1 %: what a step of 2 fs with unconstrained angles of hydrogen shifts the kinetic temperature by.
    assert abs(temperatures.mean() - SMALL.temperature) < 4 * error + 0.01 * SMALL.temperature


def test_restraints_hold_the_state(sampled):
    state, positions, _, _ = sampled
    for atoms, centre in zip((dipeptide.PHI, dipeptide.PSI), STATES[state]):
        off = (dipeptide.dihedral(positions, atoms) - centre + 180) % 360 - 180
        alone = np.degrees(np.sqrt(BOLTZMANN * SMALL.temperature / SMALL.restraint))
        # The force field adds its own well or slope: the mean may shift by about one width, the width stays similar.
        assert abs(off.mean()) < 1.5 * alone
        assert 0.5 * alone < off.std() < 1.3 * alone
        assert np.abs(off).max() < 7 * alone  # no molecule leaves its state: 40 degrees part C7eq and alphaR by far


def test_tethered_atoms_stay_at_their_sites(sampled):
    state, positions, _, _ = sampled
    tethered = [dipeptide.ATOMS.index(atom) for atom in TETHERED]
    sites = lattice(SMALL, state).reshape(SMALL.molecules, -1, 3)[:, tethered]
    off = positions[:, :, tethered] - sites
    alone = 10 * np.sqrt(BOLTZMANN * SMALL.temperature / SMALL.tether)  # A an axis
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


def test_the_same_seed_gives_the_same_frames_and_another_does_not(tmp_path):
    first, again, other = (
        fractional_frames(SMALL, simulate(SMALL, "C7eq", seed, tmp_path / f"{name}.dcd"))
        for seed, name in ((1, "first"), (1, "again"), (2, "other"))
    )
    assert np.array_equal(first, again)
    assert not np.isclose(first[-1], other[-1], rtol=0, atol=1e-4).all()


def test_trajectory_and_topology_fit_together_and_finished_ones_are_kept(tmp_path):
    import MDAnalysis

    path = simulate(SMALL, "alphaR", 3, tmp_path / "run" / "alphaR.dcd")
    assert [p.name for p in path.parent.iterdir()] == ["alphaR.dcd"]  # nothing unfinished lies about
    universe = MDAnalysis.Universe(write_topology(SMALL, tmp_path / "crystal.pdb"), path)
    assert len(universe.trajectory) == SMALL.frames
    assert universe.dimensions == pytest.approx([*SMALL.box, 90, 90, 90], rel=1e-6)
    assert "".join(universe.atoms.elements[:22]) == "CCOHHHNCHCCHOHHHNCHHHH"
    stamp = path.stat().st_mtime_ns
    simulate(SMALL, "alphaR", 3, path)
    assert path.stat().st_mtime_ns == stamp
