"""The command line: parses, sets up logging and the end of the job, calls ``run_*``.

Heavy imports happen in commands.
"""

from __future__ import annotations

import atexit
import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from hpcfit import __version__
from hpcfit.errors import InputError, together
from hpcfit.scaling.options import STEPS, Beyond, Plan, grids
from hpcfit.workflow.jobs.options import ArrayOptions, JobOptions, ScalingOptions

if TYPE_CHECKING:
    from hpcfit.config import ClusterConfig, Config
    from hpcfit.ranks import Ranks

Overrides = Annotated[
    list[str] | None,
    Parameter(name=["--set"], negative="", help="Override a key of the config: section.key=value; may be repeated."),
]
ConfigPath = Annotated[Path, Parameter(help="The config, a TOML file; see config/ for commented examples.")]
StorePath = Annotated[Path, Parameter(help="A store: the folder that `hpcfit prepare` wrote.")]
Resume = Annotated[
    Literal["newest", "auto"] | None,
    Parameter(
        show_choices=False,
        help="Continue from the newest whole checkpoint, on any number of ranks. `--resume auto`, for jobs that may be"
        " started again: also begin where there is no checkpoint, and do nothing where this run has ended.",
    ),
]  # fmt: skip
Monitor = Annotated[
    bool, Parameter(negative="", help="Show the fit live on a Dask dashboard, page /hpcfit; as [monitor] dask = true.")
]
Overwrite = Annotated[bool, Parameter(negative="", help="Replace what an earlier run left in the run directory.")]

YOUNG = 100_000  # new objects after which Python looks for cycles of garbage among them; its own choice is 700

app = App(
    name="hpcfit", version=__version__, help_format="plaintext",
    help="Fit molecular ensembles to experiments: one rank, or thousands under srun or mpiexec.",
)  # fmt: skip
store_app = App(name="store", help="Look into a store of frames, or check it.")
app.command(store_app)


@app.command
def optimize(
    config: ConfigPath,
    *,
    overrides: Overrides = None,
    resume: Resume = None,
    overwrite: Overwrite = False,
    monitor: Monitor = False,
) -> int:
    """Fit the problem of a config, with the errors that it asks for; under srun or mpiexec on all ranks."""
    settings, ranks = _open(config, [*(overrides or ()), *["monitor.dask=true"] * monitor])
    from hpcfit.commands.optimize import run_optimize

    return run_optimize(settings, ranks, resume=resume, overwrite=overwrite)


@app.command
def modes(
    config: ConfigPath, *, overrides: Overrides = None, resume: Resume = None, overwrite: Overwrite = False
) -> int:
    """Find the slow modes of the energy of a config, without its methods; under srun or mpiexec on all ranks.

    [problem.modes] says of which graph, how many and by which solver. Files are those of a fit, and mode_N.pdb to view.

    The [run] directory must be free of other runs: --set run.directory=modes takes another one.
    """
    settings, ranks = _open(config, overrides)
    from hpcfit.commands.modes import run_modes

    return run_modes(settings, ranks, resume=resume, overwrite=overwrite)


@app.command
def simulate(config: ConfigPath, *, overrides: Overrides = None) -> int:
    """Run molecular dynamics as Dask tasks: replicas x temperatures x systems, into trajectories of pieces."""
    settings = _as_one_process(_read(config, overrides))
    from hpcfit.commands.simulate import run_simulate

    run_simulate(settings)
    return 0


@app.command
def prepare(config: ConfigPath, *, overrides: Overrides = None) -> int:
    """Turn trajectories or MTZ files into a store of frames; goes on where an earlier call stopped.

    With a [cluster] table as Dask tasks, else on the ranks that srun or mpiexec started.
    """
    settings = _read(config, overrides)
    from hpcfit.prepare.command import run_prepare, run_prepare_on_cluster

    if settings.cluster is None:
        run_prepare(settings, _ranks())
    else:
        run_prepare_on_cluster(_as_one_process(settings))
    return 0


@app.command
def pipeline(
    config: ConfigPath,
    *,
    ranks: Annotated[
        int | None, Parameter(help="MPI ranks of the fit; by default the tasks of this Slurm job, or 1.")
    ] = None,
    rounds: Annotated[
        int | None,
        Parameter(help="So many simulations with the parameters found last, each with a fit that continues the last."),
    ] = None,
    overrides: Overrides = None,
) -> int:
    """Simulate, prepare and fit in one allocation: the first two as Dask tasks, then the fit on MPI ranks.

    Called again it goes on where it was stopped.
    """
    settings = _read(config, overrides)
    from hpcfit.commands.pipeline import run_pipeline

    return run_pipeline(config, settings, tuple(overrides or ()), ranks, rounds)


