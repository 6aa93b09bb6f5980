"""Structural coordinates of frames (torsions, principal components, ...), read from a CSV file of the user's.

Frames are clustered by them (`clusters`), or their weights explained by them (`explain`).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hpcfit.errors import InputError, check_is_file
from hpcfit.readers.tables import strict_number

FRAME = "frame"


def read_coordinates(path: Path, ids: np.ndarray, key: str = "clusters") -> tuple[list[str], np.ndarray]:
    """The names of the coordinates and their values, [T, d] float64, in the order of the frame ``ids`` [T].

    The file, which ``key`` of [problem] names, has a header line with `frame` and the names; frames that are not in
    ``ids`` are passed over. Raises InputError that names file, frame and column where one is missing, twice there, or
    not a finite number.
    """
    what = f"[problem] {key}"
    check_is_file(path, what, "give a CSV file")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            names = _names(f"{what} {path}", reader.fieldnames or [])
            rows = dict(_rows(f"{what} {path}", reader))
    except OSError as error:
        raise InputError(f"{what} {path}: {error.strerror}", remedy="give a CSV file") from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError(f"{what} {path}: not a text file", remedy="give a CSV file in UTF-8") from None
    missing = [i for i in ids.tolist() if i not in rows]
    if missing:
        raise InputError(
            f"{what} {path} has {len(rows)} frames, but not frame {missing[0]}"
            f" ({len(missing)} of {len(ids)} frames of the fit are missing)",
            remedy="give a line to every frame of the fit, or choose the frames with [frames] include and exclude",
        )
    values = [[_number(f"{what} {path}", i, name, rows[i][name]) for name in names] for i in ids.tolist()]
    return names, np.array(values, float).reshape(len(ids), len(names))


def _names(file: str, header: list[str]) -> list[str]:
    names = [name for name in header if name != FRAME]
    if len(names) + 1 != len(header) or not names or len(set(names)) < len(names):
        raise InputError(
            f"{file}: the columns are {', '.join(header) or 'none'}",
            remedy="write a header line with one column named frame, and others with names of their own",
        )
    return names


def _rows(file: str, reader: csv.DictReader) -> Iterator[tuple[int, dict[str, str | None]]]:
    seen = set()
    for row in reader:
        try:
            frame = int(row[FRAME])
        except (ValueError, TypeError):
            raise InputError(
                f"{file}, line {reader.line_num}: frame is '{row[FRAME]}'",
                remedy="number the frames as the weights.csv of a run does",
            ) from None
        if frame in seen:
            raise InputError(
                f"{file}, line {reader.line_num}: frame {frame} is there a second time",
                remedy="give one line to each frame",
            )
        seen.add(frame)
        yield frame, row


def _number(file: str, frame: int, name: str, text: str | None) -> float:
    try:
        value = strict_number(text)
    except (ValueError, TypeError):
        value = np.nan
    if not np.isfinite(value):
        said = "missing" if text is None else f"'{text}'"
        raise InputError(
            f"{file}: {name} of frame {frame} is {said}, not a finite number",
            remedy="repair the line, or leave the column out",
        )
    return value
