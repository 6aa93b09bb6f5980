"""Frames from MTZ files: one file a frame, expanded to P1, on the reflections that all files have."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hpcfit.errors import InputError
from hpcfit.readers.expansion import known_expansion, placement
from hpcfit.readers.mtz import read_mtz
from hpcfit.readers.patterns import in_natural_order, matching, suffix_of
from hpcfit.readers.reflections import FactorSource, Listed
from hpcfit.store.frame import Frame
from hpcfit.store.reference import Reflections


class MtzFile(NamedTuple):
    """A file and the names of its columns: a ReflectionFile."""

    path: Path
    columns: tuple[str, str] | None

    def listed(self) -> Listed:
        """The reflections it has after expansion to P1."""
        data = read_mtz(self.path, self.columns)
        return Listed(known_expansion(data.hkl, data.space_group).hkl, data.cell, data.space_group)


@dataclass(frozen=True)
class MtzSource(FactorSource):
    """A folder or glob of MTZ files, one frame each."""

    name: str
    label: str
    path: Path
    files: tuple[Path, ...]
    columns: tuple[str, str] | None
    checksums: tuple[str, ...] = ()  # SHA-256 of each file, once they have been read
    reflections: Reflections | None = None

    @property
    def n_frames(self) -> int:
        """One frame a file."""
        return len(self.files)

    @property
    def digest(self) -> str:
        """SHA-256 over the checksums of all files, in order."""
        return hashlib.sha256("".join(self.checksums).encode()).hexdigest()

    @property
    def reflection_files(self) -> list[MtzFile]:
        """The files whose reflections are to be agreed on."""
        return [MtzFile(file, self.columns) for file in self.files]

    def frames(self, start: int, stop: int) -> Iterator[Frame]:
        """Frames start to stop - 1, on the reflections of the store."""
        wanted = self.wanted()
        for file in self.files[start:stop]:
            data = read_mtz(file, self.columns)
            f_h = placement(file, data.hkl, data.space_group, wanted).apply(data.structure_factors())
            yield Frame(0, structure_factors=f_h, file=str(file))


def open_mtz_source(pattern: str, label: str, columns, frames: slice) -> MtzSource:
    """The MTZ files of a folder or glob, sorted naturally (frame2 before frame10), cut to a range of frames.

    They are not read; `checksums` are for the caller to fill in.
    """
    path = Path(pattern)
    inside = [one for one in path.iterdir() if suffix_of(one) == ".mtz"] if path.is_dir() else []
    paths = in_natural_order(inside) if path.is_dir() else matching(pattern)
    files = tuple(paths[frames])
    if not files:
        raise InputError(
            f"no MTZ file at {pattern} (frames {frames.start}:{frames.stop}:{frames.step})",
            remedy="give a folder that holds *.mtz or *.mtz.gz, or a glob that matches files",
        )
    stem = re.sub(r"[*?\[\]]+", "", path.stem).strip("_-.") or path.parent.name
    return MtzSource(path.name if path.is_dir() else stem, label, path, files, columns)
