"""The lines of text trajectories, compared with what their format asks for before ASE or MDAnalysis reads them.

These take what they can from a line and pass over the rest: a column too many, a configuration that another begins in,
numbers that are none, models of other atoms.
"""

from __future__ import annotations

import gzip
import math
import re
import xml.etree.ElementTree as xml
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from hpcfit.errors import InputError
from hpcfit.log import inputs
from hpcfit.readers.boundary import reading
from hpcfit.readers.tables import number

PROPERTIES = re.compile(r'properties="?([^"\s]+)"?', re.IGNORECASE)
NUMBERS = re.compile(r'(?:lattice|virial|stress|energy)=("[^"]*"|\S+)', re.IGNORECASE)
REPAIR = "repair the file, or write it again"


def check_layout(path: Path, form: str) -> None:
    """Raise InputError, naming the line, where a file is not laid out as its format asks for.

    form: "extxyz", "vasp-xdatcar", "vasp-out" or "vasp-xml", names of ASE, or "pdb"; others are not looked at.
    """
    if form == "vasp-xml":
        _check_vasprun(path)
    check = {"extxyz": _check_extxyz, "vasp-xdatcar": _check_xdatcar, "vasp-out": _check_outcar, "pdb": _check_pdb}.get(
        form
    )
    if check is None:
        return
    opens = gzip.open if path.suffix == ".gz" else open
    with (
        reading(f"{path} cannot be read as text", "write it as UTF-8 text"),
        opens(path, "rt", encoding="utf-8", errors="replace" if form in ("pdb", "vasp-out") else "strict") as file,
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


# ---- OUTCAR and vasprun.xml ------------------------------------------------------------------------------------------


def _check_outcar(path: Path, lines: Sequence[str]) -> None:
    """Each table of positions and forces has a row of six numbers for each ion, and a cell before it."""
    starts = [at for at, line in enumerate(lines) if "ions per type" in line]
    if not starts:
        return  # ASE says what is missing
    if len(starts) > 1:
        raise _wrong(path, starts[1], lines, "another run begins here: give each OUTCAR as a file of its own")
    named = [line.split()[1:4] for line in lines if "POTCAR:" in line]
    if named[: len(named) // 2] != named[len(named) // 2 :]:  # VASP lists its elements twice
        raise _wrong(path, starts[0], lines, f"the elements above are not listed twice alike (POTCAR:): {named}")
    ions = starts[0]
    words = lines[ions].partition("=")[2].split()
    if not words or not all(map(str.isdecimal, words)):
        raise _wrong(path, ions, lines, "the numbers of ions are to stand here")
    n, cell = sum(map(int, words)), None
    for at, line in enumerate(lines):
        if "direct lattice vectors" in line:
            cell = at
            for row in range(at + 1, at + 4):
                if row >= len(lines) or len(lines[row].split()) < 3 or not _finite(_parted(lines[row])[:3]):
                    raise _wrong(path, row, lines, "a vector of the cell is to stand here")
        elif "TOTAL-FORCE (eV/Angst)" in line and at + n + 2 < len(lines):  # else it is cut, and counted so
            if cell is None:
                raise _wrong(path, at, lines, "no cell (direct lattice vectors) stands before this table")
            cell = None
            for row in (at + 1, at + 2 + n):
                if set(lines[row].strip()) != {"-"}:
                    raise _wrong(path, row, lines, f"a rule is to stand here, around the {n} rows of {n} ions")
            for row in range(at + 2, at + 2 + n):
                if len(_parted(lines[row])) != 6 or not _numbers(_parted(lines[row])):
                    raise _wrong(path, row, lines, "a position and a force are to stand here")


def _parted(line: str) -> list[str]:
    """The numbers of a line of VASP, which leaves no space before a minus."""
    return re.sub(r"(\d)-(\d)", r"\1 -\2", line).split()


def _check_vasprun(path: Path) -> None:
    """Each calculation has one cell, and a position and a force for each atom of the list of atoms."""
    opens, n, number_of = gzip.open if path.suffix == ".gz" else open, None, 0
    with reading(f"{path} cannot be read as XML", "check that it is whole"), opens(path, "rb") as file:
        try:
            for _, element in xml.iterparse(file):
                if element.tag == "array" and element.get("name") == "atoms":
                    n = len(element.findall("set/rc"))
                elif element.tag == "calculation":
                    _check_calculation(path, number_of, element, n)
                    number_of += 1
                    element.clear()
        except xml.ParseError as error:
            inputs.warning(
                "%s is no whole XML (%s): its run was stopped, or it was not copied whole; it has %d whole steps",
                path, error, number_of,
            )  # fmt: skip


def _check_calculation(path: Path, number_of: int, element: xml.Element, n: int | None) -> None:
    for name, place, rows in (("basis", "structure/crystal/", 3), ("positions", "structure/", n), ("forces", "", n)):
        tables = element.findall(f"{place}varray[@name='{name}']")
        good = [len(row) == 3 and _numbers(row) for one in tables for row in map(_words, one.findall("v"))]
        if name == "forces" and not tables:
            continue  # frames without forces, which who needs them will say
        if len(tables) != 1 or not all(good) or len(good) != rows:
            raise InputError(
                f"{path}, step {number_of} has {len(tables)} tables of {name} with {sum(good)} of {rows} rows of three"
                " numbers",
                remedy=REPAIR,
            )


def _words(element: xml.Element) -> list[str]:
    return (element.text or "").split()


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
