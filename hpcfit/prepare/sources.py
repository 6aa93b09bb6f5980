"""The common interface of inputs: trajectories, arrays, files of structure factors, other stores."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

from hpcfit.config import PrepareConfig, SourceConfig
from hpcfit.config.frames import SOURCE_KINDS
from hpcfit.config.table import changed
from hpcfit.errors import InputError
from hpcfit.physics import reciprocal
from hpcfit.physics.scattering import FormFactors
from hpcfit.readers.ase_files import Given
from hpcfit.readers.lunus import lunus_files, open_lunus
from hpcfit.readers.mtz_frames import MtzSource, open_mtz_source
from hpcfit.readers.other_store import StoreSource, open_store_sources
from hpcfit.readers.positions import TrajectoryReader
from hpcfit.readers.trajectory import ReaderSource, Scattering, TrajectorySource, open_trajectory, trajectory_files
from hpcfit.store.frame import Frame
from hpcfit.store.reference import Reflections


class Source(Protocol):
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
    """One input that is still to be opened: one file or folder, or (path None) all that its table names."""

    config: SourceConfig
    path: Path | None


def entries(prepare: PrepareConfig) -> list[Entry]:
    """The inputs of the config in its order: one a trajectory, file or folder of arrays, MTZ folder, checkpoint or
    store."""
    found = [Entry(source, path) for source in prepare.source for path in _paths(source)]
    if not found:
        kinds = SOURCE_KINDS[prepare.content]
        raise InputError("the config has no [[prepare.source]]", remedy=f"add one with {' or '.join(kinds)}")
    return found


def _paths(source: SourceConfig) -> Sequence[Path | None]:
    if patterns := source.trajectory or source.arrays or source.deepmd:
        return trajectory_files(patterns, source.topology)
    return [None] if source.lunus is None else lunus_files(source.lunus)


def open_sources(prepare: PrepareConfig, entry: Entry) -> list[Source]:
    """Open one input, several sources in a store; raises InputError that names the file.

    Sources of many files come without their checksums (`unread`).
    """
    source, frames = entry.config, slice(entry.config.start, entry.config.stop, entry.config.stride)
    if source.mtz is not None:
        return [open_mtz_source(source.mtz, source.label, source.columns, frames)]
    if source.lunus is not None:
        return [open_lunus(entry.path, source.label, frames)]
    if source.store is not None:
        opened = open_store_sources(source.store, source.label, frames)
    else:
        given, selection = given_of(source), prepare.selection
        opened = [open_trajectory(entry.path, source.topology, source.label, frames, source.group, given, selection)]
    return [replace(one, keep_positions=prepare.positions, keep_forces=prepare.forces) for one in opened]


def given_of(source: SourceConfig) -> Given:
    """Columns and units that a source gives, for a trajectory whose format leaves them open."""
    named = changed(source.keys)  # a config that is resolved has all of them
    positions, forces = (getattr(source.keys, name) if name in named else None for name in ("positions", "forces"))
    return Given(positions, forces, source.length_unit, source.energy_unit)


def sharing_elements(sources: Sequence[Source]) -> list[Source]:
    """The sources; those of the same atoms hold one list of elements, which then travels once for all of them."""
    known: dict[tuple[str, ...], tuple[str, ...]] = {}

    def shared(source: Source) -> Source:
        if not isinstance(source, ReaderSource):
            return source
        reader = source.reader
        holder = reader.topology if isinstance(reader, TrajectoryReader) else reader
        holder = holder._replace(elements=known.setdefault(holder.elements, holder.elements))
        return replace(
            source, reader=reader._replace(topology=holder) if isinstance(reader, TrajectoryReader) else holder
        )

    return [shared(source) for source in sources]


def identity(source: Source) -> str:
    """Identify the bytes of a source, how they are read, and the frames that are used: 16 digits."""
    chosen = source.columns if isinstance(source, MtzSource) else source.rows
    return hashlib.sha256(f"{source.digest} {chosen}".encode()).hexdigest()[:16]


def described(sources: Sequence[Source]) -> dict[str, str]:
    """The sources among the settings of a store: their names, and label, frames and digest of each."""
    settings = {"sources": ", ".join(source.name for source in sources)}
    for source in sources:
        settings[f"source {source.name}"] = (
            f"label '{source.label}', {source.n_frames} frames, SHA-256 {identity(source)}"
        )
    return settings


def unread(source: Source) -> Sequence[Path]:
    """The files whose checksums `open_sources` left open: those of MTZ folders, thousands in one source."""
    return source.files if isinstance(source, MtzSource) else ()


def with_checksums(sources: Sequence[Source], checksums: Sequence[str]) -> list[Source]:
    """The sources, with the SHA-256 of each file of `unread` in their order."""
    left = iter(checksums)
    return [
        replace(source, checksums=tuple(islice(left, len(files)))) if (files := unread(source)) else source
        for source in sources
    ]


def all_on_store(sources: Sequence[Source], reflections: Reflections, prepare: PrepareConfig) -> list[Source]:
    """The sources, giving their frames on the reflections of a store."""
    furthest = reciprocal.inverse_d2(reflections.hkl, reflections.ndiv, reflections.cell).max() ** -0.5
    d_min = min(prepare.d_min or furthest, furthest)
    scattering = Scattering(reflections, d_min, prepare.oversampling, form_factors(prepare))
    return [source.on(scattering if is_simulation(source) else reflections) for source in sources]


def form_factors(prepare: PrepareConfig) -> FormFactors:
    """The form factors that the config chooses."""
    return FormFactors(prepare.radiation, tuple(sorted(prepare.charges.items())))


def with_unique_names(sources: Sequence[Source]) -> list[Source]:
    """Name each source by its file, and by as many of its folders as it takes to tell it from the others."""
    names = [source.name for source in sources]
    for depth in range(2, max(len(source.path.parts) for source in sources) + 1):
        times = Counter(map(file_name, names))
        if len(times) == len(names):
            break
        longer = ("/".join(source.path.parts[-depth:]) for source in sources)
        names = [more if times[file_name(name)] > 1 else name for name, more in zip(names, longer)]
    taken: set[str] = set()
    for source, name in zip(sources, map(file_name, names)):
        if name in taken:
            raise InputError(f"{source.path} is given twice", remedy="list each input once in [[prepare.source]]")
        taken.add(name)
    return [replace(source, name=name) for source, name in zip(sources, names)]


def file_name(name: str) -> str:
    """A source's name as part of a file name."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name).strip("._") or "source"


def stores_among(sources: Sequence[Source]) -> list[StoreSource]:
    """The sources that are parts of other stores: all of them or none, else InputError."""
    found = [source for source in sources if isinstance(source, StoreSource)]
    if found and len(found) < len(sources):
        other = next(source for source in sources if not isinstance(source, StoreSource))
        raise InputError(
            f"{found[0].store} is a store, {other.path} is none: their reflections cannot be agreed on",
            remedy="prepare the others into a store of their own, and then both stores into one",
        )
    return found


def is_simulation(source: Source) -> bool:
    """Return True if structure factors are computed from positions."""
    return isinstance(source, TrajectorySource)
