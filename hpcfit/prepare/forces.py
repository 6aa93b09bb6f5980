"""`hpcfit prepare` with content = "forces": trajectories and arrays to a store of positions and forces."""

from __future__ import annotations

import functools
import hashlib
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hpcfit.config import Config, SimulateConfig
from hpcfit.log import logger
from hpcfit.prepare.dealing import Advance, Dealer
from hpcfit.prepare.force_sources import (
    ForceSource,
    Simulated,
    agreed_particles,
    force_entries,
    open_force_source,
    sharing_elements,
)
from hpcfit.prepare.shards import check_same_settings, check_seen, cut_into_shards, missing_plans, tidied
from hpcfit.prepare.sources import with_unique_names
from hpcfit.store.force_shard import ForceShardWriter, has_force_shard
from hpcfit.store.force_store import PARTICLES_FILE, read_particles_settings, write_force_catalog, write_particles
from hpcfit.store.particles import Particles
from hpcfit.store.shard_file import ShardPlan

if TYPE_CHECKING:
    from hpcfit.simulation.replicas import Replica


class PreparedForces(NamedTuple):
    """What a run of prepare did. computed: frames of this run, kept: frames of shards that were there."""

    store: Path
    computed: int
    kept: int
    particles: int
    seconds: float

    @property
    def rate(self) -> float:
        """Frames a second of this run."""
        return self.computed / self.seconds


@dataclass(frozen=True)
class ForceWork:
    """What every shard needs. command: the command line that a shard is to name as its maker."""

    folder: Path
    sources: tuple[ForceSource, ...]
    particles: Particles
    command: str

    def source(self, plan: ShardPlan) -> ForceSource:
        """The source of a plan."""
        return next(source for source in self.sources if source.name == plan.source)


def prepare_forces(config: Config, dealer: Dealer) -> PreparedForces:
    """Make the store of forces of `config`, or what is missing of it. Collective; everywhere the same result.

    Raises InputError for inputs that cannot be used, and for a store that was begun with other settings.
    """
    begun = time.monotonic()
    prepare, folder = config.prepare, config.frames.store
    entries = dealer.on_root(lambda: force_entries(prepare))
    opened = dealer.dealt(open_force_source, entries)
    sources = dealer.on_all(lambda: with_unique_names(sharing_elements(opened)))
    particles, periodic = dealer.on_root(lambda: agreed_particles(sources, _Simulations(config.simulate)))
    dealer.on_root(lambda: _begun(folder, particles, _settings(prepare.shard_frames, sources, particles)))
    work = ForceWork(folder, tuple(sources), particles, shlex.join(sys.argv))
    plans = cut_into_shards(sources, _identity, prepare.shard_frames, [particles.digest(), "forces"])
    missing = missing_plans(folder, plans, has_force_shard, dealer)
    _announce(work, plans, missing)
    dealer.dealt_frames(
        partial(write_force_frames, dealer.share(work)), missing, lambda plan: (plan.file, plan.n_frames)
    )
    dealer.on_root(lambda: check_seen(folder, missing))
    dealer.on_root(lambda: tidied(folder))
    dealer.on_root(lambda: write_force_catalog(folder, plans, particles, periodic))
    computed = sum(plan.n_frames for plan in missing)
    kept = sum(plan.n_frames for plan in plans) - computed
    seconds = dealer.on_root(lambda: time.monotonic() - begun)
    return _reported(PreparedForces(folder, computed, kept, len(particles), seconds))


def write_force_frames(work: ForceWork, plan: ShardPlan, advance: Advance) -> None:
    """Write one shard, calling `advance` for each of its frames. Doing it twice, also at once, does no harm."""
    with ForceShardWriter(work.folder, plan, work.particles, work.command) as shard:
        for frame in work.source(plan).frames(plan.start, plan.stop):
            shard.append(frame)
            advance()


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


def _settings(shard_frames: int, sources: Sequence[ForceSource], particles: Particles) -> dict[str, str]:
    """Everything that decides the bytes of a store, as text: what a restart must find unchanged."""
    settings = {"content": "forces", "shard_frames": str(shard_frames)}
    settings["sources"] = ", ".join(source.name for source in sources)
    for source in sources:
        settings[f"source {source.name}"] = (
            f"label '{source.label}', {source.n_frames} frames, SHA-256 {_identity(source)}"
        )
    settings["topology"] = f"{len(particles)} particles, SHA-256 {particles.digest()}"
    return settings


def _identity(source: ForceSource) -> str:
    """Of the bytes of a source, how they are read, and the frames that are used."""
    return hashlib.sha256(f"{source.digest} {source.rows}".encode()).hexdigest()[:16]


def _begun(folder: Path, particles: Particles, settings: dict[str, str]) -> None:
    """Begin a store, or find it begun with the same settings."""
    if (folder / PARTICLES_FILE).exists():
        check_same_settings(folder, read_particles_settings(folder), settings)
    else:
        write_particles(folder, particles, settings)


def _announce(work: ForceWork, plans: Sequence[ShardPlan], missing: Sequence[ShardPlan]) -> None:
    total, particles = sum(plan.n_frames for plan in plans), work.particles
    constraints = "unknown" if particles.constraints is None else str(len(particles.constraints))
    logger.info(
        "store %s: %d frames of %d sources x %d particles, positions and forces in float32, %.3g MB in %d shards",
        work.folder,
        total,
        len(work.sources),
        len(particles),
        total * len(particles) * 24 / 1e6,
        len(plans),
    )
    logger.info("%d residues, %d bonds, constraints: %s", particles.n_residues, len(particles.bonds), constraints)
    if len(missing) < len(plans):
        logger.info("%d shards are there and complete; %d are to be made", len(plans) - len(missing), len(missing))


def _reported(done: PreparedForces) -> PreparedForces:
    logger.info(
        "prepared %s: %d frames x %d particles made in %.1f s (%.3g frames/s with set-up), %d frames were there",
        done.store,
        done.computed,
        done.particles,
        done.seconds,
        done.rate,
        done.kept,
    )
    return done
