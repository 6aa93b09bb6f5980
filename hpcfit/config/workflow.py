"""The tables of what Dask does: [cluster], [simulate] with its [[simulate.system]], and [monitor]."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from hpcfit.config.table import (
    Count,
    FilePath,
    Kelvin,
    NonNegative,
    Positive,
    Table,
    Whole,
    changed,
    check_are_unique,
    relative_to_config,
)

# Which keys of [cluster] mean something for which kind; `kind` and `patience` do for all.
CLUSTER_KEYS = {
    "local": {"workers", "dashboard"},
    "slurm": {
        "jobs", "maximum_jobs", "cores", "memory", "walltime", "partition", "account", "constraint", "qos",
        "directives", "prologue", "interface", "python", "logs", "dashboard",
    },
    "allocation": {"workers", "interface", "dashboard"},
    "address": {"address", "ca", "cert", "key", "trust"},
}  # fmt: skip


def _host_and_port(value: str) -> str:
    if not re.fullmatch(r"\S*:\d{1,5}", value):
        raise ValueError("must be host:port, for example 127.0.0.1:8787")
    return _with_a_port(value)


def _with_a_port(value: str) -> str:
    port = int(value.rpartition(":")[2])
    if port > 65535:
        raise ValueError(f"{port} is no port: those are 0 to 65535")
    return value


HostAndPort = Annotated[str, AfterValidator(_host_and_port)]


class SchedulerTable(Table):
    """A table that may name a Dask scheduler which runs already, by its `address`.

    ca, cert, key: PEM files by which it and hpcfit know each other (TLS), all three. trust = true: none, since nobody
    else can reach its ports or the workers': whoever does runs code as this user.
    """

    address: str | None = None
    ca: FilePath | None = None
    cert: FilePath | None = None
    key: FilePath | None = None
    trust: bool = False

    _paths = field_validator("ca", "cert", "key")(relative_to_config)

    @model_validator(mode="after")
    def _known_or_trusted(self) -> SchedulerTable:
        files = {name: getattr(self, name) is not None for name in ("ca", "cert", "key")}
        if self.address is None:
            if given := [*(name for name, there in files.items() if there), *["trust"] * self.trust]:
                raise ValueError(f"{', '.join(given)} would have no effect without address: hpcfit makes its own")
            return self
        if self.trust and any(files.values()):
            raise ValueError("trust = true is for a scheduler without certificates: leave it out, or ca, cert and key")
        missing = [name for name, there in files.items() if not there]
        if missing and not self.trust:
            raise ValueError(
                f"address = '{self.address}' needs certificates, {', '.join(missing)} is missing: whoever reaches a"
                " Dask port without them runs code as you. Give ca, cert and key (PEM files, as `dask scheduler"
                " --tls-ca-file --tls-cert --tls-key` has them), or trust = true where nobody else reaches its ports"
            )
        self.check_protocol(self.address)
        return self

    def check_protocol(self, address: str) -> None:
        """Raise ValueError where a scheduler's address is of another protocol than certificates or trust are for."""
        protocol = address.partition("://")[0] if "://" in address else ""
        if protocol and (protocol == "tls") != (self.ca is not None):
            wanted = "trust = true is for tcp://" if self.trust else "certificates are for tls://"
            raise ValueError(f"{wanted}, and the scheduler's address is {address}")


