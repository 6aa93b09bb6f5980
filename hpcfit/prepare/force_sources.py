"""Where frames with forces come from: trajectories, arrays, folders of DeePMD-kit; and the particles they all have."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from hpcfit.config import PrepareConfig, SourceConfig
from hpcfit.errors import InputError
from hpcfit.readers.arrays import open_arrays, open_deepmd
from hpcfit.readers.positions import has_elements, snapshots
from hpcfit.readers.topology import (
    guessed_particles,
    parse_system,
    read_particles,
    read_system,
    with_system,
)
from hpcfit.readers.trajectory import chosen_rows, opened_rows, trajectory_files
from hpcfit.readers.units import Units, check_plausible
from hpcfit.store.files import sha256_of_file
from hpcfit.store.force_shard import ForceFrame
from hpcfit.store.particles import Particles
from hpcfit.store.pieces import pieces_digest, read_settings
from hpcfit.store.snapshot import Snapshot, Topology

NO_FORCES = (
    "have the simulation write forces ([simulate] forces = true, GROMACS: nstfout), or choose frames that have them"
    " with start, stop and stride"
)


class Reader(Protocol):
    """An opened input, picklable and without open files. elements: those that it names itself, or none."""

    elements: tuple[str, ...]

    def snapshots(self, rows: range) -> Iterator[Snapshot]:
        """The frames `rows` of the file, one by one, in A and kJ/mol/A."""


class TrajectoryReader(NamedTuple):
    """A trajectory that `positions` reads. topology: what it needs to be opened; elements: those that it names."""

    path: Path
    topology: Topology
    elements: tuple[str, ...]

    def snapshots(self, rows: range) -> Iterator[Snapshot]:
        """See `Reader`."""
        return snapshots(self.path, self.topology, rows)


class OfFiles(NamedTuple):
    """Where the particles of a source are described. simulated: digest of the settings of a folder of pieces."""

    topology: Path | None
    system: Path | None
    simulated: str = ""


class Simulated(NamedTuple):
    """What a folder of pieces was simulated from: its structure, and its System as XML."""

    topology: Path
    system: str


@dataclass(frozen=True)
class ForceSource:
    """One input that yields frames with forces. rows: the frames of the file used, start:stop:stride of the config.

    reading: in which units and by which names arrays are read, as text; periodic: whether frames have a box.
    """

    name: str
    label: str
    path: Path
    rows: range
    inputs: dict[str, str]  # file -> SHA-256
    reader: Reader
    of: OfFiles
    periodic: bool
    reading: str = ""

    @property
    def n_frames(self) -> int:
        """Frames after start, stop and stride."""
        return len(self.rows)

    @property
    def digest(self) -> str:
        """SHA-256 of what it reads, and how."""
        return hashlib.sha256("".join([*self.inputs.values(), self.reading]).encode()).hexdigest()

    def frames(self, start: int, stop: int) -> Iterator[ForceFrame]:
        """Frames start to stop - 1 of `rows`. Raises InputError, naming file and frame, where one lacks forces."""
        with contextlib.closing(self.reader.snapshots(self.rows[start:stop])) as found:
            for row, snapshot in zip(self.rows[start:stop], found, strict=True):
                yield self._frame(row, snapshot)

    def _frame(self, row: int, snapshot: Snapshot) -> ForceFrame:
        positions, box, forces, time = snapshot
        if forces is None:
            raise InputError(f"{self.path}, frame {row}: no forces", remedy=NO_FORCES)
        if (box is not None) != self.periodic:
            has = ["has no box", "has a box"]
            raise InputError(
                f"{self.path}, frame {row} {has[box is not None]}, frame {self.rows[0]} {has[self.periodic]}",
                remedy="repair the trajectory, or leave the frame out with start, stop and stride",
            )
        return ForceFrame(row, positions, forces, box, time)


class ForceEntry(NamedTuple):
    """One input that is still to be opened."""

    config: SourceConfig
    path: Path


def force_entries(prepare: PrepareConfig) -> list[ForceEntry]:
    """The inputs of the config, one a trajectory, file of arrays or folder, in the order of the config."""
    found = [
        ForceEntry(source, path)
        for source in prepare.source
        for path in trajectory_files(getattr(source, source.kind), source.topology)
    ]
    if not found:
        raise InputError(
            "the config has no [[prepare.source]]", remedy="add one with trajectory (and topology), arrays or deepmd"
        )
    return found


def open_force_source(entry: ForceEntry) -> ForceSource:
    """Open one input, and look at its first frame: whether it has forces, and can be in the units it is said to be.

    Raises InputError that names the file, and the frame or both values that disagree.
    """
    config, path = entry
    frames, units = slice(config.start, config.stop, config.stride), _units(config)
    of = OfFiles(config.topology, config.system)
    if config.kind == "trajectory":
        reader, rows, inputs, of = _open_trajectory(path, of, frames)
    else:
        reader = (
            open_deepmd(path, units)
            if config.kind == "deepmd"
            else open_arrays(path, config.keys, units, len(_particles_of(of)))
        )
        rows, inputs = chosen_rows(path, reader.n_frames, frames), reader.inputs
    reading = "" if config.kind == "trajectory" else f"{units} {config.keys if config.arrays else ''}"
    source = ForceSource(path.name, config.label, path, rows, inputs, reader, of, False, reading)
    return _looked_at(source, units)


def _units(config: SourceConfig) -> Units:
    defaults = Units("A", "eV") if config.deepmd else Units()
    return Units(config.length_unit or defaults.length, config.energy_unit or defaults.energy)


def _open_trajectory(path: Path, of: OfFiles, frames: slice) -> tuple[TrajectoryReader, range, dict, OfFiles]:
    if not has_elements(path):
        # None where no topology is given: then opening says what is missing.
        atoms = None if of.topology is None else Topology(_particles_of(of).elements, None)
        atoms, rows = opened_rows(path, atoms, frames)
        return TrajectoryReader(path, atoms, ()), rows, {str(path): sha256_of_file(path)}, of
    atoms, rows = opened_rows(path, None, frames)
    if path.is_dir():
        of = of._replace(simulated=read_settings(path).digest)
    inputs = {str(path): pieces_digest(path, rows[-1]) if path.is_dir() else sha256_of_file(path)}
    return TrajectoryReader(path, atoms._replace(cell=None), atoms.elements), rows, inputs, of


def _looked_at(source: ForceSource, units: Units) -> ForceSource:
    (first,) = source.reader.snapshots(source.rows[:1])
    source = replace(source, periodic=first.box is not None)
    frame = next(source.frames(0, 1))
    _check_finite(source, frame)
    check_plausible(f"{source.path}, frame {frame.index}", frame.positions, frame.forces, frame.box, units)
    return source


def _check_finite(source: ForceSource, frame: ForceFrame) -> None:
    for name, values in (("position", frame.positions), ("force", frame.forces)):
        if not np.all(np.isfinite(values)):
            atom = int(np.argwhere(~np.isfinite(values))[0][0])
            raise InputError(
                f"{source.path}, frame {frame.index}: the {name} of atom {atom} is {values[atom].tolist()}",
                remedy="repair the trajectory, or leave the frame out with start, stop and stride",
            )


def _particles_of(of: OfFiles) -> Particles:
    """What the files of a source say, read once for all trajectories of one topology."""
    files = [None if file is None else (file, _modified(file)) for file in (of.topology, of.system)]
    return _read_files(*files)


def _modified(file: Path) -> int:
    return file.stat().st_mtime_ns if file.is_file() else 0


@functools.lru_cache(maxsize=2)
def _read_files(topology: tuple[Path, int], system: tuple[Path, int] | None) -> Particles:
    return read_particles(topology[0], None if system is None else read_system(system[0]))


def sharing_elements(sources: Sequence[ForceSource]) -> list[ForceSource]:
    """The sources; those of the same atoms hold one list of elements, which then travels once for all of them."""
    known: dict[Any, Any] = {}

    def shared(reader: Reader) -> Reader:
        parts = {"elements": known.setdefault(reader.elements, reader.elements)}
        if isinstance(reader, TrajectoryReader):
            parts["topology"] = known.setdefault(reader.topology, reader.topology)
        return reader._replace(**parts)

    return [replace(source, reader=shared(source.reader)) for source in sources]


def agreed_particles(
    sources: Sequence[ForceSource], simulated: Callable[[str], Simulated | None]
) -> tuple[Particles, bool]:
    """The particles that all sources have, and whether their frames have a box.

    simulated: what is known of a simulation, by the digest of its settings. Where nothing but elements and positions
    is known, bonds are those of the first frame of the first source. Raises InputError that names two sources and what
    differs between them.
    """
    first, found, known = sources[0], None, {}
    for source in sources:
        if source.periodic != first.periodic:
            has = ["no box", "a box"]
            raise InputError(
                f"{first.path} has {has[first.periodic]}, {source.path} has {has[source.periodic]}",
                remedy="prepare them into different stores",
            )
        key = (source.of, source.reader.elements)
        if key not in known:
            known[key] = _described(source, simulated) or _guessed(source, found)
        particles = known[key]
        _compare_elements(source, particles)
        found = found or particles
        if difference := found.difference(particles):
            raise InputError(
                f"{first.path} and {source.path} differ in {difference}",
                remedy="a store of forces is of one system, with the same topology and System for all sources",
            )
    return found, first.periodic


def _described(source: ForceSource, simulated: Callable[[str], Simulated | None]) -> Particles | None:
    """The particles as files describe them; None where only elements are known."""
    of = source.of
    if of.topology is not None:
        particles = _particles_of(of)
        return _written(source, particles) if of.simulated else particles
    if not of.simulated:
        return None
    from_config = simulated(of.simulated)
    if from_config is None:
        raise InputError(
            f"{source.path} does not say its residues, bonds and constraints, and no [[simulate.system]] of the config"
            " has its settings",
            remedy="keep the [simulate] table that made it in the config, or give the source topology and system",
        )
    return _written(source, _of_simulation(from_config))


@functools.lru_cache(maxsize=2)
def _of_simulation(simulated: Simulated) -> Particles:
    """Those of all particles that were simulated, the same for all replicas of a system."""
    facts = parse_system(simulated.system, f"the System of {simulated.topology}")
    return read_particles(simulated.topology, facts)


def _written(source: ForceSource, particles: Particles) -> Particles:
    """Those that `hpcfit simulate` writes: virtual sites are left out, and their forces are those of their atoms."""
    sites = particles.virtual_sites
    if len(sites) and len(source.reader.elements) == len(particles) - len(sites):
        return particles.subset(np.setdiff1d(np.arange(len(particles)), sites))
    return particles


def _guessed(source: ForceSource, found: Particles | None) -> Particles:
    """Those of the sources before, else by the distances in the first frame; with the System of the source."""
    if found is None:
        (first,) = source.reader.snapshots(source.rows[:1])
        found = guessed_particles(source.reader.elements, first.positions, first.box)
    return found if source.of.system is None else with_system(found, read_system(source.of.system))


def _compare_elements(source: ForceSource, particles: Particles) -> None:
    elements = source.reader.elements
    if not elements or elements == particles.elements:
        return
    if len(elements) != len(particles):
        what = f"{len(elements)} atoms, its topology has {len(particles)}"
    else:
        atom = next(n for n, (a, b) in enumerate(zip(elements, particles.elements)) if a != b)
        what = f"{elements[atom]} as atom {atom}, its topology has {particles.label(atom)}, {particles.elements[atom]}"
    raise InputError(
        f"{source.path} has {what}", remedy="give the topology of this trajectory, or sources of one system"
    )
