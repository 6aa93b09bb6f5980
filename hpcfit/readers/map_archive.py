"""Measured maps from NumPy archives (.npz).

Arrays hkl [N, 3], intensity [N], and optionally sigma [N], mask [N] (True: use), half1 and half2 [N], ndiv, cell,
space_group.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hpcfit.config import ExperimentConfig
from hpcfit.errors import InputError
from hpcfit.readers.boundary import loaded_archive, reading
from hpcfit.readers.map_raw import RawMap

HALVES = ("half1", "half2")


def read_archive(path: Path, experiment: ExperimentConfig) -> RawMap:
    """An archive; raises InputError when it is damaged, or when an array is missing or of another length."""
    arrays = _loaded(path)
    hkl = _array(arrays, "hkl", path)
    numbers = hkl.dtype.kind in "fiu"
    if not numbers or hkl.ndim != 2 or hkl.shape[1] != 3 or not np.array_equal(hkl, np.rint(hkl)):
        raise InputError(
            f"{path}: hkl of shape {hkl.shape} are not integers [N, 3]",
            remedy="multiply fractional indices by ndiv, and store ndiv",
        )
    intensity = _array(arrays, experiment.intensity or "intensity", path, len(hkl))
    has_sigma = experiment.sigma is not None or "sigma" in arrays
    sigma = _array(arrays, experiment.sigma or "sigma", path, len(hkl)) if has_sigma else None
    use = _mask(arrays, path, len(hkl))
    group = str(arrays["space_group"]) if "space_group" in arrays else None
    ndiv, cell = (_few(arrays, name, path) for name in ("ndiv", "cell"))
    return RawMap(hkl, intensity, sigma, use, ndiv, cell, group, _halves(arrays, experiment, path, len(hkl)))


def _mask(arrays: dict, path: Path, length: int) -> np.ndarray:
    """Which voxels are used, [N] bool; all without a mask."""
    if "mask" not in arrays:
        return np.ones(length, bool)
    mask = _array(arrays, "mask", path, length)
    if mask.dtype.kind not in "biuf" or not np.all((mask == 0) | (mask == 1)):
        strange = next(value for value in mask.tolist() if value not in (0, 1))
        raise InputError(
            f"{path}: mask of type {mask.dtype} has {strange!r}", remedy="store True and False, or 0 and 1"
        )
    return mask.astype(bool)


def _few(arrays: dict, name: str, path: Path) -> tuple[float, ...] | None:
    """The numbers of ndiv or cell."""
    if name not in arrays:
        return None
    if arrays[name].dtype.kind not in "fiu":
        raise InputError(f"{path}: {name} of type {arrays[name].dtype}", remedy="store numbers")
    return tuple(np.ravel(arrays[name]).tolist())


def _loaded(path: Path) -> dict[str, np.ndarray]:
    whole = reading(f"{path} is not a NumPy archive", "write it with numpy.savez")
    with whole, loaded_archive(path) as archive:
        return {name: archive[name] for name in archive.files}


def _halves(arrays: dict, experiment: ExperimentConfig, path: Path, length: int) -> np.ndarray | None:
    if experiment.halves is None and not any(name in arrays for name in HALVES):
        return None
    names = experiment.halves or HALVES
    return np.stack([_array(arrays, name, path, length) for name in names], axis=1)


def _array(arrays: dict, name: str, path: Path, length: int | None = None) -> np.ndarray:
    if name not in arrays:
        raise InputError(
            f"{path} has no array '{name}'; it has {', '.join(arrays)}",
            remedy="name the arrays hkl and intensity, or set [experiment] intensity, sigma and halves",
        )
    if length is not None and arrays[name].shape != (length,):
        raise InputError(
            f"{path}: '{name}' has shape {arrays[name].shape}, hkl has {length} rows",
            remedy="store one value for each row of hkl",
        )
    return arrays[name]
