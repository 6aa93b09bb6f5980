"""The options of `hpcfit job` and `hpcfit sweep` that choose a site and stand for keys of its file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hpcfit.errors import InputError

if TYPE_CHECKING:
    from hpcfit.workflow.jobs.site import Site


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

    def load(self) -> Site:
        """The site with what was chosen here."""
        from hpcfit.workflow.jobs.site import load_site

        chosen = {name: value for name, value in self._given() if name != "site"}
        return load_site(self.site).model_copy(update=chosen)

    def words(self) -> list[str]:
        """As they are typed, from any folder."""
        paths = {"site": str(Path(self.site).absolute())} if self.site.endswith(".toml") else {}
        return [word for name, value in self._given() for word in (f"--{name}", paths.get(name, value))]

    def _given(self) -> list[tuple[str, str]]:
        names = [field.name for field in fields(SiteOptions)]
        return [(name, value) for name in names if (value := getattr(self, name)) is not None]


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
