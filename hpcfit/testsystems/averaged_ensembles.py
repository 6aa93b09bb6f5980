"""Frames of a flexible molecule in two states whose shares are known, and what experiments average over them.

The molecule is a chain of scatterers with a hinge: in state A it is bent, in state B stretched. Candidate frames hold
both states alike often; the true ensemble, of frames of its own, holds them as ``SHARES``. Files are in the dialect of
BME: `exp.dat` and `calc.dat`, with a line a frame.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.physics.reciprocal import sphere
from hpcfit.physics.scattering import diffuse_intensity
from hpcfit.store.catalog import write_catalog
from hpcfit.store.files import write_csv
from hpcfit.store.frame import NOT_PERIODIC, Frame
from hpcfit.store.particles import Particles
from hpcfit.store.positions import PositionContent
from hpcfit.store.reference import Reflections
from hpcfit.store.shard import ShardPlan
from hpcfit.store.writer import ShardWriter
from hpcfit.testsystems.synthetic import Source, write_map, write_store

SHARES = (0.7, 0.3)  # of the states in the true ensemble
HINGES = (70.0, 150.0)  # degrees, mean angle of each state
SPREAD, JITTER = 12.0, 0.25  # degrees, of the hinge; A, of each scatterer
LINKS, LINK = 5, 3.0  # scatterers on either side of the hinge; A between neighbours
PAIRS = ((0, 10), (1, 9), (2, 8), (3, 7), (4, 6), (0, 8), (2, 10), (1, 7))  # of distances by NOE
Q = np.linspace(0.05, 0.9, 30)  # 1/A, of the scattering curve
FACTOR, CONSTANT = 3.7, 0.9  # of the measured scattering curve, in units of its own
CURVE = (7.1, -1.3, 1.6)  # Hz, A, B, C of the couplings
NOISE_I, NOISE_R, NOISE_J = 0.003, 0.03, 0.2  # of I(q) relative to I(0); of distances, relative; Hz
CELL = (40.0, 40.0, 40.0, 90.0, 90.0, 90.0)  # of a crystal of one molecule a cell
NOISE_MAP = 0.1  # of each diffuse intensity
STATES = ("bent", "stretched")


class Ensemble(NamedTuple):
    """positions: [T, N, 3] A; state: [T], 0 or 1; torsions: [T, 6] rad, which tell the state as well."""

    positions: np.ndarray
    state: np.ndarray
    torsions: np.ndarray

    @property
    def intensities(self) -> np.ndarray:
        """Debye's sum of equal scatterers at ``Q``, [T, q]."""
        r = np.linalg.norm(self.positions[:, :, None] - self.positions[:, None], axis=-1)
        return np.stack([np.sinc(q * r / np.pi).sum(axis=(1, 2)) for q in Q], axis=1)

    @property
    def distances(self) -> np.ndarray:
        """The distances of ``PAIRS``, [T, M] A."""
        i, j = np.transpose(PAIRS)
        return np.linalg.norm(self.positions[:, i] - self.positions[:, j], axis=-1)

    @property
    def couplings(self) -> np.ndarray:
        """By ``CURVE``, [T, M] Hz."""
        A, B, C = CURVE
        c = np.cos(self.torsions)
        return A * c**2 + B * c + C


def frames(counts: Sequence[int], seed: int) -> Ensemble:
    """So many frames of each state, one state after the other; equal for equal seeds."""
    random = np.random.default_rng(seed)
    state = np.repeat([0, 1], counts)
    hinge = np.deg2rad(np.array(HINGES)[state] + SPREAD * random.standard_normal(len(state)))
    arm, side = LINK * np.arange(LINKS, 0, -1.0), np.zeros((len(state), 2 * LINKS + 1, 3))
    side[:, :LINKS, 0] = arm
    side[:, LINKS + 1 :, 0] = arm[::-1] * np.cos(hinge)[:, None]
    side[:, LINKS + 1 :, 1] = arm[::-1] * np.sin(hinge)[:, None]
    positions = side + JITTER * random.standard_normal(side.shape)
    centre = np.where(state == 0, -1.0, 1.2)[:, None] + 0.3 * np.arange(6)
    return Ensemble(positions, state, centre + 0.5 * random.standard_normal((len(state), 6)))


