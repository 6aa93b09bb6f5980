"""Two structures as MTZ files, single frames or ensembles, and the map of a mixture of them or of others.

The cases that frame weights were first shown with: both structures of the target are there, or one or both are wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.physics.reciprocal import inverse_d2
from hpcfit.physics.scattering import structure_factors_direct
from hpcfit.testsystems.mixture_map import State, mixture_intensity
from hpcfit.testsystems.synthetic import CELL, cubic_reflections, write_map

ELEMENTS = ["C", "N", "O", "S"] * 8
FRAMES = 12  # of an ensemble
MOTION = 0.3  # A, of each coordinate between the frames of an ensemble
MOVED = 6  # atoms of B, C and D that are elsewhere than in A, by so much of each coordinate:
SHIFT = 0.6  # A
NAMES = "ABCD"
# As published: u of a sigmoid from U(-5, 5), and 100 steps of Adam.
PUBLISHED = (
    'weights = "sigmoid"\nstarts = ["random"]\nresamples = 0\n[optimizer]\nname = "adam"\nmax_steps = 100\n'
    "gradient_tolerance = 0.0\nrelative_tolerance = 0.0\n[optimizer.options]\nlearning_rate = 0.05\n"
)


class Case(NamedTuple):
    """Names of the structures that have weights, and of those in equal shares in the target."""

    candidates: Sequence[str]
    target: Sequence[str] = "AB"


CASES = {"both right": Case("AB"), "one wrong": Case("AC"), "both wrong": Case("CD")}


def ensemble(name: str, n_frames: int = FRAMES) -> np.ndarray:
    """F_th of a structure, [T, H] complex128, electrons: 32 atoms in a 10 A cell, to 1.5 A.

    Its first frame is the same for any number of frames.
    """
    reflections, seed = cubic_reflections(), NAMES.index(name) + 1
    s2 = inverse_d2(reflections.hkl, (1, 1, 1), CELL)
    mean = np.random.default_rng(0).random((len(ELEMENTS), 3))
    rng = np.random.default_rng(seed)
    moved = rng.standard_normal((MOVED, 3))
    mean[:MOVED] += (SHIFT if name != "A" else 0.0) / CELL[0] * moved
    frames = [mean + MOTION / CELL[0] * rng.standard_normal(mean.shape) for _ in range(n_frames)]
    return np.array([structure_factors_direct(ELEMENTS, x, reflections.hkl, s2) for x in frames])


def write_case(folder: Path, case: Case, structures: Mapping[str, np.ndarray], options: str = "") -> Path:
    """MTZ files of each candidate, the map, and a config for `hpcfit prepare` and `hpcfit optimize`; its path.

    structures: F_th of each name. options: further lines, of [problem] first.
    """
    for name in case.candidates:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, F_h in enumerate(structures[name]):
            _write_mtz(folder / name / f"frame{number}.mtz", F_h)
    states = [State(structures[name], 1 / len(case.target)) for name in case.target]
    write_map(folder / "map.npz", cubic_reflections(), mixture_intensity(states))
    sources = "".join(f'[[prepare.source]]\nlabel = "{name}"\nmtz = "{name}"\n' for name in case.candidates)
    config = folder / "config.toml"
    config.write_text(
        f'[frames]\nstore = "frames.store"\n[experiment]\nfile = "map.npz"\n{sources}'
        f'[problem]\nkind = "frame-weights"\n{options}',
        encoding="utf-8",
    )
    return config


def _write_mtz(path: Path, F_h: np.ndarray) -> None:
    import gemmi

    file = gemmi.Mtz(with_base=True)
    file.spacegroup = gemmi.SpaceGroup("P 1")
    file.set_cell_for_all(gemmi.UnitCell(*CELL))
    file.add_dataset("frame")
    for label, kind in zip(("FMODEL", "PHIFMODEL"), "FP", strict=True):
        file.add_column(label, kind)
    file.set_data(np.column_stack([cubic_reflections().hkl, np.abs(F_h), np.degrees(np.angle(F_h))]).astype(np.float32))
    file.write_to_file(str(path))
