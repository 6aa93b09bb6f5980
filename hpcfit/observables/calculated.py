"""Numbers that other programs calculated of frames, in the text files that they leave: BME's tables and BioEn's files.

BME has a line a frame, its name and then a number for each datum, in a file or an archive of one. BioEn has a file a
datum with a line for each frame, or a file a frame with a line for each datum, q and intensity, say.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.config.observables.averages import HDF5, PLACES
from hpcfit.errors import InputError
from hpcfit.observables.bioen import ScaledTable, open_scaled, refuse_pickle
from hpcfit.readers.boundary import reading
from hpcfit.readers.tables import CSV, NPY, NumberTable, number, open_table

NAME, FRAME = PLACES


class TextTable(NamedTuple):
    """A table [rows, columns] as ``readers.tables.NumberTable``. names: of the data, in the order of the columns."""

    path: Path
    n_rows: int
    names: tuple[str, ...]

    def rows(self, chosen: slice) -> np.ndarray:
        """Some of its rows, [n, columns] float64."""
        return _read(self.path, self.names)[chosen]


def open_calculated(path: Path, names: Sequence[str], labelled: bool) -> NumberTable | TextTable | ScaledTable:
    """Open a table of numbers of frames. names: of the data it should have, in their order; labelled: whether these
    are more than numbers of rows, so that a head which says others is an error. Raises InputError with file and line.
    """
    refuse_pickle(path)
    if path.suffix in HDF5:
        return open_scaled(path)
    if path.suffix in (CSV, NPY):
        table = open_table(path)
        if labelled:
            _check_head(table.path, table.names, names)
        return table
    found = _read(path, tuple(names))
    bad = np.argwhere(~np.isfinite(found))
    if len(bad):
        row, column = bad[0]
        raise InputError(
            f"{path}: row {row}, column {names[column]} is {found[row, column]} (rows count from 0)",
            remedy="give finite numbers",
        )
    return TextTable(path, len(found), tuple(names))


def _read(path: Path, names: tuple[str, ...]) -> np.ndarray:
    if NAME in path.name:
        return _file_of_each_datum(path, names)
    if FRAME in path.name:
        return _file_of_each_frame(path, names)
    return _bme(path, names)


def _bme(path: Path, names: tuple[str, ...]) -> np.ndarray:
    lines = _text(path).splitlines()
    heads = [line.lstrip("#").split() for line in lines if line.startswith("#")]
    if heads and len(heads[0]) == len(names) + 1:
        _check_head(path, tuple(heads[0][1:]), names)
    return _numbers(path, lines, len(names) + 1, f"the name of the frame and {len(names)} numbers, one for each datum")[
        :, 1:
    ]


def _file_of_each_datum(pattern: Path, names: tuple[str, ...]) -> np.ndarray:
    columns = []
    for name in names:
        path = pattern.with_name(pattern.name.replace(NAME, name))
        column = _numbers(path, _text(path).splitlines(), 1, "one number, of a frame", named=False)[:, 0]
        if columns and len(column) != len(columns[0]):
            first = pattern.with_name(pattern.name.replace(NAME, names[0]))
            raise InputError(
                f"{path} has {len(column)} rows, {first} has {len(columns[0])}", remedy="give one for each frame"
            )
        columns.append(column)
    return np.stack(columns, axis=1)


def _file_of_each_frame(pattern: Path, names: tuple[str, ...]) -> np.ndarray:
    before, after = map(re.escape, pattern.name.split(FRAME, 1))
    found = {}
    for path in pattern.parent.iterdir() if pattern.parent.is_dir() else ():
        matched = re.fullmatch(f"{before}(\\d+){after}", path.name)
        if matched:
            found[int(matched[1])] = path
    if not found:
        raise InputError(f"no file is called {pattern}, with a number in place of {FRAME}", remedy="correct the path")
    rows = []
    for _, path in sorted(found.items()):
        lines = _text(path).splitlines()
        fields = next((len(line.split()) for line in lines if _holds(line)), 0)
        values = _numbers(path, lines, fields, "as many numbers as the line before", named=False)
        if len(values) != len(names):
            raise InputError(
                f"{path} has {len(values)} rows, the measurements are {len(names)}", remedy="give one for each datum"
            )
        rows.append(values[:, min(1, fields - 1)])  # q and intensity, or the number alone
    return np.stack(rows)


def _numbers(path: Path, lines: Sequence[str], fields: int, what: str, named: bool = True) -> np.ndarray:
    """The numbers of lines with so many fields, [lines, fields]; 0 for the first one where it is a name."""
    rows = []
    for place, line in enumerate(lines, 1):
        if not _holds(line):
            continue
        found = line.partition("#")[0].split()
        if len(found) != fields:
            raise InputError(f"{path}: line {place} has {len(found)} fields, not {fields}", remedy=f"give {what}")
        rows.append((place, found))
    if not rows:
        raise InputError(f"{path} has no rows of numbers", remedy="give one for each frame")
    try:
        of_names = np.zeros((len(rows), 1)) if named else np.zeros((len(rows), 0))
        return np.hstack([of_names, np.array([found[named:] for _, found in rows], float)])
    except ValueError:
        place, bad = next((p, text) for p, found in rows for text in found[named:] if number(text) is None)
        raise InputError(f"{path}: line {place}: '{bad}' is no number", remedy="give finite numbers") from None


def _holds(line: str) -> bool:
    return bool(line.partition("#")[0].strip())


def _text(path: Path) -> str:
    if not path.is_file():
        raise InputError(f"{path} does not exist", remedy="correct the path in the config")
    with reading(f"{path} cannot be read as text", "write it as UTF-8 text, or as an archive (.zip) of one file"):
        if path.suffix != ".zip":
            return path.read_text(encoding="utf-8")
        with zipfile.ZipFile(path) as archive:
            members = [one for one in archive.namelist() if not one.startswith("__MACOSX") and not one.endswith("/")]
            if len(members) == 1:
                return archive.read(members[0]).decode("utf-8")
    raise InputError(f"{path} holds {len(members)} files", remedy="give an archive of one file")


def _check_head(path: Path, head: Sequence[str], names: Sequence[str]) -> None:
    """Raise InputError where the columns of a table are called otherwise than the data."""
    if all(number(name) is not None for name in head) or len(head) != len(names):
        return
    wrong = next((n for n, (one, other) in enumerate(zip(head, names)) if one != other), None)
    if wrong is not None:
        raise InputError(
            f"{path}: column {wrong} is '{head[wrong]}', the datum is '{names[wrong]}' (columns count from 0)",
            remedy="give both in one order, by the same names",
        )
