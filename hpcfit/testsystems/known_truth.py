"""A fit whose answer is known at the size of a real one: 200 frames, 50,000 reflections, noise, and the true weights.

Four structural populations of 50 successive frames. Within one the frames fluctuate with a memory of a few frames, so
that neighbours are nearly the same and no fit can part them; between populations the mean structure differs, so that
mixing them adds diffuse intensity of its own. The true weights rise and fall smoothly over all frames.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.physics.reciprocal import inverse_d2, sphere
from hpcfit.physics.scattering import diffuse_intensity
from hpcfit.store.reference import Reflections
from hpcfit.testsystems.synthetic import Source, write_map, write_store

CELL = (60.0, 60.0, 60.0, 90.0, 90.0, 90.0)
D_MIN = 2.08  # (2 pi / 3) (60 / 2.08)^3 = 50,270 in the hemisphere but for the discreteness of the lattice
POPULATIONS, FRAMES = 4, 50
MEMORY = 0.8  # correlation of successive frames
APART = 0.7  # how far the populations' means scatter, in units of the fluctuation within one
ELECTRONS, B_FACTOR, MEAN_SQUARE = 100.0, 20.0, 0.1  # of F at s = 0; A^2, of F over s; A^2, of the atoms' motion


class KnownTruth(NamedTuple):
    """config: path of the TOML file. w_t: [200] true weights, which sum to 1, in the order of the frame ids."""

    config: Path
    w_t: np.ndarray


def true_weights(n_frames: int) -> np.ndarray:
    """w_t ~ exp(a cos(2 pi t / T)), with its top at 0.35 T: ESS / T = I0(a)^2 / I0(2 a), which is 0.53 for a = 1.61.

    I0 is the modified Bessel function. Of 200 frames the ESS is 106.
    """
    angle = 2 * np.pi * (np.arange(n_frames) / n_frames - 0.35)
    w_t = np.exp(1.61 * np.cos(angle))
    return w_t / w_t.sum()


def population_frames(reflections: Reflections, seed: int) -> list[np.ndarray]:
    """F_th of each population, [50, H] complex64, electrons; equal for equal seeds.

    Over resolution the variance is that of atoms that move by themselves: f^2 (1 - exp(-4 pi^2 <u^2> s^2)), and the
    mean f exp(-2 pi^2 <u^2> s^2) times a speckle.
    """
    rng, s2 = np.random.default_rng(seed), inverse_d2(reflections.hkl, reflections.ndiv, reflections.cell)
    f_h, debye_waller = ELECTRONS * np.exp(-B_FACTOR * s2 / 4), np.exp(-2 * np.pi**2 * MEAN_SQUARE * s2)
    spread_h = (f_h * np.sqrt(1 - debye_waller**2)).astype(np.float32)
    mean_h = f_h * debye_waller * _complex_normal(rng, (len(s2),))
    return [
        (mean_h + spread_h * APART * _complex_normal(rng, (len(s2),))).astype(np.complex64)
        + _fluctuations(rng, len(s2)) * spread_h
        for _ in range(POPULATIONS)
    ]


def write_known_truth(
    folder: Path, *, noise: float = 0.05, seed: int = 0, d_min: float = D_MIN, options: str = ""
) -> KnownTruth:
    """Store, measured map and config in ``folder``; takes about two seconds.

    noise: standard deviation of the map's error, as a fraction of each intensity; the map holds it as sigma. d_min:
    larger for a smaller problem of the same kind. options: further lines of the [problem] table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reflections = Reflections(sphere(CELL, (1, 1, 1), d_min), (1, 1, 1), CELL, "P 1")
    populations = population_frames(reflections, seed)
    w_t = true_weights(POPULATIONS * FRAMES)
    intensity = diffuse_intensity(np.concatenate(populations), w_t)
    sigma = noise * intensity
    error = sigma * np.random.default_rng((seed, 1)).standard_normal(len(sigma))
    sources = [Source(f"run{n}", F_th, f"population {n}") for n, F_th in enumerate(populations)]
    write_store(folder / "frames.store", reflections, sources)
    write_map(folder / "map.npz", reflections, intensity + error, sigma=sigma)
    config = folder / "config.toml"
    config.write_text(
        f'[frames]\nstore = "frames.store"\n[experiment]\nfile = "map.npz"\n'
        f'[problem]\nkind = "frame-weights"\n{options}',
        encoding="utf-8",
    )
    return KnownTruth(config, w_t)


def _fluctuations(rng: np.random.Generator, n_reflections: int) -> np.ndarray:
    """First-order autoregressive in time, of unit variance, [50, H]."""
    z_th = _complex_normal(rng, (FRAMES, n_reflections))
    z_th[1:] *= np.float32(np.sqrt(1 - MEMORY**2))
    for t in range(1, FRAMES):
        z_th[t] += np.float32(MEMORY) * z_th[t - 1]
    return z_th


def _complex_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Unit variance, complex64: float32 takes half the time, and the store rounds to fewer bits."""
    pairs = rng.standard_normal((*shape, 2), np.float32)
    return (pairs * np.float32(np.sqrt(0.5))).view(np.complex64)[..., 0]
