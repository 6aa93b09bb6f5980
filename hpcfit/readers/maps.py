"""Diffuse maps, read into one typed list of voxels, and written; the formats are in ``map_*`` beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcfit.config import ExperimentConfig
from hpcfit.errors import InputError, check_is_file
from hpcfit.log import inputs, logger
from hpcfit.physics.reciprocal import metric
from hpcfit.readers.map_archive import read_archive
from hpcfit.readers.map_lattice import read_lattice, write_lattice
from hpcfit.readers.map_mtz import read_mtz_map, write_mtz_map
from hpcfit.readers.map_nexus import read_nexus, write_nexus
from hpcfit.readers.map_raw import RawMap
from hpcfit.readers.patterns import suffix_of

READERS = {
    ".mtz": read_mtz_map, ".npz": read_archive, ".lat": read_lattice, ".nxs": read_nexus, ".h5": read_nexus,
}  # fmt: skip
WRITERS = {".mtz": write_mtz_map, ".nxs": write_nexus, ".h5": write_nexus, ".lat": write_lattice}


@dataclass(frozen=True)
class DiffuseMap:
    """The valid voxels of a measured map, as they are in the file (Friedel and Laue mates are kept apart).

    hkl [N, 3] int32 with Miller index hkl / ndiv in the unit cell; intensity [N] float64; sigma [N] float64 or None.
    masked and sigma_invalid count the voxels of the file that are not here: masked or not a number, and sigma <= 0.
    halves [N, 2] float64 or None: two independent merges of the same voxels, NaN where a voxel is in one of them only.
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
    halves: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.hkl)


def read_map(experiment: ExperimentConfig) -> DiffuseMap:
    """Read a measured map by the suffix of its file (`READERS`); the config overrides what the file says.

    Raises InputError for a file that is missing, damaged, of another format, without the columns, or wholly masked.
    """
    path = Path(experiment.file)
    reader = _reader(path)
    check_is_file(path, "[experiment] file", "give the path of a measured map")
    return _cleaned(reader(path, experiment), path, experiment)


def write_map(path: Path, found: RawMap, about: Sequence[str]) -> None:
    """Write a map, whole, in the format of its suffix (`WRITERS`); about: what it is, in lines of up to 80 characters.

    found: with cell and ndiv, all voxels of the full sphere, each once, and errors or None; all are written.
    """
    WRITERS[path.suffix.lower()](path, found, about)


def _reader(path: Path) -> Callable[[Path, ExperimentConfig], RawMap]:
    try:
        compressed = path.suffix.lower() == ".gz" and suffix_of(path) == ".mtz"
        return READERS[".mtz" if compressed else path.suffix.lower()]
    except KeyError:
        raise InputError(
            f"[experiment] file {path}: '{path.suffix}' is not a format of measured maps",
            remedy=f"give one of {', '.join(READERS)}",
        ) from None


def _cleaned(raw: RawMap, path: Path, experiment: ExperimentConfig) -> DiffuseMap:
    """Leave out what cannot be used, count it, and let the config override the file."""
    _check(raw, path)
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
    hkl = raw.hkl[keep]
    if experiment.reindex is not None:
        hkl, ndiv, cell = _reindexed(hkl, ndiv, cell, operator_of(experiment.reindex), path)
    logger.info("map %s: %d voxels, %d masked, %d with sigma <= 0 left out", path, keep.sum(), masked, sigma_invalid)
    return DiffuseMap(
        hkl.astype(np.int32),
        tuple(map(int, ndiv)),
        raw.intensity[keep].astype(np.float64),
        None if raw.sigma is None else raw.sigma[keep].astype(np.float64),
        tuple(map(float, cell)),
        str(space_group),
        path,
        masked,
        sigma_invalid,
        None if raw.halves is None else _halves(raw.halves[keep].astype(np.float64), path),
    )


LARGEST_INTENSITY = 1e30
LARGEST_INDEX = 2**15


