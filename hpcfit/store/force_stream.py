"""The frames of a store of forces, block by block, in one pass: the next block is read while this one is used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from hpcfit.store.force_shard import ForceFrames, ForceShard, Origin, open_force_shard
from hpcfit.store.force_store import ForceStore
from hpcfit.store.shard_list import Block


class _Reader:
    """Reads blocks; a shard stays open as long as blocks of it follow each other."""

    def __init__(self, store: ForceStore):
        self._store, self._stack = store, ExitStack()
        self._number, self._shard = -1, None

    def __call__(self, block: Block) -> tuple[ForceFrames, Origin]:
        shard = self._opened(block.shard)
        return shard.read(block.index), shard.origin(block.index)

    def _opened(self, number: int) -> ForceShard:
        if number != self._number:
            self.close()
            self._shard = self._stack.enter_context(open_force_shard(self._store.path(number)))
            self._number = number
        return self._shard

    def close(self) -> None:
        self._stack.close()
        self._number = -1


def force_frames(store: ForceStore, blocks: Sequence[Block]) -> Iterator[tuple[Block, ForceFrames, Origin]]:
    """Each block with its frames and where they are from. Raises DamagedFile or InputError naming shard and frames."""
    reader = _Reader(store)
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="hpcfit-read") as thread:
            waiting = thread.submit(reader, blocks[0]) if blocks else None
            for block, following in zip(blocks, [*blocks[1:], None]):
                frames, origin = waiting.result()
                waiting = None if following is None else thread.submit(reader, following)
                yield block, frames, origin
    finally:
        reader.close()  # by whoever drops the generator, even when the interpreter ends and starts no work any more
