"""Measurements in the text files that users have: values with errors, BME's and BioEn's tables, curves.

Fields stand between commas or white space, and a # begins a comment. Values and errors stay in the unit of the file
until ``lengths_in_nm`` and its like are told which one it is. Whatever is wrong is one InputError with file and line.

BME (github.com/KULL-Centre/BME) heads its files by `# DATA=NOE BOUND=LOWER`, older ones by `# DATA=NOE PRIOR=GAUSS
POWER=6`; rows are name, value, sigma and, in older files, a bound. BioEn's generic data (github.com/bio-phys/BioEn) are
name, value, sigma; its scattering data are a curve.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError, check_is_file, nearest
from hpcfit.readers.boundary import reading
from hpcfit.readers.tables import number
from hpcfit.readers.units import LENGTHS

BME_DATA = ("NOE", "JCOUPLINGS", "CS", "SAXS", "RDC", "DIST")
BOUNDS = {"UPPER": 1, "LOWER": -1}
ATOMS_APART = (0.08, 3.0)  # nm: effective distances of protons, and where a g(r) begins to rise, lie between
LARGEST_Q = 500.0  # 1/nm, beyond which no instrument measures


class Measurements(NamedTuple):
    """M measured numbers. value, sigma: [M]; names: [M]; bound: [M], 1 for an upper bound, -1 for a lower one, else 0.

    data, power: what BME's head says, such as NOE and 6; empty and None where nothing is said.
    """

    path: Path
    names: tuple[str, ...]
    value: np.ndarray
    sigma: np.ndarray
    bound: np.ndarray
    data: str = ""
    power: int | None = None


class Curve(NamedTuple):
    """A measured curve. at: [M], ascending, distances or momentum transfers; value, sigma: [M]."""

    path: Path
    at: np.ndarray
    value: np.ndarray
    sigma: np.ndarray


class Row(NamedTuple):
    """A line of a file that is not empty, by its number from 1."""

    line: int
    fields: tuple[str, ...]


def read_values(path: Path) -> Measurements:
    """Rows of value and sigma, below a head if there is one; an item is called by the number of its row, from 0."""
    rows = _block(path, _rows(path), 2)
    numbers = _numbers(path, rows, ("value", "sigma"))
    _check_sigma(path, rows, numbers[:, 1])
    return Measurements(path, tuple(map(str, range(len(rows)))), *numbers.T, np.zeros(len(rows), int))


def read_named(path: Path) -> Measurements:
    """Rows of name, value, sigma and perhaps a bound, UPPER or LOWER, below a head if there is one."""
    rows = _rows(path)
    if rows and len(rows[0].fields) > 1 and number(rows[0].fields[1]) is None:
        rows = rows[1:]
    for row in rows:
        if len(row.fields) not in (3, 4):
            raise InputError(
                f"{path}: line {row.line} has {len(row.fields)} fields, not 3 or 4",
                remedy="give name, value and sigma in each row, and UPPER or LOWER behind them for a bound",
            )
    _require_rows(path, rows)
    numbers = _numbers(path, [Row(row.line, row.fields[1:3]) for row in rows], ("value", "sigma"))
    _check_sigma(path, rows, numbers[:, 1])
    _check_names(path, rows)
    bounds = np.array([_bound(path, row.line, row.fields[3]) if len(row.fields) == 4 else 0 for row in rows])
    return Measurements(path, tuple(row.fields[0] for row in rows), *numbers.T, bounds)


def read_bme(path: Path) -> Measurements:
    """Rows as ``read_named`` reads them, below BME's head; a bound of the head is that of all rows."""
    head = _text(path).partition("\n")[0]
    told = dict(re.findall(r"(\w+)=(\S+)", head)) if head.startswith("#") else {}
    if told.get("DATA") not in BME_DATA:
        raise InputError(
            f"{path}: line 1 is '{head.strip()}', not BME's head",
            remedy=f"begin with '# DATA=NOE' or another of {', '.join(BME_DATA)}",
        )
    found = read_named(path)
    if "BOUND" in told:
        found = found._replace(bound=np.full(len(found.names), _bound(path, 1, told["BOUND"])))
    return found._replace(data=told["DATA"], power=_power(path, told))