def _check(raw: RawMap, path: Path) -> None:
    """Raise InputError, with array and value, for what can be no map: text, complex numbers, indices that are no
    integers or out of range, a mask that is none, ndiv and cells that are none."""
    for name, array, kinds, wanted in (
        ("intensity", raw.intensity, "fiu", "real numbers"), ("sigma", raw.sigma, "fiu", "real numbers"),
        ("half-sets", raw.halves, "fiu", "real numbers"), ("mask", raw.use, "biu", "True and False, or 0 and 1"),
        ("hkl", raw.hkl, "fiu", "integers"),
    ):  # fmt: skip
        if array is not None and np.asarray(array).dtype.kind not in kinds:
            raise InputError(
                f"{path}: {name} of type {np.asarray(array).dtype}, for instance {np.asarray(array).ravel()[0]}",
                remedy=f"store {wanted}",
            )
    for name, array in (("intensities", raw.intensity), ("sigmas", raw.sigma)):
        finite = np.abs(np.asarray(0.0 if array is None else array, float))
        if (most := np.max(finite, initial=0.0, where=np.isfinite(finite))) > LARGEST_INTENSITY:
            raise InputError(
                f"{path}: {name} reach {most:g}, whose squares no sum can hold",
                remedy=f"give them in a unit in which they are at most {LARGEST_INTENSITY:g}, or mask what is none",
            )
    largest = np.abs(np.asarray(raw.hkl, float)).max(initial=0)
    if not largest <= LARGEST_INDEX:
        raise InputError(f"{path}: hkl reach {largest:g}", remedy=f"indices are at most {LARGEST_INDEX}")
    if raw.ndiv is not None:
        ndiv = np.ravel(np.asarray(raw.ndiv, float))
        if ndiv.shape != (3,) or not np.all((ndiv >= 1) & (ndiv == np.rint(ndiv)) & (ndiv <= LARGEST_INDEX)):
            raise InputError(f"{path}: ndiv = {ndiv.tolist()}", remedy="give three positive integers")
    if raw.cell is not None:
        cell = np.ravel(np.asarray(raw.cell, float))
        if not _is_cell(cell):
            raise InputError(f"{path}: cell = {cell.tolist()}", remedy="give lengths (A) and angles that span a volume")


def _is_cell(cell: np.ndarray) -> bool:
    if cell.shape != (6,) or not np.all(np.isfinite(cell)):
        return False
    try:
        metric(cell)
    except InputError:
        return False
    return True


def operator_of(text: str) -> np.ndarray:
    """Matrix M [3, 3] of integers of an operator such as "k,h,-l": the new index is M h. Raises InputError unless it is
    a change of axes, of determinant 1: a determinant of -1 would change the hand of the crystal."""
    import gemmi

    try:
        # gemmi keeps what h,k,l become in columns, as they multiply from the left.
        rotation = np.array(gemmi.Op(text).rot).T / gemmi.Op.DEN
    except RuntimeError:
        rotation = None
    if rotation is None or not set(text) & set("hkl"):
        raise InputError(f"[experiment] reindex = '{text}' is no operator", remedy='write it as "k,h,-l"') from None
    if np.any(rotation % 1) or round(np.linalg.det(rotation)) != 1:
        raise InputError(
            f"[experiment] reindex = '{text}' has the determinant {np.linalg.det(rotation):g}: it is no change of axes"
            " that keeps the hand",
            remedy='use an operator such as "k,h,-l" or "l,h,k"',
        )
    return rotation.astype(int)


def _reindexed(hkl: np.ndarray, ndiv: tuple, cell: tuple, M: np.ndarray, path: Path) -> tuple[np.ndarray, tuple, tuple]:
    """hkl [N, 3], ndiv and cell in the new setting."""
    moved = np.abs(M) @ np.asarray(ndiv)
    if np.any(np.count_nonzero(M, axis=1) > 1):
        if len(set(ndiv)) > 1:
            raise InputError(
                f"{path}: ndiv = {tuple(ndiv)} differs along axes that [experiment] reindex mixes",
                remedy="reindex the map itself, or use an operator that only renames axes",
            )
        moved = np.asarray(ndiv)
    # The axes go with the indices: a' = M a, so that h . x stays what it is.
    g = M @ metric(cell) @ M.T
    lengths = np.sqrt(np.diag(g))
    cosines = [g[i, j] / (lengths[i] * lengths[j]) for i, j in ((1, 2), (0, 2), (0, 1))]
    return hkl @ M.T, tuple(int(n) for n in moved), (*lengths.tolist(), *np.degrees(np.arccos(cosines)).tolist())


def _halves(halves: np.ndarray, path: Path) -> np.ndarray:
    """The half-set values [N, 2]: two voxels at least must have both, and they must not be one merge given twice."""
    both = np.isfinite(halves).all(axis=1)
    if both.sum() < 2:
        raise InputError(
            f"{path}: of {len(both)} voxels, {both.sum()} have a value in both half-sets",
            remedy="correct [experiment] halves, or leave it out",
        )
    if np.array_equal(halves[both, 0], halves[both, 1]):
        raise InputError(
            f"{path}: the two half-sets are equal in all {both.sum()} voxels, so that they are not independent",
            remedy="give merges of two halves of the measurements",
        )
    logger.info("map %s: %d of %d voxels have a value in both half-sets", path, both.sum(), len(both))
    return halves


def _chosen(key: str, given, found, path: Path, *, default=None):
    """The config's value, or the file's, or the default; a difference is said in the log."""
    if given is None:
        if found is None and default is None:
            raise InputError(f"{path} does not say its {key}", remedy=f"set [experiment] {key}")
        return default if found is None else found
    if found is not None and not _same(given, found):
        inputs.warning("%s says %s = %s; [experiment] %s = %s is used", path, key, found, key, given)
    return given


def _same(a, b) -> bool:
    return a == b if isinstance(a, str) else np.allclose(a, b, rtol=1e-4)
