"""A rank's frames in passes: while one part is used, the next is read.

Frames of particles come block by block. Structure factors come in chunks, kept in memory where they fit: some blocks of
frames with all reflections, or some tiles of reflections with all frames, whichever the gradient asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from hpcfit.config import BLOCK_FRAMES
from hpcfit.errors import InputError
from hpcfit.store.catalog import Block
from hpcfit.store.positions import ParticleStore, PositionShard
from hpcfit.store.reference import finite
from hpcfit.store.shard import Origin
from hpcfit.store.structure_factors import CHUNK_REFLECTIONS, FactorStore

CHUNK_BYTES = 256 << 20
Key = TypeVar("Key")
Part = TypeVar("Part")


class StructureFactors:
    """The structure factors of some blocks of frames at some columns of a store.

    columns: [tiles, width] column of the store, -1 for padding. What is read is [tiles, blocks, 64, 2 width] in the
    stored type, zeros where there is no frame or no column.
    """

    def __init__(self, store: FactorStore, blocks: Sequence[Block], columns: np.ndarray):
        self.store, self.blocks, self.columns = store, list(blocks), columns
        self._held = columns >= 0
        used = columns[self._held] if self._held.any() else np.zeros(1, int)
        # Whole chunks of the file, so that each is read and checked once.
        self._start = int(used.min()) // CHUNK_REFLECTIONS * CHUNK_REFLECTIONS
        stop = (int(used.max()) // CHUNK_REFLECTIONS + 1) * CHUNK_REFLECTIONS
        self._stop = min(stop, len(store.reference.reflections))

    @property
    def cell_bytes(self) -> int:
        """Bytes of one block in one tile."""
        return BLOCK_FRAMES * self.columns.shape[1] * 2 * self.store.encoding.storage.itemsize

    @property
    def bytes(self) -> int:
        """Bytes of all blocks in all tiles, as held in memory and passed over in each half of a step."""
        return len(self.blocks) * len(self.columns) * self.cell_bytes

    def read(self, blocks: slice, tiles: slice) -> np.ndarray:
        """Some blocks in some tiles, checked against their checksums; raises DamagedFile."""
        part = StructureFactors(self.store, self.blocks[blocks], self.columns[tiles])
        return part.read_all()

    def read_all(self) -> np.ndarray:
        """All blocks in all tiles."""
        tiles, width = self.columns.shape
        chunk = np.zeros((tiles, len(self.blocks), BLOCK_FRAMES, width, 2), self.store.encoding.storage)
        for number in sorted({block.shard for block in self.blocks}):
            with self.store.shard(number) as shard:
                for place, block in enumerate(self.blocks):
                    if block.shard == number:
                        pairs = shard.read(block.index, slice(self._start, self._stop))
                        self._check_finite(block, pairs)
                        self._scatter(_whole_pairs(chunk)[:, place, : block.frames], pairs)
        return chunk.reshape(tiles, len(self.blocks), BLOCK_FRAMES, 2 * width)

    def _check_finite(self, block: Block, pairs: np.ndarray) -> None:
        if finite(pairs):
            return
        row, column = np.argwhere(~np.isfinite(pairs))[0][:2]
        hkl = tuple(self.store.reference.reflections.hkl[self._start + column].tolist())
        raise InputError(
            f"shard {self.store.path(block.shard)}: the structure factor of frame {block.first_id + row} at hkl {hkl}"
            " is not a finite number",
            remedy="repair the frame in its source, delete the shard and run `hpcfit prepare` again",
        )

    def _scatter(self, chunk: np.ndarray, pairs: np.ndarray) -> None:
        """pairs [frames, columns read, 2] into a view [tiles, frames, width] of whole pairs."""
        whole = _whole_pairs(pairs)
        for tile, columns, held in zip(chunk, self.columns, self._held):
            tile[:] = whole.take(np.where(held, columns - self._start, 0), axis=1)
            tile[:, ~held] = 0


def _whole_pairs(pairs: np.ndarray) -> np.ndarray:
    """A view without the last axis, a pair an integer: gathering them is several times faster than pairs of halves."""
    return pairs.view({2: np.uint32, 4: np.uint64}[pairs.itemsize])[..., 0]


class Chunk(NamedTuple):
    """Part of a rank's frames. rows: which of its blocks; tiles: which of its tiles. data: [tiles, blocks, 64,
    2 width], or in strips [tiles, strips, frames, 2 strip]."""

    rows: slice
    tiles: slice
    data: Any


class Source(Protocol):
    """A source can be read chunk by chunk. keys(): what each chunk has; a rank without frames has one empty chunk."""

    def keys(self) -> list[tuple[slice, slice]]: ...

    def read(self, rows: slice, tiles: slice) -> np.ndarray: ...


@dataclass(frozen=True)
class ByFrames:
    """Blocks of frames with all tiles: for two passes."""

    factors: StructureFactors

    def keys(self) -> list[tuple[slice, slice]]:
        """See ``Source``."""
        n, tiles = len(self.factors.blocks), len(self.factors.columns)
        return [(rows, slice(0, tiles)) for rows in _cut(n, tiles * self.factors.cell_bytes)]

    def read(self, rows: slice, tiles: slice) -> np.ndarray:
        """[tiles, blocks, 64, 2 width]."""
        return self.factors.read(rows, tiles)


@dataclass(frozen=True)
class ByReflections:
    """Tiles with all frames, in strips, each of which lies in one piece: for one pass. factors: of the strips, each of
    them a tile of its own; strips: of a tile."""

    factors: StructureFactors
    strips: int

    def keys(self) -> list[tuple[slice, slice]]:
        """See ``Source``."""
        blocks, tiles = len(self.factors.blocks), len(self.factors.columns) // self.strips
        tile_bytes = self.strips * blocks * self.factors.cell_bytes
        return [(slice(0, blocks), part) for part in _cut(tiles, tile_bytes)]

    def read(self, rows: slice, tiles: slice) -> np.ndarray:
        """[tiles, strips, frames, 2 strip]."""
        data = self.factors.read(rows, slice(tiles.start * self.strips, tiles.stop * self.strips))
        n, blocks, frames, reals = data.shape
        return data.reshape(n // self.strips, self.strips, blocks * frames, reals)


def _cut(n: int, bytes_each: int) -> list[slice]:
    """0 ... n in parts of at most CHUNK_BYTES, where one is not larger by itself; one empty part of nothing."""
    step = max(1, CHUNK_BYTES // max(bytes_each, 1))
    return [slice(start, min(start + step, n)) for start in range(0, max(n, 1), step)]


class InMemory:
    """All chunks, read once and placed by ``place`` (onto the rank's device)."""

    def __init__(self, source: Source, place: Callable[[np.ndarray], Any]):
        self._chunks = [Chunk(*key, place(source.read(*key))) for key in source.keys()]  # noqa: SIM118 (no mapping)

    def chunks(self) -> Iterator[Chunk]:
        """One pass over the frames."""
        return iter(self._chunks)


class FromDisk:
    """Chunks read again in each pass; the next is read while this one computes."""

    def __init__(self, source: Source, place: Callable[[np.ndarray], Any]):
        self._source, self._place = source, place

    def chunks(self) -> Iterator[Chunk]:
        """One pass over the frames."""
        keys = self._source.keys()
        with closing(ahead(lambda key: self._source.read(*key), keys)) as found:
            for key, data in zip(keys, found, strict=True):
                yield Chunk(*key, self._place(data))


class _BlockReader:
    """Reads blocks; a shard stays open as long as blocks of it follow each other."""

    def __init__(self, store: ParticleStore):
        self._store, self._stack = store, ExitStack()
        self._number, self._shard = -1, None

    def __call__(self, block: Block) -> tuple[Any, Origin]:
        shard = self._opened(block.shard)
        return shard.read(block.index), shard.origin(block.index)

    def _opened(self, number: int) -> PositionShard:
        if number != self._number:
            self.close()
            self._shard = self._stack.enter_context(self._store.shard(number))
            self._number = number
        return self._shard

    def close(self) -> None:
        self._stack.close()
        self._number = -1


def block_frames(store: ParticleStore, blocks: Sequence[Block]) -> Iterator[tuple[Block, Any, Origin]]:
    """Each block with its frames and where they are from. Raises DamagedFile or InputError naming shard and frames."""
    reader = _BlockReader(store)
    # Both are closed by whoever drops the generator, even when the interpreter ends and starts no work any more.
    with closing(reader), closing(ahead(reader, blocks)) as found:
        for block, (frames, origin) in zip(blocks, found, strict=True):
            yield block, frames, origin


def ahead(read: Callable[[Key], Part], keys: Sequence[Key]) -> Iterator[Part]:
    """read(key) for each key, in a thread: the next is read while the caller uses this one."""
    with ThreadPoolExecutor(1, thread_name_prefix="hpcfit-read") as thread:
        waiting = thread.submit(read, keys[0]) if keys else None
        for following in [*keys[1:], None] if keys else []:
            part = waiting.result()
            waiting = None if following is None else thread.submit(read, following)
            yield part
