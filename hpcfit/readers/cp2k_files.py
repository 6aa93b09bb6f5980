"""Trajectories of CP2K: PROJECT-pos-1.xyz, with PROJECT-frc-1.xyz (forces) and PROJECT-1.cell (boxes) where they are.

The three files are paired by their steps, as they may be written at different ones. Positions and boxes are in A,
forces in hartree/bohr, times in fs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.readers.boundary import reading
from hpcfit.readers.pdb_columns import element_named
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
    cells = next((_cells(one, one.stat().st_mtime_ns) for one in beside if one.suffix == ".cell"), None)
    of_step = {} if forces is None else _by_step(forces, index.elements)
    with open(path, "rb") as file:
        for row in rows:
            step, time = index.steps[row], index.times[row]
            with reading(f"{path}, frame {row} cannot be read", REPAIR):
                positions = _vectors(file, index.offsets[row], index.elements)
            if cells is not None and step not in cells:
                raise InputError(
                    f"{path}, frame {row} (step {step}): {beside[-1]} has no box of this step",
                    remedy="write both at the same steps, or choose frames that have one with start, stop and stride",
                )
            yield Frame(
                row,
                positions,
                _forces(forces, of_step.get(step), index.elements),
                None if cells is None else cells[step],
                None if np.isnan(time) else time / 1000,
                pbc=NOT_PERIODIC if cells is None else PERIODIC,
                step=step,
            )


def first_cell(path: Path) -> np.ndarray | None:
    """The box [3, 3] of the first frame, None where no file of boxes lies beside the positions."""
    return next(frames(path, range(1))).box


def _by_step(forces: Path, elements: tuple[str, ...]) -> dict[int, int]:
    """Where the forces of each step lie in their file; InputError for a file of other atoms."""
    found = index_of(forces)
    if found.elements != elements:
        raise InputError(
            f"{forces} has {len(found.elements)} atoms, or others than its positions, which have {len(elements)}",
            remedy="give files of one run: CP2K calls them by its project",
        )
    return dict(zip(found.steps, found.offsets))


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
    for number, (row, element) in enumerate(zip(rows, elements)):
        if len(row) < 4 or element_named(row[0].decode("ascii", "replace")) != element:
            said = b" ".join(row).decode("ascii", "replace")[:60]
            raise ValueError(f"row {number} of its atoms is '{said}', it is {element} in the first frame")
    return np.array([[float(word) for word in row[1:4]] for row in rows])


@lru_cache(maxsize=8)
def _index(path: Path, _modified: int, _size: int) -> Index:
    offsets, steps, times, elements, begun = [], [], [], (), 0
    what = f"trajectory {path} cannot be read as XYZ of CP2K"
    with open(path, "rb") as file, reading(what, "check that it is whole"):
        while (place := file.tell(), line := file.readline())[1].strip():
            begun += 1
            n_atoms, said = int(line), STEP.search(file.readline())
            if said is None:
                raise ValueError(f"frame {begun - 1} does not say its step: i = ...")
            rows = [file.readline() for _ in range(n_atoms)]
            if not rows[-1].endswith(b"\n"):
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


@lru_cache(maxsize=4)
def _cells(path: Path, _modified: int) -> dict[int, np.ndarray]:
    """The boxes [3, 3] A of a .cell file by step: step, time, nine elements of the box, volume."""
    with reading(f"{path} cannot be read as the boxes of CP2K", "check that it is whole"):
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        rows = [[float(word) for word in words] for words in lines if not words[0].startswith("#")]
        return {int(row[0]): np.array(row[2:11]).reshape(3, 3) for row in rows}
