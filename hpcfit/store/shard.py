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
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from hpcfit.config import BLOCK_FRAMES
from hpcfit.errors import DamagedFile, InputError
from hpcfit.store.frame import Frame
from hpcfit.store.h5md import Rows, TrajectoryWriter, read_rows, rows_of
from hpcfit.store.reference import Encoding, Reference, centred_pairs, read_datasets, write_datasets
from hpcfit.store.shard_file import (
    BlockWriter,
    OpenShard,
    ShardPlan,
    damaged,
    opened_shard,
    small_datasets_digest,
)

SCHEMA = 1
CHUNK_REFLECTIONS = 2048


class ShardWriter(BlockWriter[Frame]):
    """Writes structure factors, and positions where frames carry them; see `BlockWriter`."""

    format, schema = "hpcfit shard", SCHEMA

    def __init__(self, folder: Path, plan: ShardPlan, reference: Reference, encoding: Encoding, command: str = ""):
        super().__init__(folder, plan, command)
        self.reference, self.encoding = reference, encoding

    def _create(self) -> None:
        n, H = self.plan.n_frames, len(self.reference.reflections)
        group = self._file["hpcfit"]
        write_datasets(group, self.reference)
        self._create_checksums(-(-H // CHUNK_REFLECTIONS))
        chunks = (min(n, BLOCK_FRAMES), min(H, CHUNK_REFLECTIONS), 2)
        self._data = group.create_dataset(
            "structure_factors", (n, H, 2), self.encoding.storage, chunks=chunks, **_filters(self.encoding)
        )
        self._data.attrs.update(mantissa_bits=self.encoding.mantissa_bits or -1, unit="(F - F0) / scale")
        self._trajectory = TrajectoryWriter(self._file, n)

    def _write(self, start: int, frames: Sequence[Frame]) -> np.ndarray:
        F_th = np.stack([frame.structure_factors for frame in frames])
        try:
            pairs = centred_pairs(F_th, self.reference, self.encoding)
        except InputError as error:
            which = f"frames {frames[0].index} to {frames[-1].index}"
            raise InputError(f"{self.plan.source_path}, {which}: {error}") from None
        self._data[start : start + len(frames)] = pairs
        rows = rows_of(frames)
        if rows is not None:
            self._trajectory.write(start, rows)
        return np.array([zlib.crc32(tile.tobytes()) for tile in _column_tiles(pairs)], "<u4")

    def _header(self) -> str:
        return header_digest(self._file)


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
    names = ("hkl", "F0", "scale", "frame_id", "source_index", "checksums")
    return small_datasets_digest(file["hpcfit"], names)


@contextlib.contextmanager
def open_shard(path: Path) -> Iterator[Shard]:
    """Open a complete shard for reading; raises DamagedFile or InputError that says what is wrong with which file."""
    import hdf5plugin  # noqa: F401  (its import is what lets HDF5 read compressed chunks)

    with opened_shard(path, ShardWriter) as file:
        yield Shard(path, file)


class Shard(OpenShard):
    """An open shard. Everything that is read is checked against its checksum."""

    def __init__(self, path: Path, file: h5py.File):
        super().__init__(path, file)
        self._data = self._group["structure_factors"]

    @property
    def n_frames(self) -> int:
        """Frames in this shard."""
        return self._data.shape[0]

    def reference(self) -> Reference:
        """The reflections, F0 and s."""
        return read_datasets(self._group)

    def trajectory(self) -> Rows | None:
        """Positions and what else of H5MD the shard holds, of all frames; None without."""
        return read_rows(self._file) if "h5md" in self._file else None

    def check_header(self) -> None:
        """Raise DamagedFile unless reflections, reference and frame rows are as they were written."""
        if header_digest(self._file) != self._group.attrs["header_digest"]:
            raise damaged(self.path, "its reflections, reference or frame rows differ from their checksum")

    def read(self, block: int, columns: slice) -> np.ndarray:
        """One block of at most 64 frames, ``columns`` aligned to chunks: [frames, columns, 2] in the stored type."""
        rows = slice(block * BLOCK_FRAMES, (block + 1) * BLOCK_FRAMES)
        try:
            pairs = self._data[rows, columns]
        except OSError as error:
            raise damaged(
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
        first_id, last_id = self._ids(block)
        first = chunk * CHUNK_REFLECTIONS
        raise damaged(
            self.path,
            f"chunk ({block}, {chunk}), frames {first_id} to {last_id},"
            f" reflections {first} to {first + tile.shape[1] - 1}: checksum {found:08x}, written as {expected:08x}",
        )


def hdf5_facts() -> str:
    """Versions of h5py and HDF5, for `hpcfit doctor`."""
    mpi_io = "yes" if h5py.get_config().mpi else "no (not needed)"
    return f"h5py {h5py.version.version}, HDF5 {h5py.version.hdf5_version}, MPI-IO {mpi_io}"
