"""Alanine dipeptide in vacuum from a force field whose torsions and charges are off, and frames of the right one.

`hpcfit init force-field/geometries --demo` writes them: amber14 is the reference, its energies and forces known exactly
at frames of dynamics at 800 K, so that the parameters of amber14 are what a fit must find.
"""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from hpcfit.testsystems import dipeptide

TEMPERATURE, STRIDE, SEED = 800.0, 200, 5  # K; steps of 1 fs from frame to frame
OFF = 0.1  # of torsions and charges, up to which the start is off
EV, ANGSTROM = 96.4853321233, 0.1  # kJ/mol, nm


def write(folder: Path, frames: int = 80) -> None:
    """Write dipeptide.xml, dipeptide.pdb and frames.extxyz (A, eV, eV/A) into a folder, and the right System,
    amber14.xml."""
    from openmm import Platform, VerletIntegrator, XmlSerializer, app, unit

    from hpcfit.energies.systems import from_system

    topology = dipeptide.topology(1, (30.0, 30.0, 30.0))
    topology.setPeriodicBoxVectors(None)
    positions = dipeptide.coordinates(-80.0, 80.0) / 10
    with (folder / "dipeptide.pdb").open("w") as file:
        app.PDBFile.writeFile(topology, positions * unit.nanometer, file)
    system = app.ForceField("amber14-all.xml").createSystem(topology, nonbondedMethod=app.NoCutoff)
    loaded, random = from_system(system, topology), np.random.default_rng(SEED)
    off = {leaf: loaded.parameters[leaf] * random.uniform(1 - OFF, 1 + OFF, loaded.parameters[leaf].shape)
           for leaf in ("torsion.k", "charge")}  # fmt: skip
    off["charge"] -= np.mean(off["charge"][_entries(system, loaded.parameters["charge"])])  # the molecule stays neutral
    with jax.enable_x64(True):  # or charges of 1-4 pairs would not be those of their atoms, to the last bit
        (folder / "dipeptide.xml").write_text(loaded.to_xml(off))
    (folder / "amber14.xml").write_text(XmlSerializer.serialize(system))
    simulation = app.Simulation(topology, system, VerletIntegrator(0.001), Platform.getPlatformByName("Reference"))
    simulation.context.setPositions(positions)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(2 * TEMPERATURE, SEED)  # half of it becomes potential energy
    with (folder / "frames.extxyz").open("w") as file:
        for _ in range(frames):
            simulation.step(STRIDE)
            file.write(_frame(topology, simulation.context))


def _entries(system, charges: np.ndarray) -> np.ndarray:
    """The entry of each atom's charge, [N]."""
    from openmm import NonbondedForce

    [force] = [force for force in system.getForces() if isinstance(force, NonbondedForce)]
    found = [force.getParticleParameters(atom)[0]._value for atom in range(system.getNumParticles())]
    return np.argmin(np.abs(np.array(found)[:, None] - charges), axis=1)


def _frame(topology, context) -> str:
    """A frame of extxyz."""
    state = context.getState(positions=True, energy=True, forces=True)
    in_units = state.getPositions(asNumpy=True)._value, state.getForces(asNumpy=True)._value
    x, F = in_units[0] / ANGSTROM, in_units[1] / EV * ANGSTROM
    symbols = [atom.element.symbol for atom in topology.atoms()]
    head = f'Properties=species:S:1:pos:R:3:forces:R:3 energy={state.getPotentialEnergy()._value / EV!r} pbc="F F F"'
    lines = [" ".join([s, *(repr(float(value)) for value in (*a, *b))]) for s, a, b in zip(symbols, x, F)]
    return "\n".join([str(len(symbols)), head, *lines, ""])
