"""Least squares on frames whose moments are summed by blocks: slopes, errors by resamples of blocks, held-out R².

A frame has the row z = (1, x_1 ... x_P, y) and a weight; a block of frames has the sum of weight · z zᵀ. Every fit, of
all frames, of a resample or without the blocks of a fold, is a sum of those matrices: the frames are read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ROUNDING = 1e-10  # relative: what is left of a variance below this is rounding


class Regression(NamedTuple):
    """Slopes of y on some columns.

    slopes: [p], in units of y per unit of each column. errors: [p] standard deviations over resamples of blocks; NaN
    where there are no resamples, or where a column does not vary in one. r2: the share of the variance of y that the
    fit explains; r2_held_out: 1 - squared errors of the left-out blocks / those of the mean of the fitted ones, which
    is below 0 where a column tells less than nothing. Both are NaN where they are not defined. dependent: whether the
    columns depend linearly on each other, so that only their sum is determined; the smallest slopes are given then.
    """

    slopes: np.ndarray
    errors: np.ndarray
    r2: float
    r2_held_out: float
    dependent: bool


class BlockMoments(NamedTuple):
    """Moments of blocks, and how they are left out and drawn.

    sums: [B, P + 2, P + 2], sum of weight · z zᵀ of the frames of each block. fold: [B], the fold that leaves the block
    out. counts: [R, B], how often each resample draws the block.
    """

    sums: np.ndarray
    fold: np.ndarray
    counts: np.ndarray


def moments_by_block(x: np.ndarray, y: np.ndarray, weight: np.ndarray, block: np.ndarray, n_blocks: int) -> np.ndarray:
    """Sum of weight · z zᵀ of each block, [B, P + 2, P + 2].

    x: [T, P], of mean 0 and variance 1 so that no digits are lost. y, weight, block: [T].
    """
    z = np.column_stack([np.ones(len(y)), x, y])
    order = np.argsort(block, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(block, minlength=n_blocks))[:-1])
    return np.stack([(z[rows] * weight[rows, None]).T @ z[rows] for rows in parts])


def regression(moments: BlockMoments, columns: Sequence[int]) -> Regression:
    """The least-squares fit of y on some of the columns, 0 ... P - 1, together, with a constant."""
    kept = [0, *(number + 1 for number in columns), -1]
    sums = moments.sums[:, kept][:, :, kept]
    whole = sums.sum(axis=0)
    slopes, dependent = _slopes(whole)
    resampled = [_slopes(total) for total in np.tensordot(moments.counts, sums, axes=1)]
    return Regression(
        slopes, _errors(resampled, dependent, len(columns)), *_shares(whole, sums, moments.fold), dependent
    )


def _errors(resampled: Sequence[tuple[np.ndarray, bool]], dependent: bool, n: int) -> np.ndarray:
    """Standard deviations of slopes; NaN where they are determined in some fits and not in others."""
    if len(resampled) < 2 or any(of_one != dependent for _, of_one in resampled):
        return np.full(n, np.nan)
    return np.std([slopes for slopes, _ in resampled], axis=0, ddof=1)


def _shares(whole: np.ndarray, sums: np.ndarray, fold: np.ndarray) -> tuple[float, float]:
    """R² of the fit to all blocks, and of each fold predicted by the others."""
    r2 = _explained([(whole, whole)])
    folds = [sums[fold == number].sum(axis=0) for number in np.unique(fold)]
    return r2, _explained([(whole - left_out, left_out) for left_out in folds]) if len(folds) > 1 else np.nan


def _explained(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """1 - squared errors / squared deviations from the mean, of what is judged by fits to what is fitted."""
    errors = deviations = 0.0
    for fitted, judged in pairs:
        if fitted[0, 0] <= 0:
            return np.nan
        slopes, _ = _slopes(fitted)
        mean = fitted[0, 1:] / fitted[0, 0]
        # y - prediction = v·z for v = (-constant, -slopes, 1).
        v = np.concatenate([[-(mean[-1] - slopes @ mean[:-1])], -slopes, [1.0]])
        flat = np.concatenate([[-mean[-1]], np.zeros(len(slopes)), [1.0]])
        errors, deviations = errors + v @ judged @ v, deviations + flat @ judged @ flat
    size = sum(judged[-1, -1] for _, judged in pairs)
    return 1 - errors / deviations if deviations > ROUNDING * size else np.nan


def _slopes(total: np.ndarray) -> tuple[np.ndarray, bool]:
    """The slopes by summed moments, and whether the columns depend linearly on each other (or do not vary)."""
    if total[0, 0] <= 0:
        return np.zeros(len(total) - 2), True
    mean = total[0, 1:] / total[0, 0]
    covariance = total[1:, 1:] / total[0, 0] - np.outer(mean, mean)
    size = np.sqrt(np.maximum(np.diag(total)[1:-1] / total[0, 0], np.finfo(float).tiny))
    scaled = covariance[:-1, :-1] / np.outer(size, size)
    variance, directions = np.linalg.eigh(scaled)
    directions, variance = directions[:, variance > ROUNDING], variance[variance > ROUNDING]
    solved = directions @ (directions.T @ (covariance[:-1, -1] / size) / variance)
    return solved / size, len(variance) < len(size)
