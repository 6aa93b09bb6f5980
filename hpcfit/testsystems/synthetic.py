"""Stores and maps with known answers, made without a simulation.

The frames are correlated Gaussian ones, or a few fixed structures.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.physics.reciprocal import sphere
from hpcfit.physics.scattering import diffuse_intensity
from hpcfit.store.catalog import write_catalog
from hpcfit.store.frame import Frame
from hpcfit.store.reference import Encoding, Reference, Reflections
from hpcfit.store.shard import ShardPlan
from hpcfit.store.structure_factors import FactorContent, FactorStore, open_store
from hpcfit.store.writer import ShardWriter

# One fit from the prior weights, without cross-validation and errors: for what is about the engine.
ONE_FIT = {"theta": "0.0", "starts": '["prior"]', "resamples": "0"}
CELL = (10.0, 10.0, 10.0, 90.0, 90.0, 90.0)


class Source(NamedTuple):
    """Structure factors of one source, [T, H] complex128."""

    name: str
    F_th: np.ndarray
    label: str = ""


def cubic_reflections(d_min: float = 1.5) -> Reflections:
    """The hemisphere of a 10 A cubic cell to ``d_min``."""
    return Reflections(sphere(CELL, (1, 1, 1), d_min), (1, 1, 1), CELL, "P 1")


def gaussian_frames(
    n_frames: int, n_reflections: int, seed: int, *, bragg: float = 30.0, correlation: float = 0.8
) -> np.ndarray:
    """F_th [T, H]: a mean of size ``bragg`` plus an autoregressive complex Gaussian of unit scale, its variance rising
    and falling over the reflections, as thermal motion makes it."""
    rng = np.random.default_rng(seed)
    sigma_h = 0.5 + 2 * np.abs(np.sin(np.arange(n_reflections) * 0.37))
    mean = bragg * _complex_normal(rng, n_reflections)
    noise = _complex_normal(rng, n_frames, n_reflections)
    for t in range(1, n_frames):
        noise[t] = correlation * noise[t - 1] + np.sqrt(1 - correlation**2) * noise[t]
    return mean + sigma_h * noise


def _complex_normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)


def write_store(
    folder: Path,
    reflections: Reflections,
    sources: Sequence[Source],
    encoding: Encoding | None = None,
    shard_frames: int = 128,
) -> FactorStore:
    """A store as `hpcfit prepare` would write it."""
    encoding = encoding or Encoding()
    reference = Reference.of_sample(reflections, np.concatenate([source.F_th for source in sources]))
    content = FactorContent(reference, encoding)
    store = content.begin(folder, {})
    plans, first_id = [], 0
    for source in sources:
        for start in range(0, len(source.F_th), shard_frames):
            stop = min(start + shard_frames, len(source.F_th))
            plan = ShardPlan(
                f"{source.name}.{start:06d}.h5",
                source.name,
                source.label,
                source.name,
                first_id,
                start,
                stop,
                hashlib.sha256(source.F_th[start:stop].tobytes()).hexdigest(),
                store=store,
                place=len(plans),
            )
            with ShardWriter(folder, plan, content) as shard:
                for index in range(start, stop):
                    shard.append(Frame(index, structure_factors=source.F_th[index]))
            plans.append(plan)
            first_id += stop - start
    write_catalog(folder, plans, content)
    return open_store(folder)


def write_map(
    path: Path,
    reflections: Reflections,
    intensity: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    sigma: np.ndarray | None = None,
) -> None:
    """A measured map as a NumPy archive."""
    extra = {} if sigma is None else {"sigma": sigma}
    use = np.ones(len(intensity), bool) if mask is None else mask
    np.savez(
        path, hkl=reflections.hkl, ndiv=reflections.ndiv, cell=reflections.cell, space_group=reflections.space_group,
        intensity=intensity, mask=use, **extra,
    )  # fmt: skip


def write_problem(
    folder: Path,
    sources: Sequence[Source],
    w_t: np.ndarray,
    *,
    d_min: float = 1.5,
    noise: float = 0.0,
    options: str = "",
) -> Path:
    """Store, map and config in ``folder``; the config's path.

    The map is the diffuse intensity at ``w_t`` [T], with relative noise. options: lines of [problem], which is one fit
    from the prior weights where they do not say otherwise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reflections = cubic_reflections(d_min)
    F_th = np.concatenate([source.F_th for source in sources])
    intensity = diffuse_intensity(F_th, w_t)
    intensity = intensity * (1 + noise * np.random.default_rng(1).standard_normal(len(intensity)))
    write_store(folder / "frames.store", reflections, sources)
    write_map(folder / "map.npz", reflections, intensity)
    config = folder / "config.toml"
    config.write_text(
        f'[frames]\nstore = "frames.store"\n[experiment]\nfile = "map.npz"\n'
        f'[problem]\nkind = "frame-weights"\n{_one_fit(options)}{options}',
        encoding="utf-8",
    )
    return config


def _one_fit(options: str) -> str:
    given = {line.partition("=")[0].strip() for line in options.splitlines()}
    return "".join(f"{key} = {value}\n" for key, value in ONE_FIT.items() if key not in given)
