"""A rank's frames, chunk by chunk: kept in memory where they fit, else read again in each pass.

While one chunk is read, the last one computes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from hpcfit.config import BLOCK_FRAMES
from hpcfit.data.catalog import Block, Store
from hpcfit.data.shard import CHUNK_REFLECTIONS, open_shard
from hpcfit.errors import InputError

CHUNK_BYTES = 256 << 20


class StructureFactors:
    """The structure factors of some blocks of frames at some columns of a store.

    columns: [tiles, width] column of the store, -1 for padding. Chunks are [tiles, blocks, 64, 2 width] in the stored
    type, zeros where there is no frame or no column.
    """

    def __init__(self, store: Store, blocks: Sequence[Block], columns: np.ndarray):
        self.store, self.blocks, self.columns = store, list(blocks), columns
        self._held = columns >= 0
        used = columns[self._held]
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

    def chunk_rows(self) -> list[slice]:
        """Which blocks each chunk has; a rank without frames has one empty chunk."""
        step = max(1, CHUNK_BYTES // (len(self.columns) * self.cell_bytes))
        n = len(self.blocks)
        return [slice(start, min(start + step, n)) for start in range(0, max(n, 1), step)]

    def read(self, rows: slice) -> np.ndarray:
        """One chunk, checked against its checksums; raises DamagedFile."""
        blocks, (tiles, width) = self.blocks[rows], self.columns.shape
        chunk = np.zeros((tiles, len(blocks), BLOCK_FRAMES, width, 2), self.store.encoding.storage)
        for number in sorted({block.shard for block in blocks}):
            with open_shard(self.store.path(number)) as shard:
                for place, block in enumerate(blocks):
                    if block.shard == number:
                        pairs = shard.read(block.index, slice(self._start, self._stop))
                        self._check_finite(block, pairs)
                        self._scatter(_whole_pairs(chunk)[:, place, : block.frames], pairs)
        return chunk.reshape(tiles, len(blocks), BLOCK_FRAMES, 2 * width)

    def _check_finite(self, block: Block, pairs: np.ndarray) -> None:
        if _finite(pairs):
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


def _finite(pairs: np.ndarray) -> bool:
    """Whether no exponent is all ones; for float16 many times faster than ``np.isfinite``."""
    word, exponent = {2: (np.uint16, 0x7C00), 4: (np.uint32, 0x7F800000)}[pairs.itemsize]
    return not np.any((pairs.view(word) & word(exponent)) == exponent)


class Chunk(NamedTuple):
    """Some blocks of a rank's frames. rows: which of the rank's blocks. data: [tiles, blocks, 64, 2 width]."""

    rows: slice
    data: Any


class InMemory:
    """All chunks, read once and placed by ``place`` (onto the rank's device)."""

    def __init__(self, source: StructureFactors, place: Callable[[np.ndarray], Any]):
        self._chunks = [Chunk(rows, place(source.read(rows))) for rows in source.chunk_rows()]

    def chunks(self) -> Iterator[Chunk]:
        """One pass over the frames."""
        return iter(self._chunks)


class FromDisk:
    """Chunks read again in each pass; the next is read while this one computes."""

    def __init__(self, source: StructureFactors, place: Callable[[np.ndarray], Any]):
        self._source, self._place = source, place
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="hpcfit-read")

    def chunks(self) -> Iterator[Chunk]:
        """One pass over the frames."""
        rows = self._source.chunk_rows()
        waiting = self._reader.submit(self._source.read, rows[0])
        for this, following in zip(rows, [*rows[1:], None], strict=True):
            data = waiting.result()
            if following is not None:
                waiting = self._reader.submit(self._source.read, following)
            yield Chunk(this, self._place(data))