def write(folder: Path, n_frames: int = 400, n_true: int = 4000, seed: int = 0) -> Ensemble:
    """Write the candidates' tables and what was measured of the true ensemble in ``folder``; the candidates."""
    folder.mkdir(parents=True, exist_ok=True)
    found = frames((n_frames // 2, n_frames - n_frames // 2), seed)
    truth, random = frames([round(n_true * share) for share in SHARES], seed + 1), np.random.default_rng((seed, 2))
    intensity = FACTOR * truth.intensities.mean(axis=0) + CONSTANT
    sigma = np.full(len(Q), NOISE_I * intensity[0])
    write_table(folder / "saxs", "SAXS", [f"{q:.4f}" for q in Q], noisy(intensity, sigma, random), found.intensities)
    r = (truth.distances**-6.0).mean(axis=0) ** (-1 / 6)
    names = [f"H{i}-H{j}" for i, j in PAIRS]
    near, far = slice(0, 6), slice(6, 8)
    write_table(folder / "noe", "NOE", names[near], noisy(r, NOISE_R * r, random)[near], found.distances[:, near])
    bounds = np.stack([1.3 * r, 0.1 * r], axis=1)[far]
    write_table(folder / "unseen", "NOE BOUND=LOWER", names[far], bounds * [0.7, 1], found.distances[:, far])
    J = truth.couplings.mean(axis=0)
    write_table(
        folder / "couplings", "JCOUPLINGS", [f"J{n}" for n in range(6)],
        noisy(J, np.full(6, NOISE_J), random), found.couplings,
    )  # fmt: skip
    np.save(folder / "torsions.npy", found.torsions)
    _write_trajectories(folder, found)
    return found


def _write_trajectories(folder: Path, found: Ensemble) -> None:
    """Each state is a trajectory of its own; and numbers that weights may be explained by."""
    names = [STATES[n] for n in found.state]
    ends = np.linalg.norm(found.positions[:, 0] - found.positions[:, -1], axis=1)
    write_csv(folder / "trajectories.csv", ("frame", "source", "label"), zip(range(len(names)), names, names))
    numbers = zip(range(len(names)), ends.tolist(), found.torsions[:, 0].tolist())
    write_csv(folder / "numbers.csv", ("frame", "end_to_end_A", "torsion_rad"), numbers)


def write_joint(folder: Path, experiments: str, n_frames: int = 256, d_min: float = 6.0, seed: int = 0) -> Path:
    """Write the tables, a diffuse map of the true ensemble, a store of the candidates and a config; its path.

    experiments: lines of [problem] and tables below it.
    """
    found = write(folder, n_frames, seed=seed)
    truth = frames([round(4000 * share) for share in SHARES], seed + 1)
    reflections = Reflections(sphere(CELL, (1, 1, 1), d_min), (1, 1, 1), CELL, "P 1")
    F_th = structure_factors(found.positions, reflections)
    sources = [Source(name, F_th[found.state == n], name) for n, name in enumerate(STATES)]
    write_store(folder / "frames.store", reflections, sources)
    intensity = diffuse_intensity(structure_factors(truth.positions, reflections), np.full(len(truth.state), 1 / 4000))
    sigma = NOISE_MAP * intensity
    error = sigma * np.random.default_rng((seed, 3)).standard_normal(len(sigma))
    write_map(folder / "map.npz", reflections, intensity + error, sigma=sigma)
    config = folder / "config.toml"
    config.write_text(
        '[run]\nreport = false\n[frames]\nstore = "frames.store"\n[experiment]\nfile = "map.npz"\n'
        f'[problem]\nkind = "frame-weights"\n{experiments}',
        encoding="utf-8",
    )
    return config


def write_positions(folder: Path, positions: np.ndarray, shard_frames: int = 128) -> None:
    """A store of positions [T, N, 3] A of carbon atoms, as `hpcfit prepare` would write it."""
    n = positions.shape[1]
    particles = Particles(
        tuple(f"C{i}" for i in range(n)), ("C",) * n, np.zeros(n), ("MOL",), (1,), ("A",), np.full(n, 12.011),
        np.zeros((0, 2), int),
    )  # fmt: skip
    content = PositionContent(particles, False, NOT_PERIODIC)
    store, plans = content.begin(folder, {}), []
    for start in range(0, len(positions), shard_frames):
        stop, digest = min(start + shard_frames, len(positions)), hashlib.sha256(positions.tobytes()).hexdigest()
        plan = ShardPlan(
            f"frames.{start:06d}.h5", "frames", "", "frames", start, start, stop, digest, store=store, place=len(plans)
        )
        with ShardWriter(folder, plan, content) as shard:
            for index in range(start, stop):
                shard.append(Frame(index, positions=positions[index].astype(np.float32)))
        plans.append(plan)
    write_catalog(folder, plans, content)


def structure_factors(positions: np.ndarray, reflections: Reflections) -> np.ndarray:
    """F of equal scatterers of frames, [T, H] complex128."""
    phase = 2j * np.pi / CELL[0] * positions @ reflections.hkl.T
    return np.exp(phase).sum(axis=1)


def noisy(value: np.ndarray, sigma: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Measured values with their sigmas, [M, 2]."""
    return np.stack([value + sigma * random.standard_normal(len(value)), sigma], axis=1)


def write_table(
    where: Path, head: str, names: Sequence[str], measured: np.ndarray, calculated: np.ndarray, packed: bool = False
) -> None:
    """Write WHERE.exp.dat and WHERE.calc.dat as BME reads them; packed: the second as an archive of one file."""
    rows = [f"{name} {value!r} {sigma!r}" for name, (value, sigma) in zip(names, measured.tolist())]
    where.with_name(f"{where.name}.exp.dat").write_text("\n".join([f"# DATA={head}", *rows, ""]), encoding="utf-8")
    lines = [f"frame{n} " + " ".join(map(repr, row)) for n, row in enumerate(calculated.tolist())]
    text, path = "\n".join([*lines, ""]), where.with_name(f"{where.name}.calc.dat")
    if not packed:
        path.write_text(text, encoding="utf-8")
        return
    with zipfile.ZipFile(path.with_name(f"{path.name}.zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(path.name, text)
