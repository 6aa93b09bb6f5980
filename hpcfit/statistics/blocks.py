"""Errors of means over statistical blocks and folds, by jackknife and bootstrap; correlation in time.

A statistical block is a part of the data that is independent of the others: contiguous frames of a trajectory, longer
than they remember, or a walker. Arrays of blocks have them along the first axis, [B, ...].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A mean over blocks and its standard error."""

    value: float
    error: float

    @property
    def z(self) -> float:
        """The value in standard errors; 0 where both are 0."""
        return self.value / self.error if self.error > 0 else 0.0 if self.value == 0 else np.inf * np.sign(self.value)


def block_mean(values: np.ndarray, rows: np.ndarray) -> Estimate:
    """The mean of block means [B] that have so many rows [B], and its standard error."""
    share = rows / rows.sum()
    return Estimate(float(share @ values), float(weighted_error(values, share)))


def weighted_error(values: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The standard error of the weighted mean of block means [B, ...]; share: [B], weights that sum to 1."""
    n = len(values)
    deviation = share.reshape(n, *[1] * (np.ndim(values) - 1)) * (values - share @ values)
    return np.sqrt(n / (n - 1) * np.sum(deviation**2, axis=0))


def mean_with_error(values: Sequence[float]) -> Estimate:
    """The mean of values that count alike, and its standard error; NaN for a single one."""
    n = len(values)
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else np.nan)


def parts_of(n: int, most: int = 64) -> list[np.ndarray]:
    """The numbers below n in at most so many parts, whose sizes differ by one at most: statistical blocks of things
    that are independent, where one a block would be many."""
    return np.array_split(np.arange(n), min(n, most)) if n else []


def left_out_of(n: int) -> list[np.ndarray]:
    """The numbers below n, and these without each of the parts (``parts_of``) that a jackknife leaves out."""
    whole = np.arange(n)
    return [whole, *(np.delete(whole, part) for part in parts_of(n))]


def jackknife_error(left_out: np.ndarray) -> np.ndarray:
    """The standard error of an estimate, from those without each block [B, ...]; NaN for a single block.

    Quenouille 1956, 10.1093/biomet/43.3-4.353.
    """
    n = len(left_out)
    if n < 2:
        return np.full(np.shape(left_out)[1:], np.nan)
    return np.sqrt((n - 1) / n * np.sum((left_out - left_out.mean(axis=0)) ** 2, axis=0))


def bootstrap_error(estimate: Callable[[np.ndarray], np.ndarray], n: int, resamples: int, seed: int) -> np.ndarray:
    """The standard deviation of ``estimate(counts)`` over resamples of n blocks; counts: [n], how often each is drawn.

    The sums are formed as the resamples come: an estimate may be large. Efron 1979, 10.1214/aos/1176344552.
    """
    random, first, second = np.random.default_rng([seed, 0]), 0.0, 0.0
    for _ in range(resamples):
        found = estimate(random.multinomial(n, np.full(n, 1 / n)).astype(float))
        first, second = first + found / resamples, second + found**2 / resamples
    return np.sqrt(np.maximum(second - first**2, 0) * resamples / max(resamples - 1, 1))


# ---- correlation in time -------------------------------------------------------------------------------------------

ROUNDING = 1e-12  # relative to the largest value of a series


def squares_of_means(x: np.ndarray, spans: Sequence[int]) -> np.ndarray:
    """Mean squares of the means of x [T, n, k] over ``spans`` successive frames, times T: [k, spans], to be added up.

    T is a multiple of each span.
    """
    means = [x.reshape(len(x) // span, span, -1, x.shape[-1]).mean(axis=1) for span in spans]
    return np.stack([(mean**2).mean(axis=(0, 1)) * len(x) for mean in means], axis=-1)


def inefficiency_of_spans(squares: np.ndarray, spans: Sequence[int]) -> np.ndarray:
    """g(s) = s <(mean over s frames)^2> / <x^2> of ``squares_of_means`` [k, spans], the first span being 1: 1 for
    independent frames of mean 0, and what it grows to with memory (Flyvbjerg & Petersen 1989, 10.1063/1.457480)."""
    return squares * np.array(spans) / np.maximum(squares[:, :1], np.finfo(float).tiny)


def inefficiency(x: np.ndarray) -> float:
    """Statistical inefficiency of a series [T], the number of successive frames that are worth one.

    g = 1 + 2 sum_t (1 - t/T) C(t), at least 1.

    C is the autocorrelation about the mean, summed while pairs C(2k) + C(2k + 1) are positive (Geyer 1992,
    10.1214/ss/1177011137), after which it is noise. NaN for a series that changes by rounding alone: it tells nothing.
    """
    n, deviation = len(x), np.asarray(x, float) - np.mean(x)
    if not np.any(np.abs(deviation) > ROUNDING * np.max(np.abs(x))):
        return np.nan
    spectrum = np.fft.rfft(deviation, _fast_length(2 * n))
    weighted = np.fft.irfft(np.abs(spectrum) ** 2)[:n]  # (T - t) times the autocovariance
    C = weighted / weighted[0]  # (1 - t/T) C(t)
    pairs = C[: n // 2 * 2].reshape(-1, 2).sum(axis=1)
    negative = np.flatnonzero(pairs <= 0)
    return max(1.0, 2 * float(pairs[: negative[0] if len(negative) else len(pairs)].sum()) - 1)


def _fast_length(n: int) -> int:
    """The least length from n on that is a product of 2, 3 and 5: those that Fourier transforms are fast at."""
    odd = [3**b * 5**c for b in range(n.bit_length()) for c in range(n.bit_length()) if 3**b * 5**c < 2 * n]
    return min(factor << (-(-n // factor) - 1).bit_length() for factor in odd)


def inefficiencies(x: np.ndarray, source: np.ndarray) -> np.ndarray:
    """The statistical inefficiency of a quantity x [T] along each source, [sources] by ascending number; NaN where it
    does not change. source: [T] number of each frame's source, the frames of one in the order of time."""
    return np.array([inefficiency(x[source == name]) for name in np.unique(source)])


def effective_frames(x: np.ndarray, source: np.ndarray) -> np.ndarray:
    """The number of independent frames that those of each source are worth, [sources] by ascending number; NaN where
    the quantity does not change. As ``inefficiencies``."""
    return np.unique(source, return_counts=True)[1] / inefficiencies(x, source)
