"""A map indexed in another setting than the frames: axes named otherwise, as "k,h,-l"."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpcfit.errors import InputError
from hpcfit.physics.reciprocal import metric


def operator(text: str) -> np.ndarray:
    """[3, 3] integers M of an operator such as "k,h,-l": the new index is M h. Raises InputError unless it is a change
    of axes, of determinant 1: a determinant of -1 would change the hand of the crystal."""
    import gemmi

    try:
        # gemmi keeps what h,k,l become in columns, as they multiply from the left.
        rotation = np.array(gemmi.Op(text).rot).T / gemmi.Op.DEN
    except RuntimeError:
        rotation = None
    if rotation is None or not set(text) & set("hkl"):
        raise InputError(f"[experiment] reindex = '{text}' is no operator", remedy='write it as "k,h,-l"') from None
    if np.any(rotation % 1) or round(np.linalg.det(rotation)) != 1:
        raise InputError(
            f"[experiment] reindex = '{text}' has the determinant {np.linalg.det(rotation):g}: it is no change of axes"
            " that keeps the hand",
            remedy='use an operator such as "k,h,-l" or "l,h,k"',
        )
    return rotation.astype(int)


def reindexed(hkl: np.ndarray, ndiv: tuple, cell: tuple, M: np.ndarray, path: Path) -> tuple[np.ndarray, tuple, tuple]:
    """hkl [N, 3], ndiv and cell in the new setting."""
    moved = np.abs(M) @ np.asarray(ndiv)
    if np.any(np.count_nonzero(M, axis=1) > 1):
        if len(set(ndiv)) > 1:
            raise InputError(
                f"{path}: ndiv = {tuple(ndiv)} differs along axes that [experiment] reindex mixes",
                remedy="reindex the map itself, or use an operator that only renames axes",
            )
        moved = np.asarray(ndiv)
    # The axes go with the indices: a' = M a, so that h . x stays what it is.
    g = M @ metric(cell) @ M.T
    lengths = np.sqrt(np.diag(g))
    cosines = [g[i, j] / (lengths[i] * lengths[j]) for i, j in ((1, 2), (0, 2), (0, 1))]
    return hkl @ M.T, tuple(int(n) for n in moved), (*lengths.tolist(), *np.degrees(np.arccos(cosines)).tolist())
