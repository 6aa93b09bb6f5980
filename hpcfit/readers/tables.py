"""Tables of numbers in .npy and .csv files, of frames or of measurements, checked where they are opened."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError, check_is_file
from hpcfit.readers.boundary import loaded_array, reading

CSV, NPY = ".csv", ".npy"


class NumberTable(NamedTuple):
    """A table [rows, columns] of finite numbers. names: of the columns of a CSV file with a head; else numbers."""

    path: Path
    n_rows: int
    names: tuple[str, ...]

    def rows(self, chosen: slice) -> np.ndarray:
        """Some of its rows, [n, columns] float64."""
        return np.array(_read(self.path)[0][chosen], float)


def open_table(path: Path) -> NumberTable:
    """Open a table. Raises InputError that names file, row and column of what is no finite number."""
    values, names = _read(path)
    for start in range(0, len(values), 4096):
        bad = np.argwhere(~np.isfinite(values[start : start + 4096]))
        if len(bad):
            row, column = bad[0] + [start, 0]
            raise InputError(
                f"{path}: row {row}, column {names[column]} is {values[row, column]} (rows and columns count from 0)",
                remedy="give finite numbers",
            )
    return NumberTable(path, len(values), names)


def check_all(table: NumberTable, good: np.ndarray, what: str, remedy: str) -> None:
    """Raise InputError that names the first row and column where ``good`` [rows, columns] does not hold."""
    bad = np.argwhere(~good)
    if len(bad):
        row, column = (int(number) for number in bad[0])
        value = table.rows(slice(row, row + 1))[0, column]
        raise InputError(
            f"{table.path}: row {row}, column {table.names[column]} is {value:g} (both count from 0): {what}",
            remedy=remedy,
        )


def _read(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Values [rows, columns], of .npy files mapped and not read, and names of the columns."""
    check_is_file(path)
    if path.suffix == CSV:
        return _read_csv(path)
    if path.suffix != NPY:
        raise InputError(f"{path} is neither {NPY} nor {CSV}", remedy="save the table by numpy.save, or as CSV")
    with reading(f"{path} cannot be read by NumPy", "save it by numpy.save"):
        values = loaded_array(path)
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or values.size == 0 or values.dtype.kind not in "fiu":
        raise InputError(
            f"{path} has shape {list(values.shape)} and type {values.dtype}", remedy="give numbers [rows, columns]"
        )
    return values, tuple(str(number) for number in range(values.shape[1]))


def _read_csv(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    with reading(f"{path} cannot be read as CSV", "write it as UTF-8 text"), path.open(encoding="utf-8") as file:
        lines = [line for line in csv.reader(file) if line]
    names = tuple(lines[0]) if lines and any(number(text) is None for text in lines[0]) else None
    rows = lines if names is None else lines[1:]
    if not rows:
        raise InputError(f"{path} has no rows of numbers", remedy="give numbers [rows, columns]")
    names = names or tuple(map(str, range(len(rows[0]))))
    for place, row in enumerate(rows):
        if len(row) != len(names):
            raise InputError(
                f"{path}: row {place} has {len(row)} columns, others {len(names)} (rows count from 0, without a head)",
                remedy="give a number for each column",
            )
        bad = next((column for column, text in enumerate(row) if number(text) is None), None)
        if bad is not None:
            raise InputError(
                f"{path}: row {place}, column {names[bad]} is '{row[bad]}' (rows count from 0, without a head)",
                remedy="give finite numbers",
            )
    return np.array(rows, float), names


def strict_number(text: str) -> float:
    """The number that a word is; ValueError for one that is none, as is 1_000, which only Python takes for a number."""
    if "_" in text:
        raise ValueError(f"could not convert string to float: '{text}'")
    return float(text)


def number(text: str) -> float | None:
    """The number that a field of text holds; None where it holds none."""
    try:
        return strict_number(text)
    except ValueError:
        return None
