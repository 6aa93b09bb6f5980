"""A crystal of staphylococcal nuclease: its measured diffuse map beside simulations of the same unit cell.

Map: `snc_diffuse.lat` of LUNUS (BSD-3), one voxel at each integer hkl, P 41, reduced from the data of Wall, Ealick and
Gruner (10.1073/pnas.94.12.6180). Simulation: `snase_crystal.pdb` and `snase_crystal_163.dcd`, one unit cell, 65 ps.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpcfit.config import ExperimentConfig

CELL = (48.5, 48.5, 63.5, 90.0, 90.0, 90.0)
SPACE_GROUP, LAUE = "P 41", "4/m"
D_MIN = 3.0
TOPOLOGY, TRAJECTORY, MAP = "snase_crystal.pdb", "snase_crystal_163.dcd", "snc_diffuse.lat"


def source_table(label: str, trajectory: Sequence[Path], topology: Path | None = None) -> str:
    """A table [[prepare.source]]; folders of `hpcfit simulate` bring their elements along."""
    names = ", ".join(f'"{path}"' for path in trajectory)
    elements = "" if topology is None else f'topology = "{topology}"\n'
    return f'[[prepare.source]]\nlabel = "{label}"\n{elements}trajectory = [{names}]\n'


def prepare_config(sources: Sequence[str], store: str) -> str:
    """The text of a config for `hpcfit prepare`. sources: texts of `source_table`."""
    tables = (
        f'[frames]\nstore = "{store}"\n[prepare]\nd_min = {D_MIN}\ncell = {list(CELL)}\nspace_group = "{SPACE_GROUP}"\n'
    )
    return tables + "".join(sources)


def short_simulation(data: Path) -> str:
    """The 163 frames in the data folder as a source."""
    return source_table("short", [data / TRAJECTORY], data / TOPOLOGY)


def experiment(data: Path) -> ExperimentConfig:
    """The measured map in the data folder."""
    return ExperimentConfig(file=data / MAP, cell=CELL, space_group=SPACE_GROUP)


def correlation(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> float:
    """Pearson's coefficient of x and y, [n], with weights [n]."""
    x, y = (values - np.average(values, weights=weight) for values in (x, y))
    return float(np.sum(weight * x * y) / np.sqrt(np.sum(weight * x * x) * np.sum(weight * y * y)))


def anisotropic(values: np.ndarray, shell: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """What is left of values [n] without the weighted mean of the shell [n] that each is in."""
    mean = np.bincount(shell, weight * values) / np.bincount(shell, weight)
    return values - mean[shell]
