"""The command line: parses, sets up logging and the end of the job, calls ``run_*``.

Heavy imports happen in commands.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from hpcfit import __version__

Overrides = Annotated[
    list[str] | None,
    Parameter(name=["--set"], negative="", help="Override a key of the config: section.key=value; may be repeated."),
]
ConfigPath = Annotated[Path, Parameter(help="The config, a TOML file; see config/ for commented examples.")]

Resume = Annotated[
    bool, Parameter(negative="", help="Continue from the newest whole checkpoint, on any number of ranks.")
]
Ranks = Annotated[int, Parameter(help="MPI ranks of the fit.")]
Overwrite = Annotated[bool, Parameter(negative="", help="Replace what an earlier run left in the run directory.")]

app = App(
    name="hpcfit", version=__version__, help_format="plaintext",
    help="Fit molecular ensembles to experiments: one rank, or thousands under srun or mpiexec.",
)  # fmt: skip
store_app = App(name="store", help="Look into a store of frames, or check it.")
app.command(store_app)


@app.command
def optimize(
    config: ConfigPath, *, overrides: Overrides = None, resume: Resume = False, overwrite: Overwrite = False
) -> int:
    """Fit the problem of a config; under srun or mpiexec on all ranks."""
    settings, ranks = _open(config, overrides)
    from hpcfit.commands.optimize import run_optimize

    return run_optimize(settings, ranks, resume=resume, overwrite=overwrite)


@app.command
def simulate(config: ConfigPath, *, overrides: Overrides = None) -> int:
    """Run molecular dynamics as Dask tasks: replicas x temperatures x systems, into trajectories of pieces."""
    settings = _read(config, overrides)
    from hpcfit.commands.simulate import run_simulate

    run_simulate(settings)
    return 0


@app.command
def prepare(config: ConfigPath, *, overrides: Overrides = None) -> int:
    """Turn trajectories or MTZ files into a store of frames; goes on where an earlier call stopped.

    With a [cluster] table as Dask tasks, else on the ranks that srun or mpiexec started.
    """
    settings = _read(config, overrides)
    if settings.cluster is None:
        settings, ranks = _open(config, overrides)
        from hpcfit.commands.prepare import run_prepare

        run_prepare(settings, ranks)
        return 0
    from hpcfit.commands.prepare import run_prepare_on_cluster

    run_prepare_on_cluster(settings)
    return 0


@app.command
def pipeline(config: ConfigPath, *, ranks: Ranks = 1, overrides: Overrides = None) -> int:
    """Simulate, prepare and fit in one allocation: the first two as Dask tasks, then the fit on MPI ranks."""
    settings = _read(config, overrides)
    from hpcfit.commands.pipeline import run_pipeline

    return run_pipeline(settings, ranks=ranks)


@app.command
def check(config: ConfigPath, *, overrides: Overrides = None) -> int:
    """Validate a config and its inputs without running; print sizes, grid, devices, memory and the predicted step."""
    settings, ranks = _open(config, overrides)
    from hpcfit.commands.check import run_check

    run_check(settings, ranks)
    return 0


@app.command
def report(run: Annotated[Path, Parameter(help="A run directory.")]) -> int:
    """Rebuild report.html from the files of a run directory."""
    _start_logging()
    from hpcfit.results.report import write_report

    write_report(run)
    return 0


@app.command
def doctor() -> int:
    """Print what hpcfit stands on: versions, MPI library, launcher, nodes, cores, devices, HDF5.

    Under a launcher for each rank.
    """
    _start_logging()
    from hpcfit.commands.doctor import run_doctor

    return run_doctor()


@store_app.command
def info(store: Annotated[Path, Parameter(help="A store: the folder that `hpcfit prepare` wrote.")]) -> int:
    """What is in a store."""
    _start_logging()
    from hpcfit.commands.store import run_info

    run_info(store)
    return 0


@store_app.command
def verify(store: Annotated[Path, Parameter(help="A store: the folder that `hpcfit prepare` wrote.")]) -> int:
    """Read everything and compare every checksum; names the damaged shard, chunk and frames."""
    _start_logging()
    from hpcfit.commands.store import run_verify

    return run_verify(store)


def _read(config: Path, overrides: list[str] | None):
    """The config, for a command that is one process."""
    _start_logging()
    from hpcfit.config import load_config

    return load_config(config, overrides or ())


def _open(config: Path, overrides: list[str] | None):
    """Ranks, their logging, and the config as root reads it."""
    from hpcfit import log
    from hpcfit.config import load_config
    from hpcfit.ranks import world_ranks

    log.set_up(0, 1)  # for what is said before the ranks know each other
    ranks = world_ranks()
    log.set_up(ranks.rank, ranks.size)
    return ranks.on_root(lambda: load_config(config, overrides or ())), ranks


def _start_logging() -> None:
    from hpcfit import log

    log.set_up(0, 1)


def main() -> None:
    """The console script."""
    try:
        sys.exit(app())
    except Exception as error:
        from hpcfit.ranks import end_job

        end_job(error)


if __name__ == "__main__":
    main()
