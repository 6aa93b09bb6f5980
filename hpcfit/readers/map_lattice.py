"""Measured maps from LUNUS lattices (.lat).

uint32 nx, ny, nz, then float32 xlo, xhi, ylo, yhi, zlo, zhi (A^-1), then float32 values, x fastest, in either byte
order; h = i - int(-lo / step + 0.5) with step = (hi - lo) / (n - 1).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpcfit.config import ExperimentConfig
from hpcfit.errors import InputError
from hpcfit.readers.map_raw import RawMap

LAT_MASK = -32768.0
LAT_HEADER_BYTES = 36


def read_lattice(path: Path, experiment: ExperimentConfig) -> RawMap:
    """A lattice of one value a voxel; raises InputError when it is not whole, or when its steps are of another cell."""
    if experiment.halves is not None:
        raise InputError(
            f"{path} is a lattice of one value a voxel; [experiment] halves = {list(experiment.halves)} names columns",
            remedy="write intensity, half1 and half2 into one .npz",
        )
    order = _byte_order(path)
    with open(path, "rb") as file:
        shape = np.fromfile(file, f"{order}u4", 3).astype(int)
        low, high = np.fromfile(file, f"{order}f4", 6).astype(float).reshape(3, 2).T
        values = np.fromfile(file, f"{order}f4").astype(float)
    step = (high - low) / (shape - 1)
    if not np.all(step > 0):
        raise InputError(f"{path}: limits {low} to {high} A^-1 are not in ascending order", remedy="repair its header")
    origin = (-low / step + 0.5).astype(int)
    k, j, i = np.unravel_index(np.arange(values.size), shape[::-1])
    hkl = np.stack([i, j, k], axis=1) - origin
    # Lattices of the 1990s mark voxels without data by zeros.
    missing = LAT_MASK if np.any(values == LAT_MASK) else 0.0
    found = tuple(1 / (step * (experiment.ndiv or (1, 1, 1))))
    _check_cell(path, experiment.cell, found)
    return RawMap(hkl, values, None, values != missing, None, experiment.cell or (*found, 90.0, 90.0, 90.0), None)


def _byte_order(path: Path) -> str:
    """The byte order in which the header gives the size of the file."""
    size, raw = path.stat().st_size, path.read_bytes()[:12]
    expected = {}
    for order in "<>":
        shape = np.frombuffer(raw[: len(raw) // 4 * 4], f"{order}u4").astype(object)
        expected[order] = LAT_HEADER_BYTES + 4 * int(np.prod(shape))
        if len(shape) == 3 and expected[order] == size:
            return order
    newer = len(raw) == 12 and 1 in (raw[0], raw[3])
    what = "looks like a lattice of the newer LUNUS format with a cell" if newer else "is not a whole LUNUS lattice"
    raise InputError(
        f"{path} {what}: it has {size} bytes, its header asks for {min(expected.values())}",
        remedy="copy it again, or convert it to .npz with hkl and intensity",
    )


def _check_cell(path: Path, cell, found) -> None:
    if cell is None or not np.allclose(cell[3:], 90):
        return
    if not np.allclose(cell[:3], found, rtol=0.01):
        raise InputError(
            f"{path} has steps of a cell {np.round(found, 3).tolist()} A, [experiment] cell = {list(cell)}",
            remedy="correct cell, or ndiv if the lattice samples between the Bragg peaks",
        )