def read_measurements(path: Path) -> Measurements:
    """The numbers of a file of BME, of one with two fields a row, or of one with names."""
    if re.match("#.*DATA=", _text(path)):
        return read_bme(path)
    rows = _rows(path)
    return read_values(path) if rows and len(rows[0].fields) == 2 else read_named(path)


def read_curve(path: Path, columns: Sequence[int] = (0, 1, 2), between: tuple[float, float] | None = None) -> Curve:
    """Rows of numbers, of which three columns are where, value and sigma; text above and below them is passed over.

    columns: from 0. between: the range that is used, both ends in it; where errors are 0, as in a g(r) before its first
    atoms, nothing can be fitted.
    """
    rows = _rows(path)
    rows = _block(path, rows, max(columns) + 1 if len(columns) else 0, exactly=False)
    numbers = _numbers(
        path, [Row(row.line, tuple(row.fields[c] for c in columns)) for row in rows], ("at", "value", "sigma")
    )
    kept = (
        np.ones(len(rows), bool) if between is None else (numbers[:, 0] >= between[0]) & (numbers[:, 0] <= between[1])
    )
    if not kept.any():
        raise InputError(
            f"{path} reaches from {numbers[0, 0]:g} to {numbers[-1, 0]:g}, and no row lies between {between}",
            remedy="give a range that the file covers, in its own unit",
        )
    rows, numbers = [row for row, used in zip(rows, kept) if used], numbers[kept]
    _check_sigma(path, rows, numbers[:, 2])
    _check_ascends(path, rows, numbers[:, 0])
    return Curve(path, *numbers.T)


def require_items(found: Measurements | Curve, items: int, what: str) -> None:
    """Raise InputError where a file has not one row for each item of an observable."""
    if len(found.value) != items:
        raise InputError(
            f"{found.path} has {len(found.value)} rows, but {what} has {items} items",
            remedy="give one row for each, in the same order",
        )


# ---- units -------------------------------------------------------------------------------------------------------


def nm(unit: str) -> float:
    """A unit of length in nm."""
    if unit not in LENGTHS:
        raise InputError(f"unit = '{unit}' is no unit of length", remedy=nearest(unit, LENGTHS))
    return LENGTHS[unit] / LENGTHS["nm"]


def lengths_in_nm(found: Measurements, unit: str) -> Measurements:
    """Lengths in nm, with their sigmas."""
    return found._replace(value=found.value * nm(unit), sigma=found.sigma * nm(unit))


def distances_in_nm(found: Measurements, unit: str) -> Measurements:
    """Effective distances between atoms in nm; raises InputError for a unit in which they could not be."""
    inside = lengths_in_nm(found, unit)
    _check_apart(found.path, inside.value, found.value, unit)
    return inside


def radial_in_nm(found: Curve, unit: str) -> Curve:
    """A radial distribution function over nm; raises InputError for a unit in which atoms could not be so far apart."""
    factor, rises = nm(unit), found.at[np.argmax(found.value > 0.5)]
    _check_apart(found.path, np.array([rises * factor]), np.array([rises]), unit)
    return found._replace(at=found.at * factor)


def scattering_per_nm(found: Curve, unit: str) -> Curve:
    """A scattering curve over momentum transfers q = 4 pi sin(theta) / lambda in 1/nm; unit: that of length, such as A
    for 1/A."""
    factor = 1 / nm(unit)
    if found.at[0] < 0 or found.at[-1] * factor > LARGEST_Q:
        raise InputError(
            f"{found.path}: q from {found.at[0]:g} to {found.at[-1]:g} 1/{unit} cannot be: 0 to {LARGEST_Q:g} 1/nm can",
            remedy="correct the unit of the config, or the file",
        )
    return found._replace(at=found.at * factor)


