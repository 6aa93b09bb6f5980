"""`hpcfit sweep`: a fit for each point of grids, folds, seeds and bootstrap samples, then one table and one page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hpcfit.config import ClusterConfig
from hpcfit.errors import EXIT_FAILED, InputError
from hpcfit.kinds.table import check_config, load_config
from hpcfit.log import logger
from hpcfit.runs.files import RunFiles
from hpcfit.sweep import outcome as results
from hpcfit.sweep import points as axes
from hpcfit.sweep.array import check_none_runs, submit, submit_report, write_script
from hpcfit.sweep.files import print_table, write_sweep
from hpcfit.sweep.fit_task import fit_point
from hpcfit.sweep.points import Axis, Point, points_of, write_plan
from hpcfit.workflow import slurm
from hpcfit.workflow.jobs.job import MOST_RESTARTS
from hpcfit.workflow.jobs.options import ArrayOptions
from hpcfit.workflow.jobs.site import chosen_site


@dataclass(frozen=True)
class Wanted:
    """A sweep that was asked for. ranks: of each point; sets: overrides of the config of every point."""

    config: Path
    axes: Sequence[Axis]
    directory: Path
    ranks: int = 1
    sets: Sequence[str] = ()


def axes_of(grids: Sequence[str], *, folds: int | None, seeds: int | None, bootstrap: int | None) -> list[Axis]:
    """The axes of the command line, in its order: grids, then what is averaged over."""
    repeated = {axes.folds: folds, axes.seeds: seeds, axes.bootstrap: bootstrap}
    return [*map(axes.grid, grids), *(make(number) for make, number in repeated.items() if number is not None)]


def run_sweep(wanted: Wanted) -> int:
    """Run what is not finished as tasks on the [cluster]; without one in turn here.

    Returns 0, or 1 if a point is not finished then.
    """
    todo = _planned(wanted)
    cluster = load_config(wanted.config, wanted.sets).cluster
    for number, code in _codes([str(point.directory) for point in todo], wanted.ranks, cluster) if todo else ():
        point = todo[number]
        how = "finished" if code == 0 else f"failed with exit code {code}, see {point.directory / results.LOG}"
        logger.info("%s (%s) %s", point.directory.name, point.name, how)
    return _exit_code(_tabulated(wanted.directory))


def run_as_array(wanted: Wanted, options: ArrayOptions) -> int:
    """Submit what is not finished as one Slurm array job.

    Waits for it if asked to, and returns 1 if a point is not finished then; else a job after it makes table and page,
    and what came of an earlier call is shown.
    """
    todo = _planned(wanted)
    if not (todo and options.wait):
        _tabulated(wanted.directory)
    if not todo:
        return 0
    job = submit(wanted.directory, _script(wanted, todo, options))
    if options.wait:
        slurm.wait([job])
        return _exit_code(_tabulated(wanted.directory))
    if report := submit_report(wanted.directory, job, chosen_site(options)):
        logger.info("job %s writes table and page when it has ended: %s/sweep.html", report, wanted.directory)
    logger.info("call again when it has ended: it goes on with what is not finished then")
    return 0


def show_plan(wanted: Wanted, options: ArrayOptions) -> None:
    """Write the points, and the script of the array job if there is to be one; start nothing."""
    todo = _planned(wanted)
    print_table(results.read_sweep(wanted.directory))
    if options.array and todo:
        logger.info("to start it: the same without --plan, or sbatch %s", _script(wanted, todo, options))


def _script(wanted: Wanted, todo: Sequence[Point], options: ArrayOptions) -> Path:
    return write_script(wanted.directory, [point.directory for point in todo], wanted.ranks, options)


def _planned(wanted: Wanted) -> list[Point]:
    """The points that are not finished; every point's config is checked, and written into its directory."""
    if wanted.ranks < 1:
        raise InputError(f"--ranks {wanted.ranks}: a fit takes one at least", remedy="for example --ranks 4")
    check_none_runs(wanted.directory)
    points = points_of(wanted.config, wanted.sets, wanted.axes, wanted.directory)
    for point in points:
        check_config(point.config, "sweep")
    write_plan(wanted.directory, wanted.axes, points)
    todo = [point for point in points if not RunFiles(point.directory).finished]
    logger.info("%d points in %s, %d of them finished", len(points), wanted.directory, len(points) - len(todo))
    return todo


def _codes(directories: Sequence[str], ranks: int, cluster: ClusterConfig | None) -> Iterator[tuple[int, int]]:
    """(number of the directory, exit code of its fit) as they end."""
    from hpcfit.workflow.cluster.opening import open_cluster
    from hpcfit.workflow.stopping import stopped_by_signals

    work = partial(fit_point, ranks=ranks)
    with stopped_by_signals():
        if cluster is None:
            yield from enumerate(map(work, directories))
            return
        with open_cluster(cluster, "sweep") as crew:
            names = [f"point {Path(name).name}" for name in directories]
            # A fit may lose its worker to each time limit, and goes on from a checkpoint, as a job that is requeued.
            yield from crew.completed(work, directories, names=names, retries=MOST_RESTARTS)


def _tabulated(folder: Path) -> results.Sweep:
    """The sweep as it is now, written as table and page, and printed."""
    sweep = results.read_sweep(folder)
    write_sweep(sweep)
    print_table(sweep)
    for outcome in sweep.in_state("failed"):
        logger.error("point %s failed:\n%s", outcome.point.directory, outcome.error)
    return sweep


def _exit_code(sweep: results.Sweep) -> int:
    return 0 if len(sweep.in_state("finished")) == len(sweep.outcomes) else EXIT_FAILED
