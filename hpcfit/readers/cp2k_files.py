"""Trajectories of CP2K: PROJECT-pos-1.xyz, with PROJECT-frc-1.xyz (forces) and PROJECT-1.cell (boxes) where they are.

The three files are paired by their steps, as they may be written at different ones. Positions and boxes are in A,
forces in hartree/bohr, times in fs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.readers.boundary import reading
from hpcfit.readers.pdb_columns import element_named
from hpcfit.readers.tables import number
from hpcfit.readers.units import Units
from hpcfit.store.frame import NOT_PERIODIC, PERIODIC, Frame

NAME = re.compile(r"(?P<project>.+)-pos-(?P<number>\d+)\.xyz", re.IGNORECASE)
STEP = re.compile(rb"\bi\s*=\s*(\d+)(?:.*?\btime\s*=\s*([-+0-9.eEdD]+))?")
FORCES = Units("bohr", "hartree")
REPAIR = "repair it, or leave the frame out with start, stop and stride"


class Index(NamedTuple):
    """The frames of an XYZ file: bytes at which whole ones begin, their steps and times (fs, NaN where none), and how
    many begin, one that is cut included."""

    offsets: list[int]
    steps: list[int]
    times: list[float]
    elements: tuple[str, ...]
    begun: int


def is_cp2k(path: Path) -> bool:
    """True for a name that CP2K gives to positions, whose frames say their step as CP2K writes it."""
    if NAME.fullmatch(path.name) is None or not path.is_file():
        return False
    with open(path, "rb") as file:
        file.readline()
        return STEP.search(file.readline()) is not None


def files_of(path: Path) -> list[Path]:
    """The file of positions, and those of forces and boxes that lie beside it."""
    name = NAME.fullmatch(path.name)
    beside = (f"{name['project']}-frc-{name['number']}.xyz", f"{name['project']}-{name['number']}.cell")
    return [path, *(path.with_name(one) for one in beside if path.with_name(one).is_file())]


def index_of(path: Path) -> Index:
    """The whole frames of an XYZ file of CP2K. Raises InputError where a frame does not begin as it should."""
    status = path.stat()
    return _index(path, status.st_mtime_ns, status.st_size)


def frames(path: Path, rows: range) -> Iterator[Frame]:
    """The frames of these rows, with forces and boxes of their step; raises InputError naming file and frame."""
    index, beside = index_of(path), files_of(path)[1:]
    forces = next((one for one in beside if one.suffix == ".xyz"), None)
    cells = next((one for one in beside if one.suffix == ".cell"), None)
    of_forces = {} if forces is None else _offsets_of_forces(path, forces, index)
    boxes = {} if cells is None else _boxes(path, cells, index)
    numbered = _numbered(index.steps)
    with open(path, "rb") as file:
        for row in rows:
            step, time = index.steps[row], index.times[row]
            with reading(f"{path}, frame {row} cannot be read", REPAIR):
                positions = _vectors(file, index.offsets[row], index.elements)
            if cells is not None and numbered[row] not in boxes:
                raise InputError(
                    f"{path}, frame {row} (step {step}): {cells} has no box of this step",
                    remedy="write both at the same steps, or choose frames that have one with start, stop and stride",
                )
            yield Frame(
                row,
                positions,
                _forces(forces, of_forces.get(numbered[row]), index.elements),
                boxes.get(numbered[row]),
                None if np.isnan(time) else time / 1000,
                pbc=NOT_PERIODIC if cells is None else PERIODIC,
                step=step,
            )


def _numbered(steps: Sequence[int]) -> list[tuple[int, int]]:
    """Each step, and how often it came before: a run that goes on from a restart file may write some steps again."""
    before = Counter()
    found = []
    for step in steps:
        found.append((step, before[step]))
        before[step] += 1
    return found


def _check_repeats(path: Path, other: Path, ours: Sequence[int], theirs: Sequence[int]) -> None:
    """Raise InputError where a step stands several times, and not as often in the two files: none of them is known."""
    a, b = Counter(ours), Counter(theirs)
    for step in a.keys() & b.keys():
        if a[step] != b[step]:
            raise InputError(
                f"step {step} stands {a[step]} times in {path} and {b[step]} times in {other}",
                remedy="a restart has written it again, or the files are of two runs: keep one frame of each step",
            )


def first_cell(path: Path) -> np.ndarray | None:
    """The box [3, 3] of the first frame, None where no file of boxes lies beside the positions."""
    return next(frames(path, range(1))).box


def _offsets_of_forces(path: Path, forces: Path, positions: Index) -> dict[tuple[int, int], int]:
    """Where the forces of each step lie in their file; InputError for a file of other atoms."""
    found = index_of(forces)
    if found.elements != positions.elements:
        raise InputError(
            f"{forces} has {len(found.elements)} atoms, or others than its positions, which have"
            f" {len(positions.elements)}",
            remedy="give files of one run: CP2K calls them by its project",
        )
    _check_repeats(path, forces, positions.steps, found.steps)
    return dict(zip(_numbered(found.steps), found.offsets))


def _boxes(path: Path, cells: Path, positions: Index) -> dict[tuple[int, int], np.ndarray]:
    """The boxes [3, 3] A of each step."""
    steps, boxes = _cells(cells, cells.stat().st_mtime_ns)
    _check_repeats(path, cells, positions.steps, steps)
    return dict(zip(_numbered(steps), boxes))


def _forces(forces: Path | None, offset: int | None, elements: tuple[str, ...]) -> np.ndarray | None:
    """Forces in kJ/mol/A of the step that begins there; None where the step has none."""
    if offset is None:
        return None
    with open(forces, "rb") as file, reading(f"{forces}, byte {offset} cannot be read", REPAIR):
        return FORCES.forces(_vectors(file, offset, elements))


def _vectors(file: BinaryIO, offset: int, elements: tuple[str, ...]) -> np.ndarray:
    """The [n, 3] numbers of the frame that begins at a byte; ValueError where its atoms are others."""
    file.seek(offset)
    file.readline()
    file.readline()
    rows = [file.readline().split() for _ in elements]
    for at, (row, element) in enumerate(zip(rows, elements)):
        words = [word.decode("ascii", "replace") for word in row]
        if len(row) != 4 or None in map(number, words[1:]) or element_named(words[0]) != element:
            said = " ".join(words)[:60]
            raise ValueError(f"row {at} of its atoms is '{said}', where {element} and three numbers are to stand")
    return np.array([[float(word) for word in row[1:]] for row in rows])


@lru_cache(maxsize=8)
def _index(path: Path, _modified: int, _size: int) -> Index:
    offsets, steps, times, elements, begun = [], [], [], (), 0
    what = f"trajectory {path} cannot be read as XYZ of CP2K"
    with open(path, "rb") as file, reading(what, "check that it is whole"):
        while (place := file.tell(), line := file.readline())[1].strip() or _more(file):
            begun += 1
            if not line.strip().isdigit():
                raise ValueError(f"{line!r} stands where frame {begun - 1} should begin, with its number of atoms")
            n_atoms, said = int(line), STEP.search(file.readline())
            if said is None:
                raise ValueError(f"frame {begun - 1} does not say its step: i = ...")
            rows = list(islice(iter(file.readline, b""), n_atoms))
            if len(rows) < n_atoms or not rows[-1].endswith(b"\n"):
                break  # it is cut
            if not elements:
                elements = tuple(element_named(row.split()[0].decode("ascii", "replace")) for row in rows)
            if n_atoms != len(elements):
                raise ValueError(f"frame {begun - 1} has {n_atoms} atoms, frame 0 has {len(elements)}")
            offsets.append(place)
            steps.append(int(said[1]))
            times.append(float(said[2]) if said[2] else float("nan"))
        if not begun:
            raise ValueError("it is empty")
        if "" in elements:
            raise ValueError(f"atom {elements.index('')} has no element")
    return Index(offsets, steps, times, elements, begun)


def _more(file: BinaryIO) -> bool:
    """Whether anything follows an empty line: two runs may have been joined with one between them."""
    place = file.tell()
    found = any(line.strip() for line in file)
    file.seek(place)
    return found


@lru_cache(maxsize=4)
def _cells(path: Path, _modified: int) -> tuple[list[int], np.ndarray]:
    """The steps [T] and boxes [T, 3, 3] A of a .cell file: step, time, nine elements of the box, volume."""
    with reading(f"{path} cannot be read as the boxes of CP2K", "check that it is whole"):
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        rows = [[number(word) for word in words] for words in lines if not words[0].startswith("#")]
        wrong = next((row for row in rows if len(row) != 12 or None in row or not np.all(np.isfinite(row))), None)
        if wrong is not None:
            raise ValueError(f"12 numbers are to stand in a row, and {wrong} do")
        return [int(row[0]) for row in rows], np.array(rows)[:, 2:11].reshape(-1, 3, 3)
