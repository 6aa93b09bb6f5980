"""The catalog of a store, whatever it holds: which frames lie in which shard, in which blocks, of what size.

A store is a folder: ``catalog.json`` beside the shards and the file of what all frames share (``reference.h5`` or
``particles.h5``). The catalog has a checksum of itself and the seal of every shard. Before a run starts it compares
the catalog, the shared file and the sizes of the shards; the seal of a shard when it opens it, and the values of frames
while it reads them. `hpcfit store verify` compares all of that at once.
"""

from __future__ import annotations

import contextlib
import fnmatch
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from hpcfit import __version__
from hpcfit.config import BLOCK_FRAMES
from hpcfit.errors import DamagedFile, InputError
from hpcfit.store.content import Content
from hpcfit.store.files import write_text
from hpcfit.store.seals import is_as_sealed, read_json, sealed_json
from hpcfit.store.shard import Shard, ShardPlan, open_shard, place_name

CATALOG = "catalog.json"
SCHEMA = 2  # of a catalog; 2: with a checksum of itself, and the seals of shards
UNNAMED = "structure-factors"  # the content of a catalog that names none
AnyContent = TypeVar("AnyContent", bound=Content)
AnyStore = TypeVar("AnyStore", bound="Store")


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
    seal: str  # its digest, of all but the values of frames and their like


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
class Store(Generic[AnyContent]):
    """An opened store: its catalog, and what all frames share; the frames stay on the disk."""

    folder: Path
    shards: tuple[ShardEntry, ...]
    content: AnyContent
    id: str

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

    @contextlib.contextmanager
    def shard(self, number: int) -> Iterator[Any]:
        """Open a shard by its number; raises InputError or DamagedFile, also for one that is not of this place."""
        with open_shard(self.path(number), self.content.shard) as shard:
            check_place(shard, self.id, number, self.shards[number])
            yield shard

    def digest(self) -> str:
        """Identify the store for a checkpoint: what all frames share, and the list of shards."""
        return self.content.store_digest(str([(shard.file, shard.frames, shard.plan) for shard in self.shards]))

    def check_files(self) -> None:
        """Raise InputError or DamagedFile unless all shards are there in their size."""
        for number, shard in enumerate(self.shards):
            path = self.path(number)
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


def check_place(shard: Shard, store: str, number: int, entry: ShardEntry) -> None:
    """Raise InputError unless a shard is that of this store, number and entry of its catalog."""
    if shard.plan == entry.plan and shard.stands(store, number) and shard.seal == entry.seal:
        return
    raise InputError(
        f"shard {shard.path} says that it is {shard.place}, seal {shard.seal[:16]}; {CATALOG} has"
        f" {place_name(store, number)}, plan {entry.plan[:16]}, seal {entry.seal[:16]} there",
        remedy="put the store's own file back, or delete this one and run `hpcfit prepare` again",
    )


def _matches(shard: ShardEntry, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in (shard.source, shard.label))


def content_of(folder: Path) -> str:
    """Name the content of a store, by its catalog; raises InputError or DamagedFile naming the file."""
    return _read(folder).get("content", UNNAMED)


def opened_store(folder: Path, content: type[AnyContent], store: type[AnyStore] = Store) -> AnyStore:
    """Open a store of one content and compare its catalog with its files.

    store: the class of the store, which names what users of the content ask for. Raises InputError or DamagedFile
    naming the file.
    """
    found = _read(folder)
    kind = found.get("content", UNNAMED)
    if kind != content.name:
        raise InputError(
            f"{folder} is a store of {kind}; this needs one of {content.name}",
            remedy=f"give another store, or prepare one with [prepare] content = '{content.name}'",
        )
    shards = tuple(ShardEntry(**row) for row in found["shards"])
    opened = store(folder, shards, content.opened(folder, found), found["store"])
    if content.begun_with(folder)[0] != opened.id:
        raise InputError(
            f"{folder / content.shared.name} is of store {content.begun_with(folder)[0]}, {CATALOG} of {opened.id}",
            remedy="put the store's own file back",
        )
    opened.check_files()
    return opened


def _read(folder: Path) -> dict[str, Any]:
    """What a catalog holds, compared with its checksum."""
    path = folder / CATALOG
    _check_is_folder(folder)
    try:
        found = read_json(path)
    except FileNotFoundError:
        raise InputError(
            f"{folder} is not a complete store: {path} does not exist", remedy="run `hpcfit prepare`"
        ) from None
    except DamagedFile as error:
        raise DamagedFile(error.what, remedy=REWRITTEN) from None
    if found.get("schema") != SCHEMA:
        raise InputError(
            f"{path} has schema {found.get('schema', 'of no number')!r} (hpcfit {found.get('hpcfit_version')});"
            f" hpcfit {__version__} reads schema {SCHEMA}",
            remedy="update hpcfit, or prepare the store again with this version, into another folder",
        )
    if not is_as_sealed(found):
        raise DamagedFile(f"{path} is damaged: it differs from its checksum", remedy=REWRITTEN)
    return found


REWRITTEN = "run `hpcfit prepare` again: it rewrites it"


def _check_is_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, and a store is a folder", remedy="give the folder of a store")


def write_catalog(folder: Path, plans: Sequence[ShardPlan], content: Content) -> None:
    """Write the catalog over the complete shards of ``plans``, in their order, and the content's view of them."""
    entries = [_entry(folder, plan, content) for plan in plans]
    content.write_view(folder, plans)
    found = {
        "schema": SCHEMA, "hpcfit_version": __version__, "command": shlex.join(sys.argv),
        "store": plans[0].store, **content.in_catalog(), "shards": [asdict(entry) for entry in entries],
    }  # fmt: skip
    write_text(folder / CATALOG, sealed_json(found))


def _entry(folder: Path, plan: ShardPlan, content: Content) -> ShardEntry:
    path = folder / plan.file
    with open_shard(path, content.shard) as shard:
        seal = shard.seal
    numbers = plan.first_id, plan.n_frames, path.stat().st_size
    return ShardEntry(plan.file, plan.source, plan.label, *numbers, plan.digest, seal)


class FrameRows(NamedTuple):
    """The identity of each frame, one row a frame in the order of the ids."""

    id: np.ndarray
    source: list[str]
    label: list[str]
    file: list[str]
    index: np.ndarray


def frame_rows(store: Store, blocks: Sequence[Block]) -> FrameRows:
    """The frames of ``blocks``: id, source, label, file and index in the file (opens each shard once)."""
    ids, sources, labels, files, indices = [], [], [], [], []
    for number in sorted({block.shard for block in blocks}):
        with store.shard(number) as shard:
            frame_id, source_file, source_index = shard.frame_rows()
        ids.append(frame_id)
        indices.append(source_index)
        files += source_file
        sources += [store.shards[number].source] * len(frame_id)
        labels += [store.shards[number].label] * len(frame_id)
    return FrameRows(np.concatenate(ids), sources, labels, files, np.concatenate(indices))


def verify_shard(store: Store, number: int) -> list[str]:
    """Read one shard; a sentence for each part that is not as it was written, or not of this store."""
    problems = []
    try:
        with store.shard(number) as shard:
            problems += shard.verify()
            problems += filter(None, [store.content.objection(shard)])
    except InputError as error:
        problems.append(str(error).splitlines()[0])
    return problems
