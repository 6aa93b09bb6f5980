"""Dumps of LAMMPS: text, custom columns, atoms sorted by their ids, the box as its bounds and tilts say.

A dump says its unit style only where `dump_modify units yes` is set. Lengths are A in the styles real and metal; forces
are kcal/mol/A in the one and eV/A in the other, so that they need their unit.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.readers.boundary import reading
from hpcfit.readers.pdb_columns import element_named
from hpcfit.readers.units import Units
from hpcfit.store.frame import Frame

SUFFIXES = (".lammpstrj", ".lammpsdump", ".dump")
BEGIN = ("UNITS", "TIME", "TIMESTEP")  # items that a frame begins with, the first two only where they are written
PLACES = (("x", "y", "z"), ("xu", "yu", "zu"), ("xs", "ys", "zs"), ("xsu", "ysu", "zsu"))  # the last two: scaled
FORCES = ("fx", "fy", "fz")
STYLES = {"real": Units("A", "kcal/mol"), "metal": Units("A", "eV"), "electron": Units("bohr", "hartree")}
PS = {"real": 1e-3, "metal": 1.0, "electron": 1e-3}  # of a unit of time
REPAIR = "repair it, or leave the frame out with start, stop and stride"


class Index(NamedTuple):
    """The frames of a dump. offsets: of whole ones, bytes [T]; begun: their number with a last one that is cut;
    columns and unit style ("" where it is not said) are those of the first."""

    offsets: np.ndarray
    n_atoms: int
    begun: int
    columns: tuple[str, ...]
    style: str


class _Header(NamedTuple):
    """The header of a frame, in the units of the file. box: [3, 3], whose rows are cell vectors; origin: [3]."""

    step: int
    time: float | None
    n_atoms: int
    box: np.ndarray
    origin: np.ndarray
    pbc: tuple[bool, bool, bool]
    columns: tuple[str, ...]
    style: str


class _Atoms(NamedTuple):
    """The atoms of a frame, sorted by id: values [n] by column as they are written."""

    ids: np.ndarray
    elements: tuple[str, ...]
    values: dict[str, np.ndarray]

    def vectors(self, columns: tuple[str, str, str]) -> np.ndarray | None:
        """[n, 3] of three columns; None where one is not there."""
        if not self.values.keys() >= set(columns):
            return None
        written = np.stack([self.values[name] for name in columns], axis=1)
        if np.any(np.char.find(written, b"_") >= 0):  # which Python takes for part of a number
            raise ValueError(f"a number of {', '.join(columns)} has an underscore")
        return written.astype(float)


def is_dump(path: Path) -> bool:
    """True for a name that dumps of LAMMPS have."""
    name = path.name.lower().removesuffix(".gz")
    return name.endswith(SUFFIXES) or name.startswith("dump.")


def index_of(path: Path) -> Index:
    """The whole frames of a dump. Raises InputError for a file that is none, without ids or places, or with a number of
    atoms that changes."""
    status = path.stat()
    return _index(path, status.st_mtime_ns, status.st_size)


def elements_of(path: Path) -> tuple[str, ...]:
    """The elements of the column `element` of the first frame; none where there is no such column."""
    return () if "element" not in index_of(path).columns else _first(path, path.stat().st_mtime_ns).elements


def units_of(path: Path, length: str | None, energy: str | None) -> Units | None:
    """The units of a dump: those that it says, or those that were given; energy None: not known.

    Raises InputError where the two differ, or where its lengths have no unit (lj).
    """
    said = STYLES.get(index_of(path).style)
    if said is None:
        if index_of(path).style and length is None:
            raise InputError(
                f"{path} is in units {index_of(path).style}", remedy="set length_unit of its [[prepare.source]]"
            )
        return Units(length or "A", energy)
    for name, mine, given in (("length_unit", said.length, length), ("energy_unit", said.energy, energy)):
        if given not in (None, mine):
            raise InputError(
                f"{path} is in units {index_of(path).style}; {name} = {given!r} of its source is not {mine!r}",
                remedy=f"leave {name} out",
            )
    return said


def frames(path: Path, rows: range, units: Units) -> Iterator[Frame]:
    """The frames of these rows, one by one, atoms by id, in A, ps and kJ/mol/A; raises InputError naming file and
    frame. units: energy None leaves forces out."""
    index = index_of(path)
    with _opened(path) as file:
        for row in rows:
            with reading(f"{path}, frame {row} cannot be read", REPAIR):
                file.seek(index.offsets[row])
                head = _header(file)
                atoms = _atoms(file, head)
                found = _frame(row, head, atoms, (units, PS.get(index.style)))
            _compare(path, row, atoms)
            yield found


def _frame(row: int, head: _Header, atoms: _Atoms, known: tuple[Units, float | None]) -> Frame:
    """known: the units, and the ps of a unit of time."""
    units, ps = known
    places = next(columns for columns in PLACES if atoms.values.keys() >= set(columns))
    positions = atoms.vectors(places)
    if "s" in places[0]:
        positions = head.origin + positions @ head.box
    forces = None if units.energy is None else atoms.vectors(FORCES)
    time = None if None in (head.time, ps) else head.time * ps
    return Frame(
        row,
        units.positions(positions),
        None if forces is None else units.forces(forces),
        units.positions(head.box),
        time,
        pbc=head.pbc,
        step=head.step,
    )


def _compare(path: Path, row: int, atoms: _Atoms) -> None:
    """Raise InputError where a frame has other atoms than the first."""
    first = _first(path, path.stat().st_mtime_ns)
    same_ids = np.array_equal(atoms.ids, first.ids)
    if same_ids and atoms.elements == first.elements:
        return
    if same_ids and len(atoms.elements) != len(first.elements):
        what = "only one of it and frame 0 has a column element"
    elif same_ids:
        at = next(n for n, (a, b) in enumerate(zip(atoms.elements, first.elements)) if a != b)
        what = f"atom {atoms.ids[at]} is {atoms.elements[at]}, in frame 0 {first.elements[at]}"
    else:
        new = np.setdiff1d(atoms.ids, first.ids)
        what = f"there is an atom {new[0]}" if len(new) else f"the atom {atoms.ids[0]} stands there twice"
        what += ", in frame 0 there is none" if len(new) else ""
    raise InputError(f"{path}, frame {row}: {what}", remedy="dump a group of atoms that does not change")


# ---- text ------------------------------------------------------------------------------------------------------------


def _opened(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb")


@lru_cache(maxsize=16)
def _index(path: Path, _modified: int, _size: int) -> Index:
    what = f"trajectory {path} cannot be read as a dump of LAMMPS"
    with reading(what, "check that it is whole"), _opened(path) as file:
        found = list(_scanned(file))
        if not found:
            raise ValueError("it does not begin with 'ITEM: TIMESTEP'")
        file.seek(0)
        with reading(f"{path}, frame 0 cannot be read", "check that it is whole"):
            first = _header(file)
    begun, n_atoms = len(found), found[0][1]
    for number, (_, n, rows) in enumerate(found):
        if number < begun - 1 and n != rows:
            raise InputError(
                f"{path}, frame {number} announces {n} atoms and has {rows}",
                remedy="the file is damaged, or two runs wrote into it: repair it",
            )
        if n not in (n_atoms, -1):
            raise InputError(
                f"{path}, frame {number} has {n} atoms, frame 0 has {n_atoms}",
                remedy="dump a group of atoms that does not change",
            )
    _check_columns(path, first.columns)
    whole = [offset for offset, n, rows in found if n == rows]
    if not whole:
        raise InputError(
            f"trajectory {path} ends within its first frame, or its last line has no end",
            remedy="check that it was copied whole",
        )
    return Index(np.array(whole, np.int64), n_atoms, begun, first.columns, first.style)


def _scanned(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Of each frame that begins: where it does, how many atoms it announces (-1: it is cut before), how many it has."""
    place, begin, n_atoms, rows, item = 0, None, -1, 0, ""
    for line in file:
        if line.startswith(b"ITEM:"):
            words = line[5:].split()
            before, item = item, words[0].decode("ascii", "replace") if words else ""
            if item in BEGIN and before not in BEGIN[:2]:
                if begin is not None:
                    yield begin, n_atoms, rows
                begin, n_atoms, rows = place, -1, 0
        elif item == "NUMBER":
            n_atoms = int(line) if line.endswith(b"\n") else -1
        elif item == "ATOMS" and line.endswith(b"\n") and line.strip():
            rows += 1
        place += len(line)
    if begin is not None:
        yield begin, n_atoms, rows


