"""The precision of a measured map: CC1/2 from half-sets or from sigmas, and CC*, the most that any model can reach.

A measured mean is y = tau + noise, with the variance e2 of its noise. Half of the measurements have the noise 2 e2:

    CC1/2 = var(tau) / (var(tau) + 2 e2)        CC* = sqrt(var(tau) / (var(tau) + e2)) = sqrt(2 CC1/2 / (1 + CC1/2))

so that CC* is the correlation of the whole map with the noise-free intensity (Karplus & Diederichs,
10.1126/science.1218231), and, as var(y) = var(tau) + e2 (Assmann, Brehm & Diederichs, 10.1107/S1600576716005471, where
sigma_eps^2 is the variance of a half-set's mean, here 2 e2),

    CC1/2 = (var(y) - e2) / (var(y) + e2)

All sums are weighted by multiplicity. Half-sets tell of random errors, and of the systematic ones in which symmetry
mates differ; sigmas tell what they include. A map that was symmetrised before has mates that are copies: CC1/2 = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hpcfit.kinds.frame_weights.orbits import OrbitMap


class Precision(NamedTuple):
    """CC1/2, its standard error, and CC*: arrays [shells], or numbers. NaN where undefined; CC* also where CC1/2 < 0.

    cc_half_error holds for single orbits that err independently; of half-sets it is that of normal values.
    """

    cc_half: np.ndarray
    cc_half_error: np.ndarray
    cc_star: np.ndarray


class MapQuality(NamedTuple):
    """shells: of each resolution shell, [shells]. total: of all orbits. anisotropic: of all, shell means removed.

    The shells need no anisotropic twin: a correlation within one shell does not see its mean.
    """

    shells: Precision
    total: Precision
    anisotropic: Precision


class _Groups(NamedTuple):
    """What means are taken over and removed, and what the sums after that run over: numbers [n], and how many."""

    of_mean: np.ndarray
    of_sum: np.ndarray
    n_sums: int


def quality_from_halves(
    first: np.ndarray, second: np.ndarray, multiplicity: np.ndarray, shell: np.ndarray, n_shells: int
) -> MapQuality:
    """CC1/2 as the correlation of two half-sets; first, second: means of each orbit, [n], NaN where one is missing.

    Standard error by Fisher's z: var(artanh CC) = 1 / (n - 3), n the effective number (sum m)^2 / sum m^2.
    """
    known = np.isfinite(first) & np.isfinite(second)
    first, second, m = first[known], second[known], multiplicity[known].astype(float)

    def correlation(groups: _Groups) -> Precision:
        a, b = _deviations(first, m, groups), _deviations(second, m, groups)
        aa, bb, ab = (_sums(m * product, groups) for product in (a * a, b * b, a * b))
        cc = ab / np.sqrt(aa * bb)
        # Each mean that was removed is one degree of freedom; with one mean, n - 3.
        free = _effective_number(m, groups) - _means_removed(groups) - 2
        return _precision(cc, (1 - cc**2) / np.sqrt(np.where(free > 0, free, np.nan)))

    return _three_ways(correlation, shell[known], n_shells)


def quality_from_sigmas(
    mean: np.ndarray, sigma: np.ndarray, multiplicity: np.ndarray, shell: np.ndarray, n_shells: int
) -> MapQuality:
    """CC1/2 from the variance of the orbits' means and their sigmas, each [n]; not finite or sigma <= 0: left out.

    Standard error by d CC / d var(y) = 2 e2 / (var(y) + e2)^2 and var(var(y)) = (m4 - var(y)^2) / n, the sigmas being
    taken for exact; m4 is the fourth moment of y, since intensities spread wider than normal values.
    """
    known = np.isfinite(mean) & np.isfinite(sigma) & (sigma > 0)
    mean, variance, m = mean[known], sigma[known] ** 2, multiplicity[known].astype(float)

    def sigma_tau(groups: _Groups) -> Precision:
        y = _deviations(mean, m, groups)
        v, e2 = _sums(m * y**2, groups) / _bessel(m, groups), _sums(m * variance, groups) / _sums(m, groups)
        m4 = _sums(m * y**4, groups) / _sums(m, groups)
        error_of_v = np.sqrt(np.maximum(m4 - v**2, 0) / _effective_number(m, groups))
        return _precision((v - e2) / (v + e2), 2 * e2 / (v + e2) ** 2 * error_of_v)

    return _three_ways(sigma_tau, shell[known], n_shells)


def cc_star(cc_half: np.ndarray) -> np.ndarray:
    """sqrt(2 CC1/2 / (1 + CC1/2)); NaN where CC1/2 < 0."""
    cc_half = np.asarray(cc_half, float)
    positive = np.where(cc_half >= 0, cc_half, np.nan)
    return np.sqrt(2 * positive / (1 + positive))


def _three_ways(estimate: Callable[[_Groups], Precision], shell: np.ndarray, n_shells: int) -> MapQuality:
    one = np.zeros_like(shell)
    with np.errstate(divide="ignore", invalid="ignore"):  # empty shells
        shells = estimate(_Groups(shell, shell, n_shells))
        total, anisotropic = (estimate(_Groups(means, one, 1)) for means in (one, shell))
    return MapQuality(shells, *(Precision(*(value[0] for value in whole)) for whole in (total, anisotropic)))


def _precision(cc: np.ndarray, error: np.ndarray) -> Precision:
    return Precision(cc, error, cc_star(cc))


def _sums(values: np.ndarray, groups: _Groups) -> np.ndarray:
    return np.bincount(groups.of_sum, values, minlength=groups.n_sums)


def _deviations(values: np.ndarray, m: np.ndarray, groups: _Groups) -> np.ndarray:
    """Values less the weighted mean of their group, [n]."""
    means = np.bincount(groups.of_mean, m * values) / np.bincount(groups.of_mean, m)
    return values - means[groups.of_mean]


def _bessel(m: np.ndarray, groups: _Groups) -> np.ndarray:
    """What divides sum m (y - mean)^2 for an unbiased variance: sum m - sum m^2 / sum m, added up over the means."""
    share_of_mean = m / np.bincount(groups.of_mean, m)[groups.of_mean]
    lost = m * share_of_mean
    # 0 where each mean is of one orbit: rounding must not leave a divisor.
    left = _sums(m, groups) - _sums(lost, groups)
    return np.where(left > 1e-9 * _sums(m, groups), left, np.nan)


def _effective_number(m: np.ndarray, groups: _Groups) -> np.ndarray:
    return _sums(m, groups) ** 2 / _sums(m**2, groups)


def _means_removed(groups: _Groups) -> np.ndarray:
    """How many means the orbits of each sum had removed."""
    first = np.unique(groups.of_mean, return_index=True)[1]
    return np.bincount(groups.of_sum[first], minlength=groups.n_sums)


# ---- as a run writes it down ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MeasuredQuality:
    """The precision of a map; source: what it is known from, "half-sets" or "sigmas"."""

    source: str
    found: MapQuality

    def as_json(self) -> dict[str, Any]:
        """NaN becomes null."""
        shells = [_row(Precision(*values)) for values in zip(*self.found.shells)]
        whole = {name: _row(getattr(self.found, name)) for name in ("total", "anisotropic")}
        return {"source": self.source, **whole, "shells": shells}


def map_quality(orbits: OrbitMap, n_shells: int) -> MeasuredQuality | None:
    """From half-sets, which see all errors that differ between them, else from sigmas; None where a map has neither."""
    about = orbits.multiplicity, orbits.shell, n_shells
    if orbits.halves is not None:
        return MeasuredQuality("half-sets", quality_from_halves(*orbits.halves.T, *about))
    if orbits.sigma is not None:
        return MeasuredQuality("sigmas", quality_from_sigmas(orbits.observed, orbits.sigma, *about))
    return None


def number_or_none(value: float) -> float | None:
    """The value for JSON: None where it is not finite."""
    return float(value) if np.isfinite(value) else None


def _row(precision: Precision) -> dict[str, float | None]:
    return {name: number_or_none(value) for name, value in precision._asdict().items()}
