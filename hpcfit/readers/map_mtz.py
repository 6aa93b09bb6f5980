"""Measured maps from merged MTZ files, and maps written as such."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpcfit.config import ExperimentConfig
from hpcfit.errors import InputError
from hpcfit.log import inputs
from hpcfit.physics.reciprocal import hemisphere
from hpcfit.readers.map_raw import RawMap
from hpcfit.readers.mtz import INTENSITIES, column, indices, open_mtz, space_group_of
from hpcfit.store.files import written_whole

INTENSITY_COLUMNS = ("I", "IMEAN", "IOBS", "I-obs", "Idiff", "sqrtIdiff")
WRITTEN_COLUMN = "Idiff"


def read_mtz_map(path: Path, experiment: ExperimentConfig) -> RawMap:
    """A merged MTZ; hkl stay as they are. A column whose name begins with sqrt (sqrtIdiff) holds sqrt(intensity).

    Raises InputError for an unmerged file and for columns that are not there.
    """
    mtz = open_mtz(path)
    _warn_of_bragg_data(mtz, path)
    name = experiment.intensity or _intensity_column(mtz, path)
    intensity, sigma = _intensity(mtz, name, path), _sigma(mtz, name, experiment.sigma, path)
    halves = experiment.halves and np.stack([_intensity(mtz, half, path) for half in experiment.halves], axis=1)
    # The cell of an MTZ is that of its own integer indices: the supercell's, where ndiv divides.
    ndiv = experiment.ndiv or (1, 1, 1)
    cell = (*(np.array(mtz.cell.parameters[:3]) / ndiv), *mtz.cell.parameters[3:])
    group = space_group_of(mtz, path) if mtz.spacegroup else None
    use = np.ones(len(intensity), bool)
    return RawMap(indices(mtz, path), intensity, sigma, use, None, cell, group, halves)


def _warn_of_bragg_data(mtz, path: Path) -> None:
    """Say so where a file has what only a refinement against Bragg reflections has."""
    flags = [one.label for one in mtz.columns if one.type == "I" and "free" in one.label.lower()]
    phases = [one.label for one in mtz.columns if one.type in "PA"]
    signs = [*(f"free flags ({label})" for label in flags[:1]), *(f"phases ({label})" for label in phases[:1])]
    if signs:
        inputs.warning(
            "%s has %s, as Bragg data of a refinement have: a diffuse map has neither", path, " and ".join(signs)
        )


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


def _intensity(mtz, name: str, path: Path) -> np.ndarray:
    value = column(mtz, name, path, INTENSITIES)
    return value**2 if _is_root(name) else value


def _sigma(mtz, name: str, given: str | None, path: Path) -> np.ndarray | None:
    """Of the column given, or of the usual name; where the column holds roots v, sigma(v^2) = 2 |v| sigma(v)."""
    labels = mtz.column_labels()
    sigma_name = given or next((label for label in (f"SIG{name}", f"SIG_{name}") if label in labels), None)
    if sigma_name is None:
        return None
    sigma = column(mtz, sigma_name, path)
    return 2 * np.abs(column(mtz, name, path)) * sigma if _is_root(name) else sigma


def _is_root(name: str) -> bool:
    return name.lower().startswith("sqrt")


def write_mtz_map(path: Path, found: RawMap, about: Sequence[str]) -> None:
    """Write a map as MTZ in P 1: columns H, K, L, Idiff (type J) and, where there is one, SIGIdiff (Q).

    One of each pair of Friedel mates is listed, as programs expect of P 1. Indices of an MTZ are integers: they are
    those of the supercell of ndiv unit cells, whose cell the file has, and its history says so. about: lines of the
    history.
    """
    import gemmi

    listed = ~hemisphere(found.hkl)[1]
    mtz = gemmi.Mtz(with_base=True)
    mtz.spacegroup = gemmi.find_spacegroup_by_name("P 1")
    mtz.set_cell_for_all(gemmi.UnitCell(*np.multiply(found.cell[:3], found.ndiv), *found.cell[3:]))
    mtz.title = about[0][:70]
    of_indices = f"h k l are {' '.join(map(str, found.ndiv))} times the Miller indices of the unit cell"
    mtz.history = [line[:80] for line in (*about, of_indices)]
    mtz.add_dataset("hpcfit")
    mtz.add_column(WRITTEN_COLUMN, "J")
    columns = [found.hkl, found.intensity]
    if found.sigma is not None:
        mtz.add_column(f"SIG{WRITTEN_COLUMN}", "Q")
        columns.append(found.sigma)
    mtz.set_data(np.column_stack([values[listed] for values in columns]).astype(np.float32))
    with written_whole(path) as temporary:
        mtz.write_to_file(str(temporary))
