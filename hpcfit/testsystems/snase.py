"""A crystal of staphylococcal nuclease: its measured diffuse map beside simulations of the same unit cell.

Map: `snc_diffuse.lat` of LUNUS (BSD-3), one voxel at each integer hkl, P 41, reduced from the data of Wall, Ealick and
Gruner (10.1073/pnas.94.12.6180). Its axes a and b are swapped against the coordinates of PDB entry 1STN: P 41 can be
indexed in two ways, which Bragg intensities alone tell apart. Simulation: `snase_crystal.pdb` and
`snase_crystal_163.dcd`, one unit cell with 884 waters where some 2,400 belong, 65 ps.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.config import ExperimentConfig
from hpcfit.physics.network_model import hessian, normal_modes
from hpcfit.physics.scattering import DensityFFT

CELL = (48.5, 48.5, 63.5, 90.0, 90.0, 90.0)
SPACE_GROUP, LAUE = "P 41", "4/m"
D_MIN = 3.0
TOPOLOGY, TRAJECTORY, MAP = "snase_crystal.pdb", "snase_crystal_163.dcd", "snc_diffuse.lat"
PROTEIN_CHAINS = "ABCD"
AS_IN_FILE, AS_COORDINATES = "h,k,l", "k,h,-l"  # a rotation, so that the hand stays


class Molecules(NamedTuple):
    """The protein molecules of the unit cell in one frame. F_mh: [M, H] complex128 of each; elements: of all atoms."""

    F_mh: np.ndarray
    elements: list[str]


def source_table(label: str, trajectory: Sequence[Path], topology: Path | None = None, stop: int | None = None) -> str:
    """A table [[prepare.source]]; folders of `hpcfit simulate` bring their elements along. stop: frames used."""
    names = ", ".join(f'"{path}"' for path in trajectory)
    elements = "" if topology is None else f'topology = "{topology}"\n'
    end = "" if stop is None else f"stop = {stop}\n"
    return f'[[prepare.source]]\nlabel = "{label}"\n{elements}{end}trajectory = [{names}]\n'


def short_simulation(data: Path) -> str:
    """The 163 frames in the data folder as a source."""
    return source_table("short", [data / TRAJECTORY], data / TOPOLOGY)


class Network(NamedTuple):
    """An elastic network of the four molecules and their neighbours in the next cells: one site a residue, its CA."""

    frames: int = 256
    mean_b: float = 20.0  # A^2
    cutoff: float = 12.0  # A
    modes: int = 400
    seed: int = 0


def write_network_ensemble(data: Path, folder: Path, network: Network) -> str:
    """Frames of the protein alone, each residue shifted with its CA, as a PDB and a DCD file; the source of them."""
    import MDAnalysis

    topology, trajectory = folder / "network.pdb", folder / "network.dcd"
    lines = (data / TOPOLOGY).read_text(encoding="ascii").splitlines(keepends=True)
    atoms = (line for line in lines if line.startswith("ATOM") and line[21] in PROTEIN_CHAINS)
    topology.write_text("".join([*(line for line in lines if line.startswith("CRYST1")), *atoms]), encoding="ascii")
    universe = MDAnalysis.Universe(str(topology))
    stiffness = hessian(universe.select_atoms("name CA").positions, network.cutoff, np.array(CELL[:3]))
    modes = normal_modes(stiffness, network.modes).scaled_to_b_factor(network.mean_b)
    rest = universe.atoms.positions.copy()
    with MDAnalysis.Writer(str(trajectory), len(rest)) as writer:
        for shift in modes.sample(network.frames, network.seed):
            universe.atoms.positions = rest + shift[universe.atoms.resindices]
            writer.write(universe)
    return source_table("network", [trajectory], topology)


def prepare_config(sources: Sequence[str], store: str) -> str:
    """The text of a config for `hpcfit prepare`. sources: texts of `source_table`."""
    crystal = f'd_min = {D_MIN}\ncell = {list(CELL)}\nspace_group = "{SPACE_GROUP}"\n'
    return f'[frames]\nstore = "{store}"\n[prepare]\n{crystal}' + "".join(sources)


def experiment(data: Path, reindex: str) -> ExperimentConfig:
    """The measured map in the folder of the data, with its indices changed by the operator."""
    return ExperimentConfig(file=data / MAP, cell=CELL, space_group=SPACE_GROUP, reindex=reindex)


def molecules(data: Path, hkl: np.ndarray) -> Molecules:
    """The molecules as they stand in the file of the simulation, at hkl [H, 3] with d >= D_MIN."""
    import gemmi

    model = gemmi.read_structure(str(data / TOPOLOGY))[0]
    chains = [[atom for residue in model[name] for atom in residue] for name in PROTEIN_CHAINS]
    elements = [[atom.element.name for atom in atoms] for atoms in chains]
    fractional = [np.array([atom.pos.tolist() for atom in atoms]) / CELL[:3] for atoms in chains]
    F_mh = [DensityFFT(names, CELL, hkl, D_MIN)(x) for names, x in zip(elements, fractional, strict=True)]
    return Molecules(np.array(F_mh), list(itertools.chain(*elements)))


def correlation(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    """Pearson's coefficient of x and y, [n], with weights [n]."""
    x, y = (values - np.average(values, weights=weight) for values in (x, y))
    return float(np.sum(weight * x * y) / np.sqrt(np.sum(weight * x * x) * np.sum(weight * y * y)))


def without(values: np.ndarray, functions: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The residual [n] of values [n] by the best combination of functions [J, n]: least squares with weights [n]."""
    root = np.sqrt(weight)
    coefficients = np.linalg.lstsq(root[:, None] * functions.T, root * values, rcond=None)[0]
    return values - coefficients @ functions
