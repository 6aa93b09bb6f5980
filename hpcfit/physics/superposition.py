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


def superposed(R: np.ndarray, reference: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Frames [T, N, 3] moved and turned, without mirroring, so that their atoms ``chosen``, which count alike, lie best
    upon those of one [N, 3] (Kabsch 1976, 10.1107/S0567739476001873); float64."""
    R, b = np.asarray(R, float), np.asarray(reference, float)[chosen]
    centre, middle = R[:, chosen].mean(axis=1, keepdims=True), b.mean(axis=0)
    covariance = np.einsum("tix,iy->txy", R[:, chosen] - centre, b - middle)
    u, _, v = np.linalg.svd(covariance)
    # The axis of the least singular value is turned round where the best orthogonal matrix is a mirror. The sign is not
    # that of the covariance, whose determinant is 0 for atoms in a plane.
    u[:, :, -1] *= np.sign(np.linalg.det(u @ v))[:, None]
    return np.einsum("tix,txz,tzy->tiy", R - centre, u, v, optimize=True) + middle