@app.command
def check(config: ConfigPath, *, overrides: Overrides = None) -> int:
    """Validate a config and its inputs without running; print sizes, grid, devices, memory and the predicted step."""
    settings, ranks = _open(config, overrides)
    from hpcfit.commands.check import run_check

    run_check(settings, ranks)
    return 0


@app.command
def step(
    config: ConfigPath,
    *,
    steps: Annotated[int, Parameter(help="Steps to time; their median counts.")] = STEPS,
    blocks: Annotated[int | None, Parameter(help="Only the leading so many blocks of 64 frames.")] = None,
    parts: Annotated[str | None, Parameter(help="Also time one rank's share of such grids alone: 8x1,1x8.")] = None,
    out: Annotated[Path | None, Parameter(help="A JSON file for everything measured.")] = None,
    overrides: Overrides = None,
) -> int:
    """Time a step (value and gradient) on all ranks, beside a plain stream of their memory and their network."""
    settings, ranks = _open(config, overrides)
    from hpcfit.commands.step import run_step

    run_step(settings, ranks, steps=steps, blocks=blocks, parts=grids("--parts", parts) if parts else (), out=out)
    return 0


@app.command
def job(
    config: Annotated[Path | None, Parameter(help="The config that the job works on.")] = None,
    *,
    wanted: Annotated[JobOptions, Parameter(name="*")] = JobOptions(),  # noqa: B008 (frozen)
    sites: Annotated[bool, Parameter(negative="", help="List the sites instead.")] = False,
    overrides: Overrides = None,
) -> int:
    """Print the job script of a config for a site: hpcfit job config.toml --nodes 4 --site generic-gpu > job.sh."""
    _start_logging()
    if _is_one_too_many():
        return 0
    from hpcfit.commands.job import Request, run_job, run_sites

    if sites:
        run_sites()
        return 0
    if config is None:
        raise InputError("no config was given", remedy="for example hpcfit job config.toml --nodes 4")
    run_job(Request(config=config, sets=tuple(overrides or ()), **vars(wanted)))
    return 0


@app.command
def scaling(
    config: ConfigPath,
    *,
    plan: Annotated[Plan, Parameter(name="*")] = Plan(),  # noqa: B008 (frozen)
    directory: Annotated[Path, Parameter(help="Where measurements are kept and results written.")] = Path("scaling"),
    jobs: Annotated[ScalingOptions, Parameter(name="*", group="Slurm jobs")] = ScalingOptions(),  # noqa: B008 (frozen)
    beyond: Annotated[Beyond, Parameter(name="*", group="Machine to predict for")] = Beyond(),  # noqa: B008 (frozen)
    overrides: Overrides = None,
) -> int:
    """Measure how a step scales over ranks; fit the cost model to it; write table, figure and page.

    What has been measured is kept and not measured again.
    """
    settings = _read(config, overrides)
    from hpcfit.scaling.command import run_scaling

    run_scaling(config, settings, tuple(overrides or ()), plan, directory, beyond, jobs)
    return 0


@app.command
def watch(
    run: Annotated[Path, Parameter(help="A run directory.")],
    *,
    once: Annotated[bool, Parameter(negative="", help="Print the table once.")] = False,
    every: Annotated[float, Parameter(help="Seconds between two looks at the files.")] = 2.0,
) -> int:
    """Follow a fit from any node by the files of its run directory: metrics, pace, checkpoint, estimated end."""
    _start_logging()
    if _is_one_too_many():
        return 0
    from hpcfit.commands.watch import run_watch

    run_watch(run, once=once, every=every)
    return 0


