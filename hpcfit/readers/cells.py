"""The cell of a box, and the cell that a file says, where there is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpcfit.errors import InputError
from hpcfit.physics.scattering import orthogonalization
from hpcfit.store.frame import PERIODIC
from hpcfit.store.positions import check_volume


def cell_of(box: np.ndarray) -> tuple[float, ...]:
    """Lengths (A) and angles (degrees) of a box [3, 3], whatever its orientation."""
    lengths = np.linalg.norm(box, axis=1)
    pairs = ((1, 2), (0, 2), (0, 1))
    cosines = [np.dot(box[i], box[j]) / max(lengths[i] * lengths[j], 1e-300) for i, j in pairs]
    # 90 - asin is 90 exactly for a right angle
    return (*map(float, lengths), *(90.0 - float(np.degrees(np.arcsin(np.clip(one, -1, 1)))) for one in cosines))


def sound_cell(path: Path, cell) -> tuple[float, ...] | None:
    """The cell (A, degrees) that a file says, None where it says that there is none.

    Raises InputError, naming the file, for lengths and angles that are those of no cell.
    """
    found = cell_or_none(cell)
    if found is None:
        return None
    if not (np.all(np.isfinite(found)) and all(0 < angle < 180 for angle in found[3:])):
        raise InputError(f"{path}: there is no cell of {found}", remedy="correct its lengths (A) and angles (degrees)")
    with np.errstate(invalid="ignore"):
        check_volume(f"{path}, cell {found}", orthogonalization(found).T, PERIODIC)
    return found


def cell_or_none(cell) -> tuple[float, ...] | None:
    # A CRYST1 of 1 x 1 x 1 A says that there is no cell.
    if cell is None or min(cell[:3]) <= 1.0:
        return None
    return tuple(map(float, cell))