def _check_apart(path: Path, inside: np.ndarray, given: np.ndarray, unit: str) -> None:
    least, most = ATOMS_APART
    wrong = np.flatnonzero((inside < least) | (inside > most))
    if len(wrong):
        fitting = [name for name in LENGTHS if np.all((least <= given * nm(name)) & (given * nm(name) <= most))]
        raise InputError(
            f"{path}: distances of {given[wrong[0]]:g} {unit} cannot be: those of atoms are {least:g} to {most:g} nm",
            remedy=f"the numbers fit {' or '.join(fitting)}" if fitting else "correct the file",
        )


# ---- lines -------------------------------------------------------------------------------------------------------


def _text(path: Path) -> str:
    check_is_file(path)
    with reading(f"{path} cannot be read as text", "write it as UTF-8 text"):
        return path.read_text(encoding="utf-8")


def _rows(path: Path) -> list[Row]:
    lines = (line.partition("#")[0].strip() for line in _text(path).splitlines())
    return [Row(place, _fields(line)) for place, line in enumerate(lines, 1) if line]


def _fields(line: str) -> tuple[str, ...]:
    return tuple(field.strip() for field in line.split(",")) if "," in line else tuple(line.split())


def _block(path: Path, rows: list[Row], columns: int, exactly: bool = True) -> list[Row]:
    """The rows of numbers between a head and a foot of text, lines whose first field is no number; all rows alike."""
    numeric = [place for place, row in enumerate(rows) if number(row.fields[0]) is not None]
    rows = rows[numeric[0] : numeric[-1] + 1] if numeric else []
    _require_rows(path, rows)
    wanted = columns if exactly else len(rows[0].fields)
    for row in rows:
        if len(row.fields) != wanted or wanted < columns:
            raise InputError(
                f"{path}: line {row.line} has {len(row.fields)} fields, not {max(wanted, columns)}",
                remedy="give a number for each column in each row",
            )
    return rows


def _require_rows(path: Path, rows: list[Row]) -> None:
    if not rows:
        raise InputError(f"{path} has no rows of numbers", remedy="give one row for each item")


def _numbers(path: Path, rows: Sequence[Row], names: Sequence[str]) -> np.ndarray:
    """The numbers [M, columns] of rows."""
    for row in rows:
        for name, field in zip(names, row.fields):
            if (found := number(field)) is None or not np.isfinite(found):
                raise InputError(f"{path}: line {row.line}: {name} is '{field}'", remedy="give a finite number")
    return np.array([row.fields for row in rows], float)


def _check_sigma(path: Path, rows: Sequence[Row], sigma: np.ndarray) -> None:
    wrong = np.flatnonzero(sigma <= 0)
    if len(wrong):
        raise InputError(
            f"{path}: line {rows[wrong[0]].line}: sigma is {sigma[wrong[0]]:g}, not above 0",
            remedy="give its standard error, or leave the row out (of a curve, by the range that is used)",
        )


def _check_names(path: Path, rows: Sequence[Row]) -> None:
    first: dict[str, int] = {}
    for row in rows:
        if row.fields[0] in first:
            raise InputError(
                f"{path}: line {row.line} and line {first[row.fields[0]]} are both '{row.fields[0]}'",
                remedy="give each item a name of its own",
            )
        first[row.fields[0]] = row.line


def _check_ascends(path: Path, rows: Sequence[Row], at: np.ndarray) -> None:
    wrong = np.flatnonzero(np.diff(at) <= 0)
    if len(wrong):
        before, behind = wrong[0], wrong[0] + 1
        raise InputError(
            f"{path}: line {rows[behind].line} is at {at[behind]:g}, but line {rows[before].line} at {at[before]:g}",
            remedy="sort the rows, and merge those of several detectors",
        )


def _bound(path: Path, line: int, word: str) -> int:
    if word not in BOUNDS:
        raise InputError(f"{path}: line {line}: '{word}' is no bound", remedy="use UPPER or LOWER")
    return BOUNDS[word]


def _power(path: Path, told: dict[str, str]) -> int | None:
    """The power of an NOE: 6 where the head says nothing."""
    if told["DATA"] != "NOE":
        return None
    if told.get("POWER", "6") not in ("3", "6"):
        raise InputError(f"{path}: line 1: POWER={told['POWER']} of an NOE", remedy="use 6 (slow tumbling) or 3 (fast)")
    return int(told.get("POWER", "6"))