@app.command
def sweep(
    config: ConfigPath,
    *,
    grid: Annotated[list[str] | None, Parameter(negative="", help="A key and values: problem.theta=0,1e-3.")] = None,
    folds: Annotated[int | None, Parameter(help="Hold out each of so many parts of the map in turn.")] = None,
    seeds: Annotated[int | None, Parameter(help="So many random starts.")] = None,
    bootstrap: Annotated[int | None, Parameter(help="So many bootstrap samples of the map.")] = None,
    ranks: Annotated[int, Parameter(help="MPI ranks of each fit.")] = 1,
    directory: Annotated[Path, Parameter(help="Where the run directories, the table and the page go.")] = Path("sweep"),
    queue: Annotated[ArrayOptions, Parameter(name="*", group="Slurm array")] = ArrayOptions(),  # noqa: B008 (frozen)
    plan: Annotated[bool, Parameter(negative="", help="Write points and job script, but start nothing.")] = False,
    overrides: Overrides = None,
) -> int:
    """Fit every point of a grid, of folds, seeds or bootstrap samples; finished points are not run again.

    One table and one page at the end. Folds, seeds and bootstrap samples are averaged over.
    """
    _start_logging()
    from hpcfit.sweep import command as commands

    axes = commands.axes_of(grid or (), folds=folds, seeds=seeds, bootstrap=bootstrap)
    wanted = commands.Wanted(config, axes, directory.absolute(), ranks, tuple(overrides or ()))
    if plan:
        commands.show_plan(wanted, queue)
        return 0
    return commands.run_as_array(wanted, queue) if queue.array else commands.run_sweep(wanted)


@app.command
def report(
    run: Annotated[Path, Parameter(help="A run directory, or the folder of a sweep.")],
    *,
    pptx: Annotated[bool, Parameter(negative="", help="Also write report.pptx, the same as slides.")] = False,
) -> int:
    """Rebuild report.html from the files of a run directory, or table and page of a sweep."""
    _start_logging()
    if _is_one_too_many():
        return 0
    from hpcfit.commands.report import run_report

    run_report(run, slides=pptx)
    return 0


@app.command
def export(
    run: Annotated[Path, Parameter(help="The directory of a run that has ended.")],
    file: Annotated[Path, Parameter(help="The file to write.")],
    *,
    which: Annotated[
        Literal["calculated", "uniform", "observed", "difference"] | None,
        Parameter(help="The map: of the fitted weights (default), of uniform ones, measured, or measured - fitted."),
    ] = None,
    minus: Annotated[Path | None, Parameter(help="Another run, whose map is subtracted where both have one.")] = None,
    positions: Annotated[Path | None, Parameter(help="A store of the positions of the same frames.")] = None,
    frames: Annotated[int | None, Parameter(help="So many frames are drawn by weight; 100 without.")] = None,
    seed: Annotated[int | None, Parameter(help="Of the random number that the draw begins with; 0 without.")] = None,
    superpose: Annotated[
        str | None,
        Parameter(
            help="Atoms that frames are superposed by, as MDAnalysis selects them; all without. none: frames stay as"
            " they are, so that motions of whole molecules count."
        ),
    ] = None,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace the file, and what is written beside it.")] = False,
) -> int:
    """Write what a run found in the formats of other programs: the suffix of FILE says what.

    .mtz, .nxs, .h5, .lat: a map of diffuse intensities, for CCP4, mdx2 or LUNUS (--which, --minus).

    .xtc, .pdb: an ensemble drawn by the weights of frames (--positions, --frames, --seed).

    .csv: fluctuations and B factors of atoms, with a PDB of the mean structure (--positions, --superpose).
    """
    _start_logging()
    if _is_one_too_many():
        return 0
    from hpcfit.commands.export import run_export

    run_export(
        run, file, which=which, minus=minus, positions=positions, frames=frames, seed=seed, superpose=superpose,
        overwrite=overwrite,
    )  # fmt: skip
    return 0


@app.command
def runs(folder: Annotated[Path, Parameter(help="A folder with run directories, at any depth.")]) -> int:
    """Show the runs below a folder beside each other: the result of each, and the settings in which they differ."""
    _start_logging()
    if _is_one_too_many():
        return 0
    from hpcfit.commands.runs import run_runs

    return run_runs(folder)


@app.command
def doctor() -> int:
    """Print what hpcfit stands on: versions, MPI library, launcher, nodes, cores, devices, HDF5.

    Under a launcher for each rank.
    """
    _start_logging()
    from hpcfit.commands.doctor import run_doctor

    return run_doctor()


@app.command
def init(
    kind: Annotated[str, Parameter(help="A kind of problem, or KIND/VARIANT; `hpcfit explain` lists them.")],
    *,
    demo: Annotated[
        Path | None, Parameter(help="Make this folder instead, with data simulated on the spot, ready to be fitted.")
    ] = None,
) -> int:
    """Print a commented config of a kind of problem: hpcfit init frame-weights > config.toml."""
    _start_logging()
    if _is_one_too_many():
        return 0
    from hpcfit.commands.init import run_init

    run_init(kind, demo)
    return 0


