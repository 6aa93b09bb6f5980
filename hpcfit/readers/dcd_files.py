"""DCD of CHARMM, NAMD and others: frames by libdcd of MDAnalysis, with the box as the file has it.

A box is lengths and angles, or cosines of angles, or, of CHARMM 25 and later, a symmetric matrix: three of its six
numbers are then no angles. Such a matrix is another orientation than the one that lengths and angles have by
convention, and the positions are in it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hpcfit.physics.scattering import orthogonalization
from hpcfit.readers.boundary import reading
from hpcfit.store.frame import NOT_PERIODIC, PERIODIC, Frame

AKMA = 4.888821e-2  # ps, the unit of time of CHARMM
LEAST_ANGLE = 15.0  # degrees; smaller numbers are elements of a matrix


@contextlib.contextmanager
def opened(path: Path) -> Iterator:
    """The file in libdcd: n_atoms is in its header, n_frames counts whole frames."""
    from MDAnalysis.lib.formats.libdcd import DCDFile

    with reading(f"trajectory {path} cannot be opened", "check that it is whole"):
        file = DCDFile(str(path))
    with file:
        yield file


def announced(path: Path) -> int:
    """The number of frames that the header says; libdcd counts whole ones, and so drops a last one that is cut."""
    header = np.fromfile(path, "<i4", 3)
    # The first word is the length of the header record, 84: it tells the byte order; NSET follows "CORD".
    return int(header[2] if header[0] == 84 else header.byteswap()[2])


def frames(path: Path, rows: range) -> Iterator[Frame]:
    """The frames of these rows, one by one; raises InputError naming file and frame."""
    remedy = "the file is truncated: repair it, or use the frames before with stop"
    with opened(path) as file:
        header = file.header
        every = max(int(header["nsavc"]), 1)
        dt = float(header["delta"]) * every * AKMA
        for row in rows:
            with reading(f"{path}, frame {row} cannot be read", remedy):
                file.seek(row)
                one = file.read()
                box = box_of(one.unitcell) if file.is_periodic else None
            step = int(header["istart"]) + row * every
            pbc = NOT_PERIODIC if box is None else PERIODIC
            yield Frame(row, one.xyz.astype(float), None, box, step / every * dt, pbc=pbc, step=step)


def box_of(numbers: np.ndarray) -> np.ndarray | None:
    """The box [3, 3] A of the six numbers of a frame; None where they are no box (a length of at most 1 A)."""
    a, xy, b, xz, yz, c = (float(one) for one in numbers)  # of angles: A, gamma, B, beta, alpha, C
    if min(abs(a), abs(b), abs(c)) <= 1.0:
        return None
    angles = np.array([yz, xz, xy])
    if np.all(np.abs(angles) <= 1.0):  # cosines, of which 90 - asin is 90 exactly where they are 0
        angles = 90.0 - np.degrees(np.arcsin(angles))
    elif np.any(angles < LEAST_ANGLE) or np.any(angles >= 180.0):
        return np.array([[a, xy, xz], [xy, b, yz], [xz, yz, c]])
    return orthogonalization((a, b, c, *angles)).T
