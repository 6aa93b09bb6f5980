"""Measured diffuse maps: MTZ, NumPy archives and LUNUS lattices, read into one typed list of voxels.

LUNUS lattice (.lat): uint32 nx, ny, nz, then float32 xlo, xhi, ylo, yhi, zlo, zhi (A^-1), then float32 values, x
fastest, in either byte order; h = i - int(-lo / step + 0.5) with step = (hi - lo) / (n - 1).
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.config import ExperimentConfig
from hpcfit.errors import InputError
from hpcfit.log import logger

LAT_MASK = -32768.0
LAT_HEADER_BYTES = 36
INTENSITY_COLUMNS = ("I", "IMEAN", "IOBS", "I-obs", "Idiff", "sqrtIdiff")


@dataclass(frozen=True)
class DiffuseMap:
    """The valid voxels of a measured map, as they are in the file (Friedel and Laue mates are kept apart).

    hkl [N, 3] int32 with Miller index hkl / ndiv in the unit cell; intensity [N] float64; sigma [N] float64 or None.
    masked and sigma_invalid count the voxels of the file that are not here: masked or not a number, and sigma <= 0.
    """

    hkl: np.ndarray
    ndiv: tuple[int, int, int]
    intensity: np.ndarray
    sigma: np.ndarray | None
    cell: tuple[float, float, float, float, float, float]
    space_group: str
    source: Path
    masked: int = 0
    sigma_invalid: int = 0

    def __len__(self) -> int:
        return len(self.hkl)


class RawMap(NamedTuple):
    """What a file says, before anything is left out; None where the file says nothing. use: [N] bool."""

    hkl: np.ndarray
    intensity: np.ndarray
    sigma: np.ndarray | None
    use: np.ndarray
    ndiv: tuple[int, int, int] | None
    cell: tuple | None
    space_group: str | None


def read_map(experiment: ExperimentConfig) -> DiffuseMap:
    """Read a measured map by the suffix of its file (.mtz, .npz, .lat); the config overrides what the file says.

    Raises InputError for a file that is missing, damaged, of another format, without the columns, or wholly masked.
    """
    path = Path(experiment.file)
    reader = _reader(path)
    if not path.is_file():
        raise InputError(f"[experiment] file {path} does not exist", remedy="give the path of a measured map")
    return _cleaned(reader(path, experiment), path, experiment)


def _reader(path: Path) -> Callable[[Path, ExperimentConfig], RawMap]:
    readers = {".mtz": _read_mtz, ".npz": _read_npz, ".lat": _read_lat}
    try:
        return readers[path.suffix.lower()]
    except KeyError:
        raise InputError(
            f"[experiment] file {path}: '{path.suffix}' is not a format of measured maps",
            remedy=f"give one of {', '.join(readers)}",
        ) from None


def _cleaned(raw: RawMap, path: Path, experiment: ExperimentConfig) -> DiffuseMap:
    """Leave out what cannot be used, count it, and let the config override the file."""
    good = raw.use & np.isfinite(raw.intensity)
    keep = good if raw.sigma is None else good & np.isfinite(raw.sigma) & (raw.sigma > 0)
    masked, sigma_invalid = int((~good).sum()), int((good & ~keep).sum())
    if not keep.any():
        raise InputError(
            f"{path} has no voxel to fit: of {len(keep)}, {masked} are masked or not a number and"
            f" {sigma_invalid} have sigma <= 0",
            remedy="check the columns and the mask of the file",
        )
    cell = _chosen("cell", experiment.cell, raw.cell, path)
    ndiv = _chosen("ndiv", experiment.ndiv, raw.ndiv, path, default=(1, 1, 1))
    space_group = _chosen("space_group", experiment.space_group, raw.space_group, path, default="P 1")
    logger.info("map %s: %d voxels, %d masked, %d with sigma <= 0 left out", path, keep.sum(), masked, sigma_invalid)
    sigma = None if raw.sigma is None else raw.sigma[keep].astype(np.float64)
    return DiffuseMap(
        raw.hkl[keep].astype(np.int32),
        tuple(map(int, ndiv)),
        raw.intensity[keep].astype(np.float64),
        sigma,
        tuple(map(float, cell)),
        str(space_group),
        path,
        masked,
        sigma_invalid,
    )


def _chosen(key: str, given, found, path: Path, *, default=None):
    """The config's value, or the file's, or the default; a difference is said in the log."""
    if given is None:
        if found is None and default is None:
            raise InputError(f"{path} does not say its {key}", remedy=f"set [experiment] {key}")
        return default if found is None else found
    if found is not None and not _same(given, found):
        logger.warning("%s says %s = %s; [experiment] %s = %s is used", path, key, found, key, given)
    return given


def _same(a, b) -> bool:
    return a == b if isinstance(a, str) else np.allclose(a, b, rtol=1e-4)


def _read_npz(path: Path, experiment: ExperimentConfig) -> RawMap:
    """Arrays hkl [N, 3], intensity [N], and optionally sigma [N], mask [N] (True: use), ndiv, cell, space_group."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise InputError(f"{path} is not a NumPy archive: {error}", remedy="write it with numpy.savez") from None
    hkl = _array(arrays, "hkl", path)
    if hkl.ndim != 2 or hkl.shape[1] != 3 or not np.array_equal(hkl, np.rint(hkl)):
        raise InputError(
            f"{path}: hkl of shape {hkl.shape} are not integers [N, 3]",
            remedy="multiply fractional indices by ndiv, and store ndiv",
        )
    intensity = _array(arrays, experiment.intensity or "intensity", path, len(hkl))
    has_sigma = experiment.sigma is not None or "sigma" in arrays
    sigma = _array(arrays, experiment.sigma or "sigma", path, len(hkl)) if has_sigma else None
    use = _array(arrays, "mask", path, len(hkl)).astype(bool) if "mask" in arrays else np.ones(len(hkl), bool)
    group = str(arrays["space_group"]) if "space_group" in arrays else None
    ndiv, cell = (tuple(arrays[name].tolist()) if name in arrays else None for name in ("ndiv", "cell"))
    return RawMap(hkl, intensity, sigma, use, ndiv, cell, group)


