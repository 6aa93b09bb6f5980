"""Preparing positions alone, or with forces: sources, and the particles that all their frames have."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hpcfit.config import Config, PrepareConfig, SimulateConfig, SourceConfig
from hpcfit.errors import InputError
from hpcfit.prepare.dealing import Dealer
from hpcfit.prepare.shards import Begun, begun
from hpcfit.prepare.sources import Entry, described, entries, given_of, sharing_elements, with_unique_names
from hpcfit.readers.arrays import open_arrays, open_deepmd
from hpcfit.readers.frame_folders import frame_files, is_frame_folder
from hpcfit.readers.positions import TrajectoryReader, has_elements
from hpcfit.readers.selection import chosen_atoms
from hpcfit.readers.topology import (
    guessed_particles,
    parse_system,
    particles_of_elements,
    read_particles,
    read_system,
    with_system,
)
from hpcfit.readers.trajectory import ReaderSource, check_finite, chosen_rows, digests_of, opened_rows
from hpcfit.readers.units import Units, check_plausible
from hpcfit.store.forces import ForceContent
from hpcfit.store.frame import NOT_PERIODIC, PBC, Frame, Topology, opened_box
from hpcfit.store.particles import Particles
from hpcfit.store.pieces import read_settings
from hpcfit.store.positions import PositionContent, check_volume

if TYPE_CHECKING:
    from hpcfit.simulation.replicas import Replica

NO_FORCES = (
    "have the simulation write forces ([simulate] forces = true, GROMACS: nstfout), or choose frames that have them"
    " with start, stop and stride; a dump of LAMMPS that does not say its units needs energy_unit"
)
STRONGEST = 1e5  # kJ/mol/A: atoms that lie on each other


class OfFiles(NamedTuple):
    """The files that describe the particles of a source. simulated: digest of the settings of a folder of pieces."""

    topology: Path | None
    system: Path | None
    simulated: str = ""


class Simulated(NamedTuple):
    """The structure that a folder of pieces was simulated from, and its System as XML."""

    topology: Path
    system: str


@dataclass(frozen=True)
class ParticleSource(ReaderSource):
    """One input that yields frames of particles.

    of: files that describe them. forces: whether frames must have them, else they are left out. reading: in which units
    and by which names arrays are read, as text. has_box, pbc: of its first frame, and so of all.
    """

    of: OfFiles
    forces: bool
    reading: str = ""
    has_box: bool = False
    pbc: PBC = NOT_PERIODIC

    @property
    def digest(self) -> str:
        """SHA-256 of what it reads, and how."""
        return hashlib.sha256("".join([*self.inputs.values(), self.chosen_by, self.reading]).encode()).hexdigest()

    def frames(self, start: int, stop: int) -> Iterator[Frame]:
        """Frames start to stop - 1 of `rows`. Raises InputError, naming file and frame, where one lacks forces."""
        return map(self._checked, self.read(start, stop))

    def _checked(self, frame: Frame) -> Frame:
        if self.forces and frame.forces is None:
            raise InputError(f"{self.path}, frame {frame.row}: no forces", remedy=NO_FORCES)
        frame = self.taken(frame)
        found, first = _box_of(frame.box is not None, frame.pbc), _box_of(self.has_box, self.pbc)
        if found != first:
            raise InputError(
                f"{self.path}, frame {frame.row} has {found}, frame {self.rows[0]} has {first}",
                remedy="repair the trajectory, or leave the frame out with start, stop and stride",
            )
        if frame.box is not None:
            check_volume(f"{self.path}, frame {frame.row}", frame.box, frame.pbc)
        return self._plausible(frame) if self.forces else frame._replace(forces=None)

    def taken(self, frame: Frame) -> Frame:
        """A frame as it is taken: a box that repeats along no vector is none where forces are."""
        return frame._replace(box=None) if self.forces and not any(frame.pbc) else frame

    def _plausible(self, frame: Frame) -> Frame:
        """A frame with forces that a simulation can have given."""
        strongest = np.linalg.norm(frame.forces, axis=1)
        if len(strongest) and (not strongest.any() or strongest.max() > STRONGEST):
            atom = int(strongest.argmax())
            said = (
                "all forces are zero" if not strongest.any()
                else f"the force on atom {atom} is {strongest[atom]:.3g} kJ/mol/A; more than {STRONGEST:g} is no atom's"
            )  # fmt: skip
            raise InputError(
                f"{self.path}, frame {frame.row}: {said}",
                remedy="leave the frame out with start, stop and stride, or have the simulation write its forces",
            )
        return frame


def _box_of(has_box: bool, pbc: PBC) -> str:
    """The kind of a box in words."""
    if not has_box:
        return "no box"
    along = ", ".join(name for name, repeats in zip("abc", pbc) if repeats)
    return "a box" if all(pbc) else f"a box that repeats along {along or 'none of its vectors'}"


def begin_particles(config: Config, dealer: Dealer) -> Begun:
    """Open the sources of a store of particles and agree on the particles. Collective.

    Raises InputError when the store was begun with other settings, or when the sources are of different systems.
    """
    prepare, folder = config.prepare, config.frames.store
    forces = prepare.content == ForceContent.name
    opened = dealer.dealt(partial(open_source, forces, prepare.selection), dealer.on_root(lambda: entries(prepare)))
    sources = dealer.on_all(lambda: with_unique_names(sharing_elements(opened)))
    content = dealer.on_root(lambda: agreed_content(prepare.content, sources, _Simulations(config.simulate)))
    settings = _settings(prepare, sources, content.particles)
    store = dealer.on_root(lambda: begun(folder, content, settings))
    return Begun(tuple(sources), content, store, [content.particles.digest(), content.name])


def _settings(prepare: PrepareConfig, sources: Sequence[ParticleSource], particles: Particles) -> dict[str, str]:
    """Everything that decides the bytes of a store, as text: what a restart must find unchanged."""
    chosen = {"content": prepare.content, "shard_frames": str(prepare.shard_frames)}
    of = f"{len(particles)} particles, SHA-256 {particles.digest()}"
    later = {key: json.dumps(value) for key, value in prepare.later.items()}
    return chosen | later | described(sources) | {"topology": of}


def open_source(forces: bool, selection: str | None, entry: Entry) -> ParticleSource:
    """Open one input and look at its first frame: with forces, whether it has them, in the units it is said to be.

    Raises InputError that names the file, and the frame or both values that disagree.
    """
    config, path = entry
    of, units = OfFiles(config.topology, config.system), _units(config)
    if config.kind == "trajectory":
        return _looked_at(_open_trajectory(entry, of, forces, selection), units)
    if config.kind == "deepmd":
        reader = open_deepmd(path, units)
    else:
        atoms = None if of.topology is None else len(_particles_of(of))
        ps = 0.001 if config.time_unit == "fs" else 1.0
        reader = open_arrays(path, config.keys, units, atoms, forces=forces, ps=ps)
    rows = chosen_rows(path, reader.n_frames, slice(config.start, config.stop, config.stride))
    reading = f"{units} {_named(config)}"
    return _looked_at(ParticleSource(path.name, config.label, reader, rows, reader.inputs, of, forces, reading), units)


def _named(config: SourceConfig) -> str:
    """The names of arrays, and the unit of time, as far as they are not the default ones of older stores."""
    if not config.arrays:
        return ""
    keys = {name: repr(name_of) for name, name_of in config.keys if name != "elements" or name_of != name}
    named = " ".join(f"{name}={name_of}" for name, name_of in keys.items())
    return named + (f" time_unit={config.time_unit!r}" if config.time_unit else "")


def _units(config: SourceConfig) -> Units:
    defaults = Units("A", "eV") if config.deepmd else Units()
    return Units(config.length_unit or defaults.length, config.energy_unit or defaults.energy)


def _open_trajectory(entry: Entry, of: OfFiles, forces: bool, selection: str | None) -> ParticleSource:
    (config, path), atoms = entry, None
    if not has_elements(path) and of.topology is not None:  # without one, opening says what is missing
        atoms = Topology(_particles_of(of).elements, None)
    frames = slice(config.start, config.stop, config.stride)
    reader, rows = opened_rows(path, atoms, frames, config.group, given_of(config))
    if is_frame_folder(path):
        first = frame_files(path)[0]
        if of.topology is None and first.suffix.lower() == ".pdb":
            of = of._replace(topology=first)  # which has residues
    elif path.is_dir() and forces:
        of = of._replace(simulated=read_settings(path).digest)
    chosen = None if selection is None else chosen_atoms(selection, reader, of.topology)
    return ParticleSource(path.name, config.label, reader, rows, digests_of(path, rows), of, forces, chosen=chosen)


def _looked_at(source: ParticleSource, units: Units) -> ParticleSource:
    first = source.taken(next(iter(source.read(0, 1))))
    source = replace(source, has_box=first.box is not None, pbc=first.pbc)
    frame = next(source.frames(0, 1))
    check_finite(source.path, frame.row, "position", frame.positions)
    if source.forces:
        check_finite(source.path, frame.row, "force", frame.forces)
        check_plausible(f"{source.path}, frame {frame.row}", frame, _elements_of(source), units)
    return source


def _elements_of(source: ParticleSource) -> tuple[str, ...]:
    """The elements of the atoms of a source, those of its topology where it names none itself."""
    reader = source.reader
    named = reader.topology.elements if isinstance(reader, TrajectoryReader) else reader.elements
    return named or _particles_of(source.of).elements


def _particles_of(of: OfFiles) -> Particles:
    """What the files of a source say, read once for all trajectories of one topology."""
    files = [None if file is None else (file, _modified(file)) for file in (of.topology, of.system)]
    return _read_files(*files)


def _modified(file: Path) -> int:
    return file.stat().st_mtime_ns if file.is_file() else 0


@functools.lru_cache(maxsize=2)
def _read_files(topology: tuple[Path, int], system: tuple[Path, int] | None) -> Particles:
    return read_particles(topology[0], None if system is None else read_system(system[0]))


def agreed_content(
    name: str, sources: Sequence[ParticleSource], simulated: Callable[[str], Simulated | None]
) -> PositionContent:
    """The content of a store: the particles that all sources have, and the box of their frames.

    simulated: what is known of a simulation, by the digest of its settings. Raises InputError that names two sources
    and what differs between them.
    """
    first = sources[0]
    for source in sources:
        here, there = _box_of(first.has_box, first.pbc), _box_of(source.has_box, source.pbc)
        if here != there:
            raise InputError(
                f"{first.path} has {here}, {source.path} has {there}", remedy="prepare them into different stores"
            )
    particles = _agreed_particles(sources, simulated)
    if name == ForceContent.name:
        return ForceContent.of(particles, first.has_box, pbc=first.pbc)
    return PositionContent(particles, first.has_box, first.pbc)


def _agreed_particles(sources: Sequence[ParticleSource], simulated: Callable[[str], Simulated | None]) -> Particles:
    """The particles of all sources.

    Where nothing but elements and positions is known, bonds are those of the first frame of the first source.
    """
    first, found, known = sources[0], None, {}
    for source in sources:
        key = (source.of, source.reader.elements)
        if key not in known:
            known[key] = _described(source, simulated) or _guessed(source, found)
        particles = known[key]
        _compare_elements(source, particles)
        particles = particles if source.chosen is None else particles.subset(source.chosen.atoms)
        found = found or particles
        if difference := found.difference(particles):
            raise InputError(
                f"{first.path} and {source.path} differ in {difference}",
                remedy="a store is of one system, with the same topology and System for all sources",
            )
    return found


def _described(source: ParticleSource, simulated: Callable[[str], Simulated | None]) -> Particles | None:
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


def _written(source: ParticleSource, particles: Particles) -> Particles:
    """Those that `hpcfit simulate` writes: virtual sites are left out, and their forces are those of their atoms."""
    sites = particles.virtual_sites
    if len(sites) and len(source.reader.elements) == len(particles) - len(sites):
        return particles.subset(np.setdiff1d(np.arange(len(particles)), sites))
    return particles


def _guessed(source: ParticleSource, found: Particles | None) -> Particles:
    """Those of the sources before. Else of the elements alone, or, where forces are to be mapped, with bonds by the
    distances in the first frame and with the System of the source."""
    if not source.forces:
        whole = None if source.chosen is not None else found
        return whole or particles_of_elements(source.reader.elements)
    if found is None:
        first = source.taken(next(iter(source.read(0, 1))))
        box = None if first.box is None else opened_box(first.box, first.pbc)
        found = guessed_particles(source.reader.elements, first.positions, box)
    return found if source.of.system is None else with_system(found, read_system(source.of.system))


def _compare_elements(source: ParticleSource, particles: Particles) -> None:
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


class _Simulations:
    """What [simulate] of a config says of trajectories in pieces: each system is built once for all its replicas."""

    def __init__(self, simulate: SimulateConfig | None):
        self._simulate = simulate
        self._built: dict[str, Simulated] = {}

    def __call__(self, digest: str) -> Simulated | None:
        """The structure and System of the replica with these settings, if the config has it."""
        replica = self._replicas.get(digest)
        if replica is None:
            return None
        name = replica.system.name
        self._built[name] = self._built.get(name) or self._build(replica)
        return self._built[name]

    @functools.cached_property
    def _replicas(self) -> dict[str, Replica]:
        from hpcfit.simulation.replicas import all_replicas

        found = [] if self._simulate is None else all_replicas(self._simulate)
        return {replica.settings.digest: replica for replica in found}

    def _build(self, replica: Replica) -> Simulated:
        from hpcfit.physics.openmm_library import import_openmm
        from hpcfit.simulation.model import build_model

        model = build_model(replica.system, replica.temperature, self._simulate.pressure)
        return Simulated(replica.system.topology, import_openmm().XmlSerializer.serialize(model.system))
