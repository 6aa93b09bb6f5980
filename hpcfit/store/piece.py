"""One piece of a simulated trajectory: frames and the OpenMM State behind the last of them, in one immutable file.

Layout (schema 1). Root attributes: format, schema, hpcfit_version, made_by (JSON), number, first, frames, settings,
follows, checksum. A piece `follows` the checksum of the one before: the last one stands for the whole trajectory.

    /particles/trajectory, /observables, /h5md      H5MD 1.1; species are atomic numbers
    /hpcfit/state                                   XML, compressed by zlib
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from hpcfit import __version__
from hpcfit.errors import DamagedFile, HpcfitError, InputError
from hpcfit.store.files import NONSENSE, hdf5_written_whole, keep_first
from hpcfit.store.h5md import PARTICLES, Rows, TrajectoryWriter, read_rows
from hpcfit.store.seals import hdf5_opened

SCHEMA = 1
START = -1  # the number of the piece without frames that stands before the first
REPAIR = "delete this file and run `hpcfit simulate` again: it makes what is missing"


def piece_file(number: int) -> str:
    """The name of a piece's file."""
    return "start.h5" if number == START else f"piece_{number:05d}.h5"


class Header(NamedTuple):
    """The header of a piece. frames: first to first + frames - 1 of the trajectory; settings: their digest."""

    number: int
    first: int
    frames: int
    settings: str
    follows: str  # checksum of the piece before
    checksum: str

    @property
    def stop(self) -> int:
        """The number of the frame that comes next."""
        return self.first + self.frames


@dataclass(frozen=True)
class Piece:
    """One piece of a trajectory. species: [N] atomic numbers; state: the OpenMM State behind the last frame, XML."""

    number: int
    first: int
    species: np.ndarray
    rows: Rows
    state: str
    settings: str
    follows: str
    made_by: dict[str, str]  # version of OpenMM, platform and its properties

    @functools.cached_property
    def header(self) -> Header:
        """The attributes of its file."""
        numbers = (self.number, self.first, len(self.rows.step))
        return Header(*numbers, self.settings, self.follows, self._checksum(numbers))

    @property
    def tail(self) -> Tail:
        """Its end."""
        return Tail(self.number, self.header.stop, self.header.checksum, self.state)

    def _checksum(self, numbers: tuple[int, int, int]) -> str:
        arrays = {"species": self.species, "step": self.rows.step, "time": self.rows.time, **self.rows.values}
        names = sorted(arrays)
        shapes = [(name, arrays[name].shape) for name in names]
        digest = hashlib.sha256(json.dumps([numbers, self.settings, self.follows, shapes]).encode())
        for array in map(arrays.get, names):
            digest.update(np.ascontiguousarray(array).data.cast("B"))
        digest.update(self.state.encode())
        return digest.hexdigest()


class Tail(NamedTuple):
    """The end of a trajectory, where it can go on: behind frame stop - 1, the last of the piece with this number."""

    number: int
    stop: int
    checksum: str
    state: str


def write_piece(folder: Path, piece: Piece) -> None:
    """Write a piece; its file appears whole or not at all, in place of one that is there."""
    _write(folder, piece, os.replace)


def add_piece(folder: Path, piece: Piece) -> None:
    """As `write_piece`, unless its file is there by now: then that one stays."""
    _write(folder, piece, keep_first)


def _write(folder: Path, piece: Piece, publish: Callable[[Path, Path], None]) -> None:
    with hdf5_written_whole(folder / piece_file(piece.number), publish) as file:
        file.attrs.update(format="hpcfit piece", schema=SCHEMA, hpcfit_version=__version__)
        file.attrs.update(made_by=json.dumps(piece.made_by), **piece.header._asdict())
        if piece.header.frames:
            TrajectoryWriter(file, piece.header.frames).write(0, piece.rows)
        file.require_group(PARTICLES)["species"] = piece.species
        file["hpcfit/state"] = np.frombuffer(zlib.compress(piece.state.encode(), 1), np.uint8)


def read_header(path: Path) -> Header:
    """Read the header of a piece, unchecked. Raises DamagedFile; InputError for a file that is no piece."""
    return _read(path, _header)


def read_piece(path: Path) -> Piece:
    """A piece, compared with its checksum. Raises DamagedFile; InputError for a file that is no piece."""
    piece, header = _read(path, lambda file: (_piece(file), _header(file)))
    if piece.header != header:
        raise _damaged(path, f"its checksum is {piece.header.checksum[:16]}, written as {header.checksum[:16]}")
    return piece


def _read(path: Path, read) -> Any:
    try:
        with hdf5_opened(path) as file:
            _check_format(path, file)
            return read(file)
    except DamagedFile as error:
        raise DamagedFile(error.what, remedy=REPAIR) from None
    except HpcfitError:
        raise
    except (*NONSENSE, zlib.error) as error:
        raise _damaged(path, f"HDF5 cannot read it ({(str(error) or repr(error)).splitlines()[0]})") from error


def _check_format(path: Path, file: h5py.File) -> None:
    if file.attrs.get("format") != "hpcfit piece":
        raise InputError(f"{path} is not a piece of a simulation by hpcfit", remedy="remove it from this folder")
    if file.attrs["schema"] != SCHEMA:
        raise InputError(
            f"{path} has schema {file.attrs['schema']} (written by hpcfit {file.attrs['hpcfit_version']});"
            f" hpcfit {__version__} reads schema {SCHEMA}",
            remedy="read it with the version that wrote it, or simulate anew, into another folder",
        )


def _header(file: h5py.File) -> Header:
    return Header(*(kind(file.attrs[name]) for name, kind in zip(Header._fields, (int, int, int, str, str, str))))


def _piece(file: h5py.File) -> Piece:
    header = _header(file)
    state = zlib.decompress(file["hpcfit/state"][:].tobytes()).decode()
    rows = read_rows(file) if header.frames else Rows(np.empty(0, "<i8"), np.empty(0), {})
    made_by = json.loads(file.attrs["made_by"])
    species = file[PARTICLES]["species"][:]
    return Piece(header.number, header.first, species, rows, state, header.settings, header.follows, made_by)


def _damaged(path: Path, why: str) -> DamagedFile:
    return DamagedFile(f"{path} is damaged: {why}", remedy=REPAIR)
