"""Planes of reciprocal space (hk0, hk1, ...) drawn from measured orbits. Arrays only."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np

# Planes that a crystallographer looks at first, as l in the unit cell; the nearest ones with data are taken.
WANTED = (0.0, 0.5, 1.0, 2.0)
WELL_FILLED = 0.25  # of the voxels of the fullest plane


class Plane(NamedTuple):
    """One plane l = const: `orbit[k - k0, h - h0]` is the orbit of a voxel, or -1 where nothing was measured."""

    level: Fraction  # l in the unit cell
    orbit: np.ndarray  # [K, H] int
    h: np.ndarray  # [H] indices in the unit cell, ascending
    k: np.ndarray  # [K]

    def values(self, by_orbit: np.ndarray) -> np.ndarray:
        """A quantity of each orbit as [K, H] float64, NaN where nothing was measured."""
        return np.where(self.orbit >= 0, np.asarray(by_orbit, float)[self.orbit], np.nan)


def image(hkl: np.ndarray, operation: np.ndarray, ndiv: np.ndarray) -> np.ndarray:
    """The image of each reflection under one operation (rows of it give h, k, l), int64 [n, 3] in units of 1 / ndiv."""
    return np.rint(np.asarray(hkl) / ndiv @ operation.T * ndiv).astype(np.int64)


def image_level(hkl: np.ndarray, operation: np.ndarray, ndiv: np.ndarray) -> np.ndarray:
    """The last index of `image` alone, int64 [n]."""
    return np.rint(np.asarray(hkl) / ndiv @ operation[2] * ndiv[2]).astype(np.int64)


def choose_levels(hkl: np.ndarray, operations: np.ndarray, ndiv: np.ndarray, n: int = 3) -> list[int]:
    """Up to n levels l (in units of 1 / ndiv, not negative), ascending: nearest to WANTED among those well filled."""
    counts = np.zeros(1, int)
    for operation in operations:
        level = image_level(hkl, operation, ndiv)
        found = np.bincount(level[level >= 0], minlength=len(counts))
        found[: len(counts)] += counts
        counts = found
    filled = list(np.flatnonzero(counts >= max(1, WELL_FILLED * counts.max())))
    chosen = []
    while filled and len(chosen) < n:
        wanted = WANTED[len(chosen)]
        chosen.append(filled.pop(int(np.argmin(np.abs(np.array(filled) / ndiv[2] - wanted)))))
    return sorted(int(level) for level in chosen)


def plane(hkl: np.ndarray, operations: np.ndarray, ndiv: np.ndarray, level: int) -> Plane:
    """The plane l = level / ndiv[2], filled with every image of every orbit that falls into it."""
    found = [(np.flatnonzero(image_level(hkl, operation, ndiv) == level), operation) for operation in operations]
    voxels = [(image(hkl[orbit], operation, ndiv), orbit) for orbit, operation in found]
    (h, k, _), orbit = (
        np.concatenate([indices for indices, _ in voxels]).T,
        np.concatenate([orbit for _, orbit in voxels]),
    )
    top_h, top_k = np.abs(h).max(initial=0), np.abs(k).max(initial=0)
    table = np.full((2 * top_k + 1, 2 * top_h + 1), -1)
    table[k + top_k, h + top_h] = orbit
    axis_h, axis_k = (np.arange(-top, top + 1) / n for top, n in zip((top_h, top_k), ndiv, strict=False))
    return Plane(Fraction(int(level), int(ndiv[2])), table, axis_h, axis_k)


def plane_axes(cell: np.ndarray) -> np.ndarray:
    """The vectors a* and b* as columns of float64 [2, 2], A^-1, a* along x."""
    from hpcfit.physics.reciprocal import metric

    reciprocal = np.linalg.inv(metric(cell))
    a, b = np.sqrt(reciprocal[0, 0]), np.sqrt(reciprocal[1, 1])
    cosine = reciprocal[0, 1] / (a * b)
    return np.array([[a, b * cosine], [0.0, b * np.sqrt(1 - cosine**2)]])


def scaled_to(observed: np.ndarray, model: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The model times a scale plus an offset, by linear regression on the observed values (weighted, all [n])."""
    # scale = cov(x, y) / var(x), offset = <y> - scale <x>
    x, y = (np.average(values, weights=weight) for values in (model, observed))
    variance = np.average((model - x) ** 2, weights=weight)
    scale = np.average((model - x) * (observed - y), weights=weight) / variance if variance > 0 else 0.0
    return scale * (model - x) + y


def anisotropic(values: np.ndarray, radial: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The residual of values [n] after a weighted least-squares fit of functions of resolution alone, radial [J, n]."""
    weighted = radial * weight
    # Least squares of the normal equations: an interval without orbits leaves a function undetermined.
    coefficients = np.linalg.lstsq(weighted @ radial.T, weighted @ values, rcond=None)[0]
    return values - coefficients @ radial


def plane_name(level: Fraction) -> str:
    """hk0, hk1, hk(1/2), ..."""
    return f"hk{level}" if level.denominator == 1 else f"hk({level})"
