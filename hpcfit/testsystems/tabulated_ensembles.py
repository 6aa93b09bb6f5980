"""Two made-up molecules whose force field and Karplus curve are wrong by known amounts, as tables of their frames.

Each molecule has torsions that do not know each other. Those of a sort have one potential,

    U / kT = depth cos 2 chi + tilt sin chi           simulated
    U / kT + sum over k of PHI_k f_k(chi)             true: f = sin chi and cos chi of the first sort

so that averages over the true ensemble are integrals, and frames are drawn one by one. "Measured" with noise are
couplings by the true curve, distances by nuclear Overhauser effects, and intensities that are only known not to exceed
a value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

PHI = (0.5, -0.8)  # kT, of sin chi and cos chi of the first sort
GIVEN, TRUE = (9.7, -1.8, 0.0), (8.6, -1.1, 0.4)  # Hz, of the curve
SORTS = {"flexible": (0.6, 0.3), "stiff": (1.4, -0.2)}  # depth and tilt, kT
CORRECTED = "flexible"
SIGMA_J, SIGMA_R = 0.3, 0.01  # Hz, nm
STEP, OTHER = 1.0, 1.7  # rad, of phases
ROOM = 1.2  # of a bound, above the true intensity
GRID = np.linspace(-np.pi, np.pi, 20_001)


class Molecule(NamedTuple):
    """The sort of each torsion. phase: rad, by which the coupling of the first one sees it."""

    name: str
    torsions: Sequence[str]
    phase: float

    def phases(self, further: float) -> np.ndarray:
        """The phase of each torsion in a set of couplings, rad; the second set is ``OTHER`` further."""
        return self.phase + STEP * np.arange(len(self.torsions)) + further


MOLECULES = (
    Molecule("first", ("flexible",) * 6 + ("stiff",) * 4, -2.5),
    Molecule("second", ("flexible",) * 5 + ("stiff",) * 5, -2.0),
)


def write(folder: Path, n_frames: int = 2000, seed: int = 0) -> None:
    """Write the tables of the molecules: FOLDER/NAME/*.npy, frames beside what was measured."""
    for number, molecule in enumerate(MOLECULES):
        random, place = np.random.default_rng([seed, number]), folder / molecule.name
        place.mkdir(parents=True, exist_ok=True)
        chi = np.stack([_drawn(sort, n_frames, random) for sort in molecule.torsions], axis=1)
        for name, values in {**_of_frames(molecule, chi), **_measured(molecule, random)}.items():
            np.save(place / f"{name}.npy", values)


def coupling(torsion: np.ndarray, curve: Sequence[float]) -> np.ndarray:
    """A cos^2 + B cos + C, Hz."""
    return np.polyval(curve, np.cos(torsion))


def distance(chi: np.ndarray) -> np.ndarray:
    """The distance of two protons beside a torsion, nm."""
    return 0.32 - 0.09 * np.cos(chi - 1.0)


def intensity(chi: np.ndarray) -> np.ndarray:
    """The intensity of an effect that was not seen; it has no unit."""
    return np.exp(1.5 * np.cos(chi + 2.0))


def average(sort: str, of: Callable[[np.ndarray], np.ndarray]) -> float:
    """The average over the true ensemble of a torsion of that sort."""
    weight = np.exp(-_energy(sort, GRID, true=True))[:-1]
    return float(np.sum(weight * of(GRID[:-1])) / np.sum(weight))


def _energy(sort: str, chi: np.ndarray, true: bool) -> np.ndarray:
    """U / kT."""
    depth, tilt = SORTS[sort]
    added = PHI[0] * np.sin(chi) + PHI[1] * np.cos(chi) if true and sort == CORRECTED else 0.0
    return depth * np.cos(2 * chi) + tilt * np.sin(chi) + added


def _drawn(sort: str, n: int, random: np.random.Generator) -> np.ndarray:
    """Independent torsions of the simulated ensemble, rad, by the inverse of their distribution function."""
    weight = np.exp(-_energy(sort, GRID, true=False))
    cumulated = np.concatenate([[0.0], np.cumsum(weight[1:] + weight[:-1])])
    return np.interp(random.random(n) * cumulated[-1], cumulated, GRID)


def _of_frames(molecule: Molecule, chi: np.ndarray) -> dict[str, np.ndarray]:
    """The tables of frames; terms: sin chi of all torsions, then cos chi."""
    return {
        "torsions": chi + molecule.phases(0.0),
        "other_torsions": chi + molecule.phases(OTHER),
        "distances": distance(chi),
        "intensities": intensity(chi),
        "terms": np.concatenate([np.sin(chi), np.cos(chi)], axis=1),
    }


def _measured(molecule: Molecule, random: np.random.Generator) -> dict[str, np.ndarray]:
    """The measurements, [M, 2] each: value with noise, and sigma."""
    sorts, found = molecule.torsions, {}
    for name, further in {"couplings": 0.0, "other_couplings": OTHER}.items():
        each = zip(sorts, molecule.phases(further))
        J = np.array([average(sort, lambda chi, phase=phase: coupling(chi + phase, TRUE)) for sort, phase in each])
        found[f"measured_{name}"] = _noisy(J, SIGMA_J, random)
    r = np.array([average(sort, lambda chi: distance(chi) ** -6) for sort in sorts]) ** (-1 / 6)
    bounds = ROOM * np.array([average(sort, intensity) for sort in sorts])
    return found | {
        "measured_distances": _noisy(r, SIGMA_R, random),
        "bounds": np.stack([bounds, np.full(len(sorts), 0.05)], axis=1),
    }


def _noisy(values: np.ndarray, sigma: float, random: np.random.Generator) -> np.ndarray:
    return np.stack([values + sigma * random.standard_normal(len(values)), np.full(len(values), sigma)], axis=1)
