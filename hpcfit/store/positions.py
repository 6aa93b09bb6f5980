"""Positions alone as the content of a store, and what every content of particles has.

A shard (schema 2) has, beside what all shards have (shard.py):

    /particles/trajectory/{position,box/edges}/{value,step,time}, /h5md     H5MD 1.1, float32, A; MDAnalysis opens it
    /hpcfit/checksums  [blocks, 1 or 2]     CRC-32 of the positions and the box of each block
    /hpcfit  attribute particles: digest of the particles, which lie in particles.h5 of the store

A chunk of HDF5 has 64 frames of all particles (of a part of them where that were more than 4 MiB), so that a block is
read in one piece.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import h5py
import numpy as np

from hpcfit.config import BLOCK_FRAMES
from hpcfit.errors import DamagedFile, InputError
from hpcfit.store.catalog import CATALOG, Block, Store, opened_store
from hpcfit.store.content import Content, SharedFile
from hpcfit.store.frame import NOT_PERIODIC, PBC, PERIODIC, Frame
from hpcfit.store.h5md import CHUNK_BYTES, ELEMENTS, PARTICLES, Rows, TrajectoryWriter
from hpcfit.store.particles import Particles
from hpcfit.store.shard import (
    Origin,
    Shard,
    ShardPlan,
    crc32_of,
    create_checksums,
    damaged,
    rows_of_block,
)
from hpcfit.store.writer import ShardWriter

NOUNS = {"positions": "the position", "forces": "the force", "box": "the box vector"}
FURTHEST = 1e6  # A: beyond, float32 keeps places to 0.06 A only
FLAT = 1e-6  # volume of a box over that of one with the same lengths and right angles, below which it has none
REPAIR = "repair the trajectory, or leave the frame out with start, stop and stride"


class PositionFrames(NamedTuple):
    """Consecutive frames. positions: [k, n, 3] float32, A; box: [k, 3, 3] float32, A, or None."""

    positions: np.ndarray
    box: np.ndarray | None = None


class PositionShard(Shard):
    """An open shard of particles. What is read is also checked to be finite."""

    format, schema = "hpcfit position shard", 2
    values: ClassVar = tuple(f"{ELEMENTS[name].path}/value" for name in ("positions", "forces", "box"))
    # A chunk that does not fit the cache would be read in many pieces where a block has several chunks.
    options: ClassVar = {"rdcc_nbytes": 2 * CHUNK_BYTES}
    quantities: ClassVar = ("positions", "box")  # in the order of the checksums of a block
    frames: ClassVar[type] = PositionFrames

    def __init__(self, path: Path, file: h5py.File, seal: str):
        super().__init__(path, file, seal)
        names = [name for name in self.quantities if ELEMENTS[name].path in file]
        self._values = {name: file[ELEMENTS[name].path]["value"] for name in names}

    @property
    def has_box(self) -> bool:
        """True if frames have a box."""
        return "box" in self._values

    @property
    def pbc(self) -> PBC:
        """Along which cell vectors the frames repeat."""
        return tuple(str(mark) == "periodic" for mark in self._file[PARTICLES]["box"].attrs["boundary"])

    @property
    def particles(self) -> str:
        """The digest of the particles this shard is of."""
        return self._group.attrs["particles"]

    def origin(self, block: int | None = None) -> Origin:
        """The origin of the frames of a block, or, without one, of all frames."""
        rows = slice(None) if block is None else rows_of_block(block)
        return Origin(*(part[rows] for part in self._origins))

    @cached_property
    def _origins(self) -> Origin:
        """Of all frames: they are read at once, since many small reads of HDF5 take longer than the frames."""
        ids, files, index = self.frame_rows()
        return Origin(ids, files, index, self._file[PARTICLES]["time"][:])

    def read(self, block: int) -> Any:
        """One block: exactly the frames it has, at most 64. Raises DamagedFile; InputError for what is not finite."""
        rows = rows_of_block(block)
        found = {name: self._read(name, rows) for name in self._values}
        for column, (name, values) in enumerate(found.items()):
            self._check(block, column, name, values)
        return self.frames(**found)

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
                f"shard {self.path}: {NOUNS[name]} of atom {particle} in frame {first_id + row} is"
                f" {values[row, particle].tolist()}",
                remedy="repair the frame in its source, delete the shard and run `hpcfit prepare` again",
            )

    def verify(self) -> list[str]:
        """Compare every checksum; a sentence for each block that is damaged, naming quantity and frames."""
        problems = []
        for block in range(self.n_blocks):
            try:
                self.read(block)
            except InputError as error:
                problems.append(str(error).splitlines()[0])
        return problems


def check_volume(where: str, box: np.ndarray, pbc: PBC) -> None:
    """Raise InputError where the vectors of a box that a frame repeats along are not finite, 0, beyond what a store
    keeps, or lie in one plane."""
    vectors = np.asarray(box, float)[list(pbc)]
    whole = bool(np.all(np.abs(box) <= FURTHEST))
    if whole and len(vectors):
        size = np.sqrt(max(np.linalg.det(vectors @ vectors.T), 0.0))
        whole = size > FLAT * np.prod(np.linalg.norm(vectors, axis=1))
    if not whole:
        raise InputError(
            f"{where}: the box has no volume, or no end: its vectors are {np.asarray(box, float).tolist()} A",
            remedy=f"{REPAIR}; a system without a box has none in its file",
        )


@dataclass(frozen=True)
class PositionContent(Content):
    """Positions of particles, with a box where frames have one; pbc: along which of its vectors they repeat."""

    particles: Particles
    has_box: bool
    pbc: PBC

    name, shard, columns = "positions", PositionShard, "particles"
    shared: ClassVar = SharedFile("particles.h5", "hpcfit particles")
    stored: ClassVar = "positions (A) in float32, H5MD"

    @property
    def width(self) -> int:
        """Particles."""
        return len(self.particles)

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame."""
        return 12 * self.width * sum(name != "box" for name in self.shard.quantities)

    def shared_digest(self) -> str:
        """The digest of the particles."""
        return self.particles.digest()

    def write_shared(self, file: h5py.File) -> None:
        """Write the particles."""
        self.particles.write(file)

    def in_catalog(self) -> dict[str, Any]:
        """The digest of the particles, and which box they have."""
        return {"content": self.name, "particles": self.particles.digest(), "box": self.has_box, "pbc": list(self.pbc)}

    @classmethod
    def opened(cls, folder: Path, catalog: dict[str, Any]) -> Self:
        """The content of a store; raises DamagedFile unless its particles are those that the catalog names."""
        particles = cls.read_shared(folder, Particles.read)
        if particles.digest() != catalog["particles"]:
            raise DamagedFile(
                f"{folder / cls.shared.name} differs from its checksum in {CATALOG}", remedy="prepare the store again"
            )
        return cls(particles, *cls._from_catalog(catalog))

    @staticmethod
    def _from_catalog(catalog: dict[str, Any]) -> tuple:
        return catalog["box"], tuple(catalog["pbc"])

    def store_digest(self, shards: str) -> str:
        """The digest of everything in the catalog."""
        parts = json.dumps([self.in_catalog(), shards], sort_keys=True)
        return hashlib.sha256(parts.encode()).hexdigest()[:16]

    def facts(self) -> dict[str, str]:
        """Particles and box."""
        particles, constraints = self.particles, self.particles.constraints
        known = "constraints unknown" if constraints is None else f"{len(constraints)} constraints"
        along = ", ".join(name for name, repeats in zip("abc", self.pbc) if repeats)
        box = "periodic" if all(self.pbc) else f"periodic along {along}" if along else "not periodic"
        return {
            "particles": f"{len(particles)} in {particles.n_residues} residues, {len(particles.bonds)} bonds, {known}",
            "box": box if self.has_box else "none",
            "stored as": self.stored,
        }

    def create(self, file: h5py.File, plan: ShardPlan) -> None:
        """Create the datasets of a shard; those of H5MD come with the first frames."""
        file["hpcfit"].attrs["particles"] = self.particles.digest()
        create_checksums(file, plan, len(self._quantities))

    @property
    def _quantities(self) -> tuple[str, ...]:
        return tuple(name for name in self.shard.quantities if name != "box" or self.has_box)

    def write(self, file: h5py.File, plan: ShardPlan, start: int, frames: Sequence[Frame]) -> np.ndarray:
        """Write a block of frames from row `start` on and return its checksums, one a quantity."""
        for frame in frames:
            self._check(frame, f"{frame.file or plan.source_path}, frame {frame.row}")
        values = {name: np.stack([getattr(frame, name) for frame in frames]).astype("<f4") for name in self._quantities}
        time = np.array([frame.row if frame.time is None else frame.time for frame in frames], float)
        rows = Rows(np.array([self._step(frame) for frame in frames]), time, values, self.pbc)
        TrajectoryWriter(file, plan.n_frames, BLOCK_FRAMES).write(start, rows)
        return np.array([crc32_of(array) for array in values.values()], "<u4")

    def _step(self, frame: Frame) -> int:
        return frame.row if frame.step is None else frame.step

    def _check(self, frame: Frame, where: str) -> None:
        if (frame.box is not None) != self.has_box:
            raise InputError(
                f"{where} has {'no ' * (frame.box is None)}box, unlike those before it",
                remedy=REPAIR,
            )
        for name in self._quantities:
            self._check_values(where, name, getattr(frame, name))

    def _check_values(self, where: str, name: str, found: np.ndarray) -> None:
        shape = (3, 3) if name == "box" else (self.width, 3)
        if found.shape != shape:
            raise InputError(
                f"{where}: {name} of shape {list(found.shape)}, where the {self.width} particles of the"
                f" topology have {list(shape)}",
                remedy="give the topology of this trajectory",
            )
        # What is stored is float32: a number that does not fit there becomes infinite.
        fits = np.abs(found) <= np.finfo(np.float32).max
        if not np.all(fits):
            row = int(np.argwhere(~fits)[0][0])
            what = f"row {row}" if name == "box" else self.particles.label(row)
            raise InputError(
                f"{where}: {NOUNS[name]} of {what} is {found[row].tolist()}",
                remedy=REPAIR,
            )
        if name == "positions" and np.abs(found).max(initial=0.0) > FURTHEST:
            row = int(np.argmax(np.abs(found).max(axis=1)))
            raise InputError(
                f"{where}: {NOUNS[name]} of {self.particles.label(row)} is {found[row].tolist()} A, beyond {FURTHEST:g}"
                " A, where a store keeps no places",
                remedy="correct length_unit, or put the particles back into their box",
            )
        if name == "box":
            check_volume(where, found, self.pbc)

    def write_view(self, folder: Path, plans: Sequence[ShardPlan]) -> None:
        """Write nothing: MDAnalysis opens the shards."""

    def view_objection(self, folder: Path, store: str) -> str:
        """There is none."""
        return ""

    def objection(self, shard: PositionShard) -> str:
        """Say so where a shard is of other particles, or of another box."""
        if (shard.particles, shard.has_box, shard.pbc) == (self.particles.digest(), self.has_box, self.pbc):
            return ""
        return f"shard {shard.path} is of other particles, or of another kind of box, than {CATALOG} says"


