"""Where frames come from: what `hpcfit prepare` knows of MTZ folders and trajectories, which is the same for both."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

from hpcfit.config import PrepareConfig, SourceConfig
from hpcfit.data.frame import Frame
from hpcfit.data.mtz import open_mtz_source
from hpcfit.data.reference import Reflections
from hpcfit.data.trajectory import Scattering, TrajectorySource, open_trajectory, trajectory_files
from hpcfit.errors import InputError
from hpcfit.physics import reciprocal


class FrameSource(Protocol):
    """One input that yields frames; picklable, and without open files until `frames` is called."""

    name: str
    label: str
    path: Path
    n_frames: int
    digest: str  # SHA-256 of what it reads
    inputs: dict[str, str]  # file -> SHA-256

    def frames(self, start: int, stop: int) -> Iterator[Frame]:
        """Frames start to stop - 1, counted after the config's start, stop and stride."""


class Entry(NamedTuple):
    """One source that is still to be opened: a folder of MTZ files (path None) or one trajectory file."""

    config: SourceConfig
    path: Path | None


def entries(prepare: PrepareConfig) -> list[Entry]:
    """The inputs of the config, one a trajectory file or MTZ folder, in the order of the config."""
    found = []
    for source in prepare.source:
        files = [None] if source.mtz else trajectory_files(source.trajectory, source.topology)
        found += [Entry(source, file) for file in files]
    if not found:
        raise InputError(
            "the config has no [[prepare.source]]", remedy="add one with mtz, or with topology and trajectory"
        )
    return found


def open_source(entry: Entry, prepare: PrepareConfig) -> FrameSource:
    """Open one input; raises InputError that names the file."""
    source, frames = entry.config, slice(entry.config.start, entry.config.stop, entry.config.stride)
    if entry.path is None:
        return open_mtz_source(source.mtz, source.label, source.columns, frames)
    opened = open_trajectory(entry.path, source.topology, source.label, frames)
    return replace(opened, keep_positions=prepare.positions, keep_forces=prepare.forces)


def all_on_store(sources: Sequence[FrameSource], reflections: Reflections, prepare: PrepareConfig) -> list[FrameSource]:
    """The sources, giving their frames on the reflections of a store."""
    furthest = reciprocal.inverse_d2(reflections.hkl, reflections.ndiv, reflections.cell).max() ** -0.5
    d_min = min(prepare.d_min or furthest, furthest)
    scattering = Scattering(reflections, d_min, prepare.oversampling)
    return [source.on(scattering if is_simulation(source) else reflections) for source in sources]


def with_unique_names(sources: Sequence[FrameSource]) -> list[FrameSource]:
    """Name each source by its file, and by as many of its folders as it takes to tell it from the others."""
    names = [source.name for source in sources]
    for depth in range(2, max(len(source.path.parts) for source in sources) + 1):
        doubles = {name for name in names if [file_name(n) for n in names].count(file_name(name)) > 1}
        if not doubles:
            break
        names = ["/".join(s.path.parts[-depth:]) if n in doubles else n for s, n in zip(sources, names)]
    for number, name in enumerate(names):
        if file_name(name) in map(file_name, names[:number]):
            raise InputError(
                f"{sources[number].path} is given twice", remedy="list each input once in [[prepare.source]]"
            )
    return [replace(source, name=name) for source, name in zip(sources, names)]


def file_name(name: str) -> str:
    """A source's name as part of a file name."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("._") or "source"


def is_simulation(source: FrameSource) -> bool:
    """Whether structure factors are computed from positions."""
    return isinstance(source, TrajectorySource)
