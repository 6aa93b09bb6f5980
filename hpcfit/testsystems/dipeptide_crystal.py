"""A crystal of alanine dipeptide in two conformations: molecular dynamics for the demo and the tests.

One molecule a unit cell, all molecules of a crystal in one state, whose phi and psi are held by harmonic restraints.
Three backbone atoms of each molecule are tethered to their lattice positions: the packing is invented, not measured,
and the tethers stand for what would hold a real crystal. Everything else (amber14 protein force field, particle-mesh
Ewald, contacts between the molecules) moves as it will. Lengths in nm and energies in kJ/mol are OpenMM's; A elsewhere.

All of OpenMM is imported inside the functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcfit.data.files import written_whole
from hpcfit.testsystems import dipeptide

# phi and psi in degrees: the extended ring closed by a hydrogen bond, and the right-handed helix.
STATES = {"C7eq": (-80.0, 80.0), "alphaR": (-65.0, -40.0)}
TETHERED = ("ACE:C", "ALA:CA", "NME:N")


@dataclass(frozen=True)
class Crystal:
    """What is simulated, and how long. Lengths in A, times in ps, force constants in kJ/mol and nm or radian."""

    cell: tuple[float, float, float] = (9.2, 7.2, 5.2)
    supercell: tuple[int, int, int] = (2, 3, 4)
    cutoff: float = 8.5
    temperature: float = 300.0
    friction: float = 5.0  # 1/ps
    step: float = 0.002
    tether: float = 1500.0  # rms displacement sqrt(kT/k) = 0.41 A an axis
    restraint: float = 200.0  # rms torsion sqrt(kT/k) = 6.4 degrees
    equilibration: float = 5.0
    interval: float = 0.3
    frames: int = 128

    @property
    def box(self) -> tuple[float, float, float]:
        """The edges of the supercell, A."""
        return tuple(edge * n for edge, n in zip(self.cell, self.supercell))

    @property
    def molecules(self) -> int:
        return int(np.prod(self.supercell))


def lattice(crystal: Crystal, state: str) -> np.ndarray:
    """Start positions [N, 3] in A: a molecule in each unit cell, its longest axis along a, both states superposed."""
    from scipy.spatial.transform import Rotation

    first = dipeptide.coordinates(*STATES["C7eq"])
    first -= first.mean(axis=0)
    # The rows of V^T are the principal axes, the longest first; the sign keeps the molecule L.
    axes = np.linalg.svd(first)[2]
    first = first @ (axes * np.linalg.det(axes)).T
    molecule = dipeptide.coordinates(*STATES[state])
    molecule -= molecule.mean(axis=0)
    molecule = Rotation.align_vectors(first, molecule)[0].apply(molecule)
    origins = np.stack(np.indices(crystal.supercell), axis=-1).reshape(-1, 3) + 0.5
    return (origins[:, None] * crystal.cell + molecule).reshape(-1, 3)


def build_system(crystal: Crystal, state: str):
    """The OpenMM (topology, system): force field, bonds to hydrogen constrained, restraints and tethers added."""
    from openmm import app, unit

    topology = dipeptide.topology(crystal.molecules, crystal.box)
    system = app.ForceField("amber14/protein.ff14SB.xml").createSystem(
        topology,
        nonbondedMethod=app.PME,
        nonbondedCutoff=crystal.cutoff * unit.angstrom,
        constraints=app.HBonds,
        removeCMMotion=False,
    )  # the tethers hold the crystal in place
    for force in (_torsion_restraints(crystal, state), _tethers(crystal, lattice(crystal, state))):
        system.addForce(force)
    return topology, system


def _torsion_restraints(crystal: Crystal, state: str):
    """k/2 d^2 for phi and psi of each molecule, d the difference to the state's value on the circle."""
    import openmm

    force = openmm.CustomTorsionForce("0.5*k*min(d, 6.283185307179586 - d)^2; d = abs(theta - theta0)")
    force.addGlobalParameter("k", crystal.restraint)
    force.addPerTorsionParameter("theta0")
    for first in range(0, crystal.molecules * len(dipeptide.ATOMS), len(dipeptide.ATOMS)):
        for atoms, angle in zip((dipeptide.PHI, dipeptide.PSI), STATES[state]):
            force.addTorsion(*(first + atom for atom in atoms), [np.radians(angle)])
    return force


def _tethers(crystal: Crystal, positions: np.ndarray):
    """k/2 |r - r0|^2 for the tethered atoms; positions are never wrapped, so no image is needed."""
    import openmm

    force = openmm.CustomExternalForce("0.5*tether*((x - x0)^2 + (y - y0)^2 + (z - z0)^2)")
    force.addGlobalParameter("tether", crystal.tether)
    for name in ("x0", "y0", "z0"):
        force.addPerParticleParameter(name)
    for atom, position in enumerate(positions / 10):
        if dipeptide.ATOMS[atom % len(dipeptide.ATOMS)] in TETHERED:
            force.addParticle(atom, position.tolist())
    return force


def start(crystal: Crystal, state: str, seed: int):
    """An OpenMM Simulation on one CPU thread, minimised and with velocities; the same seed gives the same run."""
    import openmm
    from openmm import app, unit

    topology, system = build_system(crystal, state)
    integrator = openmm.LangevinMiddleIntegrator(
        crystal.temperature * unit.kelvin, crystal.friction / unit.picosecond, crystal.step * unit.picosecond
    )
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatformByName("CPU")
    simulation = app.Simulation(topology, system, integrator, platform, {"Threads": "1", "DeterministicForces": "true"})
    simulation.context.setPositions(lattice(crystal, state) * unit.angstrom)
    simulation.minimizeEnergy()
    simulation.context.setVelocitiesToTemperature(crystal.temperature * unit.kelvin, seed)
    return simulation


def positions_of(simulation) -> np.ndarray:
    """The present positions [N, 3] in A."""
    from openmm import unit

    return simulation.context.getState(positions=True).getPositions(asNumpy=True).value_in_unit(unit.angstrom)


def simulate(crystal: Crystal, state: str, seed: int, path: Path) -> Path:
    """Write one trajectory as DCD to `path`, unless it is there already; its frames come after the equilibration."""
    from openmm import app, unit

    if path.exists():
        return path
    simulation = start(crystal, state, seed)
    simulation.step(round(crystal.equilibration / crystal.step))
    every = round(crystal.interval / crystal.step)
    with written_whole(path) as temporary, temporary.open("wb") as file:
        dcd = app.DCDFile(file, simulation.topology, crystal.step * unit.picosecond, interval=every)
        for _ in range(crystal.frames):
            simulation.step(every)
            dcd.writeModel(positions_of(simulation) * unit.angstrom)
    return path


def fractional_frames(crystal: Crystal, path: Path) -> np.ndarray:
    """The frames of a trajectory in fractions of the supercell's edges, [T, N, 3]."""
    from MDAnalysis.lib.formats.libdcd import DCDFile

    with DCDFile(str(path)) as file:
        return file.readframes().xyz.astype(float) / crystal.box


def write_topology(crystal: Crystal, path: Path) -> Path:
    """The supercell as PDB, in the order of the trajectories, with CRYST1 and elements."""
    from openmm import app, unit

    positions = lattice(crystal, "C7eq")
    with written_whole(path) as temporary, temporary.open("w") as file:
        app.PDBFile.writeFile(dipeptide.topology(crystal.molecules, crystal.box), positions * unit.angstrom, file)
    return path
