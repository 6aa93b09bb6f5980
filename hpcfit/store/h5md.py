"""Trajectories in the H5MD 1.1 layout, which MDAnalysis and others open: in shards, and in the pieces of a simulation.

de Buyl, Colberg and Hofling, Comput. Phys. Commun. 185, 1546 (2014), 10.1016/j.cpc.2014.01.018.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import h5py
import numpy as np

from hpcfit import __version__
from hpcfit.errors import InputError
from hpcfit.store.files import set_units, write_rows
from hpcfit.store.frame import PBC, Frame

PARTICLES = "particles/trajectory"
CHUNK_BYTES = 4 << 20


class Element(NamedTuple):
    """A quantity in H5MD: its path, type and unit."""

    path: str
    dtype: str
    unit: str


ELEMENTS = {
    "positions": Element(f"{PARTICLES}/position", "<f4", "Angstrom"),
    "forces": Element(f"{PARTICLES}/force", "<f4", "kJ mol-1 Angstrom-1"),
    "box": Element(f"{PARTICLES}/box/edges", "<f4", "Angstrom"),
    "potential_energy": Element("observables/potential_energy", "<f8", "kJ mol-1"),
}


class Rows(NamedTuple):
    """Consecutive frames. values: arrays [T, ...] by their name in ELEMENTS. pbc: along which vectors of the box they
    repeat; without it along all, where there is a box."""

    step: np.ndarray  # [T] int64
    time: np.ndarray  # [T] float64, ps
    values: dict[str, np.ndarray]
    pbc: PBC | None = None


class TrajectoryWriter:
    """Writes rows into a file that is to have so many frames; a file that gets no rows stays without H5MD.

    chunk_frames: values lie in HDF5 chunks of so many frames, of at most CHUNK_BYTES; without it in one piece.
    """

    def __init__(self, file: h5py.File, n_frames: int, chunk_frames: int | None = None):
        self._file, self._n_frames, self._chunk_frames = file, n_frames, chunk_frames

    def write(self, start: int, rows: Rows) -> None:
        """Write rows from frame ``start`` on; all rows of a file have the same values."""
        if "h5md" not in self._file:
            self._create(rows)
        span = slice(start, start + len(rows.step))
        self._file[PARTICLES]["step"][span] = rows.step
        self._file[PARTICLES]["time"][span] = rows.time
        for name, values in rows.values.items():
            write_rows(self._file[ELEMENTS[name].path]["value"], span, values)

    def _create(self, rows: Rows) -> None:
        header = self._file.create_group("h5md")
        header.attrs["version"] = (1, 1)
        header.create_group("author").attrs["name"] = "hpcfit"
        header.create_group("creator").attrs.update(name="hpcfit", version=__version__)
        group = self._file.create_group(PARTICLES)
        pbc = rows.pbc or (("box" in rows.values,) * 3)
        boundary = ["periodic" if repeats else "none" for repeats in pbc]
        group.create_group("box").attrs.update(dimension=3, boundary=boundary)
        group.create_dataset("step", (self._n_frames,), "<i8")
        set_units(group.create_dataset("time", (self._n_frames,), "<f8"), "ps")
        for name, values in rows.values.items():
            self._create_element(ELEMENTS[name], values.shape[1:])

    def _create_element(self, element: Element, shape: tuple[int, ...]) -> None:
        group = self._file.create_group(element.path)
        chunks = self._chunks(shape, np.dtype(element.dtype).itemsize)
        data = group.create_dataset("value", (self._n_frames, *shape), element.dtype, chunks=chunks)
        set_units(data, element.unit)
        # Hard links: H5MD lets elements share them.
        group["step"], group["time"] = self._file[PARTICLES]["step"], self._file[PARTICLES]["time"]

    def _chunks(self, shape: tuple[int, ...], itemsize: int) -> tuple[int, ...] | None:
        """So many frames of all particles, or of as many of them as CHUNK_BYTES hold."""
        if self._chunk_frames is None:
            return None
        frames = min(self._chunk_frames, self._n_frames)
        if not shape:
            return (frames,)
        a_particle = frames * itemsize * int(np.prod(shape[1:]))
        return (frames, min(shape[0], max(1, CHUNK_BYTES // a_particle)), *shape[1:])


def read_rows(file: h5py.File) -> Rows:
    """All frames of a file that TrajectoryWriter wrote."""
    values = {name: file[element.path]["value"][:] for name, element in ELEMENTS.items() if element.path in file}
    return Rows(file[PARTICLES]["step"][:], file[PARTICLES]["time"][:], values)


def rows_of(frames: Sequence[Frame]) -> Rows | None:
    """The quantities that frames carry beside structure factors; None when they carry no positions.

    Raises InputError when one frame carries something that those before it do not, or the other way round.
    """
    names = ("positions", "forces", "box")
    for name in names:
        have = [getattr(frame, name) is not None for frame in frames]
        if any(have) != all(have):
            frame = frames[have.index(not have[0])]
            raise InputError(
                f"frame {frame.row} has {'no ' * have[0]}{name}, unlike those before it",
                remedy="repair the trajectory, or set [prepare] positions = false",
            )
    if frames[0].positions is None:
        return None
    carried = [name for name in names if getattr(frames[0], name) is not None]
    return Rows(
        np.array([frame.row for frame in frames]),
        np.array([frame.row if frame.time is None else frame.time for frame in frames], float),
        {name: np.stack([getattr(frame, name) for frame in frames]) for name in carried},
    )
