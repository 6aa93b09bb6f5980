"""A scaling series: each point one measurement by `hpcfit step`, here or as a Slurm job; finished points are kept."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from hpcfit.errors import EXIT_INPUT, HpcfitError, InputError
from hpcfit.fit.cost import Load
from hpcfit.fit.grid import choose_shape, fitting_shapes
from hpcfit.log import logger
from hpcfit.scaling.measurement import Measurement, read_measurement
from hpcfit.scaling.options import Plan
from hpcfit.store.files import write_text
from hpcfit.workflow import slurm
from hpcfit.workflow.jobs.job import Job, literally, render
from hpcfit.workflow.jobs.site import Site
from hpcfit.workflow.launch import child_environment, hpcfit_command

LEAST_FREE = 4096  # bytes of a disk, below which it is full


class Point(NamedTuple):
    """So many ranks on a grid, frames x slices, with the leading ``blocks`` of frames, for the n-th time.

    parts: grids of whose shares one rank alone is timed as well.
    """

    ranks: int
    grid: tuple[int, int]
    blocks: int
    repeat: int
    parts: tuple[tuple[int, int], ...] = ()

    @property
    def name(self) -> str:
        """The name of the point's file, without its ending."""
        return f"{self.ranks:04d}-ranks-{self.grid[0]}x{self.grid[1]}-{self.blocks}-blocks-{self.repeat}"

    def __str__(self) -> str:
        ranks = f"{self.ranks} rank{'s' * (self.ranks > 1)}"
        return f"{ranks} on {self.grid[0]}x{self.grid[1]}, {self.blocks} blocks of frames, repeat {self.repeat}"


# ---- the points of a plan -------------------------------------------------------------------------------------------


def plan_points(plan: Plan, load: Load) -> list[Point]:
    """The points, in the order in which they are measured: all of one repeat, then all of the next."""
    shapes = [(ranks, grid, _blocks(plan, ranks, load)) for ranks in plan.ranks for grid in _grids(plan, ranks, load)]
    _check_grids_are_used(plan, [grid for _, grid, _ in shapes])
    return [
        Point(ranks, grid, blocks, repeat, _parts(blocks, load) if ranks == 1 else ())
        for repeat in range(1, plan.repeats + 1)
        for ranks, grid, blocks in shapes
    ]


def _blocks(plan: Plan, ranks: int, load: Load) -> int:
    """All blocks, or in a weak series so many that a rank's share stays the same and the most ranks use all."""
    if plan.mode == "strong":
        return load.n_blocks
    most = max(plan.ranks)
    if load.n_blocks < most:
        raise InputError(
            f"--mode weak up to {most} ranks needs {most} blocks of {load.block_frames} frames at least, one a rank;"
            f" the data set has {load.n_blocks}",
            remedy="use fewer ranks, more frames, or --mode strong",
        )
    return load.n_blocks // most * ranks


def _grids(plan: Plan, ranks: int, load: Load) -> list[tuple[int, int]]:
    load = replace(load, n_blocks=_blocks(plan, ranks, load))
    chosen = choose_shape(ranks, "auto", "auto", load)
    if plan.grids == "auto":
        return [(chosen.frames, chosen.slices)]
    if plan.grids == "all":
        busy = [grid for grid in fitting_shapes(ranks, load.n_tiles) if grid[0] <= load.n_blocks]
        return busy or [(chosen.frames, chosen.slices)]
    wanted = [(f, s) for f, s in plan.grids if f * s == ranks]
    for f, s in wanted:
        choose_shape(ranks, f, s, load)  # raises where there are more slices than tiles
    return wanted or [(chosen.frames, chosen.slices)]


def _check_grids_are_used(plan: Plan, used: Sequence[tuple[int, int]]) -> None:
    unused = [grid for grid in plan.grids if grid not in used] if not isinstance(plan.grids, str) else []
    if unused:
        f, s = unused[0]
        raise InputError(
            f"--grids {f}x{s} is for {f * s} ranks, --ranks {','.join(map(str, plan.ranks))} has no such number",
            remedy=f"add {f * s} to --ranks, or leave the grid out",
        )


def _parts(blocks: int, load: Load) -> tuple[tuple[int, int], ...]:
    """Grids whose shares tell apart what a cell, a tile and a step cost: a quarter, one block, and one cell.

    A few tiles of all blocks would lie in a cache, where a cell costs less.
    """
    f, s = min(4, blocks), min(4, load.n_tiles)
    return tuple(sorted({(f, 1), (1, s), (blocks, 1), (blocks, load.n_tiles)} - {(1, 1)}))


