"""The columns of a PDB file that say what an atom is: MDAnalysis keeps elements that it knows, and no other."""

from __future__ import annotations

import functools
import gzip
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.log import inputs
from hpcfit.physics.scattering import SITE

SITES = (SITE, "M", "Mw", "Ep", "Lp")  # elements that programs write for virtual sites


class Columns(NamedTuple):
    """The atoms of the first model as written. elements: "D" is deuterium, SITE a site without electrons, "" where none
    is written; names; alternates: how many atoms have an alternate location; space_group: of CRYST1, or ""."""

    elements: tuple[str, ...]
    names: tuple[str, ...]
    alternates: int
    space_group: str


def pdb_columns(path: Path) -> Columns:
    """Elements (columns 77 and 78), names and alternate locations of the atoms of a PDB file, in its order."""
    elements, names, alternates, group = [], [], 0, ""
    opens = gzip.open if path.suffix == ".gz" else open
    with opens(path, "rt", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith(("ATOM  ", "HETATM")):
                elements.append(element_named(line[76:78]))
                names.append(line[12:16].strip())
                alternates += line[16:17] not in (" ", "A", "1", "")
            elif line.startswith("CRYST1"):
                group = group or line[55:66].strip()
            elif line.startswith("ENDMDL"):
                break
    return Columns(tuple(elements), tuple(names), alternates, group)


class Records(NamedTuple):
    """The bonds of CONECT records. pairs: [b, 2] atoms, counted from 0; unclear: how many name a serial number that no
    atom has, or several."""

    pairs: np.ndarray
    unclear: int


NO_RECORDS = Records(np.empty((0, 2), int), 0)


def conect_records(path: Path) -> Records:
    """The bonds of the CONECT records of a PDB file, each once."""
    serials, bonds, ended = {}, set(), False
    opens = gzip.open if path.suffix == ".gz" else open
    with opens(path, "rt", encoding="utf-8", errors="replace") as file:
        n = 0
        for line in file:
            if line.startswith(("ATOM  ", "HETATM")) and not ended:
                serials.setdefault(line[6:11].strip(), []).append(n)
                n += 1
            elif line.startswith("CONECT"):
                first, *others = (line[at : at + 5].strip() for at in range(6, min(len(line.rstrip()), 31), 5))
                bonds |= {frozenset((first, other)) for other in others if other and other != first}
            ended = ended or line.startswith("ENDMDL")
    clear = [sorted(serials[one][0] for one in bond) for bond in bonds
             if all(len(serials.get(one, ())) == 1 for one in bond)]  # fmt: skip
    return Records(np.array(sorted(clear), int).reshape(-1, 2), len(bonds) - len(clear))


def element_named(text: str) -> str:
    """An element as it is written, SITE for what virtual sites are called, "" for nothing and for what is none."""
    element = text.strip().strip("0123456789+-").capitalize()
    return SITE if element in SITES else element if is_element(element) else ""


@functools.cache
def is_element(name: str) -> bool:
    """True for the symbol of an element."""
    import gemmi

    # gemmi reads no more of a name than it knows: "Test" is tellurium to it.
    return len(name) <= 2 and gemmi.Element(name).atomic_number > 0


def warn_of_alternates(path: Path, alternates: int) -> None:
    """Say that both locations of an atom count in full."""
    if alternates:
        inputs.warning(
            "%s: %d atoms are at an alternate location of another; each counts in full, occupancies are not read: leave"
            " one of each, with their trajectory",
            path, alternates,
        )  # fmt: skip


def without_element(path: Path, number: int, name: str) -> tuple[str, str]:
    """The words of an error and its remedy, for an atom without an element."""
    return (
        f"topology {path} has no element for atom {number} ({name}; columns 77-78 of a PDB file)",
        f"write it there: from names alone CA is calcium or carbon, POT potassium or polonium. {SITE} stands for a"
        " virtual site, which has no electrons",
    )
