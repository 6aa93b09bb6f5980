"""The lines of text trajectories, compared with what their format asks for before ASE or MDAnalysis reads them.

These take what they can from a line and pass over the rest: a column too many, a configuration that another begins in,
numbers that are none, models of other atoms.
"""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from hpcfit.errors import InputError
from hpcfit.readers.boundary import reading
from hpcfit.readers.tables import number

PROPERTIES = re.compile(r'properties="?([^"\s]+)"?', re.IGNORECASE)
NUMBERS = re.compile(r'(?:lattice|virial|stress|energy)=("[^"]*"|\S+)', re.IGNORECASE)
REPAIR = "repair the file, or write it again"


def check_layout(path: Path, form: str) -> None:
    """Raise InputError, naming the line, where a file is not laid out as its format asks for.

    form: "extxyz" or "vasp-xdatcar", names of ASE, or "pdb"; others are not looked at.
    """
    check = {"extxyz": _check_extxyz, "vasp-xdatcar": _check_xdatcar, "pdb": _check_pdb}.get(form)
    if check is None:
        return
    opens = gzip.open if path.suffix == ".gz" else open
    with (
        reading(f"{path} cannot be read as text", "write it as UTF-8 text"),
        opens(path, "rt", encoding="utf-8", errors="replace" if form == "pdb" else "strict") as file,
    ):
        lines = file.read().split("\n")
    check(path, lines)


def _wrong(path: Path, at: int, lines: Sequence[str], why: str) -> InputError:
    said = f"'{lines[at].strip()[:60]}'" if at < len(lines) else "the file ends"
    return InputError(f"{path}, line {at + 1}: {said}: {why}", remedy=REPAIR)


def _numbers(words: Sequence[str]) -> bool:
    """Whether they are numbers, finite or not: those that are not are said later, with frame and atom."""
    return all(number(word) is not None for word in words)


def _finite(words: Sequence[str]) -> bool:
    values = [number(word) for word in words]
    return all(value is not None and math.isfinite(value) for value in values)


# ---- extended XYZ ----------------------------------------------------------------------------------------------------


def _check_extxyz(path: Path, lines: Sequence[str]) -> None:
    """The columns of every row are those that Properties name, which all frames have or none; else four or more."""
    at, first = 0, None
    while any(line.strip() for line in lines[at:]):
        if not lines[at].strip().isdecimal() or at + 1 >= len(lines):
            raise _wrong(path, at, lines, "a number of atoms is to stand here")
        n, comment = int(lines[at]), lines[at + 1]
        named = PROPERTIES.search(comment)
        columns = None if named is None else _columns(path, at + 1, lines, named[1])
        first = columns if at == 0 else first
        if (columns is None) != (first is None):
            raise _wrong(path, at + 1, lines, "other frames than this one name their columns (Properties)")
        wrong = [word for found in NUMBERS.findall(comment) for word in found.strip('"').split() if not _finite([word])]
        if wrong:
            raise _wrong(path, at + 1, lines, f"'{wrong[0]}' is no finite number")
        if at + 2 + n > len(lines):
            raise _wrong(path, len(lines), lines, f"frame of line {at + 1} has {n} atoms")
        for row in range(at + 2, at + 2 + n):
            _check_row(path, row, lines, columns)
        at += 2 + n


def _columns(path: Path, at: int, lines: Sequence[str], said: str) -> tuple[str, ...]:
    """The type of each column: S, R, I or L."""
    parts = said.split(":")
    widths = parts[2::3]
    if len(parts) % 3 or not all(width.isdecimal() and 0 < int(width) < 1000 for width in widths):
        raise _wrong(path, at, lines, "Properties are name:type:columns, again and again")
    return tuple(kind for kind, width in zip(parts[1::3], widths) for _ in range(int(width)))


def _check_row(path: Path, at: int, lines: Sequence[str], columns: tuple[str, ...] | None) -> None:
    words = lines[at].split()
    if columns is None:
        if len(words) < 4 or not _numbers(words[1:4]):
            raise _wrong(path, at, lines, "an element and three numbers are to stand here")
        return
    if len(words) != len(columns):
        raise _wrong(path, at, lines, f"{len(words)} columns, where Properties has {len(columns)}")
    wrong = [word for word, kind in zip(words, columns) if kind in "RI" and not _numbers([word])]
    if wrong:
        raise _wrong(path, at, lines, f"'{wrong[0]}' is no number")


# ---- XDATCAR ---------------------------------------------------------------------------------------------------------


