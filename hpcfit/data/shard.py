"""One shard: a range of frames of one source in one immutable HDF5 file, with a checksum for every chunk.

Layout (schema 1). Root attributes: format, schema, hpcfit_version, command, inputs (JSON), plan, source, label,
complete.

    /hpcfit/structure_factors  [frames, H, 2]   (F - F0) / s as real pairs, chunks of 64 frames x 2048 reflections
    /hpcfit/F0 [H, 2]  /hpcfit/scale [H]  /hpcfit/hkl [H, 3] (attributes ndiv, cell, space_group)
    /hpcfit/frame_id  /hpcfit/source_file  /hpcfit/source_index     [frames]
    /hpcfit/checksums  [row chunks, column chunks]                  CRC-32 of each chunk's values
    /particles/trajectory/{position,force,box/edges}/{value,step,time}, /h5md     H5MD 1.1, where asked for
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from hpcfit import __version__
from hpcfit.config import BLOCK_FRAMES
from hpcfit.data.files import NONSENSE, hdf5_written_whole
from hpcfit.data.frame import Frame
from hpcfit.data.h5md import Rows, TrajectoryWriter, read_rows, rows_of
from hpcfit.data.reference import Encoding, Reference, centred_pairs, read_datasets, write_datasets
from hpcfit.errors import DamagedFile, InputError

SCHEMA = 1
CHUNK_REFLECTIONS = 2048


@dataclass(frozen=True)
class ShardPlan:
    """What one shard is to hold, decided before any frame is computed."""

    file: str
    source: str
    label: str
    source_path: str
    first_id: int
    start: int  # the range of the source's frames, counted after its stride
    stop: int
    digest: str  # of everything that decides the bytes: inputs, reference, encoding, range
    inputs: dict[str, str] = field(default_factory=dict)  # file -> SHA-256

    @property
    def n_frames(self) -> int:
        """Frames in this shard."""
        return self.stop - self.start


class ShardWriter:
    """Write one shard frame by frame; the file appears, whole, when the ``with`` block ends without an error.

    command: the command line that it names as its maker; by default this process's.
    """

    def __init__(self, folder: Path, plan: ShardPlan, reference: Reference, encoding: Encoding, command: str = ""):
        self.path, self.plan, self.reference, self.encoding = folder / plan.file, plan, reference, encoding
        self._command = command or shlex.join(sys.argv)
        self._stack = contextlib.ExitStack()
        self._waiting: list[Frame] = []
        self._written = 0

    def __enter__(self) -> ShardWriter:
        self._file = self._stack.enter_context(hdf5_written_whole(self.path))
        try:
            self._file.attrs["command"] = self._command
            self._data = _create_datasets(self._file, self.plan, self.reference, self.encoding)
            self._trajectory = TrajectoryWriter(self._file, self.plan.n_frames)
        except BaseException:
            self._stack.__exit__(*sys.exc_info())
            raise
        return self

    def append(self, frame: Frame) -> None:
        """Add the next frame of the source."""
        self._waiting.append(frame)
        if len(self._waiting) == BLOCK_FRAMES:
            self._write_block()

    def __exit__(self, *exception) -> bool | None:
        try:
            if exception[0] is None:
                self._finish()
        except BaseException:
            self._stack.__exit__(*sys.exc_info())
            raise
        return self._stack.__exit__(*exception)

    def _finish(self) -> None:
        if self._waiting:
            self._write_block()
        if self._written != self.plan.n_frames:
            raise InputError(
                f"{self.plan.source_path} gave {self._written} frames where {self.plan.n_frames} were announced",
                remedy="the file is truncated, or was changed while it was read:"
                " repair it and run `hpcfit prepare` again",
            )
        self._file["hpcfit"].attrs["header_digest"] = header_digest(self._file)
        self._file.attrs["complete"] = True

    def _write_block(self) -> None:
        start, stop = self._written, self._written + len(self._waiting)
        F_th = np.stack([frame.structure_factors for frame in self._waiting])
        try:
            pairs = centred_pairs(F_th, self.reference, self.encoding)
        except InputError as error:
            frames = f"frames {self._waiting[0].index} to {self._waiting[-1].index}"
            raise InputError(f"{self.plan.source_path}, {frames}: {error}") from None
        self._data[start:stop] = pairs
        group = self._file["hpcfit"]
        group["source_index"][start:stop] = [frame.index for frame in self._waiting]
        group["source_file"][start:stop] = [frame.file or self.plan.source_path for frame in self._waiting]
        group["checksums"][start // BLOCK_FRAMES] = [zlib.crc32(tile.tobytes()) for tile in _column_tiles(pairs)]
        rows = rows_of(self._waiting)
        if rows is not None:
            self._trajectory.write(start, rows)
        self._written, self._waiting = stop, []


def _create_datasets(file: h5py.File, plan: ShardPlan, reference: Reference, encoding: Encoding) -> h5py.Dataset:
    n, H = plan.n_frames, len(reference.reflections)
    file.attrs.update(
        format="hpcfit shard", schema=SCHEMA, hpcfit_version=__version__, complete=False,
        inputs=json.dumps(plan.inputs), plan=plan.digest, source=plan.source, label=plan.label,
    )  # fmt: skip
    group = file.create_group("hpcfit")
    write_datasets(group, reference)
    group["frame_id"] = np.arange(plan.first_id, plan.first_id + n, dtype="<i8")
    group.create_dataset("source_index", (n,), "<i8")
    group.create_dataset("source_file", (n,), h5py.string_dtype())
    chunks = (min(n, BLOCK_FRAMES), min(H, CHUNK_REFLECTIONS), 2)
    group.create_dataset("checksums", (-(-n // BLOCK_FRAMES), -(-H // CHUNK_REFLECTIONS)), "<u4")
    data = group.create_dataset("structure_factors", (n, H, 2), encoding.storage, chunks=chunks, **_filters(encoding))
    data.attrs.update(mantissa_bits=encoding.mantissa_bits or -1, unit="(F - F0) / scale")
    return data


def _filters(encoding: Encoding) -> dict:
    if encoding.compression == "none":
        return {}
    import hdf5plugin

    return dict(hdf5plugin.Bitshuffle(cname="lz4"))


def _column_tiles(pairs: np.ndarray) -> Iterator[np.ndarray]:
    for column in range(0, pairs.shape[1], CHUNK_REFLECTIONS):
        yield np.ascontiguousarray(pairs[:, column : column + CHUNK_REFLECTIONS])


def header_digest(file: h5py.File) -> str:
    """SHA-256 of the small datasets of a shard: reflections, reference, frames and checksums."""
    digest = hashlib.sha256()
    for name in ("hkl", "F0", "scale", "frame_id", "source_index", "checksums"):
        digest.update(np.ascontiguousarray(file["hpcfit"][name][:]).tobytes())
    digest.update("\n".join(file["hpcfit/source_file"].asstr()[:]).encode())
    return digest.hexdigest()


@contextlib.contextmanager
def open_shard(path: Path) -> Iterator[Shard]:
    """Open a complete shard for reading; raises DamagedFile or InputError that says what is wrong with which file."""
    import hdf5plugin  # noqa: F401  (its import is what lets HDF5 read compressed chunks)

    try:
        with h5py.File(path, "r", locking=False) as file:
            _check_is_readable(path, file)
            yield Shard(path, file)
    except FileNotFoundError:
        raise InputError(
            f"shard {path} does not exist", remedy="run `hpcfit prepare` again: it makes what is missing"
        ) from None
    except NONSENSE as error:
        raise _damaged(path, f"HDF5 cannot read it ({(str(error) or repr(error)).splitlines()[0]})") from error


def _check_is_readable(path: Path, file: h5py.File) -> None:
    if file.attrs.get("format") != "hpcfit shard":
        raise InputError(f"{path} is not a shard of hpcfit", remedy="remove it from the store's folder")
    if file.attrs["schema"] > SCHEMA:
        raise InputError(
            f"shard {path} has schema {file.attrs['schema']} (written by hpcfit {file.attrs['hpcfit_version']});"
            f" hpcfit {__version__} reads up to schema {SCHEMA}",
            remedy="update hpcfit, or prepare the store again with this version",
        )
    if not file.attrs["complete"]:
        raise _damaged(path, "it has no completion mark, so its writing was interrupted")


def _damaged(path: Path, why: str) -> DamagedFile:
    return DamagedFile(
        f"shard {path} is damaged: {why}",
        remedy="delete this file and run `hpcfit prepare` again: it makes what is missing",
    )


class Shard:
    """An open shard. Everything that is read is checked against its checksum."""

    def __init__(self, path: Path, file: h5py.File):
        self.path, self._file, self._group = path, file, file["hpcfit"]
        self._data = self._group["structure_factors"]

    @property
    def n_frames(self) -> int:
        """Frames in this shard."""
        return self._data.shape[0]

    @property
    def plan(self) -> str:
        """The digest of the plan this shard was written by."""
        return self._file.attrs["plan"]

    def reference(self) -> Reference:
        """The reflections, F0 and s."""
        return read_datasets(self._group)

    def frame_rows(self) -> tuple[np.ndarray, list[str], np.ndarray]:
        """Frame ids, source files and indices in these files, a row a frame."""
        return self._group["frame_id"][:], list(self._group["source_file"].asstr()[:]), self._group["source_index"][:]

    def trajectory(self) -> Rows | None:
        """Positions and what else of H5MD the shard holds, of all frames; None without."""
        return read_rows(self._file) if "h5md" in self._file else None

    def check_header(self) -> None:
        """Raise DamagedFile unless reflections, reference and frame rows are as they were written."""
        if header_digest(self._file) != self._group.attrs["header_digest"]:
            raise _damaged(self.path, "its reflections, reference or frame rows differ from their checksum")

    def read(self, block: int, columns: slice) -> np.ndarray:
        """One block of at most 64 frames, ``columns`` aligned to chunks: [frames, columns, 2] in the stored type."""
        rows = slice(block * BLOCK_FRAMES, (block + 1) * BLOCK_FRAMES)
        try:
            pairs = self._data[rows, columns]
        except OSError as error:
            raise _damaged(
                self.path, f"frames {rows.start} to {rows.stop - 1} cannot be read ({str(error).splitlines()[0]})"
            ) from None
        first = columns.start // CHUNK_REFLECTIONS
        for offset, tile in enumerate(_column_tiles(pairs)):
            self._check(tile, block, first + offset)
        return pairs

    def verify(self) -> list[str]:
        """Every checksum; a sentence for each chunk that is damaged, naming chunk and frames."""
        problems = []
        for block, chunk in np.ndindex(*self._group["checksums"].shape):
            start = chunk * CHUNK_REFLECTIONS
            try:
                self.read(block, slice(start, min(start + CHUNK_REFLECTIONS, self._data.shape[1])))
            except DamagedFile as error:
                problems.append(str(error).splitlines()[0])
        return problems

    def _check(self, tile: np.ndarray, block: int, chunk: int) -> None:
        expected, found = int(self._group["checksums"][block, chunk]), zlib.crc32(tile.tobytes())
        if expected == found:
            return
        ids = self._group["frame_id"][block * BLOCK_FRAMES : (block + 1) * BLOCK_FRAMES]
        first = chunk * CHUNK_REFLECTIONS
        raise _damaged(
            self.path,
            f"chunk ({block}, {chunk}), frames {ids[0]} to {ids[-1]},"
            f" reflections {first} to {first + tile.shape[1] - 1}: checksum {found:08x}, written as {expected:08x}",
        )


def hdf5_facts() -> str:
    """Versions of h5py and HDF5, for `hpcfit doctor`."""
    mpi_io = "yes" if h5py.get_config().mpi else "no (not needed)"
    return f"h5py {h5py.version.version}, HDF5 {h5py.version.hdf5_version}, MPI-IO {mpi_io}"
