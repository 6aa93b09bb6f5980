"""Lead and iodide in a solvent of neutral beads, whose clusters live long enough to be counted: by OpenMM, in minutes.

A primitive model: cores that repel, charges in a continuum of permittivity 46.7 (that of DMSO), and a well of about
3 kT between lead and a solvent bead. Widths and depths were fitted to the energies of 200 frames of another
implementation (data `clusters/pbi64_langevin.h5`): they differ by 1.9 kJ/mol (standard deviation, that of the energies
of those cores is 26.5), so its clusters are nearly those.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.physics.openmm_library import import_openmm

PERMITTIVITY = 46.7
SPECIES = ("Pb", "I", "O")
CHARGE, MASS = (2.0, -1.0, 0.0), (207.2, 126.904, 78.13)  # e, amu; O stands for a molecule of the solvent
SIGMA = ((3.691, 2.868, 2.329), (2.868, 3.923, 3.322), (2.329, 3.322, 4.320))  # A
EPSILON = 2.134  # kJ/mol, of all cores
WELL, WHERE, WIDTH = 15.325, 1.054, 1.257  # kJ/mol, A, A: Gaussian, of Pb with O; the core ends it on the near side
CUTOFF = 12.0  # A
SYSTEM, START = "system.xml", "start.pdb"


class Solution(NamedTuple):
    """lead: number of Pb, with twice as much I and four times as many solvent beads; side: of the box, A."""

    lead: int = 64
    side: float = 59.67875  # 0.5 mol/L

    @property
    def species(self) -> list[int]:
        """The number of the species of each particle."""
        return [0] * self.lead + [1] * 2 * self.lead + [2] * 4 * self.lead


HALF_MOLAR = Solution()


def write(folder: Path, solution: Solution = HALF_MOLAR, seed: int = 0) -> None:
    """`system.xml`, an OpenMM System, and `start.pdb`, particles in random places of a lattice."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SYSTEM).write_text(import_openmm().XmlSerializer.serialize(_system(solution)), encoding="utf-8")
    (folder / START).write_text(_start(solution, seed), encoding="utf-8")


def _system(solution: Solution):
    openmm = import_openmm()
    system, kinds, nm = openmm.System(), len(SPECIES), 0.1
    system.setDefaultPeriodicBoxVectors(*(np.eye(3) * solution.side * nm))
    charges = openmm.NonbondedForce()
    charges.setNonbondedMethod(openmm.NonbondedForce.PME)
    core = openmm.CustomNonbondedForce(
        f"select(step(s*2^(1/6)-r), {4 * EPSILON}*((s/r)^12-(s/r)^6)+{EPSILON}, 0)"
        f"-w*exp(-(r-{WHERE * nm})^2/{2 * (WIDTH * nm) ** 2}); s=sigma(kind1,kind2); w=well(kind1,kind2)"
    )
    well = np.zeros((kinds, kinds))
    well[0, 2] = well[2, 0] = WELL
    for name, table in (("sigma", np.array(SIGMA) * nm), ("well", well)):
        core.addTabulatedFunction(name, openmm.Discrete2DFunction(kinds, kinds, table.ravel().tolist()))
    core.addPerParticleParameter("kind")
    core.setNonbondedMethod(openmm.CustomNonbondedForce.CutoffPeriodic)
    for force in (charges, core):
        force.setCutoffDistance(CUTOFF * nm)
        system.addForce(force)
    for kind in solution.species:
        system.addParticle(MASS[kind])
        charges.addParticle(CHARGE[kind] / np.sqrt(PERMITTIVITY), 1.0, 0.0)
        core.addParticle([kind])
    return system


def _start(solution: Solution, seed: int) -> str:
    """A PDB file: every particle a residue of its own, in a random place of a simple cubic lattice."""
    n = len(solution.species)
    cells = int(np.ceil(n ** (1 / 3)))
    lattice = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    x = (np.random.default_rng(seed).permutation(lattice)[:n] + 0.5) * (solution.side / cells)
    lines = [f"CRYST1{solution.side:9.3f}{solution.side:9.3f}{solution.side:9.3f}  90.00  90.00  90.00 P 1           1"]
    for number, (kind, place) in enumerate(zip(solution.species, x), start=1):
        name, position = SPECIES[kind].upper(), "".join(f"{value:8.3f}" for value in place)
        atom = f"HETATM{number % 100000:5d} {name:<4} {name:<3}  {number % 10000:4d}    "
        lines.append(f"{atom}{position}  1.00  0.00          {name:>2}")
    return "\n".join([*lines, "END", ""])
