"""A box of flexible water for OpenMM to run: molecules at random orientations on a cubic lattice, TIP3P with bonds and
angles that vibrate. OpenMM is imported inside the functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from hpcfit.testsystems import water_dimer

EDGE, SIDE = 12.4447, 4  # A, and molecules along an edge: 64 at 0.99 g/cm^3
CUTOFF = 6.0  # A, below half the edge


def lattice(seed: int = 0) -> np.ndarray:
    """Positions [192, 3], A, in the order O H H."""
    grid = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    turns = Rotation.random(len(grid), rng=np.random.default_rng(seed)).as_matrix()
    sites = (grid + 0.5) * EDGE / SIDE
    return (sites[:, None] + np.einsum("mxy,ay->max", turns, water_dimer.molecule())).reshape(-1, 3)


def write_simulated(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Write box.pdb and box.xml, for `hpcfit simulate`; nothing is constrained."""
    import openmm
    from openmm import app, unit

    cell = (EDGE, EDGE, EDGE, 90.0, 90.0, 90.0)
    topology = water_dimer.write_topology(folder / "box.pdb", SIDE**3, lattice(seed), cell)
    system = app.ForceField("tip3p.xml").createSystem(
        app.PDBFile(str(topology)).topology, nonbondedMethod=app.PME, nonbondedCutoff=CUTOFF * unit.angstrom,
        constraints=None, rigidWater=False,
    )  # fmt: skip
    path = folder / "box.xml"
    path.write_text(openmm.XmlSerializer.serialize(system))
    return topology, path
