"""The catalog of a store: which frames lie in which shard, how many bytes each has, and one virtual array over all.

A store is a folder: ``catalog.json``, ``reference.h5`` (reflections, F0 and s), the shards, and ``store.h5``, a
virtual view [frames, reflections, 2] for h5py and HDFView. A shard that went missing would read as NaN there, so
every run compares the catalog with the files before it starts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from hpcfit import __version__
from hpcfit.errors import DamagedFile, InputError
from hpcfit.store.files import hdf5_written_whole
from hpcfit.store.reference import Encoding, Reference, read_datasets, write_datasets
from hpcfit.store.shard import SCHEMA, open_shard
from hpcfit.store.shard_file import ShardPlan
from hpcfit.store.shard_list import (
    CATALOG,
    STRUCTURE_FACTORS,
    Block,
    ShardedStore,
    entries_of,
    read_catalog,
    write_list,
)

REFERENCE, VIEW = "reference.h5", "store.h5"


@dataclass(frozen=True)
class Store(ShardedStore):
    """An opened store: catalog and reference; the structure factors stay on the disk."""

    reference: Reference
    encoding: Encoding

    def digest(self) -> str:
        """Identifies the content for a checkpoint: reference and the list of shards."""
        content = f"{self.reference.digest()} {self.list_digest()}"
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def open_store(folder: Path) -> Store:
    """Open a store and compare its catalog with its files; raises InputError or DamagedFile naming the file."""
    shards, more = read_catalog(folder, STRUCTURE_FACTORS, SCHEMA)
    store = Store(folder, shards, read_reference(folder), Encoding(**more["encoding"]))
    if store.reference.digest() != more["reference"]:
        raise DamagedFile(
            f"{store.folder / REFERENCE} differs from its checksum in {CATALOG}", remedy="prepare the store again"
        )
    store.check_files()
    return store


def write_catalog(folder: Path, plans: Sequence[ShardPlan], reference: Reference, encoding: Encoding) -> Store:
    """Write catalog and virtual view over the complete shards of ``plans``, in their order."""
    store = Store(folder, entries_of(folder, plans), reference, encoding)
    _write_view(store)
    write_list(store, SCHEMA, {"reference": reference.digest(), "encoding": encoding._asdict()})
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
