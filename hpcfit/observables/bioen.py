"""BioEn's collected inputs in one file: HDF5 of the numbers that its optimizers take, and pickles, which are refused.

`bioen.fileio` (github.com/bio-phys/BioEn) writes arrays by name: YTilde [1, M], measured values over their sigmas,
and yTilde [M, T], calculated values of each frame over the same sigmas. So all data have sigma 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.log import inputs
from hpcfit.observables.readers import Measurements

PICKLES = (".pkl", ".pickle")
MEASURED, CALCULATED, PRIOR = "YTilde", "yTilde", "w0"
CONVERT = (
    "if you trust it, convert it in Python: import pickle, pathlib, numpy as np;"
    " d = pickle.loads(pathlib.Path('FILE').read_bytes()); and of generic data"
    " np.save('measured.npy', np.stack([d[2], d[4]], 1)); np.save('calculated.npy', [d[6][n] for n in sorted(d[6])]);"
    " of arrays of its optimizers bioen.fileio.convert_to_hdf5('FILE', 'data.h5', NAMES OF ITS ITEMS)"
)


class ScaledTable(NamedTuple):
    """The calculated numbers of a file, over sigma, as ``readers.tables.NumberTable``: rows are frames."""

    path: Path
    n_rows: int
    names: tuple[str, ...]

    def rows(self, chosen: slice) -> np.ndarray:
        """Some of its rows, [n, M] float64."""
        return _array(self.path, CALCULATED)[:, chosen].T


def refuse_pickle(path: Path) -> None:
    """Raise InputError for a pickle: to read one is to run whatever code it holds."""
    if path.suffix in PICKLES:
        raise InputError(
            f"{path} is a pickle, which is not read: it can hold code, and loading it runs that code",
            remedy=CONVERT.replace("FILE", path.name),
        )


def read_scaled(path: Path) -> Measurements:
    """The measurements of a file; an item is called by its number, from 0. Raises InputError with file and dataset."""
    value = _array(path, MEASURED)
    if 1 not in value.shape:
        raise InputError(
            f"{path}: {MEASURED} has shape {list(value.shape)}, and one number for each datum is expected",
            remedy="write measured values over their sigmas, [1, M]",
        )
    value = value.ravel()
    return Measurements(path, tuple(map(str, range(len(value)))), value, np.ones_like(value), np.zeros(len(value), int))


def open_scaled(path: Path) -> ScaledTable:
    """Open the calculated numbers of a file; says where it has prior weights that are not uniform, which are not used.
    Raises InputError with file and dataset."""
    n_data, n_frames = _array(path, CALCULATED).shape
    prior = _array(path, PRIOR, needed=False)
    if prior is not None and np.ptp(prior) > 1e-9 * np.max(np.abs(prior)):
        inputs.warning("%s has prior weights (%s), which are not used: give them by [problem] prior", path, PRIOR)
    return ScaledTable(path, n_frames, tuple(map(str, range(n_data))))


def _array(path: Path, name: str, needed: bool = True) -> Any:
    """A dataset of finite numbers, [.., ..] float64; None where it is not there and not needed."""
    from hpcfit.readers.foreign_hdf5 import dataset, opened  # HDF5, which text files need not

    with opened(path) as file:
        if not needed and name not in file:
            return None
        found = dataset(file, name)
        if found.dtype.kind not in "fiu" or found.ndim not in (1, 2) or found.size == 0:
            raise InputError(
                f"{path}: {name} has shape {list(found.shape)} and type {found.dtype}",
                remedy=f"write numbers: {MEASURED} [1, M], {CALCULATED} [M, T]",
            )
        values = np.atleast_2d(np.array(found[()], float))
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise InputError(
            f"{path}: {name} {bad[0].tolist()} is {values[tuple(bad[0])]} (indices count from 0)",
            remedy="give finite numbers",
        )
    return values
