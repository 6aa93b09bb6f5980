"""The clusters that jobs are written for: `jobs/sites/NAME.toml`, or a site file of the user's own."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from pydantic import field_validator, model_validator

from hpcfit.config.load import read_toml, validated
from hpcfit.config.table import Count, Table, Whole
from hpcfit.errors import InputError, nearest
from hpcfit.workflow.jobs.options import SiteOptions, check_line
from hpcfit.workflow.shipped import shipped

TEMPLATE = "job.sh.j2"
COMMANDS = re.compile(r"[;&|<>()`\n#]")  # what begins or ends a command of a shell, $( among it, or leads elsewhere
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class Site(Table):
    """A cluster, as jobs ask for its nodes. None and empty stand for the cluster's own default.

    Every value stands in the script as the words it is, quoted; `setup` alone is lines of shell, and `program` words in
    which variables are expanded. No value has a line break.
    """

    name: str
    description: str
    documentation: list[str] = []
    tested: str = ""  # where; empty: nowhere, written from the documentation
    # What sbatch is asked for.
    account: str | None = None
    partition: str | None = None
    constraint: str | None = None
    qos: str | None = None
    directives: list[str] = []
    # A node: its MPI ranks, the cores of each, and its GPUs, one for a rank.
    ranks_per_node: Count
    cores_per_rank: Count = 1
    gpus_per_node: Whole = 0
    gpu_directive: str = "--gpus-per-node={gpus}"
    # What a job does before hpcfit starts, and how it starts it.
    modules: list[str] = []
    environment: dict[str, str] = {}
    setup: list[str] = []
    program: str = ""  # empty: the interpreter that wrote the script
    # What srun is told.
    mpi: str | None = None
    cpu_bind: str | None = None
    gpu_bind: str | None = None
    srun: list[str] = []

    @field_validator("program")
    @classmethod
    def _words_only(cls, value: str) -> str:
        if found := COMMANDS.search(value):
            raise ValueError(f"{found[0]!r} would make more than one command of it; other commands belong into `setup`")
        shlex.split(value)  # a ValueError for a quotation that does not end
        return value

    @field_validator("environment")
    @classmethod
    def _names_of_variables(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not VARIABLE.fullmatch(name):
                raise ValueError(f"'{name}' is no name of a variable: letters, digits and _")
        return value

    @model_validator(mode="after")
    def _gpus_where_there_are_some(self) -> Site:
        if self.gpu_bind and not self.gpus_per_node:
            raise ValueError(f"gpu_bind = '{self.gpu_bind}' has no effect without gpus_per_node")
        return self


def jobs_folder() -> Path:
    """The folder `jobs` of template and sites."""
    return shipped(f"jobs/{TEMPLATE}").parent


def site_names() -> list[str]:
    """The sites that come with hpcfit."""
    return sorted(path.stem for path in (jobs_folder() / "sites").glob("*.toml"))


def chosen_site(options: SiteOptions) -> Site:
    """The site that the options name, with the keys that they give; raises InputError as ``load_site`` does."""
    given = {name: value for name, value in options.given() if name != "site"}
    for name, value in given.items():
        check_line(f"--{name}", value)
    return load_site(options.site).model_copy(update=given)


def load_site(name_or_path: str) -> Site:
    """A site by its name, or from a file of the user's own (a path that ends in .toml).

    Raises InputError that lists every mistake, with file, key and nearest valid name.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = jobs_folder() / "sites" / f"{name_or_path}.toml"
        if not path.is_file():
            names = site_names()
            raise InputError(
                f"there is no site '{name_or_path}': {nearest(name_or_path, names)}",
                remedy=f"choose one of {', '.join(names)}, or give the path of a site file that ends in .toml",
            )
    values = read_toml(path, "site file", examples="jobs/sites/*.toml")
    return validated(Site, {"name": path.stem} | values, path, "site file")