def _array(arrays: dict, name: str, path: Path, length: int | None = None) -> np.ndarray:
    if name not in arrays:
        raise InputError(
            f"{path} has no array '{name}'; it has {', '.join(arrays)}",
            remedy="name the arrays hkl and intensity, or set [experiment] intensity and sigma",
        )
    if length is not None and arrays[name].shape != (length,):
        raise InputError(
            f"{path}: '{name}' has shape {arrays[name].shape}, hkl has {length} rows",
            remedy="store one value for each row of hkl",
        )
    return arrays[name]


def _read_mtz(path: Path, experiment: ExperimentConfig) -> RawMap:
    """Merged MTZ; hkl stay as they are. A column whose name begins with sqrt (sqrtIdiff) holds sqrt(intensity)."""
    from hpcfit.data.mtz import column, open_mtz

    mtz = open_mtz(path)
    if mtz.batches:
        raise InputError(f"{path} is unmerged ({len(mtz.batches)} batches)", remedy="merge it first")
    name = experiment.intensity or _intensity_column(mtz, path)
    value = column(mtz, name, path)
    sigma_name = experiment.sigma or next((s for s in (f"SIG{name}", f"SIG_{name}") if s in mtz.column_labels()), None)
    sigma = column(mtz, sigma_name, path) if sigma_name else None
    if name.lower().startswith("sqrt"):
        # I = v^2, sigma(I) = 2 v sigma(v)
        sigma = None if sigma is None else 2 * np.abs(value) * sigma
        value = value**2
    # The cell of an MTZ is that of its own integer indices: the supercell's, where ndiv divides.
    ndiv = experiment.ndiv or (1, 1, 1)
    cell = (*(np.array(mtz.cell.parameters[:3]) / ndiv), *mtz.cell.parameters[3:])
    group = mtz.spacegroup.hm if mtz.spacegroup else None
    return RawMap(mtz.make_miller_array(), value, sigma, np.ones(len(value), bool), None, cell, group)


def _intensity_column(mtz, path: Path) -> str:
    labels = mtz.column_labels()
    named = [label for label in INTENSITY_COLUMNS if label in labels]
    typed = [c.label for c in mtz.columns_with_type("J")]
    if named or len(typed) == 1:
        return (named or typed)[0]
    raise InputError(
        f"{path} has no intensity column ({', '.join(INTENSITY_COLUMNS)}); it has {', '.join(labels)}",
        remedy="set [experiment] intensity to one of its columns",
    )


def _read_lat(path: Path, experiment: ExperimentConfig) -> RawMap:
    order = _lat_byte_order(path)
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
    _check_lat_cell(path, experiment.cell, found)
    return RawMap(hkl, values, None, values != missing, None, experiment.cell or (*found, 90.0, 90.0, 90.0), None)


def _lat_byte_order(path: Path) -> str:
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


def _check_lat_cell(path: Path, cell, found) -> None:
    if cell is None or not np.allclose(cell[3:], 90):
        return
    if not np.allclose(cell[:3], found, rtol=0.01):
        raise InputError(
            f"{path} has steps of a cell {np.round(found, 3).tolist()} A, [experiment] cell = {list(cell)}",
            remedy="correct cell, or ndiv if the lattice samples between the Bragg peaks",
        )
