"""A data file of LAMMPS (write_data) as a topology: the elements of its atoms by their masses, in the order of ids."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.readers.cells import cell_of
from hpcfit.readers.elements import elements_of_atoms

# Columns behind the id, by atom style: molecule and type.
COLUMNS = {
    "atomic": (None, 1), "charge": (None, 1), "bond": (1, 2), "angle": (1, 2), "molecular": (1, 2), "full": (1, 2),
}  # fmt: skip
SECTION = re.compile(r"[A-Z][A-Za-z/ ]*")


class LammpsAtoms(NamedTuple):
    """The n atoms of a data file, sorted by id. bonds: [b, 2]; cell: (A, degrees), as lengths are in A."""

    elements: tuple[str, ...]
    molecules: np.ndarray
    positions: np.ndarray
    masses: np.ndarray
    bonds: np.ndarray
    cell: tuple[float, ...] | None


def read_lammps_data(path: Path) -> LammpsAtoms:
    """The atoms of a data file whose lengths are A (units real or metal). Raises ValueError, with what is missing."""
    opens = gzip.open if path.suffix == ".gz" else open
    with opens(path, "rt", encoding="utf-8", errors="replace") as file:
        header, sections, styles = _sections(file.read().splitlines())
    for name in ("Masses", "Atoms"):
        if not sections.get(name):
            raise ValueError(f"it has no section {name}")
    _check_counts(header, sections)
    mass_of = {int(row[0]): float(row[1]) for row in sections["Masses"]}
    rows = sections["Atoms"]
    molecule, kind = COLUMNS[styles.get("Atoms") or _style(rows[0])]
    rows = sorted(rows, key=lambda row: int(row[0]))
    images = 3 if len(rows[0]) >= kind + 8 else 0  # ix iy iz stand at the end
    end = len(rows[0]) - images
    ids = np.array([int(row[0]) for row in rows])
    masses = np.array([mass_of[int(row[kind])] for row in rows])
    positions = np.array([[float(word) for word in row[end - 3 : end]] for row in rows])
    if not np.all(np.isfinite(positions)):
        raise ValueError(f"atom {ids[~np.isfinite(positions).all(axis=1)][0]} has no finite position")
    molecules = np.arange(len(rows)) if molecule is None else np.array([int(row[molecule]) for row in rows])
    none = [""] * len(rows)
    elements = elements_of_atoms(none, np.zeros(len(rows), int), [""], masses)
    bonds = np.array([[int(word) for word in row[2:4]] for row in sections.get("Bonds", [])], int).reshape(-1, 2)
    if len(unknown := np.setdiff1d(bonds, ids)):
        raise ValueError(f"a bond names atom {unknown[0]}, which is not there")
    return LammpsAtoms(elements, molecules, positions, masses, np.searchsorted(ids, bonds), _cell(header))


def _check_counts(header: list[list[str]], sections: dict[str, list[list[str]]]) -> None:
    """Raise ValueError where a section has other rows than the header announces, of several widths, or an id twice."""
    counts = {" ".join(words[1:]): int(words[0]) for words in header if len(words) > 1 and words[0].isdecimal()}
    for name, word in (("Masses", "atom types"), ("Atoms", "atoms"), ("Bonds", "bonds")):
        rows = sections.get(name, [])
        if counts.get(word, 0) != len(rows):
            raise ValueError(f"its header has {counts.get(word, 0)} {word}, its section {name} {len(rows)} rows")
        if other := [row for row in rows if len(row) != len(rows[0])]:
            raise ValueError(
                f"'{' '.join(other[0])}' in its section {name} has {len(other[0])} of {len(rows[0])} words"
            )
        if len(rows) != len({int(row[0]) for row in rows}):
            raise ValueError(f"a number stands twice in its section {name}")


def _sections(lines: list[str]) -> tuple[list[list[str]], dict[str, list[list[str]]], dict[str, str]]:
    """The words of the header, those of each section, and what stands behind # in its title (the atom style)."""
    header, sections, styles, name = [], {}, {}, None
    for line in lines[1:]:  # the first is a comment
        text, _, comment = line.partition("#")
        words = text.split()
        if words and SECTION.fullmatch(text.strip()):
            name = text.strip()
            sections[name] = []
            styles[name] = comment.strip() if comment.strip() in COLUMNS else ""
        elif words:
            (header if name is None else sections[name]).append(words)
    return header, sections, styles


def _style(row: list[str]) -> str:
    """The atom style by the number of words; images (3 more) may follow."""
    words = len(row) - 3 if len(row) >= 8 else len(row)
    found = {5: "atomic", 6: "molecular" if row[2].isdecimal() else "charge", 7: "full"}.get(words)
    if found is None:
        raise ValueError(f"atoms have {len(row)} words, and no atom style stands behind `Atoms #`")
    return found


def _cell(header: list[list[str]]) -> tuple[float, ...] | None:
    """Lengths and angles of the box of the header."""
    found = {words[-1]: [float(word) for word in words[: len(words) // 2]] for words in header
             if words[-1] in ("xhi", "yhi", "zhi", "yz")}  # fmt: skip
    if not {"xhi", "yhi", "zhi"} <= found.keys():
        return None
    xy, xz, yz = found.get("yz", (0.0, 0.0, 0.0))
    lx, ly, lz = (found[name][1] - found[name][0] for name in ("xhi", "yhi", "zhi"))
    box = np.array([[lx, 0, 0], [xy, ly, 0], [xz, yz, lz]])
    return cell_of(box)
