"""One shard: a range of frames of one source in one immutable HDF5 file, with a checksum for every chunk.

Layout. Root attributes: format, schema, hpcfit_version, command, inputs (JSON), plan, source, label, complete; and as
store and place the id of the store and the number of the shard in it (not where it was begun before stores had ids).

    /hpcfit/frame_id  /hpcfit/source_file  /hpcfit/source_index     [frames]
    /hpcfit/checksums  [blocks, ...]                                CRC-32, as many a block as the content has
    /hpcfit  attribute header_digest                                of the small datasets

What else it holds is the content's: structure_factors.py, positions.py, forces.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import h5py
import numpy as np

from hpcfit import __version__
from hpcfit.config import BLOCK_FRAMES
from hpcfit.errors import DamagedFile, InputError
from hpcfit.store.files import NONSENSE

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
    store: str = ""  # the id of the store; empty for one that was begun before stores had ids
    place: int = 0  # the number of the shard in the store

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


def small_datasets_digest(group: h5py.Group, names: Sequence[str]) -> str:
    """SHA-256 of the small datasets of a shard: these, and the source files of its frames."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(np.ascontiguousarray(group[name][:]).tobytes())
    digest.update("\n".join(group["source_file"].asstr()[:]).encode())
    return digest.hexdigest()


@contextlib.contextmanager
def open_shard(path: Path, kind: type[AnyShard]) -> Iterator[AnyShard]:
    """Open a complete shard for reading; raises DamagedFile or InputError that says what is wrong with which file."""
    try:
        with h5py.File(path, "r", locking=False, **kind.options) as file:
            _check_is_readable(path, file, kind)
            yield kind(path, file)
    except FileNotFoundError:
        raise InputError(
            f"shard {path} does not exist", remedy="run `hpcfit prepare` again: it makes what is missing"
        ) from None
    except NONSENSE as error:
        raise damaged(path, f"HDF5 cannot read it ({(str(error) or repr(error)).splitlines()[0]})") from error


def _check_is_readable(path: Path, file: h5py.File, kind: type[Shard]) -> None:
    found = file.attrs.get("format")
    if found != kind.format:
        raise InputError(
            f"{path} is not an {kind.format}, but {'an ' + found if found else 'a file of another program'}",
            remedy="remove it from the store's folder",
        )
    if file.attrs["schema"] > kind.schema:
        raise InputError(
            f"shard {path} has schema {file.attrs['schema']} (written by hpcfit {file.attrs['hpcfit_version']});"
            f" hpcfit {__version__} reads up to schema {kind.schema}",
            remedy="update hpcfit, or prepare the store again with this version",
        )
    if not file.attrs["complete"]:
        raise damaged(path, "it has no completion mark, so its writing was interrupted")


def damaged(path: Path, why: str) -> DamagedFile:
    """The error for a shard that does not hold what was written."""
    return DamagedFile(
        f"shard {path} is damaged: {why}",
        remedy="delete this file and run `hpcfit prepare` again: it makes what is missing",
    )


class Shard(ABC):
    """An open shard. Everything that is read is checked against its checksum.

    options: those of h5py that its files are opened with.
    """

    format: ClassVar[str]
    schema: ClassVar[int]
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, path: Path, file: h5py.File):
        self.path, self._file, self._group = path, file, file["hpcfit"]

    @staticmethod
    @abstractmethod
    def header_digest(file: h5py.File) -> str:
        """The digest of the small datasets."""

    @abstractmethod
    def verify(self) -> list[str]:
        """Compare every checksum; a sentence for each damaged part, naming it and its frames."""

    @property
    def plan(self) -> str:
        """The digest of the plan this shard was written by."""
        return self._file.attrs["plan"]

    def stands(self, store: str, place: int) -> bool:
        """Return True if the shard says that it belongs there, or was written before stores had ids."""
        found = self._file.attrs.get("store", "")
        return not (store and found) or (found, int(self._file.attrs["place"])) == (store, place)

    @property
    def place(self) -> str:
        """Its number, store and plan, as an error says them."""
        found = self._file.attrs
        return f"number {found.get('place', '?')} of store {found.get('store', 'without id')}, plan {self.plan[:16]}"

    @property
    def n_frames(self) -> int:
        """Frames in this shard."""
        return len(self._group["frame_id"])

    @property
    def n_blocks(self) -> int:
        """Blocks of at most 64 frames."""
        return -(-self.n_frames // BLOCK_FRAMES)

    def check_header(self) -> None:
        """Raise DamagedFile unless the small datasets, rows of frames among them, are as they were written."""
        if self.header_digest(self._file) != self._group.attrs["header_digest"]:
            raise damaged(self.path, "its header, frame rows or checksums differ from their checksum")

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