class ParticleStore(Store[PositionContent]):
    """An opened store of particles: of positions alone, or of more."""

    @property
    def particles(self) -> Particles:
        """The particles of every frame."""
        return self.content.particles

    @property
    def periodic(self) -> bool:
        """True if frames repeat along any vector of their box."""
        return any(self.content.pbc)


def open_position_store(folder: Path) -> ParticleStore:
    """Open a store of positions alone; raises InputError or DamagedFile naming the file."""
    return opened_store(folder, PositionContent, ParticleStore)


def read_block(store: ParticleStore, block: Block) -> Any:
    """The frames of one block, exactly as many as it has (opens the shard)."""
    with store.shard(block.shard) as shard:
        return shard.read(block.index)


def write_frames(folder: Path, plan: ShardPlan, content: PositionContent, frames: Any, origin: Origin) -> None:
    """Write a whole shard at once, of frames such as a shard of this content gives."""
    with ShardWriter(folder, plan, content) as shard:
        shard.extend(each_frame(frames, origin))


def each_frame(frames: Any, origin: Origin) -> Iterator[Frame]:
    """The frames of a block one by one, with where they come from."""
    pbc = NOT_PERIODIC if frames.box is None else PERIODIC
    for number in range(len(frames.positions)):
        values = {name: array[number] for name, array in frames._asdict().items() if array is not None}
        row, time = int(origin.index[number]), float(origin.time[number])
        yield Frame(row, **values, time=time, file=origin.file[number], pbc=pbc)
