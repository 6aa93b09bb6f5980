"""A crystal of alanine dipeptide in two conformations: what the demo has `hpcfit simulate` run, and the tests.

One molecule a unit cell, all molecules of a crystal in one state, whose phi and psi are held by harmonic restraints.
Three backbone atoms of each molecule are tethered to their lattice positions: the packing is invented, not measured,
and the tethers stand for what would hold a real crystal. Everything else (amber14 protein force field, particle-mesh
Ewald, contacts between the molecules) moves as it will. Lengths in nm and energies in kJ/mol are OpenMM's; A elsewhere.

All of OpenMM is imported inside the functions.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcfit.store.files import write_text
from hpcfit.testsystems import dipeptide

# phi and psi in degrees: the extended ring closed by a hydrogen bond, and the right-handed helix.
STATES = {"C7eq": (-80.0, 80.0), "alphaR": (-65.0, -40.0)}
TETHERED = ("ACE:C", "ALA:CA", "NME:N")


@dataclass(frozen=True)
class Crystal:
    """The simulated crystal. Lengths in A, force constants in kJ/mol and nm or radian; rms widths at 300 K."""

    cell: tuple[float, float, float] = (9.2, 7.2, 5.2)
    supercell: tuple[int, int, int] = (2, 3, 4)
    cutoff: float = 8.5
    tether: float = 1500.0  # rms displacement sqrt(kT/k) = 0.41 A an axis
    restraint: float = 200.0  # rms torsion sqrt(kT/k) = 6.4 degrees

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


def write_system(crystal: Crystal, state: str, folder: Path) -> None:
    """STATE.pdb (the supercell with CRYST1 and elements) and STATE.xml (the System), for `hpcfit simulate`."""
    import openmm
    from openmm import app, unit

    topology, system = build_system(crystal, state)
    text = io.StringIO()
    app.PDBFile.writeFile(topology, lattice(crystal, state) * unit.angstrom, text)
    # Its remark is the date; without it the files are the same every time.
    lines = [line for line in text.getvalue().splitlines(keepends=True) if not line.startswith("REMARK")]
    write_text(folder / f"{state}.pdb", "".join(lines))
    write_text(folder / f"{state}.xml", openmm.XmlSerializer.serialize(system))
