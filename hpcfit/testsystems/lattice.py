"""LUNUS lattices with known content; ``hpcfit.readers.map_lattice`` reads them and says what the format is."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.store.files import written_whole


class LatHeader(NamedTuple):
    """Limits of a LUNUS lattice along x, y, z in A^-1, and its byte order ("<" or ">")."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    byte_order: str = "<"


def lat_header(shape, origin, cell, byte_order: str = "<") -> LatHeader:
    """The header of a lattice with hkl = 0 at voxel `origin` and steps 1/a, 1/b, 1/c (orthogonal cell, A)."""
    step = 1 / np.asarray(cell[:3], float)
    low = -np.asarray(origin) * step
    return LatHeader(tuple(low), tuple(low + (np.asarray(shape) - 1) * step), byte_order)


def write_lat(path: Path, grid: np.ndarray, header: LatHeader) -> None:
    """Write a lattice [nx, ny, nz]; voxels without data hold LAT_MASK."""
    order = header.byte_order
    limits = np.stack([header.low, header.high], axis=1).ravel()
    with written_whole(Path(path)) as temporary, open(temporary, "wb") as file:
        file.write(np.asarray(grid.shape, f"{order}u4").tobytes() + limits.astype(f"{order}f4").tobytes())
        file.write(np.asarray(grid, f"{order}f4").tobytes(order="F"))
