"""A store of positions and forces: shards, the list of them, and the particles that all frames have.

A store is a folder: ``catalog.json``, ``particles.h5``, and the shards, each of which MDAnalysis opens as H5MD. A
coarse-grained store is the same, of beads; it says what it was ``made_from``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from hpcfit import __version__
from hpcfit.errors import DamagedFile, InputError
from hpcfit.store.files import NONSENSE, hdf5_written_whole
from hpcfit.store.force_shard import SCHEMA, ForceFrames, open_force_shard
from hpcfit.store.particles import Particles
from hpcfit.store.shard_file import ShardPlan
from hpcfit.store.shard_list import CATALOG, Block, ShardedStore, entries_of, read_catalog, write_list

FORCES = "forces"  # the content, in catalog and config
PARTICLES_FILE = "particles.h5"


@dataclass(frozen=True)
class ForceStore(ShardedStore):
    """An opened store of forces; positions and forces stay on the disk.

    periodic: whether frames have a box. made_from: what a coarse-grained store was mapped from, empty for others.
    """

    particles: Particles
    periodic: bool
    made_from: dict[str, Any]

    def digest(self) -> str:
        """Identifies the content for a checkpoint: particles, the list of shards, what it was made from."""
        parts = [self.particles.digest(), self.periodic, self.made_from, self.list_digest()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def open_force_store(folder: Path) -> ForceStore:
    """Open a store and compare its catalog with its files; raises InputError or DamagedFile naming the file."""
    shards, more = read_catalog(folder, FORCES, SCHEMA)
    store = ForceStore(folder, shards, read_particles(folder), more["periodic"], more["made_from"])
    if store.particles.digest() != more["particles"]:
        raise DamagedFile(
            f"{folder / PARTICLES_FILE} differs from its checksum in {CATALOG}", remedy="prepare the store again"
        )
    store.check_files()
    return store


def read_block(store: ForceStore, block: Block) -> ForceFrames:
    """The frames of one block, exactly as many as it has (opens the shard)."""
    with open_force_shard(store.path(block.shard)) as shard:
        return shard.read(block.index)


def write_particles(folder: Path, particles: Particles, settings: dict[str, str]) -> None:
    """Write the particles before any shard; ``settings`` are what a later `prepare` must have the same."""
    with hdf5_written_whole(folder / PARTICLES_FILE) as file:
        file.attrs.update(
            format="hpcfit particles", schema=SCHEMA, hpcfit_version=__version__, settings=json.dumps(settings)
        )
        particles.write(file)


def read_particles(folder: Path) -> Particles:
    """The particles of a store."""
    return _read(folder, Particles.read)


def read_particles_settings(folder: Path) -> dict[str, str]:
    """The settings that a store was begun with."""
    return _read(folder, lambda file: json.loads(file.attrs["settings"]))


def _read(folder: Path, read) -> Any:
    path = folder / PARTICLES_FILE
    try:
        with h5py.File(path, "r", locking=False) as file:
            return read(file)
    except FileNotFoundError:
        raise InputError(
            f"{folder} is not a store of forces: {path} does not exist", remedy="run `hpcfit prepare`"
        ) from None
    except NONSENSE as error:
        why = (str(error) or repr(error)).splitlines()[0]
        raise DamagedFile(f"{path} is damaged: {why}", remedy="prepare the store again") from None


def write_force_catalog(
    folder: Path,
    plans: Sequence[ShardPlan],
    particles: Particles,
    periodic: bool,
    made_from: dict[str, Any] | None = None,
) -> ForceStore:
    """Write the catalog over the complete shards of ``plans``, in their order."""
    store = ForceStore(folder, entries_of(folder, plans), particles, periodic, made_from or {})
    more = {
        "content": FORCES, "particles": particles.digest(), "periodic": periodic, "made_from": store.made_from,
    }  # fmt: skip
    write_list(store, SCHEMA, more)
    return store


def verify_force_shard(store: ForceStore, number: int) -> list[str]:
    """Read one shard; a sentence for each block or header that is not as it was written, or of another store."""
    problems, path = [], store.path(number)
    try:
        with open_force_shard(path) as shard:
            problems += shard.verify()
            shard.check_header()
            if (shard.particles, shard.periodic) != (store.particles.digest(), store.periodic):
                problems.append(f"shard {path} is of other particles, or of another kind of box, than {CATALOG} says")
    except InputError as error:
        problems.append(str(error).splitlines()[0])
    return problems