# ---- their measurements ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Series:
    """Settings that all points of a series share. identity: facts in which a measurement that is kept must agree."""

    config: Path
    overrides: Sequence[str]
    steps: int
    folder: Path
    identity: dict[str, str]

    def file(self, point: Point, kind: str = "json") -> Path:
        """The path of a point's measurement (kind "json") or of its log ("log")."""
        return self.folder / "points" / f"{point.name}.{kind}"

    def kept(self, point: Point) -> Measurement | None:
        """The measurement of a point if there is one; raises InputError if it is of something else."""
        path = self.file(point)
        if not path.exists():
            return None
        measured = read_measurement(path)
        for name, value in self.identity.items():
            if measured.identity.get(name) != value:
                raise InputError(
                    f"{path} was measured with another {name}: {measured.identity.get(name)}, now {value}",
                    remedy="choose another --directory, or delete this one to measure anew",
                )
        return measured

    def arguments(self, point: Point) -> list[str]:
        """The words after `hpcfit` that measure a point."""
        f, s = point.grid
        overrides = [*self.overrides, f"grid.frames={f}", f"grid.slices={s}"]
        parts = ",".join(f"{f}x{s}" for f, s in point.parts)
        return [
            "step", str(self.config.resolve()), *(word for text in overrides for word in ("--set", text)),
            "--steps", str(self.steps), "--blocks", str(point.blocks), *(["--parts", parts] if parts else []),
            "--out", str(self.file(point).resolve()),
        ]  # fmt: skip


def measure_here(series: Series, points: Sequence[Point]) -> None:
    """Measure the points that are missing, one after the other, on this machine or in this Slurm job."""
    missing = [point for point in points if series.kept(point) is None]
    if queued := [point for point in missing if point.name in _known_jobs(series)]:
        raise InputError(
            f"{len(queued)} points without a measurement were submitted as jobs, see {_jobs_file(series)}: the first is"
            f" {queued[0]}",
            remedy="collect them with the same --site, or choose another --directory to measure here",
        )
    if len(missing) < len(points):
        logger.info("%d of %d points are measured already", len(points) - len(missing), len(points))
    for number, point in enumerate(missing, 1):
        logger.info("point %d of %d: %s", number, len(missing), point)
        _measure(series, point)


def _measure(series: Series, point: Point) -> None:
    log = series.file(point, "log")
    log.parent.mkdir(parents=True, exist_ok=True)
    command = hpcfit_command(*series.arguments(point), ranks=point.ranks)
    with open(log, "w", encoding="utf-8") as output:
        code = subprocess.run(
            command, env=child_environment(), stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode
    if code != 0:
        kind = InputError if code == EXIT_INPUT else HpcfitError
        raise kind(
            f"measuring {point} ended with exit code {code}; the end of {log}:\n{_end_of(log)}",
            remedy="correct what stands above and call again: finished points are kept",
        )


def _end_of(log: Path, lines: int = 12) -> str:
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else "(there is no such file)"
    if not text.strip() and shutil.disk_usage(log.parent).free < LEAST_FREE:
        text = f"(nothing was written: {os.strerror(errno.ENOSPC)})"
    return "\n".join("  " + line for line in text.splitlines()[-lines:])


# ---- as Slurm jobs -----------------------------------------------------------------------------------------------


def submit(series: Series, points: Sequence[Point], site: Site, time: str) -> list[str]:
    """Submit a job for each point that is missing and has none; the ids of the jobs that have not ended.

    Each job waits until the one before it has ended, well or not, so that the points do not disturb each other.
    """
    known = _known_jobs(series)
    missing = [point for point in points if series.kept(point) is None]
    alive = [job for point in missing if (job := known.get(point.name)) and not slurm.all_ended([job])]
    for point in missing:
        if known.get(point.name) in alive:
            continue
        if point.name in known:
            logger.warning(
                "job %s ended without a measurement of %s and is submitted again; the end of its log:\n%s",
                known[point.name], point, _end_of(series.file(point, "log")),
            )  # fmt: skip
        known[point.name] = _submit(series, point, site, time, after=alive[-1:])
        alive.append(known[point.name])
        write_text(_jobs_file(series), json.dumps(known, indent=1))
        logger.info("job %s: %s", known[point.name], point)
    return alive


def _submit(series: Series, point: Point, site: Site, time: str, *, after: Sequence[str]) -> str:
    nodes = -(-point.ranks // site.ranks_per_node)
    job = Job(
        kind="scaling", name=f"scaling-{point.ranks}", command=series.arguments(point), nodes=nodes,
        ranks=point.ranks, time=time, output=literally(series.file(point, "log").resolve()),
    )  # fmt: skip
    script = series.file(point, "sh")
    write_text(script, render(job, site))
    series.file(point, "log").unlink(missing_ok=True)
    return slurm.submit(script, *(f"--dependency=afterany:{other}" for other in after))


def wait(jobs: Sequence[str]) -> None:
    """Wait until the jobs have ended."""
    logger.info("waiting for %d jobs", len(jobs))
    slurm.wait(jobs)


def check_complete(series: Series, points: Sequence[Point]) -> None:
    """Raise HpcfitError if points are missing although their jobs have ended."""
    missing = [point for point in points if series.kept(point) is None]
    if missing:
        raise HpcfitError(
            f"the jobs of {len(missing)} of {len(points)} points ended without a measurement; the end of the first's"
            f" log:\n{_end_of(series.file(missing[0], 'log'))}",
            remedy="correct what stands above and call again: finished points are kept",
        )


def _jobs_file(series: Series) -> Path:
    return series.folder / "jobs.json"


def _known_jobs(series: Series) -> dict[str, str]:
    """The last job of each point by its name."""
    path = _jobs_file(series)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
