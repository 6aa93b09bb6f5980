"""`hpcfit job`: the job script of a config for a site."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpcfit.config import ClusterConfig, Config
from hpcfit.errors import InputError
from hpcfit.kinds.table import load_config
from hpcfit.workflow.jobs.job import (
    POINT_CONFIG,
    Job,
    Points,
    check_jobs,
    check_time,
    program,
    render,
    template,
)
from hpcfit.workflow.jobs.options import JobOptions, check_line
from hpcfit.workflow.jobs.site import Site, chosen_site, load_site, site_names

# The jobs of a chain that spread over nodes, by the kind of the [cluster]; elsewhere only the fit does.
ON_NODES = {None: {"prepare", "optimize"}, "allocation": {"simulate", "prepare", "optimize"}}


@dataclass(frozen=True, kw_only=True)
class Request(JobOptions):
    """A job for a config. sets: overrides of the config."""

    config: Path
    sets: Sequence[str] = ()

    def command(self, name: str, *options: str) -> list[str]:
        """`NAME CONFIG OPTIONS` with the overrides of the config."""
        return [name, str(self.config.absolute()), *options, *self.set_words()]

    def set_words(self) -> list[str]:
        """The overrides of the config as they are typed."""
        return [word for text in self.sets for word in ("--set", text)]

    def job(self, command: Sequence[str], **fields) -> Job:
        """A job of this name, size and time."""
        ranks = self.nodes * self.ranks_per_node if self.ranks_per_node else None
        sized = {"nodes": self.nodes, "ranks": ranks, "time": self.time, "after": tuple(self.after or ())}
        return Job(self.kind, self.name or f"hpcfit-{self.kind}", command, **(sized | fields))


def run_sites() -> None:
    """Print the sites that come with hpcfit."""
    for name in site_names():
        site = load_site(name)
        sys.stdout.write(f"{name:<14} {'tested  ' if site.tested else 'untested'}  {site.description}\n")


def run_job(request: Request) -> None:
    """Print the script."""
    sys.stdout.write(script_of(request))


def script_of(request: Request) -> str:
    """The script; raises InputError where config, request and site do not go together."""
    site = chosen_site(request.where)
    _check(request)
    settings = load_config(request.config, request.sets)
    if request.kind == "chain":
        return _chain(request, settings, site)
    return render(KINDS[request.kind](request, settings, site), site)


def _check(request: Request) -> None:
    for option, value in (("--nodes", request.nodes), ("--ranks-per-node", request.ranks_per_node or 1)):
        if value < 1:
            raise InputError(f"{option} {value}: a job takes one at least", remedy=f"for example {option} 4")
    check_time(request.time)
    check_line("--name", request.name or "")
    check_line("the config", str(request.config.absolute()))
    check_jobs(request.after or ())
    for text in request.sets:
        check_line("--set", text)
    if request.kind == "sweep":
        _check_unused({"--set": request.sets}, "--kind sweep, whose points have configs of their own")
    else:
        _check_unused({"--points": request.points, "--limit": request.limit}, f"--kind {request.kind}")


def _check_unused(options: Mapping[str, object], where: str) -> None:
    """Raise InputError if one of these options was given."""
    given = " and ".join(name for name, value in options.items() if value)
    if given:
        raise InputError(f"{given} would have no effect with {where}", remedy="leave it out")


def _optimize(request: Request, settings: Config, site: Site) -> Job:
    settings.require_fit(command="optimize")
    return request.job(request.command("optimize", "--resume", "auto"))


def _simulate(request: Request, settings: Config, site: Site) -> Job:
    settings.require("simulate", command="simulate")
    return _tasks(request, settings.cluster or ClusterConfig(), site)


def _prepare(request: Request, settings: Config, site: Site) -> Job:
    settings.require("frames", command="prepare")
    if settings.cluster is None:
        return request.job(request.command("prepare"), gpus=False)
    return replace(_tasks(request, settings.cluster, site), gpus=False)


def _tasks(request: Request, cluster: ClusterConfig, site: Site) -> Job:
    """A job of Dask tasks: they run in it, or in worker jobs and on a scheduler elsewhere."""
    command = request.command(request.kind)
    if cluster.kind == "allocation":
        return request.job(command, start="driver")
    if request.nodes > 1:
        raise InputError(
            f"--nodes {request.nodes}: with [cluster] kind = '{cluster.kind}' this job takes one node",
            remedy="leave --nodes out; kind = 'allocation' spreads the tasks over the nodes of the job",
        )
    ranks_per_node = {"--ranks-per-node": request.ranks_per_node}
    if cluster.kind == "local":
        if cluster.workers:
            _check_unused(ranks_per_node, f"[cluster] workers = {cluster.workers}")
        return request.job(command, ranks=cluster.workers or request.ranks_per_node, start="driver")
    _check_unused(ranks_per_node, f"[cluster] kind = '{cluster.kind}': this job is one process")
    return request.job(command, ranks=1, start="driver", gpus=False)


def _pipeline(request: Request, settings: Config, site: Site) -> Job:
    settings.require_fit(command="pipeline")
    ranks = request.nodes * (request.ranks_per_node or site.ranks_per_node)
    return request.job(request.command("pipeline", "--ranks", str(ranks)), start="driver")


def _scaling(request: Request, settings: Config, site: Site) -> Job:
    settings.require_fit(command="scaling")
    ranks = request.nodes * (request.ranks_per_node or site.ranks_per_node)
    series = [2**power for power in range(ranks.bit_length()) if 2**power < ranks]
    return request.job(request.command("scaling", "--ranks", ",".join(map(str, [*series, ranks]))), start="driver")


def _sweep(request: Request, settings: Config, site: Site) -> Job:
    settings.require_fit(command="sweep")
    if request.points is None:
        raise InputError(
            "--kind sweep runs over the points of a file, which is missing",
            remedy="`hpcfit sweep CONFIG --grid ... --array --plan` writes it, and the job script as well",
        )
    points = Points.listed_in(request.points, request.limit)
    return request.job(["optimize", POINT_CONFIG, "--resume", "auto"], points=points, output="%x-%A_%a.log")


def _report(request: Request, settings: Config, site: Site) -> Job:
    size = {"--nodes": request.nodes > 1, "--ranks-per-node": request.ranks_per_node}
    _check_unused(size, "--kind report: this job is one process")
    return request.job(["report", str(settings.run.directory)], ranks=1, gpus=False)


def _chain(request: Request, settings: Config, site: Site) -> str:
    """A shell script that submits a job for each part of the config, each after the one before."""
    settings.require_fit(command="optimize")
    inputs = {"simulate": settings.simulate, "prepare": settings.frames}
    kinds = [*(kind for kind, table in inputs.items() if table is not None), "optimize", "report"]
    before = [word for job in request.after or () for word in ("--after", job)]
    links = [
        (kind, shlex.join([*_link(request, kind, settings.cluster), *(before if kind == kinds[0] else [])]))
        for kind in kinds
    ]
    config, where = str(request.config.absolute()), request.where.words()
    shared = shlex.join([config, *where, "--time", request.time, *request.set_words()])
    return template("chain.sh.j2").render(links=links, shared=shared, program=program(site))


def _link(request: Request, kind: str, cluster: ClusterConfig | None) -> list[str]:
    """The options of one job of the chain: its kind and name, and its size where it is not one process."""
    which = ["--kind", kind, *(["--name", f"{request.name}-{kind}"] if request.name else [])]
    if kind not in ON_NODES.get(cluster and cluster.kind, {"optimize"}):
        return which
    size = ["--ranks-per-node", str(request.ranks_per_node)] if request.ranks_per_node else []
    report = ["--set", "run.report=false"] if kind == "optimize" else []  # is a job of its own, on one core
    return [*which, "--nodes", str(request.nodes), *size, *report]


KINDS: dict[str, Callable[[Request, Config, Site], Job]] = {
    "optimize": _optimize,
    "simulate": _simulate,
    "prepare": _prepare,
    "pipeline": _pipeline,
    "sweep": _sweep,
    "scaling": _scaling,
    "report": _report,
}
