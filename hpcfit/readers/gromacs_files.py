"""XTC and TRR of GROMACS: every frame that the file holds, found by its headers, with the box's own matrix; and XTC
written.

libmdaxdr of MDAnalysis decodes a frame. Where frames begin is found here, so that nothing is left beside the file, and
one that ends within a frame says so.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.readers.boundary import reading
from hpcfit.readers.xtc_streams import Stream, check_bounds, check_stream
from hpcfit.store.files import written_whole
from hpcfit.store.frame import NOT_PERIODIC, PERIODIC, Frame

XTC, LARGE_XTC, TRR = 1995, 2023, 1993  # magic numbers
COORDINATES = 4 * (4 + 9)  # bytes before them: magic, atoms, step, time; box
FEW = 9  # atoms, up to which XTC does not compress


class Index(NamedTuple):
    """The frames of a file. offsets: bytes [T] at which whole ones begin; begun: their number with one that is cut."""

    offsets: np.ndarray
    n_atoms: int
    begun: int


def index_of(path: Path) -> Index:
    """The whole frames of an XTC or TRR. Raises InputError where a frame does not begin as it should."""
    status = path.stat()
    return _index(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _index(path: Path, _modified: int, size: int) -> Index:
    end_of = _end_of_xtc if path.suffix.lower() == ".xtc" else _end_of_trr
    offsets, atoms, begun, place = [], 0, 0, 0
    whole = reading(f"trajectory {path} cannot be opened", "check that it is whole (gmx check)")
    with whole, open(path, "rb") as file:
        while place < size:
            begun += 1
            try:
                file.seek(place)
                n_atoms, end = end_of(file)
            except struct.error:  # the header itself is cut
                break
            except ValueError as error:
                raise InputError(
                    f"trajectory {path} cannot be opened: frame {begun - 1}, at byte {place}: {error}",
                    remedy="check that it is whole (gmx check)",
                ) from None
            atoms = atoms or n_atoms
            if n_atoms != atoms:
                raise InputError(
                    f"{path}, frame {begun - 1} has {n_atoms} atoms, frame 0 has {atoms}",
                    remedy="give files of one system",
                )
            if end > size:
                break
            offsets.append(place)
            place = end
    if not begun:
        raise InputError(f"trajectory {path} is empty", remedy="check that it is whole")
    return Index(np.array(offsets, np.int64), atoms, begun)


def frames(path: Path, rows: range) -> Iterator[Frame]:
    """The frames of these rows, one by one, in A, ps and kJ/mol/A; raises InputError naming file and frame."""
    from MDAnalysis.lib.formats import libmdaxdr

    index = index_of(path)
    of_file, convert = (libmdaxdr.XTCFile, _of_xtc) if path.suffix.lower() == ".xtc" else (libmdaxdr.TRRFile, _of_trr)
    remedy = "the file is damaged: repair it, or leave the frame out with start, stop and stride"
    with reading(f"trajectory {path} cannot be opened", "check that it is whole"):
        file = of_file(str(path))
    compressed = path.suffix.lower() == ".xtc" and index.n_atoms > FEW
    with file, open(path, "rb") as raw:
        file.set_offsets(index.offsets)
        for row in rows:
            with reading(f"{path}, frame {row} cannot be read", remedy):
                head = _checked_stream(raw, int(index.offsets[row])) if compressed else None
                file.seek(row)
                one = file.read()
                if head is not None:
                    check_bounds(head, one.x)
                found = convert(path, row, one)
            yield found


def write_xtc(path: Path, found: Iterable[Frame]) -> None:
    """Write frames as XTC, whole: positions to 0.01 A, box, step (0 where a frame has none), and their number for a
    time, since those drawn by weight have none in common."""
    from MDAnalysis.lib.formats import libmdaxdr

    with written_whole(path) as temporary, libmdaxdr.XTCFile(str(temporary), "w") as file:
        for number, frame in enumerate(found):
            box = np.zeros((3, 3)) if frame.box is None else frame.box / 10
            x = np.asarray(frame.positions / 10, np.float32)
            file.write(x, np.asarray(box, np.float32), frame.step or 0, float(number), 1000.0)


def _of_xtc(path: Path, row: int, one) -> Frame:
    return _frame(row, one.x, None, one)


def _of_trr(path: Path, row: int, one) -> Frame:
    if not one.hasx:
        raise InputError(
            f"{path}, frame {row} (step {one.step}) has no positions",
            remedy="choose the frames that have them with start, stop and stride (GROMACS: nstxout)",
        )
    return _frame(row, one.x, one.f if one.hasf else None, one)


def _frame(row: int, x, f, one) -> Frame:
    box = np.array(one.box, float) * 10
    there = bool(np.any(box))
    return Frame(
        row,
        np.array(x, float) * 10,
        None if f is None else np.array(f, float) / 10,
        box if there else None,
        float(one.time),
        pbc=PERIODIC if there else NOT_PERIODIC,
        step=int(one.step),
    )


def _checked_stream(file: BinaryIO, begin: int) -> Stream:
    """The head of the compressed coordinates of the frame that begins here, which were found to be whole."""
    file.seek(begin)
    magic, n_atoms = struct.unpack(">2i", file.read(8))
    file.seek(begin + COORDINATES + 4)
    return check_stream(file, n_atoms, 8 if magic == LARGE_XTC else 4)


# ---- headers -------------------------------------------------------------------------------------------------------


def _end_of_xtc(file: BinaryIO) -> tuple[int, int]:
    """The number of atoms of the frame that begins here, and where it ends. struct.error: the header is cut."""
    begin = file.tell()
    magic, n_atoms = struct.unpack(">2i", file.read(8))
    if magic not in (XTC, LARGE_XTC):
        raise ValueError(f"a frame of XTC begins with {XTC}, this one with {magic}")
    coordinates = begin + COORDINATES
    file.seek(coordinates)
    (again,) = struct.unpack(">i", file.read(4))
    if not 0 < n_atoms == again:
        raise ValueError(f"it has {n_atoms} atoms by its head, {again} by its coordinates")
    if n_atoms <= FEW:
        return n_atoms, coordinates + 4 + 12 * n_atoms
    # Number of atoms, precision, least and largest integers, index of a table; then the length of the data.
    file.seek(coordinates + 4 * (1 + 1 + 3 + 3 + 1))
    length = 8 if magic == LARGE_XTC else 4
    (n_bytes,) = struct.unpack(">q" if length == 8 else ">i", file.read(length))
    if not 0 < n_bytes <= 14 * n_atoms:  # the room that libmdaxdr gives them
        raise ValueError(f"its coordinates have {n_bytes} bytes for {n_atoms} atoms")
    return n_atoms, file.tell() + -(-n_bytes // 4) * 4


def _end_of_trr(file: BinaryIO) -> tuple[int, int]:
    """As `_end_of_xtc`."""
    magic, _, length = struct.unpack(">3i", file.read(12))
    if magic != TRR:
        raise ValueError(f"a frame of TRR begins with {TRR}, this one with {magic}")
    if not 0 <= length <= 64:
        raise ValueError(f"the name of its format has {length} characters")
    file.seek(-(-length // 4) * 4, os.SEEK_CUR)
    ir, e, box, vir, pres, top, sym, x, v, f, n_atoms, _, _ = struct.unpack(">13i", file.read(52))
    sizes = (ir, e, box, vir, pres, top, sym, x, v, f)
    if min(*sizes, n_atoms) < 0:
        raise ValueError(f"its parts have sizes {sizes}")
    a_number = next((size // count for size, count in ((box, 9), (x, 3 * n_atoms), (f, 3 * n_atoms)) if size), 4)
    if a_number not in (4, 8):
        raise ValueError(f"its numbers have {a_number} bytes")
    return n_atoms, file.tell() + 2 * a_number + sum(sizes)
