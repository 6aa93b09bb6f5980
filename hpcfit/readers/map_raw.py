"""A measured map as its file has it, whatever the format."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class RawMap(NamedTuple):
    """A map before anything is left out; None stands for what its file does not say.

    hkl: [N, 3] integers, Miller index hkl / ndiv. use: [N] bool. halves: [N, 2], two independent merges of the voxels.
    units: of intensity and sigma, "" where they are not known.
    """

    hkl: np.ndarray
    intensity: np.ndarray
    sigma: np.ndarray | None
    use: np.ndarray
    ndiv: tuple[int, int, int] | None
    cell: tuple | None
    space_group: str | None
    halves: np.ndarray | None = None
    units: str = ""
