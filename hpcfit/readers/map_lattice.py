"""Measured maps from LUNUS lattices (.lat), and maps written as such.

uint32 nx, ny, nz, then float32 xlo, xhi, ylo, yhi, zlo, zhi (A^-1), then float32 values, x fastest, in either byte
order; h = i - int(-lo / step + 0.5) with step = (hi - lo) / (n - 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpcfit.config import ExperimentConfig
from hpcfit.errors import InputError
from hpcfit.log import inputs
from hpcfit.readers.map_raw import RawMap
from hpcfit.store.files import written_whole

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


def write_lattice(path: Path, found: RawMap, about: Sequence[str]) -> None:
    """Write a map as a lattice, float32, little-endian, h = k = l = 0 in its middle; voxels without data hold LAT_MASK.

    Steps are 1/(a ndiv), 1/(b ndiv), 1/(c ndiv) in A^-1. The format has no room for errors, for angles or for words.
    """
    if not np.allclose(found.cell[3:], 90):
        inputs.warning("%s: a lattice keeps no angles of its cell, %s degrees", path, list(map(float, found.cell[3:])))
    top = np.maximum(np.abs(found.hkl).max(axis=0), 1)
    grid = np.full(2 * top[::-1] + 1, LAT_MASK, "<f4")
    grid[tuple((found.hkl + top).T[::-1])] = found.intensity
    high = top / np.multiply(found.cell[:3], found.ndiv)
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        file.write((2 * top + 1).astype("<u4").tobytes())
        file.write(np.stack([-high, high], axis=1).astype("<f4").tobytes())
        file.write(grid.tobytes())
