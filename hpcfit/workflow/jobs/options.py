"""The options of `hpcfit job`, and those of `sweep` and `scaling` that choose a site and stand for keys of its file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from hpcfit.characters import control_in
from hpcfit.errors import InputError

JobKind = Literal["optimize", "simulate", "prepare", "pipeline", "sweep", "scaling", "report", "chain"]


def check_line(what: str, text: str) -> None:
    """Raise InputError where text that is to stand in a line of a script has a line break or another control character.

    what: names the text in the error.
    """
    if found := control_in(text):
        raise InputError(
            f"{what} {text!r} holds the control character {found}, which no line of a job script can hold",
            remedy="leave it out",
        )


@dataclass(frozen=True)
class SiteOptions:
    """None: as the site's file says."""

    site: Annotated[str, Parameter(help="A name (`hpcfit job --sites` lists them) or a site file of your own.")] = (
        "generic-cpu"
    )
    account: Annotated[str | None, Parameter(help="Project to be charged.")] = None
    partition: Annotated[str | None, Parameter(help="Partition (queue) instead of the site's.")] = None
    constraint: Annotated[str | None, Parameter(help="Features that the nodes must have.")] = None
    qos: Annotated[str | None, Parameter(help="Quality of service instead of the site's.")] = None

    def words(self) -> list[str]:
        """As they are typed, from any folder."""
        paths = {"site": str(Path(self.site).absolute())} if self.site.endswith(".toml") else {}
        return [word for name, value in self.given() for word in (f"--{name}", paths.get(name, value))]

    def given(self) -> list[tuple[str, str]]:
        """The options that are not left to the site, by name."""
        names = [field.name for field in fields(SiteOptions)]
        return [(name, value) for name in names if (value := getattr(self, name)) is not None]


@dataclass(frozen=True)
class JobOptions:
    """The job that is asked for; None stands for the default of kind and site."""

    kind: Annotated[
        JobKind, Parameter(help="What the job does; chain: a shell script that submits one after the other.")
    ] = "optimize"
    where: Annotated[SiteOptions, Parameter(name="*")] = SiteOptions()
    nodes: Annotated[int, Parameter(help="Nodes of the job.")] = 1
    ranks_per_node: Annotated[int | None, Parameter(help="MPI ranks of a node; by default as the site says.")] = None
    time: Annotated[str, Parameter(help="Time limit of a job, hours:minutes:seconds.")] = "01:00:00"
    name: Annotated[str | None, Parameter(help="Name of the job.")] = None
    after: Annotated[list[str] | None, Parameter(negative="", help="Id of a job that must have succeeded before.")] = (
        None
    )
    points: Annotated[Path | None, Parameter(help="sweep: the file of points of `hpcfit sweep --array`.")] = None
    limit: Annotated[int | None, Parameter(help="sweep: so many points at a time.")] = None


@dataclass(frozen=True)
class ArrayOptions(SiteOptions):
    """A Slurm array job on a site."""

    array: Annotated[bool, Parameter(negative="", help="Run as a Slurm array job, not on the [cluster].")] = False
    time: Annotated[str, Parameter(help="Time limit of a point, hours:minutes:seconds.")] = "01:00:00"
    limit: Annotated[int | None, Parameter(help="So many points at a time.")] = None
    wait: Annotated[
        bool, Parameter(negative="", help="Wait until it has ended, then collect; else a job after it collects.")
    ] = False

    def __post_init__(self):
        idle = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        if idle and not self.array:
            raise InputError(
                f"--{', --'.join(idle)} would have no effect without --array", remedy="add --array, or leave it out"
            )
        if self.limit is not None and self.limit < 1:
            raise InputError(f"--limit {self.limit}: at least one point at a time", remedy="for example --limit 10")


@dataclass(frozen=True)
class ScalingOptions(SiteOptions):
    """Slurm jobs on a site; no site: the points are measured here."""

    site: Annotated[
        str | None, Parameter(help="Measure as Slurm jobs, one after the other: a site's name or a site file.")
    ] = None
    time: Annotated[str, Parameter(help="Time limit of each job, hours:minutes:seconds.")] = "00:30:00"
    wait: Annotated[
        bool, Parameter(negative="", show_default=False, help="Wait for the jobs; else call again to collect them.")
    ] = False

    def __post_init__(self):
        idle = [field.name for field in fields(self) if getattr(self, field.name) != field.default]
        if self.site is None and idle:
            raise InputError(
                f"--{', --'.join(idle)} would have no effect without --site: the points are measured here",
                remedy="name a site to measure as Slurm jobs, or leave it out",
            )
