"""Noise of force maps from the mean products of reduced forces (``kinds.force_map.maps``): what it is, and how much of
it is hidden by the fit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg

# Independent frames for each free coefficient that keep the noise of new frames within 1% of the least possible:
# p / (3 T - p) = 0.01 at T = 101 p / 3.
FRAMES_PER_COEFFICIENT = 33


def mean_square(C: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Mean |F_I|^2 per component, [..., N], of the map C [N, q] in each Gram matrix [..., q, q]."""
    return np.einsum("nq,...nq->...n", C, C @ gram)


def local_mean_square(C: np.ndarray, subgrams: np.ndarray, support: np.ndarray) -> np.ndarray:
    """``mean_square`` from the sub-Grams [..., N, k + 1, k + 1] of a support that holds all of the map."""
    N = len(support)
    groups = np.where(support >= 0, np.take_along_axis(C[:, :-N], np.maximum(support, 0), axis=1), 0.0)
    c = np.hstack([groups, np.diagonal(C[:, -N:])[:, None]])
    return np.einsum("nk,...nkl,nl->...n", c, subgrams, c, optimize=True)


def residual_matrix(C: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Mean F_I F_J per component, [N, N]."""
    return C @ gram @ C.T


class Optimism(NamedTuple):
    """The noise that least squares with p free coefficients hides, for T independent frames of 3 components."""

    least: np.ndarray  # mean square of the best map of infinitely many frames, s2
    held_out: np.ndarray  # of the fitted map on new frames: s2 (1 + p / (3 T - p)); infinite where 3 T <= p
    ratio: np.ndarray  # held_out / fitted


def optimism(mean_square_train: np.ndarray, p: np.ndarray, n_frames: float) -> Optimism:
    """The law fitted = s2 (1 - p / 3T), held out = s2 (1 + p / (3T - p)), elementwise.

    mean_square_train: of the frames that the map was fitted to; n_frames: statistically independent ones.
    """
    share = np.minimum(np.asarray(p, float) / (3 * n_frames), 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(share < 1, 1 / (1 - share) ** 2, np.inf)
        least = np.where(share < 1, mean_square_train / (1 - share), np.nan)
        held_out = np.where(share < 1, least / (1 - share), np.inf)
    return Optimism(least, held_out, ratio)


class NoiseMap(NamedTuple):
    """The optimal map to beads with Gaussian noise, y = R + eps: F = Lambda1 F_R + Lambda2 n."""

    Lambda1: np.ndarray  # [N, N], times the optimal mapped force at R
    Lambda2: np.ndarray  # [N, N], times the force of the noise n = -kT (y - R) / variance
    residual: np.ndarray  # mean F_I F_J per component, [N, N]


def noise_map(V1: np.ndarray, variance: float, kT: float) -> NoiseMap:
    """Force map to noised beads (Durumeric and others, arXiv:2407.01286) in closed form.

    V1: [N, N], ``residual_matrix`` of the optimal map; variance: of the noise per component, A^2; kT: kJ/mol. With V2 =
    kT^2 / variance, the mean square of n, and both forces uncorrelated, the residual is (V1^-1 + V2^-1)^-1.
    """
    V2 = kT**2 / variance * np.eye(len(V1))
    Lambda2 = scipy.linalg.solve(V1 + V2, V1, assume_a="pos").T
    return NoiseMap(np.eye(len(V1)) - Lambda2, Lambda2, Lambda2 @ V2)
