"""Two structural states whose populations are known: trajectories of both, and a map of other trajectories of them.

F(h) of a frame is the mean of its state and a complex Gaussian that remembers the frames before it. The map is the
diffuse intensity of frames of the same two states that the fit does not have, so that nothing but the populations
is in common.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpcfit.physics.reciprocal import sphere
from hpcfit.physics.scattering import diffuse_intensity
from hpcfit.store.reference import Reflections
from hpcfit.testsystems.synthetic import CELL, Source, write_map, write_store

MEAN, SHIFT = 5.0, 0.7  # of F: what both states share, and half of what they do not
SPREAD = 0.4, 1.6  # limits of the standard deviation of F within a state, of each reflection and state
MEMORY = 0.8  # 9 frames are worth one
FRAMES_OF_MAP = 400  # of each state


def write_two_states(
    folder: Path, seed: int, *, share: float = 0.7, frames: int = 64, trajectories: int = 2, noise: float = 0.05,
    d_min: float = 2.2, alike: bool = False, memory: float = MEMORY, options: str = "",
) -> Path:  # fmt: skip
    """Store, map and config in ``folder``; the path of the config.

    share: population of state A in the map. frames: of each of the trajectories of each state. noise: standard
    deviation of the map's error, as a fraction of each intensity. alike: whether both states fluctuate alike; the
    diffuse intensity of any mixture is then a + b |F_A - F_B|^2, whose correlation with a map does not depend on the
    populations: they cannot be found. memory: correlation of successive frames. options: further lines of the
    [problem] table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reflections = Reflections(sphere(CELL, (1, 1, 1), d_min), (1, 1, 1), CELL, "P 1")
    rng, H = np.random.default_rng((7, seed)), len(reflections)
    mean, shift = MEAN * _complex_normal(rng, (H,)), SHIFT * _complex_normal(rng, (H,))
    spread = {name: np.ones(H) if alike else rng.uniform(*SPREAD, H) for name in "AB"}

    def trajectory(state: str, n_frames: int) -> np.ndarray:
        return mean + (shift if state == "B" else -shift) + spread[state] * _remembering(rng, n_frames, H, memory)

    sources = [Source(f"{name}{n}", trajectory(name, frames), name) for name in "AB" for n in range(trajectories)]
    F_th = np.concatenate([trajectory(name, FRAMES_OF_MAP) for name in "AB"])
    intensity = diffuse_intensity(F_th, np.repeat([share, 1 - share], FRAMES_OF_MAP) / FRAMES_OF_MAP)
    sigma = noise * intensity
    write_store(folder / "frames.store", reflections, sources)
    write_map(folder / "map.npz", reflections, intensity + sigma * rng.standard_normal(H), sigma=sigma)
    config = folder / "config.toml"
    config.write_text(
        f'[run]\ndirectory = "run"\n[frames]\nstore = "frames.store"\n[experiment]\nfile = "map.npz"\n'
        f'[problem]\nkind = "frame-weights"\n{options}',
        encoding="utf-8",
    )
    return config


def _remembering(rng: np.random.Generator, n_frames: int, n_reflections: int, memory: float) -> np.ndarray:
    """First-order autoregressive in time, of unit variance, [T, H]."""
    z_th = _complex_normal(rng, (n_frames, n_reflections))
    for t in range(1, n_frames):
        z_th[t] = memory * z_th[t - 1] + np.sqrt(1 - memory**2) * z_th[t]
    return z_th


def _complex_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)