def _check_columns(path: Path, columns: tuple[str, ...]) -> None:
    """Raise InputError for columns without ids or places."""
    if "id" not in columns:
        raise InputError(
            f"{path} has no column id; it has {', '.join(columns)}: the order of atoms may change from frame to frame",
            remedy="write it again with id among the columns of `dump custom`",
        )
    if not any(set(columns) >= set(places) for places in PLACES):
        raise InputError(
            f"{path} has no positions; it has {', '.join(columns)}",
            remedy=f"write it again with one of {'; '.join(' '.join(places) for places in PLACES)}",
        )


def _header(file: BinaryIO) -> _Header:
    """The header of the frame that begins here; the atoms stand behind it."""
    step, time, n_atoms, style = 0, None, -1, ""
    box = origin = pbc = None
    while True:
        line = file.readline().decode("ascii", "replace")
        if not line.startswith("ITEM:"):
            raise ValueError(f"'{line.strip()[:60]}' stands where an ITEM should")
        words = line[5:].split()
        if words[0] == "ATOMS":
            break
        if words[0] == "BOX":
            box, origin, pbc = _box(words[2:], [file.readline().split() for _ in range(3)])
        elif words[0] == "TIMESTEP":
            step = int(file.readline())
        elif words[0] == "TIME":
            time = float(file.readline())
            if not math.isfinite(time):
                raise ValueError(f"its time is {time}")
        elif words[0] == "UNITS":
            style = file.readline().decode("ascii", "replace").strip()
        elif words[0] == "NUMBER":
            n_atoms = int(file.readline())
    if box is None:
        raise ValueError("it has no ITEM: BOX BOUNDS")
    return _Header(step, time, n_atoms, box, origin, pbc, tuple(words[1:]), style)


