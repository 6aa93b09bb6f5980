"""One shard: a range of frames of one source in one immutable HDF5 file, with a checksum for every chunk.

Layout. Root attributes: format, schema, hpcfit_version, command, inputs (JSON), plan, source, label; and as store and
place the id of the store and the number of the shard in it.

    /hpcfit/frame_id  /hpcfit/source_file  /hpcfit/source_index     [frames]
    /hpcfit/checksums  [blocks, ...]                                CRC-32, as many a block as the content has

What else it holds is the content's: structure_factors.py, positions.py, forces.py. A shard is sealed (seals.py) under
its number and store. The seal covers all but the values of frames, which are compared with their checksums block by
block while they are read; it is compared whenever a shard is opened, and the catalog has the seal of each.
"""

from __future__ import annotations

import contextlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import h5py
import numpy as np

from hpcfit.config import BLOCK_FRAMES
from hpcfit.errors import DamagedFile, HpcfitError, InputError
from hpcfit.store.files import NONSENSE
from hpcfit.store.seals import Seal, hdf5_opened, read_seal

AnyShard = TypeVar("AnyShard", bound="Shard")


@dataclass(frozen=True)
class ShardPlan:
    """The plan of one shard, made before any frame is computed."""

    file: str
    source: str
    label: str
    source_path: str
    first_id: int
    start: int  # the range of the source's frames, counted after its stride
    stop: int
    digest: str  # of everything that decides the bytes: inputs, reference, encoding, range
    inputs: dict[str, str] = field(default_factory=dict)  # file -> SHA-256
    store: str = ""  # the id of the store
    place: int = 0  # the number of the shard in the store

    @property
    def name(self) -> str:
        """The name that the shard is sealed under."""
        return place_name(self.store, self.place)

    @property
    def n_frames(self) -> int:
        """Frames in this shard."""
        return self.stop - self.start


class Origin(NamedTuple):
    """The origin of k frames: ids in the store, files, rows in these files, and times (ps)."""

    frame_id: np.ndarray
    file: list[str]
    index: np.ndarray
    time: np.ndarray


def create_checksums(file: h5py.File, plan: ShardPlan, a_block: int) -> None:
    """Create the dataset of checksums, so many a block of frames."""
    file["hpcfit"].create_dataset("checksums", (-(-plan.n_frames // BLOCK_FRAMES), a_block), "<u4")


def crc32_of(values: np.ndarray) -> int:
    """CRC-32 of the values of an array, in C order."""
    return zlib.crc32(np.ascontiguousarray(values).data.cast("B") if values.size else b"")


def place_name(store: str, place: int) -> str:
    """The place of a shard in words."""
    return f"number {place} of store {store}"


@contextlib.contextmanager
def open_shard(path: Path, kind: type[AnyShard]) -> Iterator[AnyShard]:
    """Open a shard for reading, compared with its seal; raises DamagedFile or InputError that says what is wrong with
    which file."""
    try:
        seal = _seal(path, kind)
        with hdf5_opened(path, **kind.options) as file:
            yield kind(path, file, seal)
    except HpcfitError:
        raise
    except FileNotFoundError:
        raise InputError(
            f"shard {path} does not exist", remedy="run `hpcfit prepare` again: it makes what is missing"
        ) from None
    except NONSENSE as error:
        raise damaged(path, f"HDF5 cannot read it ({(str(error) or repr(error)).splitlines()[0]})") from error


def _seal(path: Path, kind: type[Shard]) -> str:
    """The digest of the seal of a shard, which has been compared."""
    again = "update hpcfit, or prepare the store again with this version"
    try:
        return read_seal(path, Seal(kind.format, kind.schema, ""), again)["sha256"]
    except DamagedFile as error:
        raise DamagedFile(f"shard {error.what}", remedy=AGAIN) from None


AGAIN = "delete this file and run `hpcfit prepare` again: it makes what is missing"


def damaged(path: Path, why: str) -> DamagedFile:
    """The error for a shard that does not hold what was written."""
    return DamagedFile(
        f"shard {path} is damaged: {why}",
        remedy=AGAIN,
    )


class Shard(ABC):
    """An open shard. Everything that is read is checked against its checksum.

    values: the datasets that have checksums of their own. options: those of h5py that its files are opened with. seal:
    the digest of its seal.
    """

    format: ClassVar[str]
    schema: ClassVar[int]
    values: ClassVar[Sequence[str]]
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, path: Path, file: h5py.File, seal: str):
        self.path, self.seal, self._file, self._group = path, seal, file, file["hpcfit"]

    @abstractmethod
    def verify(self) -> list[str]:
        """Compare every checksum; a sentence for each damaged part, naming it and its frames."""

    @property
    def plan(self) -> str:
        """The digest of the plan this shard was written by."""
        return self._file.attrs["plan"]

    def stands(self, store: str, place: int) -> bool:
        """Return True if the shard says that it belongs there."""
        return (self._file.attrs["store"], int(self._file.attrs["place"])) == (store, place)

    @property
    def place(self) -> str:
        """Its number, store and plan, as an error says them."""
        found = self._file.attrs
        return f"{place_name(found['store'], found['place'])}, plan {self.plan[:16]}"

    @property
    def n_frames(self) -> int:
        """Frames in this shard."""
        return len(self._group["frame_id"])

    @property
    def n_blocks(self) -> int:
        """Blocks of at most 64 frames."""
        return -(-self.n_frames // BLOCK_FRAMES)

    def frame_rows(self) -> tuple[np.ndarray, list[str], np.ndarray]:
        """Frame ids, source files and rows in these files, one of each a frame."""
        return self._group["frame_id"][:], list(self._group["source_file"].asstr()[:]), self._group["source_index"][:]

    @cached_property
    def _checksums(self) -> np.ndarray:
        return self._group["checksums"][:]

    def _ids(self, block: int) -> tuple[int, int]:
        """First and last frame id of a block."""
        ids = self._group["frame_id"][block * BLOCK_FRAMES : (block + 1) * BLOCK_FRAMES]
        return int(ids[0]), int(ids[-1])


def rows_of_block(block: int) -> slice:
    """The rows of a shard that a block has."""
    return slice(block * BLOCK_FRAMES, (block + 1) * BLOCK_FRAMES)
