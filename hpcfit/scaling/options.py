"""The options of `hpcfit scaling` that belong together: the Slurm jobs, and the machine to predict for."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from hpcfit.errors import InputError
from hpcfit.workflow.jobs.options import SiteOptions

if TYPE_CHECKING:
    from hpcfit.workflow.jobs.site import Site


@dataclass(frozen=True)
class Jobs(SiteOptions):
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

    def load(self) -> Site:
        """The site with what was chosen here."""
        return SiteOptions(**{field.name: getattr(self, field.name) for field in fields(SiteOptions)}).load()


@dataclass(frozen=True)
class Beyond:
    """The machine that the model predicts for, up to 1024 ranks."""

    memory_bandwidth: Annotated[float, Parameter(help="Of a rank's GPU, GB/s.")] = 3000.0
    memory_share: Annotated[
        float | None, Parameter(help="Of it that a step reaches, 0 to 1; by default what it reaches here.")
    ] = None
    network_bandwidth: Annotated[float, Parameter(help="Of a rank, GB/s.")] = 25.0
    latency: Annotated[float, Parameter(help="Of a small message, microseconds.")] = 5.0

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise InputError(
                    f"--{field.name.replace('_', '-')} {value:g}: a machine to predict for has more than 0",
                    remedy="give the figure of its data sheet",
                )
        if (self.memory_share or 0) > 1:
            raise InputError(
                f"--memory-share {self.memory_share:g}: a step cannot reach more than the whole bandwidth, 1",
                remedy="give a share between 0 and 1",
            )
