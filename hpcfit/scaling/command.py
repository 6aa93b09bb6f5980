"""`hpcfit scaling`: plan a series, measure its points or have Slurm do it, fit the cost model, write table and page."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hpcfit.config import Config
from hpcfit.fit.cost import Accelerator
from hpcfit.kinds.base import SteppedCase, stepped
from hpcfit.kinds.table import check_config, open_case
from hpcfit.launcher import launched_tasks
from hpcfit.log import logger
from hpcfit.ranks import Ranks, check_one_process, world_ranks
from hpcfit.runs.directory import check_is_writable
from hpcfit.scaling.files import check_mode, write_scaling
from hpcfit.scaling.measurement import identity
from hpcfit.scaling.options import Beyond, Plan
from hpcfit.scaling.series import Point, Series, check_complete, measure_here, plan_points, submit, wait
from hpcfit.scaling.summary import Repeats, Scaling, summarise
from hpcfit.workflow.jobs.options import ScalingOptions
from hpcfit.workflow.jobs.site import chosen_site
from hpcfit.workflow.stopping import stopped_by_signals


def run_scaling(
    path: Path,
    config: Config,
    overrides: Sequence[str],
    plan: Plan,
    directory: Path,
    beyond: Beyond,
    jobs: ScalingOptions,
) -> Scaling | None:
    """Measure what is missing of a series, then write and print what is there; None while there is nothing yet.

    ``path``, ``overrides``: of ``config``, for the processes that measure.
    """
    _check_no_launcher()
    check_config(config, "scaling")
    case = stepped(open_case(config, Ranks()), config, "scaling")
    points = plan_points(plan, case.load())
    check_is_writable(directory)
    check_mode(directory, plan.mode)
    series = Series(path, overrides, plan.steps, directory, identity(config, case, plan.steps))
    with stopped_by_signals():
        if jobs.site is None:
            measure_here(series, points)
        else:
            queued = submit(series, points, chosen_site(jobs), jobs.time)
            if jobs.wait:
                wait(queued)
    scaling = _finish(series, points, plan, case, beyond)
    if jobs.wait:
        check_complete(series, points)
    return scaling


def _check_no_launcher() -> None:
    if launched_tasks()[1] > 1:
        world_ranks()  # so that the tasks know each other, and one of them says it
    check_one_process(
        "while `hpcfit scaling` starts the ranks of each point itself",
        "start it once, without mpiexec or srun (inside a Slurm job too: it calls srun)",
    )


def _finish(series: Series, points: Sequence[Point], plan: Plan, case: SteppedCase, beyond: Beyond) -> Scaling | None:
    measured = _measured(series, points)
    left = len(points) - sum(map(len, measured))
    if left:
        logger.warning("%d of %d points are not measured yet: call again to collect them", left, len(points))
    if not measured:
        return None
    scaling = summarise(plan.mode, case.summary(), case.load(), measured, partial(_accelerator, beyond))
    write_scaling(series.folder, scaling, [list(repeats.values()) for repeats in measured])
    from hpcfit.scaling.page import print_tables

    print_tables(scaling)
    return scaling


def _accelerator(beyond: Beyond, share_here: float) -> Accelerator:
    share = share_here if beyond.memory_share is None else beyond.memory_share
    return Accelerator(1e9 * beyond.memory_bandwidth, share, 1e9 * beyond.network_bandwidth, 1e-6 * beyond.latency)


def _measured(series: Series, points: Sequence[Point]) -> list[Repeats]:
    """The repeats of each number of ranks and grid that has any, in the order of the points."""
    found = {(point.ranks, point.grid): {} for point in points}
    for point in points:
        if (measured := series.kept(point)) is not None:
            found[point.ranks, point.grid][point.repeat] = measured
    return [repeats for repeats in found.values() if repeats]
