"""The columns of a PDB file that say what an atom is: MDAnalysis keeps elements that it knows, and no other. And PDB
files written."""

from __future__ import annotations

import functools
import gzip
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.log import inputs
from hpcfit.physics.scattering import SITE
from hpcfit.store.files import written_whole
from hpcfit.store.particles import Particles

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


LARGEST_B = 999.99  # A^2, what six columns hold


class Model(NamedTuple):
    """A model of a PDB file. positions: [n, 3] A; cell: lengths (A) and angles of CRYST1, which stands once, or None;
    b_factors: [n] A^2, or None for zeros."""

    positions: np.ndarray
    cell: tuple[float, ...] | None = None
    b_factors: np.ndarray | None = None


def write_pdb(path: Path, particles: Particles, models: Iterable[Model], remarks: Sequence[str] = ()) -> None:
    """Write models of the same particles as PDB, whole. Numbers of atoms and residues begin again behind 99999 and
    9999; a B factor above 999.99 is written as that. Raises InputError for a place that has no room in its columns."""
    heads, tails = _fixed_columns(particles)
    with written_whole(path) as temporary, open(temporary, "w", encoding="ascii", errors="replace") as file:
        file.writelines(f"REMARK 250 {line[:69]}\n" for line in remarks)
        for number, model in enumerate(models):
            if number == 0 and model.cell is not None:
                lengths, angles = model.cell[:3], model.cell[3:]
                numbers = "".join(f"{x:9.3f}" for x in lengths) + "".join(f"{x:7.2f}" for x in angles)
                file.write(f"CRYST1{numbers} P 1           1\n")
            file.write(f"MODEL {number + 1:8d}\n")
            file.writelines(_atoms(path, particles, model, heads, tails))
            file.write("ENDMDL\n")
        file.write("END\n")


def _fixed_columns(particles: Particles) -> tuple[list[str], list[str]]:
    """The columns of each atom before its place, and those behind its B factor."""
    heads = []
    for number, (name, element, residue) in enumerate(zip(particles.names, particles.elements, particles.residue)):
        # The symbol of an element ends in the second column of a name.
        place = name[:4] if len(name) > 3 or len(element) == 2 else f" {name}"
        kind, chain = particles.residue_names[residue][:4], particles.chains[residue][:1]
        of_residue = f"{kind:>3s}".ljust(4) + f"{chain or ' '}{particles.residue_numbers[residue] % 10000:4d}"
        heads.append(f"ATOM  {(number + 1) % 100000:5d} {place:<4s} {of_residue}    ")
    return heads, [f"          {element.upper():>2s}\n" for element in particles.elements]


def _atoms(path: Path, particles: Particles, model: Model, heads: list[str], tails: list[str]) -> Iterator[str]:
    r = model.positions
    outside = np.flatnonzero(np.any((r < -999.9995) | (r > 9999.9995), axis=1))
    if len(outside):
        raise InputError(
            f"{path}: {particles.label(int(outside[0]))} lies at {r[outside[0]].tolist()} A, beyond the columns of a"
            " PDB file",
            remedy="write an XTC",
        )
    b = np.zeros(len(r)) if model.b_factors is None else np.minimum(model.b_factors, LARGEST_B)
    for head, (x, y, z), of_atom, tail in zip(heads, r.tolist(), b.tolist(), tails):
        yield f"{head}{x:8.3f}{y:8.3f}{z:8.3f}  1.00{of_atom:6.2f}{tail}"
