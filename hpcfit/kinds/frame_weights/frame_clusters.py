"""Structural groups of frames, found in coordinates that the user gives: a start of the fit for each of them."""

from __future__ import annotations

import numpy as np

from hpcfit.errors import InputError

RESTARTS = 20
ITERATIONS = 50


def k_means(coordinates: np.ndarray, k: int, seed: int) -> np.ndarray:
    """The cluster of each frame, [T] in 0 ... k - 1, numbered by first appearance; each has a frame.

    coordinates: [T, d], any units: every column is brought to mean 0 and variance 1 (a constant one says nothing). Of
    several starts by k-means++ (Arthur & Vassilvitskii, SODA 2007, 1027) the one with the smallest sum of squares is
    kept. The rows are clustered in sorted order, so that the order of the frames decides the numbers only. Raises
    InputError where a coordinate is not finite, or there are fewer distinct rows than clusters.
    """
    _check(coordinates, k)
    order = np.lexsort(coordinates.T)
    label = np.empty(len(coordinates), int)
    label[order] = _best_of_starts(_standardised(coordinates[order]), k, np.random.default_rng(seed))
    return _numbered_by_appearance(label)


def _check(coordinates: np.ndarray, k: int) -> None:
    if not np.all(np.isfinite(coordinates)):
        row, column = np.argwhere(~np.isfinite(coordinates))[0]
        raise InputError(
            f"coordinate {column} of frame {row} (counted from 0) is {coordinates[row, column]}:"
            f" {len(coordinates)} frames cannot be clustered",
            remedy="give finite coordinates for every frame",
        )
    distinct = len(np.unique(coordinates, axis=0))
    if k > distinct:
        raise InputError(
            f"{k} clusters of {len(coordinates)} frames that have {distinct} distinct rows of coordinates",
            remedy=f"ask for at most {distinct} clusters, or give coordinates that tell the frames apart",
        )


def _standardised(coordinates: np.ndarray) -> np.ndarray:
    centred = coordinates - coordinates.mean(axis=0)
    deviation = centred.std(axis=0)
    # What rounding leaves of a constant column must not become its variance.
    constant = deviation <= 1e-12 * np.abs(coordinates).max(axis=0)
    return np.where(constant, 0, centred / np.where(constant, 1, deviation))


def _best_of_starts(standardised: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    from scipy.cluster.vq import ClusterError, kmeans2

    best, least = None, np.inf
    for generator in rng.spawn(RESTARTS):
        try:
            centre, label = kmeans2(standardised, k, ITERATIONS, minit="++", missing="raise", seed=generator)
        except ClusterError:  # a cluster lost its last frame on the way
            continue
        sum_of_squares = np.sum((standardised - centre[label]) ** 2)
        if sum_of_squares < least:
            best, least = label, sum_of_squares
    if best is None:
        raise InputError(
            f"{k} clusters of {len(standardised)} frames: one of them was left empty in each of {RESTARTS} starts",
            remedy="ask for fewer clusters",
        )
    return best


def _numbered_by_appearance(label: np.ndarray) -> np.ndarray:
    first, inverse = np.unique(label, return_index=True, return_inverse=True)[1:]
    number = np.empty(len(first), int)
    number[np.argsort(first)] = np.arange(len(first))
    return number[inverse]
