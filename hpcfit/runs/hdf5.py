"""The HDF5 files of a run, opened to be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpcfit.errors import InputError
from hpcfit.runs.history import AGAIN


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file, open to be read; what is missing or broken in it raises InputError with its path."""
    import h5py

    try:
        with h5py.File(path) as file:
            yield file
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged: {error}", remedy=AGAIN) from None


def texts(dataset: Any) -> list[str]:
    """The strings of a dataset or array."""
    return [text(value) for value in dataset[()]]


def text(value: Any) -> str:
    """A string as HDF5 gives it, or another value as one."""
    return value.decode() if isinstance(value, bytes) else str(value)
