"""One frame, as every source of frames gives it and every shard takes it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Frame(NamedTuple):
    """One frame as a source gives it.

    structure_factors: [H] complex128, electrons, in the store's order of reflections.
    """

    index: int
    structure_factors: np.ndarray
    positions: np.ndarray | None = None  # [N, 3], A
    box: np.ndarray | None = None  # [3, 3], A, rows are the cell vectors
    forces: np.ndarray | None = None  # [N, 3], kJ/mol/A
    time: float | None = None  # ps
    file: str = ""  # where it is not the source's own file (a folder of MTZ files)
