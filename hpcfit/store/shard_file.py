"""What the shards of every content have in common: plan, root attributes, rows of frames, checksums, damage.

A shard is a range of frames of one source in one immutable HDF5 file, which is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Generic, Protocol, TypeVar

import h5py
import numpy as np

from hpcfit import __version__
from hpcfit.config import BLOCK_FRAMES
from hpcfit.errors import DamagedFile, InputError
from hpcfit.store.files import NONSENSE, hdf5_written_whole


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


class Row(Protocol):
    """What a shard keeps of where a frame comes from."""

    index: int
    file: str


Item = TypeVar("Item", bound=Row)


class BlockWriter(Generic[Item]):
    """Writes one shard frame by frame, in blocks of 64; the file appears, whole, when the ``with`` block ends well.

    A content says what it adds: `_create`, `_write` and `_header`. command: the command line that the shard names as
    its maker; by default this process's.
    """

    format: ClassVar[str]
    schema: ClassVar[int]

    def __init__(self, folder: Path, plan: ShardPlan, command: str = ""):
        self.path, self.plan = folder / plan.file, plan
        self._command = command or shlex.join(sys.argv)
        self._stack = contextlib.ExitStack()
        self._waiting: list[Item] = []
        self._written = 0

    def __enter__(self):
        self._file = self._stack.enter_context(hdf5_written_whole(self.path))
        try:
            self._create_common()
            self._create()
        except BaseException:
            self._stack.__exit__(*sys.exc_info())
            raise
        return self

    def append(self, frame: Item) -> None:
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

    def _create(self) -> None:
        """Create the datasets of the content."""
        raise NotImplementedError

    def _write(self, start: int, frames: Sequence[Item]) -> np.ndarray:
        """Write a block of frames from row ``start`` on; its checksums."""
        raise NotImplementedError

    def _header(self) -> str:
        """The digest of the small datasets."""
        raise NotImplementedError

    def _create_common(self) -> None:
        plan, n = self.plan, self.plan.n_frames
        self._file.attrs.update(
            format=self.format, schema=self.schema, hpcfit_version=__version__, command=self._command, complete=False,
            inputs=json.dumps(plan.inputs), plan=plan.digest, source=plan.source, label=plan.label,
        )  # fmt: skip
        group = self._file.create_group("hpcfit")
        group["frame_id"] = np.arange(plan.first_id, plan.first_id + n, dtype="<i8")
        group.create_dataset("source_index", (n,), "<i8")
        group.create_dataset("source_file", (n,), h5py.string_dtype())

    def _create_checksums(self, a_block: int) -> None:
        """So many checksums a block of frames."""
        self._file["hpcfit"].create_dataset("checksums", (-(-self.plan.n_frames // BLOCK_FRAMES), a_block), "<u4")

    def _write_block(self) -> None:
        start, stop = self._written, self._written + len(self._waiting)
        if stop > self.plan.n_frames:
            raise self._other_number(f"more than {self.plan.n_frames}")
        checksums = self._write(start, self._waiting)
        group = self._file["hpcfit"]
        group["source_index"][start:stop] = [frame.index for frame in self._waiting]
        group["source_file"][start:stop] = [frame.file or self.plan.source_path for frame in self._waiting]
        group["checksums"][start // BLOCK_FRAMES] = checksums
        self._written, self._waiting = stop, []

    def _finish(self) -> None:
        if self._waiting:
            self._write_block()
        if self._written != self.plan.n_frames:
            raise self._other_number(str(self._written))
        self._file["hpcfit"].attrs["header_digest"] = self._header()
        self._file.attrs["complete"] = True

    def _other_number(self, found: str) -> InputError:
        return InputError(
            f"{self.plan.source_path} gave {found} frames where {self.plan.n_frames} were announced",
            remedy="the file is truncated, or was changed while it was read: repair it and run `hpcfit prepare` again",
        )


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
def opened_shard(path: Path, writer: type[BlockWriter], **options) -> Iterator[h5py.File]:
    """The HDF5 file of a complete shard of what ``writer`` writes, open for reading; options are those of h5py.

    Raises DamagedFile or InputError that says what is wrong with which file.
    """
    try:
        with h5py.File(path, "r", locking=False, **options) as file:
            _check_is_readable(path, file, writer)
            yield file
    except FileNotFoundError:
        raise InputError(
            f"shard {path} does not exist", remedy="run `hpcfit prepare` again: it makes what is missing"
        ) from None
    except NONSENSE as error:
        raise damaged(path, f"HDF5 cannot read it ({(str(error) or repr(error)).splitlines()[0]})") from error


def _check_is_readable(path: Path, file: h5py.File, writer: type[BlockWriter]) -> None:
    found = file.attrs.get("format")
    if found != writer.format:
        raise InputError(
            f"{path} is not an {writer.format}, but {'an ' + found if found else 'a file of another program'}",
            remedy="remove it from the store's folder",
        )
    if file.attrs["schema"] > writer.schema:
        raise InputError(
            f"shard {path} has schema {file.attrs['schema']} (written by hpcfit {file.attrs['hpcfit_version']});"
            f" hpcfit {__version__} reads up to schema {writer.schema}",
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


class OpenShard:
    """What every open shard knows: its plan and where its frames come from."""

    def __init__(self, path: Path, file: h5py.File):
        self.path, self._file, self._group = path, file, file["hpcfit"]

    @property
    def plan(self) -> str:
        """The digest of the plan this shard was written by."""
        return self._file.attrs["plan"]

    def frame_rows(self) -> tuple[np.ndarray, list[str], np.ndarray]:
        """Frame ids, source files and indices in these files, a row a frame."""
        return self._group["frame_id"][:], list(self._group["source_file"].asstr()[:]), self._group["source_index"][:]

    def _ids(self, block: int) -> tuple[int, int]:
        """First and last frame id of a block."""
        ids = self._group["frame_id"][block * BLOCK_FRAMES : (block + 1) * BLOCK_FRAMES]
        return int(ids[0]), int(ids[-1])
