"""HDF5 files that other programs wrote: opened for reading, with errors that say what such a file lacks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from hpcfit.errors import InputError, check_is_file
from hpcfit.readers.boundary import reading

SHOWN = 12  # names of datasets in an error


@contextlib.contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """The file; InputError when it is missing, truncated or not HDF5, also when that is found while it is read."""
    check_is_file(path)
    whole = "check that it was written and copied to its end"
    with reading(f"{path} cannot be read as HDF5", whole), h5py.File(path, "r", locking=False) as file:
        yield file


def dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    """A dataset of a file or group, not yet read; InputError that lists the datasets there are."""
    found = group.get(name)
    if isinstance(found, h5py.Dataset):
        return found
    there = dataset_names(group)
    more = f" and {len(there) - SHOWN} more" if len(there) > SHOWN else ""
    where = group.file.filename if group.name == "/" else f"{group.file.filename}{group.name}"
    raise InputError(
        f"{where} has no dataset {name}; it has {', '.join(there[:SHOWN]) or 'none'}{more}",
        remedy="name another in the config, or have the file written again by the program that made it",
    )


def dataset_names(group: h5py.Group) -> list[str]:
    """The paths of all datasets under a group."""
    names: list[str] = []
    group.visititems(lambda name, found: names.append(name) if isinstance(found, h5py.Dataset) else None)
    return names


def text(found: h5py.Dataset) -> str:
    """A dataset that holds one string, alone or as the only element of an array."""
    value = np.ravel(found[()])[0]
    return value.decode() if isinstance(value, bytes) else str(value)
