"""Structures laid upon each other."""

from __future__ import annotations

import numpy as np


def rmsd(R: np.ndarray, reference: np.ndarray, *, mirrored: bool = False) -> np.ndarray:
    """Root mean squared deviation [T] of frames [T, N, 3] from one [N, 3], in their unit of length, at the best
    superposition (Kabsch 1976, 10.1107/S0567739476001873).

    mirrored: a frame may be its mirror image too; the lesser deviation counts.
    """
    a = np.asarray(R, float) - np.mean(R, axis=1, keepdims=True)
    b = np.asarray(reference, float) - np.mean(reference, axis=0)
    covariance = np.einsum("tix,iy->txy", a, b)
    s = np.linalg.svd(covariance, compute_uv=False)
    if not mirrored:
        s[:, -1] *= np.sign(np.linalg.det(covariance))
    square = (a**2).sum(axis=(1, 2)) + (b**2).sum() - 2 * s.sum(axis=1)
    return np.sqrt(np.maximum(square, 0) / len(b))
