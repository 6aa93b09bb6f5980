"""Text trajectories that ASE reads: XDATCAR, vasprun.xml and OUTCAR of VASP, extended XYZ."""

from __future__ import annotations

import functools
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.readers.boundary import reading
from hpcfit.readers.text_layout import check_layout
from hpcfit.readers.units import Units
from hpcfit.store.frame import Frame

XYZ = (".extxyz", ".xyz")
WHOLE = "check that it is whole"
CONVENTION = Units("A", "eV")  # of ASE, and so of extended XYZ unless its source says others


class Given(NamedTuple):
    """Names of the columns of positions and forces, and units of length and energy, that a config gives for a file
    whose format leaves them open; None where it gives nothing."""

    positions: str | None = None
    forces: str | None = None
    length: str | None = None
    energy: str | None = None


NOT_GIVEN = Given()


def form_of(path: Path) -> str | None:
    """ASE's name of the format of a file, by the name of the file; None for another format."""
    name = path.name.removesuffix(".gz")
    if name.lower().endswith(XYZ):
        return "extxyz"
    if name.lower().startswith("vasprun") and name.lower().endswith(".xml"):
        return "vasp-xml"
    if "OUTCAR" in (name.partition(".")[0], name.rpartition(".")[2]):
        return "vasp-out"
    return "vasp-xdatcar" if name.startswith("XDATCAR") or name.endswith("XDATCAR") else None


# The lines of which each configuration has one. In an XDATCAR each begins with "Direct configuration=" or with
# "Cartesian ..."; in those of VASP 4 with an empty line, so that nothing is known of their number.
BEGINS = {
    "vasp-xdatcar": lambda line: line.lstrip().lower().startswith(("direct", "cartesian")),
    "vasp-xml": lambda line: line.strip() == "<calculation>",
    "vasp-out": lambda line: "TOTAL-FORCE (eV/Angst)" in line,
}  # fmt: skip


def announced(path: Path) -> int | None:
    """The number of configurations that begin in a file; ASE ends, without a word, at the first line it does not
    expect."""
    begins = BEGINS.get(form_of(path))
    if begins is None:
        return None
    opens = gzip.open if path.suffix == ".gz" else open
    with reading(f"trajectory {path} cannot be read", WHOLE), opens(path, "rt", errors="replace") as file:
        return sum(map(begins, file)) or None


def images_of(path: Path) -> list:
    """All frames of a file; such files are read from the start, so they are kept while they are in use."""
    return _images(str(path), path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _images(path: str, _modified: int) -> list:
    return read_images(f"trajectory {path}", path, form_of(Path(path)), "frames", WHOLE)


def frames(path: Path, rows: range, given: Given = NOT_GIVEN) -> Iterator[Frame]:
    """The frames of these rows, in A and kJ/mol/A; raises InputError where a column that is given is not there."""
    images = images_of(path)
    units = Units(given.length or CONVENTION.length, given.energy or CONVENTION.energy)
    for row in rows:
        atoms = images[row]
        positions = atoms.get_positions() if given.positions is None else _column(path, row, atoms, given.positions)
        if given.positions is None:
            _check_positions(path, row, atoms)
        if given.forces is None:
            forces = atoms.calc.results.get("forces") if atoms.calc else None
        else:
            forces = _column(path, row, atoms, given.forces)
        forces = None if forces is None else units.forces(np.asarray(forces, float))
        box = units.positions(atoms.cell.array) if atoms.cell.rank == 3 else None
        yield Frame(row, units.positions(positions), forces, box, pbc=tuple(map(bool, atoms.pbc)))


def _column(path: Path, row: int, atoms: Any, name: str) -> np.ndarray:
    """Three columns [n, 3] of extended XYZ by their name."""
    there = {**atoms.arrays, **(atoms.calc.results if atoms.calc else {})}
    found = there.get({"pos": "positions", "force": "forces"}.get(name, name), there.get(name))
    if found is None or np.shape(found) != (len(atoms), 3):
        vectors = [one for one, values in there.items() if np.shape(values) == (len(atoms), 3)]
        raise InputError(
            f"{path}, frame {row} has no three columns {name}; it has {', '.join(sorted(vectors))}",
            remedy="correct keys of its [[prepare.source]]",
        )
    return np.asarray(found, float)


def _check_positions(path: Path, row: int, atoms: Any) -> None:
    """Raise InputError for atoms that all lie at 0: ASE puts them there where no column is called pos."""
    if len(atoms) > 1 and not atoms.positions.any():
        vectors = [name for name, values in atoms.arrays.items() if values.shape == (len(atoms), 3)]
        others = [name for name in vectors if name != "positions"]
        raise InputError(
            f"{path}, frame {row}: all atoms lie at 0; of three columns it has {', '.join(others) or 'none'}",
            remedy="name the column of positions: keys = { positions = ... }",
        )


def read_images(what: str, path: Path | str, form: str, images: str, remedy: str) -> list:
    """All images of a text file in a format of ASE. what, images: the words of errors for the file and what it holds;
    remedy: that of a file which cannot be read."""
    import ase.io

    check_layout(Path(path), form)
    with reading(f"{what} cannot be read by ASE as {form}", remedy):
        # With mpi4py loaded ASE reads on one rank and sends its file to all, who asked for other files: parallel=False.
        found = ase.io.read(path, index=":", format=form, parallel=False, do_not_split_by_at_sign=True)
    if not found:
        raise InputError(f"{what} has no {images}", remedy=f"give a file with {images}")
    return found


def elements_of(path: Path, images: list, word: str) -> tuple[str, ...]:
    """The elements of all images of ASE; InputError, which calls them by ``word``, where they differ."""
    elements = tuple(images[0].get_chemical_symbols())
    for number, image in enumerate(images):
        if tuple(image.get_chemical_symbols()) != elements:
            raise InputError(
                f"{path}, {word} {number}: {image.get_chemical_formula()}, {word} 0 has"
                f" {images[0].get_chemical_formula()}, or another order",
                remedy="give a file of the same atoms throughout, those of other molecules in files of their own",
            )
    return elements
