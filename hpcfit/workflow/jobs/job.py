"""Job scripts: what is to be run, on how many ranks, rendered for a site from the one template `jobs/job.sh.j2`."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from hpcfit.errors import InputError
from hpcfit.workflow.jobs.options import check_line
from hpcfit.workflow.jobs.site import Site, jobs_folder

WARNING_SECONDS = 120  # before the time limit: long enough to end a step and write a checkpoint
MOST_RESTARTS = 100
JOB_ID = re.compile(r"\d+([_+]\d+)?", re.ASCII)  # also of one task of an array, and of one part of a job of parts
TIME_LIMIT = re.compile(r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}", re.ASCII)
POINT_CONFIG = "$point/config.toml"  # in the command of an array job: the config of this task's point


class Points(NamedTuple):
    """The points of an array job. file: a run directory a line; count: lines; limit: points at a time."""

    file: Path
    count: int
    limit: int | None = None

    @classmethod
    def listed_in(cls, file: Path, limit: int | None = None) -> Points:
        """The points of a file; raises InputError where it lists none, or a limit lets none run."""
        if limit is not None and limit < 1:
            raise InputError(f"--limit {limit}: one point at a time is the least", remedy="for example --limit 4")
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        if not lines:
            raise InputError(f"{file} lists no point", remedy="give the file that `hpcfit sweep --array` wrote")
        return cls(file.absolute(), len(lines), limit)


@dataclass(frozen=True)
class Job:
    """One job before it is written for a site.

    command: the words after `hpcfit`. ranks: in all; None: as many as the site's nodes take. gpus: whether its ranks
    compute on GPUs where the site has them. start: `srun` starts the command on all ranks; `driver`: one process in the
    batch shell, which starts steps, worker processes or worker jobs itself. after: jobs that must have succeeded.
    output: a pattern of Slurm's, see ``literally``.
    """

    kind: str
    name: str
    command: Sequence[str]
    nodes: int = 1
    ranks: int | None = None
    time: str = "01:00:00"
    start: Literal["srun", "driver"] = "srun"
    gpus: bool = True
    after: Sequence[str] = ()
    points: Points | None = None
    output: str = "%x-%j.log"
    program: str = ""  # how hpcfit is called; empty: as the site says, else by this interpreter


def render(job: Job, site: Site) -> str:
    """The sbatch script of a job on a site.

    Raises InputError where the ranks do not fit on its nodes, the time or the id of a job is none of Slurm's, or a word
    cannot stand in a line of the script.
    """
    check_time(job.time)
    check_line("--name", job.name)
    check_jobs(job.after)
    layout = _layout(job, site)
    return template("job.sh.j2").render(
        job=job,
        site=site,
        layout=layout,
        gpu_directive=site.gpu_directive.replace("{gpus}", str(layout.gpus)) if layout.gpus else "",
        command=f"{job.program or program(site)} {_command_line(job.command)}",
        warning=WARNING_SECONDS,
        most_restarts=MOST_RESTARTS,
    )


def check_time(time: str) -> None:
    """Raise InputError unless Slurm reads this as a time limit."""
    if not TIME_LIMIT.fullmatch(time):
        raise InputError(
            f"--time {time} is no time limit of Slurm's: minutes, minutes:seconds, hours:minutes:seconds, days-hours,"
            " days-hours:minutes or days-hours:minutes:seconds",
            remedy="for example --time 04:00:00",
        )


def check_jobs(after: Sequence[str]) -> None:
    """Raise InputError unless each of these is the id of a job as Slurm prints it."""
    for job in after:
        if not JOB_ID.fullmatch(job):
            raise InputError(f"--after {job!r} is no id of a job", remedy="give a number that sbatch printed")


def literally(path: Path) -> str:
    """A path as part of an output pattern, where Slurm puts names and numbers in the place of %x and the like."""
    return str(path).replace("%", "%%")


def program(site: Site) -> str:
    """The words that call hpcfit in a job: the site's, else this interpreter."""
    return site.program or f"{shlex.quote(sys.executable)} -m hpcfit"


def template(name: str):
    """A template of the folder `jobs`."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(jobs_folder()),
        undefined=jinja2.StrictUndefined,
        finalize=_within_a_line,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["quote"] = lambda word: shlex.quote(str(word))
    environment.filters["quote_for_sbatch"] = quote_for_sbatch
    return environment.get_template(name)


def quote_for_sbatch(word: object) -> str:
    """A word as sbatch reads it in its lines: quotes as in a shell, a backslash inside single quotes as well."""
    return shlex.quote(str(word)).replace("\\", "\\\\")


def _within_a_line(value: object) -> object:
    """Whatever a template writes, in one line; an error for what would begin another one."""
    if isinstance(value, str):
        check_line("in a job script:", value)
    return value


class Layout(NamedTuple):
    """Ranks in all and on a node at most, and the GPUs of a node that they use."""

    ranks: int
    ranks_per_node: int
    gpus: int


def _layout(job: Job, site: Site) -> Layout:
    ranks = job.ranks or job.nodes * site.ranks_per_node
    ranks_per_node = -(-ranks // job.nodes)
    if ranks < job.nodes:
        raise InputError(
            f"{ranks} ranks on {job.nodes} nodes: some nodes would have nothing to do", remedy="ask for fewer nodes"
        )
    if not (job.gpus and site.gpus_per_node):
        return Layout(ranks, ranks_per_node, 0)
    if ranks_per_node > site.gpus_per_node:
        raise InputError(
            f"{ranks_per_node} ranks on a node of site '{site.name}', which has {site.gpus_per_node} GPUs: each rank"
            " computes on one GPU",
            remedy="ask for more nodes or fewer ranks; for CPU ranks choose a site without GPUs",
        )
    return Layout(ranks, ranks_per_node, ranks_per_node)


def _command_line(words: Sequence[str]) -> str:
    return " ".join(f'"{word}"' if word == POINT_CONFIG else shlex.quote(word) for word in words)
