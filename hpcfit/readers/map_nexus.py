"""Measured maps from the NeXus tables of mdx2 (.nxs, .h5), and maps written as such.

A table is a group (``/entry/hkl_table``) with datasets h, k, l [N], which are Miller indices of the unit cell and so
multiples of 1 / ndiv, ndiv [3], and a dataset [N] for each column: intensity, intensity_error, count, and after
``mdx2.merge --split`` group_0_intensity and group_1_intensity. The crystal is in a file of its own (geometry.nxs);
where it was put into the same one, it is ``/entry/crystal`` with unit_cell and space_group.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from hpcfit.config import ExperimentConfig
from hpcfit.errors import InputError
from hpcfit.readers.foreign_hdf5 import dataset, opened, text
from hpcfit.readers.map_raw import RawMap
from hpcfit.store.files import hdf5_written_whole, set_units

HALVES = ("group_0_intensity", "group_1_intensity")
ROUNDING = 1e-3  # of h * ndiv, where h may be float32


def read_nexus(path: Path, experiment: ExperimentConfig) -> RawMap:
    """The table of a file; raises InputError without one, for columns that are missing or short, and for another ndiv.

    A voxel whose count is 0 has no measurement.
    """
    with opened(path) as file:
        table = _table(file)
        ndiv = _ndiv(table, experiment)
        hkl = _indices(table, ndiv, path)
        name = experiment.intensity or "intensity"
        intensity, sigma = _column(table, name, len(hkl)), _sigma(table, name, experiment, len(hkl))
        use = _column(table, "count", len(hkl)) > 0 if "count" in table else np.ones(len(hkl), bool)
        cell, group = _crystal(file)
        return RawMap(hkl, intensity, sigma, use, ndiv, cell, group, _halves(table, experiment, len(hkl)))


def _table(file: h5py.File) -> h5py.Group:
    """The only group that holds h, k and l."""
    found: list[h5py.Group] = []
    file.visititems(lambda _, item: found.append(item) if _is_table(item) else None)
    if len(found) != 1:
        raise InputError(
            f"{file.filename} has {len(found)} groups with datasets h, k and l"
            f" ({', '.join(group.name for group in found) or 'none'})",
            remedy="give a file with one table, as mdx2.merge writes it",
        )
    return found[0]


def _is_table(item: h5py.Group | h5py.Dataset) -> bool:
    return isinstance(item, h5py.Group) and all(isinstance(item.get(name), h5py.Dataset) for name in "hkl")


def _ndiv(table: h5py.Group, experiment: ExperimentConfig) -> tuple[int, int, int]:
    """What the table says, which no config overrides: h, k and l follow from it."""
    if "ndiv" not in table:
        return experiment.ndiv or (1, 1, 1)
    ndiv = tuple(np.ravel(dataset(table, "ndiv")[()]).tolist())
    if len(ndiv) != 3 or any(n < 1 or n != int(n) for n in ndiv):
        raise InputError(f"{table.file.filename}: ndiv = {ndiv} are not three positive integers", remedy="repair it")
    if experiment.ndiv is not None and experiment.ndiv != ndiv:
        raise InputError(
            f"{table.file.filename} has ndiv = {ndiv}, [experiment] ndiv = {experiment.ndiv}",
            remedy="leave ndiv out: a table of mdx2 says its own",
        )
    return tuple(map(int, ndiv))


def _indices(table: h5py.Group, ndiv, path: Path) -> np.ndarray:
    """(h, k, l) * ndiv, [N, 3] integers."""
    columns = [np.asarray(dataset(table, name)[()], float) for name in "hkl"]
    if columns[0].ndim != 1 or len({column.shape for column in columns}) != 1:
        shapes = ", ".join(f"{name} {column.shape}" for name, column in zip("hkl", columns))
        raise InputError(f"{path}: h, k and l are not lists of one length: {shapes}", remedy="repair the table")
    scaled = np.stack(columns, axis=1) * ndiv
    whole = np.rint(scaled)
    wrong = ~(np.abs(scaled - whole) < ROUNDING).all(axis=1)
    if wrong.any():
        index = tuple((scaled[wrong][0] / ndiv).tolist())
        raise InputError(
            f"{path}: index {index} is not a multiple of 1/ndiv, ndiv = {ndiv} ({wrong.sum()} of {len(wrong)} rows)",
            remedy="h, k and l must be Miller indices of the unit cell: check ndiv",
        )
    return whole.astype(np.int32)


def _column(table: h5py.Group, name: str, length: int) -> np.ndarray:
    values = dataset(table, name)[()]
    if np.shape(values) != (length,):
        raise InputError(
            f"{table.file.filename}: column '{name}' has shape {np.shape(values)}, h has {length} rows",
            remedy="store one value for each row of the table",
        )
    return np.asarray(values, float)


def _sigma(table: h5py.Group, intensity: str, experiment: ExperimentConfig, length: int) -> np.ndarray | None:
    usual = f"{intensity}_error"
    name = experiment.sigma or (usual if usual in table else None)
    return None if name is None else _column(table, name, length)


def _halves(table: h5py.Group, experiment: ExperimentConfig, length: int) -> np.ndarray | None:
    if experiment.halves is None and not all(name in table for name in HALVES):
        return None
    return np.stack([_column(table, name, length) for name in experiment.halves or HALVES], axis=1)


def _crystal(file: h5py.File) -> tuple[tuple[float, ...] | None, str | None]:
    if "entry/crystal" not in file:
        return None, None
    crystal = file["entry/crystal"]
    cell = tuple(np.ravel(dataset(crystal, "unit_cell")[()]).tolist())
    if len(cell) != 6:
        raise InputError(f"{file.filename}: unit_cell = {cell} are not six numbers", remedy="set [experiment] cell")
    return cell, _known_group(text(crystal["space_group"])) if "space_group" in crystal else None


def _known_group(name: str) -> str | None:
    """The symbol as hpcfit writes it; None for one that is not standard, as cctbx has for a change of basis."""
    import gemmi

    group = gemmi.find_spacegroup_by_name(name)
    return group.xhm() if group else None


def write_nexus(path: Path, found: RawMap, about: Sequence[str]) -> None:
    """Write a map as a table of mdx2, all voxels of the sphere, beside a group with its cell and space group.

    about: lines of the entry's description.
    """
    with hdf5_written_whole(path) as file:
        file.attrs.update(NX_class="NXroot", default="entry")
        entry = file.create_group("entry")
        entry.attrs.update(NX_class="NXentry", description="\n".join(about))
        table = entry.create_group("hkl_table")
        # mdx2 takes every dataset of the table for a column.
        table.attrs.update(NX_class="NXgroup", mdx2_module="mdx2.data", mdx2_class="HKLTable")
        for name, column in zip("hkl", (found.hkl / np.asarray(found.ndiv)).T):
            table[name] = column
        table["ndiv"] = np.asarray(found.ndiv, int)
        table["intensity"] = found.intensity
        if found.sigma is not None:
            table["intensity_error"] = found.sigma
        for name in ("intensity", "intensity_error"):
            if found.units and name in table:
                set_units(table[name], found.units)
        crystal = entry.create_group("crystal")
        crystal.attrs["NX_class"] = "NXsample"
        crystal["unit_cell"] = np.asarray(found.cell, float)
        set_units(crystal["unit_cell"], "Angstrom and degrees")
        crystal["space_group"] = found.space_group or "P 1"
