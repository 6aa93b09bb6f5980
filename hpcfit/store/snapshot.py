"""What a trajectory holds, whatever its format: snapshots of atoms that stay the same."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Snapshot(NamedTuple):
    """One frame of a file: positions [N, 3] A, box [3, 3] A (rows) or None, forces [N, 3] kJ/mol/A or None, time ps."""

    positions: np.ndarray
    box: np.ndarray | None
    forces: np.ndarray | None
    time: float | None


class Topology(NamedTuple):
    """What does not change: elements of the N atoms and the cell of the box (A, degrees) if the file has one."""

    elements: tuple[str, ...]
    cell: tuple[float, ...] | None
