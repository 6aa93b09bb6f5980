"""The catalog of a store: which frames lie in which shard, how many bytes each has, and one virtual array over all.

A store is a folder: ``catalog.json``, ``reference.h5`` (reflections, F0 and s), the shards, and ``store.h5``, a
virtual view [frames, reflections, 2] for h5py and HDFView. A shard that went missing would read as NaN there, so
every run compares the catalog with the files before it starts.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from hpcfit import __version__
from hpcfit.config import BLOCK_FRAMES
from hpcfit.data.files import hdf5_written_whole, write_text
from hpcfit.data.reference import Encoding, Reference, read_datasets, write_datasets
from hpcfit.data.shard import SCHEMA, ShardPlan, open_shard
from hpcfit.errors import DamagedFile, InputError

CATALOG, REFERENCE, VIEW = "catalog.json", "reference.h5", "store.h5"


@dataclass(frozen=True)
class ShardEntry:
    """A row of the catalog. first_id: id of the first frame; ids go on by one."""

    file: str
    source: str
    label: str
    first_id: int
    frames: int
    bytes: int
    plan: str  # digest of what decides its content


class Block(NamedTuple):
    """At most 64 frames of one shard: the unit of reading, of distribution and of reproducible sums."""

    shard: int
    index: int
    first_id: int
    frames: int

    def ids(self) -> np.ndarray:
        """Frame ids, padded with -1 to 64."""
        ids = np.full(BLOCK_FRAMES, -1, np.int64)
        ids[: self.frames] = np.arange(self.first_id, self.first_id + self.frames)
        return ids


@dataclass(frozen=True)
class Store:
    """An opened store: catalog and reference; the structure factors stay on the disk."""

    folder: Path
    shards: tuple[ShardEntry, ...]
    reference: Reference
    encoding: Encoding

    @property
    def n_frames(self) -> int:
        """Frames in the store."""
        return sum(shard.frames for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.bytes for shard in self.shards)

    def blocks(self, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()) -> list[Block]:
        """The blocks of the sources whose name or label matches ``include`` and not ``exclude`` (shell patterns)."""
        chosen = [n for n, shard in enumerate(self.shards) if _matches(shard, include) and not _matches(shard, exclude)]
        if not chosen:
            raise InputError(
                f"no source of {self.folder} matches include = {list(include)}, exclude = {list(exclude)}",
                remedy=f"sources there: {', '.join(sorted({shard.source for shard in self.shards}))}",
            )
        return [
            Block(n, row // BLOCK_FRAMES, self.shards[n].first_id + row, min(BLOCK_FRAMES, self.shards[n].frames - row))
            for n in chosen
            for row in range(0, self.shards[n].frames, BLOCK_FRAMES)
        ]

    def path(self, shard: int) -> Path:
        """The file of a shard, by its number in the catalog."""
        return self.folder / self.shards[shard].file

    def digest(self) -> str:
        """Identifies the content for a checkpoint: reference and the list of shards."""
        content = f"{self.reference.digest()} {[(shard.file, shard.frames, shard.plan) for shard in self.shards]}"
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def _matches(shard: ShardEntry, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in (shard.source, shard.label))


def open_store(folder: Path) -> Store:
    """Open a store and compare its catalog with its files; raises InputError or DamagedFile naming the file."""
    path = folder / CATALOG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{folder} is not a complete store: {path} does not exist", remedy="run `hpcfit prepare`"
        ) from None
    except ValueError as error:
        raise DamagedFile(
            f"{path} is not valid JSON ({error})", remedy="run `hpcfit prepare` again: it rewrites it"
        ) from None
    if content["schema"] > SCHEMA:
        raise InputError(
            f"{path} has schema {content['schema']} (hpcfit {content['hpcfit_version']});"
            f" hpcfit {__version__} reads up to {SCHEMA}",
            remedy="update hpcfit, or prepare the store again with this version",
        )
    shards = tuple(ShardEntry(**row) for row in content["shards"])
    store = Store(folder, shards, read_reference(folder), Encoding(**content["encoding"]))
    _check_files(store, content["reference"])
    return store


def _check_files(store: Store, reference_digest: str) -> None:
    if store.reference.digest() != reference_digest:
        raise DamagedFile(
            f"{store.folder / REFERENCE} differs from its checksum in {CATALOG}", remedy="prepare the store again"
        )
    for number, shard in enumerate(store.shards):
        path = store.path(number)
        found = path.stat().st_size if path.exists() else None
        if found is None:
            raise InputError(
                f"shard {path} is in {CATALOG} but does not exist",
                remedy="run `hpcfit prepare` again: it makes what is missing",
            )
        if found != shard.bytes:
            raise DamagedFile(
                f"shard {path} is damaged: it has {found} bytes, {CATALOG} says {shard.bytes}",
                remedy="delete this file and run `hpcfit prepare` again: it makes what is missing",
            )


def write_catalog(folder: Path, plans: Sequence[ShardPlan], reference: Reference, encoding: Encoding) -> Store:
    """Write catalog and virtual view over the complete shards of ``plans``, in their order."""
    shards = [
        ShardEntry(p.file, p.source, p.label, p.first_id, p.n_frames, (folder / p.file).stat().st_size, p.digest)
        for p in plans
    ]
    content = {
        "schema": SCHEMA, "hpcfit_version": __version__, "command": shlex.join(sys.argv),
        "reference": reference.digest(), "encoding": encoding._asdict(), "shards": [asdict(shard) for shard in shards],
    }  # fmt: skip
    store = Store(folder, tuple(shards), reference, encoding)
    _write_view(store)
    write_text(folder / CATALOG, json.dumps(content, indent=1))
    return store


def _write_view(store: Store) -> None:
    """One virtual array over all shards; what is missing reads as NaN, never as zeros."""
    H, dtype = len(store.reference.reflections), store.encoding.storage
    layout = h5py.VirtualLayout((store.n_frames, H, 2), dtype)
    row = 0
    for shard in store.shards:
        layout[row : row + shard.frames] = h5py.VirtualSource(
            shard.file, "hpcfit/structure_factors", (shard.frames, H, 2), dtype
        )
        row += shard.frames
    with hdf5_written_whole(store.folder / VIEW) as file:
        file.attrs.update(format="hpcfit view", schema=SCHEMA, hpcfit_version=__version__)
        file.create_virtual_dataset("structure_factors", layout, fillvalue=dtype.type(np.nan))
        file["hkl"] = store.reference.reflections.hkl


def write_reference(folder: Path, reference: Reference, settings: dict[str, str]) -> None:
    """Write the reference before any shard; ``settings`` decided it, and a later `prepare` must have the same."""
    with hdf5_written_whole(folder / REFERENCE) as file:
        file.attrs.update(
            format="hpcfit reference", schema=SCHEMA, hpcfit_version=__version__, settings=json.dumps(settings)
        )
        write_datasets(file, reference)


def read_reference(folder: Path) -> Reference:
    """The reference of a store."""
    with _open_reference(folder) as file:
        return read_datasets(file)


def read_reference_settings(folder: Path) -> dict[str, str]:
    """The settings that a store was begun with."""
    with _open_reference(folder) as file:
        return json.loads(file.attrs["settings"])


def _open_reference(folder: Path) -> h5py.File:
    path = folder / REFERENCE
    try:
        return h5py.File(path, "r", locking=False)
    except FileNotFoundError:
        raise InputError(f"{folder} is not a store: {path} does not exist", remedy="run `hpcfit prepare`") from None
    except OSError as error:
        raise DamagedFile(
            f"{path} is damaged: {str(error).splitlines()[0]}", remedy="prepare the store again"
        ) from None


class FrameRows(NamedTuple):
    """What is known of each frame, one row a frame in the order of the ids."""

    id: np.ndarray
    source: list[str]
    label: list[str]
    file: list[str]
    index: np.ndarray


def frame_rows(store: Store, blocks: Sequence[Block]) -> FrameRows:
    """The frames of ``blocks``: id, source, label, file and index in the file (opens each shard once)."""
    ids, sources, labels, files, indices = [], [], [], [], []
    for number in sorted({block.shard for block in blocks}):
        with open_shard(store.path(number)) as shard:
            shard.check_header()
            frame_id, source_file, source_index = shard.frame_rows()
        ids.append(frame_id)
        indices.append(source_index)
        files += source_file
        sources += [store.shards[number].source] * len(frame_id)
        labels += [store.shards[number].label] * len(frame_id)
    return FrameRows(np.concatenate(ids), sources, labels, files, np.concatenate(indices))


def verify(store: Store) -> list[str]:
    """Read everything; a sentence for each chunk, header or reference that is not as it was written."""
    return [problem for number in range(len(store.shards)) for problem in verify_shard(store, number)]


def verify_shard(store: Store, number: int) -> list[str]:
    """The same for one shard."""
    problems = []
    try:
        with open_shard(store.path(number)) as shard:
            problems += shard.verify()
            shard.check_header()
            if shard.reference().digest() != store.reference.digest():
                problems.append(
                    f"shard {shard.path} was written with another reference than {store.folder / REFERENCE}"
                )
    except InputError as error:
        problems.append(str(error).splitlines()[0])
    return problems
