"""Frames from another store: for another encoding, other shards, a part of its frames, or several stores in one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.config import BLOCK_FRAMES
from hpcfit.errors import InputError
from hpcfit.physics import reciprocal
from hpcfit.readers.reflections import FactorSource
from hpcfit.readers.trajectory import chosen_rows
from hpcfit.store.catalog import ShardEntry, check_place
from hpcfit.store.frame import Frame
from hpcfit.store.reference import Reference, Reflections, restored
from hpcfit.store.shard import open_shard
from hpcfit.store.structure_factors import FactorShard, FactorStore, open_store, read_reference


class Place(NamedTuple):
    """A shard by its file, number and entry of the catalog, and where its frames lie in their source."""

    path: Path
    number: int
    entry: ShardEntry
    first: int


@dataclass(frozen=True)
class StoreSource(FactorSource):
    """One source of another store.

    path: the store's folder and the source's name in it; rows: the frames used, start:stop:stride of the config.
    """

    name: str
    label: str
    path: Path
    store: Path
    places: tuple[Place, ...]
    rows: range
    digest: str
    store_id: str
    keep_positions: bool = False
    keep_forces: bool = False
    reflections: Reflections | None = None

    @property
    def n_frames(self) -> int:
        """Frames after start, stop and stride."""
        return len(self.rows)

    def frames(self, start: int, stop: int) -> Iterator[Frame]:
        """Frames start to stop - 1 of `rows`; every chunk that is read is compared with its checksum."""
        for place in self.places:
            frames = place.entry.frames
            inside = [row - place.first for row in self.rows[start:stop] if 0 <= row - place.first < frames]
            if inside:
                with open_shard(place.path, FactorShard) as shard:
                    check_place(shard, self.store_id, place.number, place.entry)
                    yield from self._frames(shard, inside)

    def _frames(self, shard: FactorShard, rows: Sequence[int]) -> Iterator[Frame]:
        (_, files, index), carried, reference = shard.frame_rows(), self._carried(shard), shard.reference()
        new, old = self.reflections, reference.reflections
        columns = reciprocal.match(new.hkl, new.ndiv, old.hkl, old.ndiv)[1]
        number, f_th = -1, None
        for row in rows:
            if row // BLOCK_FRAMES != number:
                number = row // BLOCK_FRAMES
                f_th = restored(shard.read(number, slice(0, len(old))), reference)[:, columns]
            more = {name: values[row] for name, values in carried.items()}
            f_h = f_th[row % BLOCK_FRAMES]
            yield Frame(int(index[row]), file=files[row], structure_factors=f_h, **more)

    def _carried(self, shard: FactorShard) -> dict[str, np.ndarray]:
        """What the frames have beside structure factors, as far as it is to be kept; arrays [frames, ...] by name."""
        if not self.keep_positions:
            return {}
        wanted = ["positions", *["forces"] * self.keep_forces]
        rows = shard.trajectory()
        for name in wanted:
            if rows is None or name not in rows.values:
                raise InputError(f"shard {shard.path} holds no {name}", remedy=f"set [prepare] {name} = false")
        kept = {name: rows.values[name] for name in (*wanted, "box") if name in rows.values}
        return kept | {"time": rows.time}


def open_store_sources(folder: Path, label: str, frames: slice) -> list[StoreSource]:
    """The sources of a store with their own labels or `label`, each cut to a range of frames."""
    store = open_store(folder)
    return [_source(store, name, label, frames) for name in dict.fromkeys(shard.source for shard in store.shards)]


def _source(store: FactorStore, name: str, label: str, frames: slice) -> StoreSource:
    shards = [(number, shard) for number, shard in enumerate(store.shards) if shard.source == name]
    firsts = np.cumsum([0, *(shard.frames for _, shard in shards)]).tolist()
    rows = chosen_rows(store.folder / name, firsts[-1], frames)
    places = tuple(Place(store.path(number), number, shard, first) for (number, shard), first in zip(shards, firsts))
    digests = [store.reference.digest(), *(shard.plan for _, shard in shards)]
    digest = hashlib.sha256("".join(digests).encode()).hexdigest()
    label = label or shards[0][1].label
    return StoreSource(name, label, store.folder / name, store.folder, places, rows, digest, store.id)


def reflections_of_stores(sources: Sequence[StoreSource], d_min: float | None) -> tuple[Reflections, Reference | None]:
    """The reflections that the stores of `sources` share, to d_min (A), and their F0 and s there if they share those.

    Raises InputError for stores of different reflections.
    """
    found = {source.store: read_reference(source.store) for source in sources}
    first, old = next(iter(found.items()))
    for folder, reference in found.items():
        if reference.reflections.digest() != old.reflections.digest():
            raise InputError(
                f"stores {first} and {folder} hold different reflections, cells or space groups",
                remedy="prepare them into different stores, or both anew from their inputs",
            )
    reflections, within = _to(d_min, old.reflections)
    if not len(reflections):
        raise InputError(
            f"[prepare] d_min = {d_min} A leaves no reflection of {first}", remedy="choose a smaller d_min"
        )
    shared = len({reference.digest() for reference in found.values()}) == 1
    return reflections, Reference(reflections, old.mean[within], old.scale[within]) if shared else None


def _to(d_min: float | None, old: Reflections) -> tuple[Reflections, np.ndarray]:
    within = np.full(len(old), fill_value=True)
    if d_min is not None:
        inverse_d2 = reciprocal.inverse_d2(old.hkl, old.ndiv, old.cell)
        within = inverse_d2 <= (1 + reciprocal.SAME_RESOLUTION) / d_min**2
    return replace(old, hkl=old.hkl[within]), within