def _box(words: list[str], rows: list[list[bytes]]) -> tuple[np.ndarray, np.ndarray, tuple[bool, bool, bool]]:
    """Box, origin and periodicity of an ITEM: BOX BOUNDS: orthogonal, tilted (xy xz yz), or by vectors (abc origin).

    The bounds of a tilted box are those of the smallest orthogonal one around it (LAMMPS, "Howto triclinic").
    """
    values = np.array([[float(word) for word in row] for row in rows])
    if values.shape[1] < 4 and not np.all(values[:, 1] > values[:, 0]):
        raise ValueError(f"the bounds of its box are {values[:, :2].tolist()}")
    flags = words[-3:] if len(words) >= 3 and all(len(word) == 2 for word in words[-3:]) else ["pp"] * 3
    flags = ["pp"] * 3 if flags == ["xy", "xz", "yz"] else flags
    pbc = tuple(flag == "pp" for flag in flags)
    if words[:1] == ["abc"]:
        return values[:, :3], values[:, 3], pbc
    if values.shape[1] == 2:
        return np.diag(values[:, 1] - values[:, 0]), values[:, 0], pbc
    xy, xz, yz = values[:, 2]
    low, high = values[:, 0], values[:, 1]
    low = low - [min(0, xy, xz, xy + xz), min(0, yz), 0]
    high = high - [max(0, xy, xz, xy + xz), max(0, yz), 0]
    lx, ly, lz = high - low
    return np.array([[lx, 0, 0], [xy, ly, 0], [xz, yz, lz]]), low, pbc


def _atoms(file: BinaryIO, head: _Header) -> _Atoms:
    rows = [file.readline().split() for _ in range(head.n_atoms)]
    wrong = next((number for number, row in enumerate(rows) if len(row) != len(head.columns)), None)
    if wrong is not None:
        raise ValueError(f"row {wrong} of its atoms has {len(rows[wrong])} of {len(head.columns)} columns")
    values = dict(zip(head.columns, np.array(rows, bytes).reshape(len(rows), len(head.columns)).T))
    order = np.argsort(values["id"].astype(int), kind="stable")
    values = {name: column[order] for name, column in values.items()}
    written = (one.decode("ascii", "replace") for one in values["element"].tolist()) if "element" in values else ()
    return _Atoms(values["id"].astype(int), tuple(map(element_named, written)), values)


@lru_cache(maxsize=16)
def _first(path: Path, _modified: int) -> _Atoms:
    """The ids and elements of the first frame."""
    with _opened(path) as file, reading(f"{path}, frame 0 cannot be read", REPAIR):
        file.seek(index_of(path).offsets[0])
        found = _atoms(file, _header(file))
    if "" in found.elements:
        atom = found.elements.index("")
        raise InputError(
            f"{path}: the element of atom {found.ids[atom]} is '{found.values['element'][atom].decode()}'",
            remedy="name elements with `dump_modify element`, or give the source a topology and leave the column out",
        )
    return found._replace(values={})
