"""Writing one shard, whatever it holds: frame by frame, in blocks of 64, there whole or not at all."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np

from hpcfit import __version__
from hpcfit.config import BLOCK_FRAMES
from hpcfit.errors import InputError
from hpcfit.store.content import Content
from hpcfit.store.frame import Frame
from hpcfit.store.seals import Seal, hdf5_sealed
from hpcfit.store.shard import ShardPlan, open_shard


class ShardWriter:
    """Writes one shard frame by frame, in blocks of 64; the file appears, whole, when the ``with`` block ends well.

    command: the command line that the shard names as its maker; by default this process's.
    """

    def __init__(self, folder: Path, plan: ShardPlan, content: Content, command: str = ""):
        self.path, self.plan, self.content = folder / plan.file, plan, content
        self._command = command or shlex.join(sys.argv)
        self._stack = contextlib.ExitStack()
        self._waiting: list[Frame] = []
        self._written = 0

    def __enter__(self) -> ShardWriter:
        kind = self.content.shard
        seal = Seal(kind.format, kind.schema, self.plan.name)
        self._file = self._stack.enter_context(hdf5_sealed(self.path, seal, kind.values))
        try:
            self._create()
            self.content.create(self._file, self.plan)
        except BaseException:
            self._stack.__exit__(*sys.exc_info())
            raise
        return self

    def append(self, frame: Frame) -> None:
        """Add the next frame of the source."""
        self._waiting.append(frame)
        if len(self._waiting) == BLOCK_FRAMES:
            self._write_block()

    def extend(self, frames: Iterable[Frame]) -> None:
        """Add the next frames of the source."""
        for frame in frames:
            self.append(frame)

    def __exit__(self, *exception) -> bool | None:
        try:
            if exception[0] is None:
                self._finish()
        except BaseException:
            self._stack.__exit__(*sys.exc_info())
            raise
        return self._stack.__exit__(*exception)

    def _create(self) -> None:
        plan, n, kind = self.plan, self.plan.n_frames, self.content.shard
        self._file.attrs.update(
            format=kind.format, schema=kind.schema, hpcfit_version=__version__, command=self._command,
            inputs=json.dumps(plan.inputs), plan=plan.digest, source=plan.source, label=plan.label, store=plan.store,
            place=plan.place,
        )  # fmt: skip
        group = self._file.create_group("hpcfit")
        group["frame_id"] = np.arange(plan.first_id, plan.first_id + n, dtype="<i8")
        group.create_dataset("source_index", (n,), "<i8")
        group.create_dataset("source_file", (n,), h5py.string_dtype())

    def _write_block(self) -> None:
        start, stop = self._written, self._written + len(self._waiting)
        if stop > self.plan.n_frames:
            raise self._other_number(f"more than {self.plan.n_frames}")
        checksums = self.content.write(self._file, self.plan, start, self._waiting)
        group = self._file["hpcfit"]
        group["source_index"][start:stop] = [frame.row for frame in self._waiting]
        group["source_file"][start:stop] = [frame.file or self.plan.source_path for frame in self._waiting]
        group["checksums"][start // BLOCK_FRAMES] = checksums
        self._written, self._waiting = stop, []

    def _finish(self) -> None:
        if self._waiting:
            self._write_block()
        if self._written != self.plan.n_frames:
            raise self._other_number(str(self._written))

    def _other_number(self, found: str) -> InputError:
        return InputError(
            f"{self.plan.source_path} gave {found} frames where {self.plan.n_frames} were announced",
            remedy="the file is truncated, or was changed while it was read: repair it and run `hpcfit prepare` again",
        )


def has_shard(content: Content, folder: Path, plan: ShardPlan) -> bool:
    """Return True if a complete shard of this plan is in a folder; raises DamagedFile for one that cannot be read."""
    if not (folder / plan.file).exists():
        return False
    with open_shard(folder / plan.file, content.shard) as shard:
        mine = shard.plan == plan.digest and shard.stands(plan.store, plan.place)
        return mine and not content.objection(shard)