class ClusterConfig(SchedulerTable):
    """The place of Dask tasks: processes here, worker jobs, this Slurm job, or the workers of a scheduler.

    workers: processes of one core (local: default the cores here; allocation: the tasks of the job). jobs, cores,
    memory, walltime: of worker jobs, with a process for each core; with maximum_jobs, more while work waits.
    interface: of the network that workers and scheduler share. patience: seconds for the first worker to come.
    """

    kind: Literal["local", "slurm", "allocation", "address"] = "local"
    workers: Count | None = None
    jobs: Count = 2
    maximum_jobs: Count | None = None
    cores: Count = 1
    memory: Annotated[str, Field(pattern=r"^\d+(\.\d+)? *[kKMGT]i?B$")] = "4 GB"
    walltime: str = "01:00:00"
    partition: str | None = None
    account: str | None = None
    constraint: str | None = None
    qos: str | None = None
    directives: list[str] = []
    prologue: list[str] = []
    interface: str | None = None
    python: str | None = None
    logs: FilePath | None = None
    dashboard: HostAndPort = "127.0.0.1:8787"
    patience: Positive = 300.0

    @field_validator("logs")
    @classmethod
    def _logs_path(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return relative_to_config(value, info)

    @field_validator("address")
    @classmethod
    def _scheduler_file(cls, value: str | None, info: ValidationInfo) -> str | None:
        return value if value is None or "://" in value else str(relative_to_config(Path(value), info))

    @model_validator(mode="after")
    def _keys_of_this_kind(self) -> ClusterConfig:
        without_effect = sorted(changed(self) - CLUSTER_KEYS[self.kind] - {"kind", "patience"})
        if without_effect:
            raise ValueError(
                f"with kind = '{self.kind}' {', '.join(without_effect)} would have no effect;"
                f" its keys are {', '.join(sorted(CLUSTER_KEYS[self.kind]))}, patience"
            )
        if self.kind == "address" and not self.address:
            raise ValueError("kind = 'address' needs address: tls://host:port of a running scheduler, or its file")
        if self.maximum_jobs is not None and self.maximum_jobs < self.jobs:
            raise ValueError(f"maximum_jobs = {self.maximum_jobs} is smaller than jobs = {self.jobs}")
        return self


class SolutionConfig(Table):
    """A cube of water in which ions take the places of molecules drawn at random, as OpenMM's Modeller makes it.

    edge: A; salt: mol/L, by 55.4 mol/L of molecules before; cation, anion: of one charge each; water: the model, which
    the force field must have.
    """

    edge: Positive
    salt: NonNegative = 0.0
    cation: Literal["Li+", "Na+", "K+", "Rb+", "Cs+"] = "Na+"
    anion: Literal["F-", "Cl-", "Br-", "I-"] = "Cl-"
    water: Literal["tip3p", "spce", "tip4pew", "tip5p"] = "tip3p"

    @model_validator(mode="after")
    def _ions_of_a_salt(self) -> SolutionConfig:
        if not self.salt and (given := changed(self) & {"cation", "anion"}):
            raise ValueError(f"{', '.join(sorted(given))} would have no effect without salt")
        return self


class SystemConfig(Table):
    """One system with its energy function: a structure and force-field files, or a System that OpenMM has serialized.

    topology: PDB or mmCIF, which says the elements, and the positions where `state` (an OpenMM State) does not;
    solution: in its place a structure that is made, directory/NAME.pdb. force_field: files beside the config, or names
    that OpenMM knows. cutoff: A.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$")]
    topology: FilePath | None = None
    solution: SolutionConfig | None = None
    force_field: list[str] = []
    system: FilePath | None = None
    state: FilePath | None = None
    nonbonded: Literal["PME", "CutoffPeriodic", "CutoffNonPeriodic", "NoCutoff"] = "PME"
    cutoff: Positive = 10.0
    constraints: Literal["none", "HBonds", "AllBonds", "HAngles"] = "HBonds"

    @field_validator("topology", "system", "state")
    @classmethod
    def _paths(cls, value, info: ValidationInfo):
        return relative_to_config(value, info)

    @field_validator("force_field")
    @classmethod
    def _files_or_known_names(cls, value: list[str], info: ValidationInfo) -> list[str]:
        files = [relative_to_config(Path(name), info) for name in value]
        return [str(file) if file.is_file() else name for file, name in zip(files, value)]

    @model_validator(mode="after")
    def _one_structure(self) -> SystemConfig:
        if (self.topology is None) == (self.solution is None):
            raise ValueError("a system has either `topology` (a structure) or `solution` (one that is made)")
        if self.solution is not None and (self.system or self.state):
            raise ValueError("a `solution` has a structure of its own: leave `system` and `state` out")
        return self

    @model_validator(mode="after")
    def _one_energy_function(self) -> SystemConfig:
        if (self.system is None) == (not self.force_field):
            raise ValueError("a system has either `force_field` (OpenMM XML files) or `system` (a serialized System)")
        given = changed(self) & {"nonbonded", "cutoff", "constraints"}
        if self.system is not None and given:
            raise ValueError(f"{', '.join(sorted(given))} are part of a serialized `system` and would have no effect")
        if self.nonbonded == "NoCutoff" and "cutoff" in given:
            raise ValueError("with nonbonded = 'NoCutoff' `cutoff` would have no effect")
        return self


def temperature_name(temperature: float) -> str:
    """A temperature as part of a folder's name."""
    return f"{temperature:g}K"


class SimulateConfig(Table):
    """Replicas x temperatures x systems of Langevin dynamics. Times in ps, temperatures in K, pressure in bar.

    frames: of each replica, one every `interval` after the equilibration; piece: frames of a file, at most. With a
    barostat a piece has at least 20 of its attempts: the volume step that it adapts begins anew in each piece. Rounds
    of `hpcfit pipeline` take systems, states and places of their own.
    """

    directory: FilePath | None = None
    system: list[SystemConfig] = []
    temperatures: Annotated[list[Kelvin], Field(min_length=1)] = [300.0]
    replicas: Count = 1
    frames: Count = 1000
    piece: Count = 100
    interval: Positive = 1.0
    equilibration: NonNegative = 10.0
    step: Positive = 0.002
    friction: Positive = 1.0
    pressure: Positive | None = None
    minimize: bool = True
    forces: bool = False
    energies: bool = False
    platform: Literal["auto", "CUDA", "HIP", "OpenCL", "CPU", "Reference"] = "auto"
    threads: Count = 1
    seed: Whole = 0

    _path = field_validator("directory")(lambda path, info: None if path is None else relative_to_config(path, info))

    @model_validator(mode="after")
    def _distinct(self) -> SimulateConfig:
        check_are_unique("[[simulate.system]]", [system.name for system in self.system])
        if self.directory is None and any(system.solution for system in self.system):
            raise ValueError("a `solution` is written to `directory`: add it")
        temperatures = [temperature_name(temperature) for temperature in self.temperatures]
        if len(set(temperatures)) < len(temperatures):
            raise ValueError(f"temperatures = {self.temperatures} names one twice; replicas = 2 gives two of each")
        return self

    @model_validator(mode="after")
    def _whole_steps(self) -> SimulateConfig:
        steps = self.interval / self.step
        # 1e-6 of a step is the rounding of decimal numbers, no more.
        if round(steps) < 1 or abs(steps - round(steps)) > 1e-6 * steps:
            raise ValueError(f"interval = {self.interval} ps is no whole number of steps of {self.step} ps")
        return self

    @model_validator(mode="after")
    def _threads_have_an_effect(self) -> SimulateConfig:
        if self.threads > 1 and self.platform not in ("auto", "CPU"):
            raise ValueError(f"threads = {self.threads} would have no effect on platform = '{self.platform}'")
        return self

    @property
    def steps_a_frame(self) -> int:
        """Steps of the integrator from one frame to the next."""
        return round(self.interval / self.step)


class MonitorConfig(SchedulerTable):
    """Showing a fit live on a Dask dashboard: its own at `dashboard`, or that of the scheduler at `address`.

    every: seconds between two reports of a rank.
    """

    dask: bool = False
    dashboard: HostAndPort = "127.0.0.1:8787"
    every: Positive = 1.0

    @field_validator("address")
    @classmethod
    def _of_a_scheduler(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"\w+://\S+:\d{1,5}", value):
            raise ValueError("must be the address of a Dask scheduler, for example tls://node7:8786")
        return value if value is None else _with_a_port(value)

    @model_validator(mode="after")
    def _one_dashboard(self) -> MonitorConfig:
        if self.address is not None and "dashboard" in changed(self):
            raise ValueError(
                f"dashboard = '{self.dashboard}' has no effect: the scheduler at address = '{self.address}' has its own"
            )
        return self
