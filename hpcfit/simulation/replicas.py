"""The replicas of `hpcfit simulate`: replicas x temperatures x systems, each with its folder, settings and seeds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hpcfit.config import SimulateConfig, SystemConfig
from hpcfit.config.workflow import temperature_name
from hpcfit.errors import check_is_file
from hpcfit.simulation.solution import with_structure
from hpcfit.store.files import sha256_of_file
from hpcfit.store.pieces import Settings

# What of [simulate] decides a trajectory; not how long it is, in which pieces, and where and on what it is made.
DECISIVE = ("interval", "equilibration", "step", "friction", "pressure", "minimize", "forces", "energies", "seed")


@dataclass(frozen=True)
class Replica:
    """One trajectory: a system at a temperature (K), with random numbers of its own. number: counted from 0."""

    simulate: SimulateConfig
    system: SystemConfig
    temperature: float
    number: int
    settings: Settings

    @property
    def name(self) -> str:
        """System, temperature and number."""
        return f"{self.system.name}_{temperature_name(self.temperature)}_r{self.number:02d}"

    @property
    def folder(self) -> Path:
        """The folder of the replica's pieces."""
        return self.simulate.directory / self.name

    def seed(self, purpose: str, piece: int) -> int:
        """The seed of one purpose in one piece: 1 to 2^31 - 1, since OpenMM takes 0 for a seed of its own choice."""
        identity = [self.simulate.seed, self.system.name, self.temperature, self.number, piece, purpose]
        digest = hashlib.sha256(json.dumps(identity).encode()).digest()
        return int.from_bytes(digest[:8], "big") % (2**31 - 1) + 1


def all_replicas(simulate: SimulateConfig) -> list[Replica]:
    """Every replica of the config. Raises InputError for a file that does not exist."""
    return [
        Replica(simulate, system, temperature, number, _settings(simulate, decided, temperature, number))
        for system in map(partial(with_structure, simulate), simulate.system)
        for decided in [_of_system(system)]
        for temperature in simulate.temperatures
        for number in range(simulate.replicas)
    ]


def _settings(simulate: SimulateConfig, of_system: dict[str, Any], temperature: float, number: int) -> Settings:
    chosen = simulate.model_dump(mode="json", include=set(DECISIVE))
    return Settings({**of_system, **chosen, "temperature": temperature, "replica": number}, simulate.frames)


def _of_system(system: SystemConfig) -> dict[str, Any]:
    """The keys of a system with, instead of each file's path, its SHA-256."""
    chosen = system.model_dump(mode="json", exclude_none=True, exclude={"name"})
    for key in {"topology", "system", "state"} & chosen.keys():
        chosen[key] = _identity(Path(chosen[key]), key)
    chosen["force_field"] = [
        _identity(Path(name), "force_field") if Path(name).is_absolute() else name for name in system.force_field
    ]
    return chosen


def _identity(path: Path, key: str) -> str:
    check_is_file(path, remedy=f"correct {key} in [[simulate.system]]")
    return f"SHA-256 {sha256_of_file(path)}"
