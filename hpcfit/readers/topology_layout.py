"""The sections of GRO, PSF and PRMTOP files, counted before MDAnalysis reads them, which takes what it can."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np

from hpcfit.readers.tables import number


def check_topology(path: Path, form: str) -> None:
    """Raise ValueError where a file has not what it announces. form: GRO, PSF or PRMTOP; others are not looked at."""
    check = {"GRO": _check_gro, "PSF": _check_psf, "PRMTOP": _check_prmtop}.get(form)
    if check is not None:
        check(path.read_text(encoding="utf-8", errors="replace").split("\n"))


def check_names_of_psf(path: Path, names: tuple[str, ...]) -> None:
    """Raise ValueError for a name that MDAnalysis cut out of other columns than the words of its line have."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            if "!NATOM" in line:
                break
        for line, name in zip(file, names):
            words = line.split()
            if len(words) < 7 or name not in words[3:5]:  # a segment may have no name
                raise ValueError(f"'{line.strip()[:60]}' has not the columns of an atom: its name would be '{name}'")


def _check_gro(lines: list[str]) -> None:
    """Raise ValueError unless so many atoms as the second line says have numbers, and a box of GROMACS follows."""
    said = lines[1].strip() if len(lines) > 1 else ""
    if not said.isdecimal() or not int(said) or len(lines) < 3 + int(said):
        raise ValueError(f"its second line says {said or 'no number of'} atoms, and it has {len(lines)} lines")
    rows, last = lines[2 : 2 + int(said)], lines[2 + int(said)]
    points = [at for at, letter in enumerate(rows[0]) if letter == "." and at >= 20]
    width = points[1] - points[0] if len(points) > 1 else 8  # which tells GROMACS the number of decimals
    for row in rows:
        fields = [row[at : at + width] for at in (20, 20 + width, 20 + 2 * width)]
        velocities = row[20 + 3 * width :]
        more = [velocities[at : at + width] for at in (0, width, 2 * width)] if velocities.strip() else []
        if None in map(number, (*fields, *more)) or len({field.find(".") for field in fields}) > 1:
            raise ValueError(f"'{row.strip()[:60]}' has not three coordinates in columns of {width}")
    box = [number(word) for word in last.split()]
    if len(box) not in (3, 9) or None in box or not np.all(np.isfinite(box)):
        raise ValueError(f"'{last.strip()[:60]}' stands where the box should, of three or nine numbers")
    if min(box[:3]) <= 0 and any(box):
        raise ValueError(f"the box {last.strip()} has no volume; a system without a box has 0 0 0")
    more = [line for line in lines[3 + int(said) :] if line.strip()]
    if len(more) % (3 + int(said)):
        raise ValueError(f"'{more[0].strip()[:60]}' stands behind the box, and it is no further frame")
    if any(box[at] for at in (3, 4, 6) if at < len(box)):
        raise ValueError(f"the box {last.strip()} has a along y or z, or b along z, which GROMACS does not know")


def _check_prmtop(lines: list[str]) -> None:
    """Raise ValueError unless the sections of atoms and bonds have the fields that POINTERS announces, each filled."""
    sections: dict[str, list[str]] = {}
    name, width = "", 0
    for line in lines:
        if line.startswith("%FLAG"):
            name, width = line[5:].strip(), 0
            sections[name] = []
        elif line.startswith("%FORMAT"):
            found = re.search(r"\(\s*\d+\s*[aAiIeEfF]\s*(\d+)", line)
            width = int(found[1]) if found else 0
        elif name and width and not line.startswith("%"):
            sections[name] += [line[at : at + width].strip() for at in range(0, len(line.rstrip()), width)]
    pointers = [int(one) for one in sections.get("POINTERS", [])]
    if len(pointers) < 30:
        raise ValueError(f"its section POINTERS has {len(pointers)} of 30 numbers")
    n, with_hydrogen, without = pointers[0], pointers[2], pointers[12]
    for name, expected in (("ATOM_NAME", n), ("MASS", n), ("ATOMIC_NUMBER", n), ("RESIDUE_LABEL", pointers[11]),
                           ("RESIDUE_POINTER", pointers[11]), ("BONDS_INC_HYDROGEN", 3 * with_hydrogen),
                           ("BONDS_WITHOUT_HYDROGEN", 3 * without)):  # fmt: skip
        fields = sections.get(name)
        if fields is None and name == "ATOMIC_NUMBER":  # files of before 2010 have none
            continue
        text = name in ("ATOM_NAME", "RESIDUE_LABEL")
        if fields is None or len(fields) != expected:
            raise ValueError(f"its section {name} has {len(fields or [])} of {expected} fields")
        if not text and None in map(number, fields):
            raise ValueError(f"its section {name} has a field that is no number")


def _check_psf(lines: list[str]) -> None:
    """Raise ValueError unless atoms and bonds are as many as the titles of their sections say."""
    for name, per_line in (("!NATOM", True), ("!NBOND", False)):
        at = next((number for number, line in enumerate(lines) if name in line), None)
        if at is None:
            raise ValueError(f"it has no section {name}: was it copied whole?")
        there = itertools.takewhile(lambda line: line.strip() and "!" not in line, lines[at + 1 :])
        words = [line.split() for line in there]
        found = len(words) if per_line else sum(map(len, words)) // 2
        announced = lines[at].split()[0]
        if not announced.isdecimal() or int(announced) != found:
            raise ValueError(f"its section {name} announces {announced} and has {found}")
