"""One shard of positions and forces: a range of frames of one source, with a checksum for every block of 64.

Layout (schema 1). Root attributes as those of all shards (`shard_file`).

    /particles/trajectory/{position,force,box/edges}/{value,step,time}, /h5md     H5MD 1.1, float32; A and kJ/mol/A
    /hpcfit/frame_id  /hpcfit/source_file  /hpcfit/source_index     [frames]
    /hpcfit/checksums  [blocks, 2 or 3]     CRC-32 of the positions, forces and box of each block
    /hpcfit  attribute particles: digest of the particles, which lie in particles.h5 of the store

A chunk of HDF5 has 64 frames of all particles (of a part of them where that were more than 4 MiB), so that a block is
read in one piece.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from hpcfit.config import BLOCK_FRAMES
from hpcfit.errors import InputError
from hpcfit.store.h5md import CHUNK_BYTES, ELEMENTS, PARTICLES, Rows, TrajectoryWriter
from hpcfit.store.particles import Particles
from hpcfit.store.shard_file import (
    BlockWriter,
    OpenShard,
    ShardPlan,
    crc32_of,
    damaged,
    opened_shard,
    small_datasets_digest,
)

SCHEMA = 1
QUANTITIES = ("positions", "forces", "box")  # in the order of the checksums of a block


class ForceFrame(NamedTuple):
    """One frame of n particles. positions: [n, 3] A; forces: [n, 3] kJ/mol/A, without those of constraints; box:
    [3, 3] A, rows are the cell vectors, or None; time: ps; index: in its file (by default the source's own)."""

    index: int
    positions: np.ndarray
    forces: np.ndarray
    box: np.ndarray | None = None
    time: float | None = None
    file: str = ""


class ForceFrames(NamedTuple):
    """Consecutive frames. positions: [k, n, 3] float32, A; forces: [k, n, 3] float32, kJ/mol/A; box: [k, 3, 3] float32,
    A, or None."""

    positions: np.ndarray
    forces: np.ndarray
    box: np.ndarray | None


class Origin(NamedTuple):
    """Where k frames come from: ids in the store, files, indices in these files, and times (ps)."""

    frame_id: np.ndarray
    file: list[str]
    index: np.ndarray
    time: np.ndarray


class ForceShardWriter(BlockWriter[ForceFrame]):
    """Writes positions and forces; see `BlockWriter`. The first frame says whether there is a box."""

    format, schema = "hpcfit force shard", SCHEMA

    def __init__(self, folder: Path, plan: ShardPlan, particles: Particles, command: str = ""):
        super().__init__(folder, plan, command)
        self.particles, self._quantities = particles, ()

    def extend(self, frames: ForceFrames, origin: Origin) -> None:
        """Add the next frames, which come from there; ids are those of the plan."""
        for row, (positions, forces) in enumerate(zip(frames.positions, frames.forces, strict=True)):
            box = None if frames.box is None else frames.box[row]
            time, index = float(origin.time[row]), int(origin.index[row])
            self.append(ForceFrame(index, positions, forces, box, time, origin.file[row]))

    def _create(self) -> None:
        self._file["hpcfit"].attrs["particles"] = self.particles.digest()
        self._trajectory = TrajectoryWriter(self._file, self.plan.n_frames, BLOCK_FRAMES)

    def _write(self, start: int, frames: Sequence[ForceFrame]) -> np.ndarray:
        if not self._quantities:
            self._quantities = QUANTITIES[: 2 if frames[0].box is None else 3]
            self._create_checksums(len(self._quantities))
        values = {name: self._stacked(name, frames) for name in self._quantities}
        step = np.array([frame.index for frame in frames])
        time = np.array([frame.index if frame.time is None else frame.time for frame in frames], float)
        self._trajectory.write(start, Rows(step, time, values))
        return np.array([crc32_of(values[name]) for name in self._quantities], "<u4")

    def _stacked(self, name: str, frames: Sequence[ForceFrame]) -> np.ndarray:
        shape = (3, 3) if name == "box" else (len(self.particles), 3)
        for frame in frames:
            self._check(frame, name, getattr(frame, name), shape)
        return np.stack([getattr(frame, name) for frame in frames]).astype("<f4")

    def _check(self, frame: ForceFrame, name: str, found: np.ndarray | None, shape: tuple[int, int]) -> None:
        where = f"{frame.file or self.plan.source_path}, frame {frame.index}"
        if (frame.box is not None) != ("box" in self._quantities):
            raise InputError(
                f"{where} has {'no ' * (frame.box is None)}box, unlike those before it",
                remedy="repair the trajectory, or leave the frame out with start, stop and stride",
            )
        if found.shape != shape:
            raise InputError(
                f"{where}: {name} of shape {list(found.shape)}, where the {len(self.particles)} particles of the"
                f" topology have {list(shape)}",
                remedy="give the topology of this trajectory",
            )
        # What is stored is float32: a number that does not fit there becomes infinite.
        if np.all(np.abs(found) <= np.finfo(np.float32).max):
            return
        row = int(np.argwhere(~(np.abs(found) <= np.finfo(np.float32).max))[0][0])
        what = f"row {row}" if name == "box" else self.particles.label(row)
        raise InputError(
            f"{where}: {_noun(name)} of {what} is {found[row].tolist()}",
            remedy="repair the trajectory, or leave the frame out with start, stop and stride",
        )

    def _header(self) -> str:
        return header_digest(self._file)


def _noun(name: str) -> str:
    return {"positions": "the position", "forces": "the force", "box": "the box vector"}[name]


def header_digest(file: h5py.File) -> str:
    """SHA-256 of the small datasets of a shard: particles, frames, steps, times and checksums."""
    group = file["hpcfit"]
    own = small_datasets_digest(group, ("frame_id", "source_index", "checksums"))
    rows = (np.ascontiguousarray(file[PARTICLES][name][:]) for name in ("step", "time"))
    return "-".join([own, group.attrs["particles"], *(f"{crc32_of(row):08x}" for row in rows)])


@contextlib.contextmanager
def open_force_shard(path: Path) -> Iterator[ForceShard]:
    """Open a complete shard for reading; raises DamagedFile or InputError that says what is wrong with which file."""
    # A chunk that does not fit the cache would be read in many pieces where a block has several chunks.
    with opened_shard(path, ForceShardWriter, rdcc_nbytes=2 * CHUNK_BYTES) as file:
        yield ForceShard(path, file)


class ForceShard(OpenShard):
    """An open shard. Everything that is read is checked against its checksum, and to be finite."""

    def __init__(self, path: Path, file: h5py.File):
        super().__init__(path, file)
        names = [name for name in QUANTITIES if ELEMENTS[name].path in file]
        self._values = {name: file[ELEMENTS[name].path]["value"] for name in names}

    @property
    def n_frames(self) -> int:
        """Frames in this shard."""
        return self._values["positions"].shape[0]

    @property
    def n_blocks(self) -> int:
        """Blocks of at most 64 frames."""
        return len(self._group["checksums"])

    @property
    def periodic(self) -> bool:
        """Whether frames have a box."""
        return "box" in self._values

    @property
    def particles(self) -> str:
        """The digest of the particles this shard is of."""
        return self._group.attrs["particles"]

    def check_header(self) -> None:
        """Raise DamagedFile unless particles, frame rows and checksums are as they were written."""
        if header_digest(self._file) != self._group.attrs["header_digest"]:
            raise damaged(self.path, "its particles, frame rows or checksums differ from their checksum")

    def origin(self, block: int | None = None) -> Origin:
        """Where the frames of a block come from, or, without one, all frames."""
        rows = slice(None) if block is None else slice(block * BLOCK_FRAMES, (block + 1) * BLOCK_FRAMES)
        return Origin(*(part[rows] for part in self._origins))

    @cached_property
    def _origins(self) -> Origin:
        """Of all frames: they are read at once, since many small reads of HDF5 take longer than the frames."""
        group = self._group
        files, time = list(group["source_file"].asstr()[:]), self._file[PARTICLES]["time"][:]
        return Origin(group["frame_id"][:], files, group["source_index"][:], time)

    @cached_property
    def _checksums(self) -> np.ndarray:
        return self._group["checksums"][:]

    def read(self, block: int) -> ForceFrames:
        """One block: exactly the frames it has, at most 64. Raises DamagedFile; InputError for what is not finite."""
        rows = slice(block * BLOCK_FRAMES, (block + 1) * BLOCK_FRAMES)
        found = {name: self._read(name, rows) for name in self._values}
        for column, (name, values) in enumerate(found.items()):
            self._check(block, column, name, values)
        return ForceFrames(found["positions"], found["forces"], found.get("box"))

    def _read(self, name: str, rows: slice) -> np.ndarray:
        try:
            return self._values[name][rows]
        except OSError as error:
            raise damaged(
                self.path, f"frames {rows.start} to {rows.stop - 1} cannot be read ({str(error).splitlines()[0]})"
            ) from None

    def _check(self, block: int, column: int, name: str, values: np.ndarray) -> None:
        expected, found = int(self._checksums[block, column]), crc32_of(values)
        if expected != found:
            first_id, last_id = self._ids(block)
            raise damaged(
                self.path,
                f"{name} of block {block}, frames {first_id} to {last_id}:"
                f" checksum {found:08x}, written as {expected:08x}",
            )
        if not np.all(np.isfinite(values)):
            first_id, _ = self._ids(block)
            row, particle = (int(number) for number in np.argwhere(~np.isfinite(values))[0][:2])
            raise InputError(
                f"shard {self.path}: {_noun(name)} of atom {particle} in frame {first_id + row} is"
                f" {values[row, particle].tolist()}",
                remedy="repair the frame in its source, delete the shard and run `hpcfit prepare` again",
            )

    def verify(self) -> list[str]:
        """Every checksum; a sentence for each block that is damaged, naming quantity and frames."""
        problems = []
        for block in range(self.n_blocks):
            try:
                self.read(block)
            except InputError as error:
                problems.append(str(error).splitlines()[0])
        return problems


def has_force_shard(folder: Path, plan: ShardPlan) -> bool:
    """Whether a complete shard of this plan is in a folder. Raises DamagedFile where one is that cannot be read."""
    if not (folder / plan.file).exists():
        return False
    with open_force_shard(folder / plan.file) as shard:
        shard.check_header()
        return shard.plan == plan.digest


def write_force_shard(folder: Path, plan: ShardPlan, particles: Particles, frames: ForceFrames, origin: Origin) -> None:
    """Write a whole shard at once."""
    with ForceShardWriter(folder, plan, particles, shlex.join(sys.argv)) as shard:
        shard.extend(frames, origin)
