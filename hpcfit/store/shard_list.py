"""The list of shards of a store, whatever their content: which frames lie in which, in which blocks, of what size.

A store is a folder with ``catalog.json``, the list, beside the shards. Every run compares it with the files.
"""

from __future__ import annotations

import fnmatch
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcfit import __version__
from hpcfit.config import BLOCK_FRAMES
from hpcfit.errors import DamagedFile, InputError
from hpcfit.store.files import write_text
from hpcfit.store.shard_file import ShardPlan

CATALOG = "catalog.json"
STRUCTURE_FACTORS = "structure-factors"  # the content of a catalog that names none


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
class ShardedStore:
    """An opened store, as far as it does not matter what its shards hold."""

    folder: Path
    shards: tuple[ShardEntry, ...]

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

    def list_digest(self) -> str:
        """What identifies the list of shards, in a digest of the store."""
        return str([(shard.file, shard.frames, shard.plan) for shard in self.shards])

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


def _matches(shard: ShardEntry, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns for name in (shard.source, shard.label))


class Catalog(NamedTuple):
    """The content of a catalog: the list of shards, and what else a content keeps there."""

    shards: tuple[ShardEntry, ...]
    more: dict[str, Any]


def content_of(folder: Path) -> str:
    """What the shards of a store hold, by its catalog. Raises as `read_catalog`."""
    return _read(folder).get("content", STRUCTURE_FACTORS)


def read_catalog(folder: Path, content: str, schema: int) -> Catalog:
    """The catalog of a store of this content; raises InputError or DamagedFile naming the file."""
    path, found = folder / CATALOG, _read(folder)
    if found.get("content", STRUCTURE_FACTORS) != content:
        raise InputError(
            f"{folder} is a store of {found.get('content', STRUCTURE_FACTORS)}; this needs one of {content}",
            remedy=f"give another store, or prepare one with [prepare] content = '{content}'",
        )
    if found["schema"] > schema:
        raise InputError(
            f"{path} has schema {found['schema']} (hpcfit {found['hpcfit_version']});"
            f" hpcfit {__version__} reads up to {schema}",
            remedy="update hpcfit, or prepare the store again with this version",
        )
    return Catalog(tuple(ShardEntry(**row) for row in found["shards"]), found)


def _read(folder: Path) -> dict[str, Any]:
    path = folder / CATALOG
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{folder} is not a complete store: {path} does not exist", remedy="run `hpcfit prepare`"
        ) from None
    except ValueError as error:
        raise DamagedFile(
            f"{path} is not valid JSON ({error})", remedy="run `hpcfit prepare` again: it rewrites it"
        ) from None


def entries_of(folder: Path, plans: Sequence[ShardPlan]) -> tuple[ShardEntry, ...]:
    """The rows of the complete shards of ``plans``, in their order."""
    return tuple(
        ShardEntry(p.file, p.source, p.label, p.first_id, p.n_frames, (folder / p.file).stat().st_size, p.digest)
        for p in plans
    )


def write_list(store: ShardedStore, schema: int, more: dict[str, Any]) -> None:
    """Write the catalog of a store, with what its content keeps there."""
    content = {
        "schema": schema, "hpcfit_version": __version__, "command": shlex.join(sys.argv),
        **more, "shards": [asdict(shard) for shard in store.shards],
    }  # fmt: skip
    write_text(store.folder / CATALOG, json.dumps(content, indent=1))
