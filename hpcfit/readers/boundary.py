"""The boundary between hpcfit and the libraries that read files: whatever they raise becomes the one error."""

from __future__ import annotations

import contextlib
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hpcfit.errors import HpcfitError, InputError, check_is_file


@contextlib.contextmanager
def reading(what: str, remedy: str) -> Iterator[None]:
    """Turn what a library raises into an InputError that begins with `what`, the file and the place in it.

    Libraries raise whatever their parsing met. hpcfit's own errors pass as they are.
    """
    try:
        yield
    except HpcfitError:
        raise
    except Exception as error:
        said = (str(error) or repr(error)).splitlines()[0]
        raise InputError(f"{what}: {type(error).__name__}: {said}", remedy=remedy) from error


def loaded_array(path: str | Path) -> np.ndarray:
    """NumPy's array of a file (.npy), mapped and not read; ValueError unless the file ends where its array does."""
    check_is_file(path)
    found = np.load(path, mmap_mode="r", allow_pickle=False)
    extra = Path(path).stat().st_size - found.offset - found.nbytes
    if extra:
        raise ValueError(f"{extra} bytes follow an array of shape {list(found.shape)}")
    return found


def loaded_archive(path: str | Path) -> Any:
    """NumPy's view of an archive (.npz), open until it is dropped. Raises BadZipFile for one that is not whole.

    NumPy itself leaves such a file open, until somebody collects it.
    """
    check_is_file(path)
    if not zipfile.is_zipfile(path):
        raise zipfile.BadZipFile("it is no whole archive")
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():  # which compares the two headers that each has
            archive.open(member).close()
    return np.load(path, allow_pickle=False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of MDAnalysis on what a PDB lacks, or on its plans; what hpcfit needs it checks itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