def _check_xdatcar(path: Path, lines: Sequence[str]) -> None:
    """Configurations follow each other, each with a line of its own and a row of three numbers an atom."""
    at, end = 0, len(lines)
    while end and not lines[end - 1].strip():
        end -= 1
    if not any(_begins(line) for line in lines):  # of VASP 4, whose configurations begin with an empty line
        return
    n = 0
    while at < end:
        if not _begins(lines[at]):
            n = _check_head(path, at, lines[:end])
            at += 7 if not lines[at + 5].split()[0].lstrip("-").isdecimal() else 6
        if at >= end or not _begins(lines[at]):
            raise _wrong(path, at, lines[:end], "a configuration is to begin here")
        for row in range(at + 1, at + 1 + n):
            if row >= end or len(lines[row].split()) < 3 or not _numbers(lines[row].split()[:3]):
                raise _wrong(path, row, lines[:end], f"one of the {n} rows of the configuration of line {at + 1} is"
                             " to stand here")  # fmt: skip
        at += 1 + n


def _begins(line: str) -> bool:
    return line.lstrip().lower().startswith(("direct", "cartesian"))


def _check_head(path: Path, at: int, lines: Sequence[str]) -> int:
    """The number of atoms of a head: a name, a scale, three vectors, elements and their numbers."""
    if at + 6 >= len(lines):
        raise _wrong(path, at, lines, "a configuration is to begin here")
    for row in range(at + 1, at + 5):
        if not _finite(lines[row].split()) or len(lines[row].split()) != (1 if row == at + 1 else 3):
            raise _wrong(path, row, lines, "the scale, or a vector of the cell, is to stand here")
    counts = next((row for row in (at + 5, at + 6) if lines[row].split() and lines[row].split()[0].isdecimal()), at + 6)
    words = list(takewhile(str.isdecimal, lines[counts].split()))
    if not words or len(words) != len(lines[counts].split()):
        raise _wrong(path, counts, lines, "the numbers of atoms are to stand here")
    return sum(map(int, words))


# ---- PDB -------------------------------------------------------------------------------------------------------------

COORDINATES = ((30, 38), (38, 46), (46, 54))
OPTIONAL = ((54, 60), (60, 66))  # occupancy and temperature factor


def _check_pdb(path: Path, lines: Sequence[str]) -> None:
    """Coordinates stand in their columns, and all models have the atoms of the first one, by name and element."""
    first: list[tuple[str, str]] = []
    atoms: list[tuple[str, str]] = []
    models, named, inside, ended = 0, 0, False, False
    for at, line in enumerate(lines):
        if line.startswith(("ATOM  ", "HETATM")):
            if ended or (models and not inside):
                raise _wrong(path, at, lines, "an atom behind END, or between ENDMDL and MODEL")
            _check_atom(path, at, lines)
            atoms.append((line[12:16].strip(), line[76:78].strip()))
            if models > 1 and (len(atoms) > len(first) or atoms[-1] != first[len(atoms) - 1]):
                other = first[len(atoms) - 1] if len(atoms) <= len(first) else "none"
                raise _wrong(path, at, lines, f"atom {len(atoms)} is {atoms[-1]}, of the first model {other}")
        elif line.startswith("MODEL "):
            if inside or (atoms and not models) or models > named:
                raise _wrong(path, at, lines, "the model above has not begun (MODEL), or has not ended (ENDMDL)")
            models, named, inside, atoms = models + 1, named + 1, True, []
        elif line.startswith("ENDMDL"):
            if models and not inside:
                raise _wrong(path, at, lines, "no model (MODEL) ends here")
            first = atoms if models <= 1 else first
            if len(atoms) != len(first):
                raise _wrong(path, at, lines, f"the model has {len(atoms)} atoms, the first one {len(first)}")
            models, inside = max(models, 1), False
        ended = ended or line.rstrip() == "END"
    if inside:
        raise _wrong(path, len(lines), lines, "the last model has not ended (ENDMDL)")


def _check_atom(path: Path, at: int, lines: Sequence[str]) -> None:
    line, points = lines[at], set()
    for start, stop in COORDINATES:
        word = line[start:stop].strip()
        if not _numbers([word]) or (_finite([word]) and "." not in word):
            raise _wrong(path, at, lines, f"no number with a point stands in columns {start + 1} to {stop}")
        points.add(min(line[start:stop].find("."), 4))  # 8.3f; of numbers that are too long digits are left out
    if len(points) > 1:
        raise _wrong(path, at, lines, "its coordinates are out of their columns, 31 to 54")
    for start, stop in OPTIONAL:
        if line[start:stop].strip() and number(line[start:stop]) is None:
            raise _wrong(path, at, lines, f"'{line[start:stop]}' in columns {start + 1} to {stop} is no number")