@app.command
def explain(kind: Annotated[str | None, Parameter(help="A kind of problem.")] = None) -> int:
    """Print what is known of a kind of problem: science, options, measurements; alone, the kinds with a line each."""
    _start_logging()
    if _is_one_too_many():
        return 0
    from hpcfit.commands.explain import run_explain

    run_explain(kind)
    return 0


@store_app.command
def info(store: StorePath) -> int:
    """Print what is in a store: frames of each source, bytes, and reflections, cell and encoding, or particles."""
    _start_logging()
    if _is_one_too_many():
        return 0
    from hpcfit.commands.store import run_info

    run_info(store)
    return 0


@store_app.command
def verify(
    store: StorePath,
    *,
    cluster: Annotated[Path | None, Parameter(help="A config: work on its [cluster].")] = None,
) -> int:
    """Read everything and compare every checksum; names the damaged shard, chunk and frames."""
    _start_logging()
    if cluster is None and _is_one_too_many():
        return 0
    from hpcfit.commands.store import run_verify

    return run_verify(store, _cluster_of(cluster) if cluster else None)


def _cluster_of(config: Path) -> ClusterConfig:
    settings = _as_one_process(_read(config, None))
    settings.require("cluster", command="store verify --cluster")
    return settings.cluster


def _read(config: Path, overrides: list[str] | None) -> Config:
    """The config, read by each process that was started; what is wrong with it is said by one."""
    _start_logging()
    from hpcfit.kinds.table import load_config

    try:
        return load_config(config, overrides or ())
    except InputError as error:
        raise together(error) from None


def _as_one_process(settings: Config) -> Config:
    """The config, for a command that deals out work to a cluster. Raises InputError if a launcher started several."""
    from hpcfit.ranks import check_one_process

    if settings.cluster is None or settings.cluster.kind != "allocation":
        check_one_process(
            "and each would deal out all of the work",
            "start hpcfit without mpiexec or srun; or, under srun, set [cluster] kind = 'allocation';"
            " `prepare` without a [cluster] table runs on MPI ranks",
        )
    return settings


def _open(config: Path, overrides: list[str] | None) -> tuple[Config, Ranks]:
    """Ranks, their logging, and the config as root reads it."""
    from hpcfit.kinds.table import load_config

    ranks = _ranks()
    return ranks.on_root(lambda: load_config(config, overrides or ())), ranks


def _ranks() -> Ranks:
    """All ranks, and their logging."""
    from hpcfit import log
    from hpcfit.ranks import world_ranks

    log.set_up(0, 1)  # for what is said before the ranks know each other
    ranks = world_ranks()
    log.set_up(ranks.rank, ranks.size)
    return ranks


def _start_logging() -> None:
    from hpcfit import log

    log.set_up(0, 1)


def _is_one_too_many() -> bool:
    """Whether a launcher started several processes of a command that is one: the first of them does and says it."""
    from hpcfit.launcher import is_later_task, launched_tasks

    return launched_tasks()[1] > 1 and is_later_task()


def _with_value_of_resume(words: list[str]) -> list[str]:
    """`--resume` alone means `--resume newest`; it must not take the next word for its value."""
    values = {"newest", "auto"}
    alone = [word == "--resume" and following not in values for word, following in zip(words, [*words[1:], ""])]
    return [f"{word}=newest" if bare else word for word, bare in zip(words, alone)]


def _ignored(of: Any) -> None:
    """Log what Python would print as "Exception ignored in", of objects whose end fails."""
    from hpcfit import log

    log.libraries.ignored(of)


def collect_rarely() -> None:
    """Have Python look for cycles of garbage rarely, and not once more when the process ends.

    What a command imports, traces and compiles is half a million objects that stay. To look through them again and
    again while they come, and when all ends, took more than a quarter of the CPU time of a short fit.
    """
    gc.set_threshold(YOUNG)
    atexit.register(gc.freeze)


def main() -> None:
    """The console script."""
    collect_rarely()
    sys.unraisablehook = _ignored
    try:
        sys.exit(app(_with_value_of_resume(sys.argv[1:])))
    except Exception as error:
        from hpcfit.ranks import end_job

        atexit.unregister(gc.freeze)  # a file that could not be written is closed before HDF5 ends, or it crashes there
        end_job(error)


if __name__ == "__main__":
    main()
