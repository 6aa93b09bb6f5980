"""An ensemble that is wrong by a known energy: trajectories, and a map of the ensemble that the energy is added to.

A coordinate x moves along each trajectory with a memory, F(h) of a frame is linear in it beside fluctuations of its
own, and the target weighs the frames of the simulation by exp(-ΔU / kT) with ΔU = a x.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.testsystems.synthetic import Source, cubic_reflections, gaussian_frames, write_problem

TEMPERATURE = 300.0  # K
KT = GAS_CONSTANT * TEMPERATURE
MEMORY = 0.8  # correlation of x of successive frames: 9 of them are worth one
ALONG_X = 2.0  # of F, by unit of x, beside fluctuations of 0.5 to 2.5


class KnownEnergy(NamedTuple):
    """config: path of the TOML file. energy: [T] ΔU of each frame, kJ/mol; w: [T], weights of the target."""

    config: Path
    energy: np.ndarray
    w: np.ndarray


def write_known_energy(
    folder: Path, seed: int = 0, *, slope: float = KT / 2, sources: int = 2, frames: int = 64, d_min: float = 0.7,
    noise: float = 0.02, labels: tuple[str, ...] = ("simulation",), options: str = "",
) -> KnownEnergy:  # fmt: skip
    """Store, map, numbers and config in ``folder``.

    slope: a of ΔU = a x, kJ/mol; x has variance 1. sources, frames: trajectories, and frames of each. noise: of the
    map, as a fraction of each intensity. labels: of the trajectories, in turn. numbers.csv has columns frame, energy
    (ΔU), x, shuffled (ΔU in another order) and mass, a constant.
    options: further lines of [problem].
    """
    rng, H, n = np.random.default_rng((11, seed)), len(cubic_reflections(d_min)), sources * frames
    x = np.concatenate([_remembering(rng, frames) for _ in range(sources)])
    direction = ALONG_X * (rng.standard_normal(H) + 1j * rng.standard_normal(H)) / np.sqrt(2)
    F_th = gaussian_frames(n, H, seed, correlation=MEMORY) + x[:, None] * direction
    energy = slope * x
    w = np.exp(-energy / KT)
    w /= w.sum()
    parts = [Source(f"run{n}", F_th[n * frames : (n + 1) * frames], labels[n % len(labels)]) for n in range(sources)]
    lines = f'explain = "numbers.csv"\ntemperature = {TEMPERATURE}\n{options}'
    config = write_problem(folder, parts, w, d_min=d_min, noise=noise, options=lines)
    with open(folder / "numbers.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["frame", "energy", "x", "shuffled", "mass"])
        writer.writerows(zip(range(n), energy.tolist(), x.tolist(), rng.permutation(energy).tolist(), [18.0] * n))
    return KnownEnergy(config, energy, w)


def _remembering(rng: np.random.Generator, frames: int) -> np.ndarray:
    """First-order autoregressive in time, of unit variance, [T]."""
    x = rng.standard_normal(frames)
    for t in range(1, frames):
        x[t] = MEMORY * x[t - 1] + np.sqrt(1 - MEMORY**2) * x[t]
    return x
