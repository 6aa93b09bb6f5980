"""What the file of a measured map says, whatever its format."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class RawMap(NamedTuple):
    """What a file says, before anything is left out; None where the file says nothing.

    hkl: [N, 3] integers, Miller index hkl / ndiv. use: [N] bool. halves: [N, 2], two independent merges of the voxels.
    """

    hkl: np.ndarray
    intensity: np.ndarray
    sigma: np.ndarray | None
    use: np.ndarray
    ndiv: tuple[int, int, int] | None
    cell: tuple | None
    space_group: str | None
    halves: np.ndarray | None = None
