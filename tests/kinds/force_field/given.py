"""Frames that are given, of two particles in wells whose volume matters: configs, and the averages by NumPy."""

from pathlib import Path
from typing import NamedTuple

import ase.io
import numpy as np
from ase import Atoms

from hpcfit.observables.thermodynamics import DENSITY
from tests.kinds.force_field.wells import PARAMETER, SECOND, SQUARE

ENERGY = f'''{SQUARE}
def energy(x, parameters, box):
    """k |x|^2 / 2 of each particle, and w x x' / V of both."""
    both = jnp.sum(x[0] * x[1]) / jnp.prod(jnp.diag(box))
    return 0.5 * parameters["k"][0] * jnp.sum(x**2) + parameters["w"][0] * both
'''
K, W, KT, T, WINDOWS = 2.6, 3.0, 1.2, 100, 7  # two frames more than windows have
MASSES = np.array([1.0, 1.5])
CONFIG = f"""
[run]
directory = "run"
report = false
[problem]
kind = "force-field"
estimator = "reweighting"
windows = 7
block = 3
rounds = 3
{PARAMETER}[[problem.parameter]]
name = "w"
scale = 1.0
prior = 0.5
[[problem.system]]
name = "wells"
energy = "wells.py:energy"
parameters = {{k = 2.6, w = 3.0}}
masses = [1.0, 1.5]
positions = "two.npy"
box = [2.0, 2.2, 2.4]
kT = 1.2
pressure = 1.0
frames = "frames.extxyz"
{SECOND}[[problem.system.observable]]
name = "density"
observable = "density"
values = 0.4
sigma = 0.05
"""


class Frames(NamedTuple):
    """x: [T, 2, 3] nm; box: [T, 3, 3] nm."""

    x: np.ndarray
    box: np.ndarray

    def weights(self, k: float, w: float) -> np.ndarray:
        """Those of frames that were drawn at K and W, [T]."""
        by_k, by_w = self.slopes()
        return np.exp(-((k - K) * by_k + (w - W) * by_w) / KT)

    def slopes(self) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives of the energy of each frame by k and by w."""
        return 0.5 * np.sum(self.x**2, axis=(1, 2)), np.sum(self.x[:, 0] * self.x[:, 1], axis=1) / np.linalg.det(
            self.box
        )

    def data(self) -> np.ndarray:
        """The numbers of each frame, [T, 2]."""
        return np.stack([np.mean(self.x**2, axis=(1, 2)), MASSES.sum() / np.linalg.det(self.box) * DENSITY], axis=1)


def write_given(folder: Path) -> Frames:
    """CONFIG and its files; the frames that it averages, as the file has them."""
    random = np.random.default_rng(11)
    x = random.normal(scale=(KT / K) ** 0.5, size=(T, 2, 3))
    boxes = np.array([2.0, 2.2, 2.4]) * (1 + 0.02 * random.normal(size=(T, 1)))
    images = [Atoms("ArAr", 10 * positions, cell=10 * edges, pbc=True) for positions, edges in zip(x, boxes)]
    ase.io.write(folder / "frames.extxyz", images)
    (folder / "wells.py").write_text(ENERGY)
    np.save(folder / "two.npy", x[0])
    (folder / "config.toml").write_text(CONFIG)
    found = ase.io.read(folder / "frames.extxyz", index=":")
    left = T % WINDOWS
    return Frames(*(0.1 * np.array([get(one) for one in found])[left:] for get in (Atoms.get_positions, _cell)))


def _cell(atoms: Atoms) -> np.ndarray:
    return atoms.cell.array
