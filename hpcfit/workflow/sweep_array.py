"""The points of a sweep as the tasks of a Slurm array job: `srun hpcfit optimize` in each unfinished run directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcfit.data.files import write_text
from hpcfit.errors import InputError
from hpcfit.log import logger
from hpcfit.workflow import slurm
from hpcfit.workflow.job import POINT_CONFIG, Job, Points, render
from hpcfit.workflow.site import Site

LISTED, SCRIPT, JOB, LOGS = "points.txt", "array.sbatch", "array.job", "logs"


@dataclass(frozen=True)
class Array:
    """What each task of the array asks for. limit: tasks at a time."""

    site: Site
    ranks: int = 1
    time: str = "01:00:00"
    limit: int | None = None


def check_none_runs(folder: Path) -> None:
    """Raise InputError while an array of this sweep is queued or running: both would fit in the same directories."""
    path = folder / JOB
    job = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    if job and not slurm.all_ended([job]):
        raise InputError(
            f"array job {job} of the sweep in {folder} has not ended: {slurm.states([job])[job]}",
            remedy=f"wait for it, or end it with `scancel {job}`; `hpcfit report {folder}` shows what is there so far",
        )


def write_script(folder: Path, directories: Sequence[Path], array: Array) -> Path:
    """Write the list of run directories and the job script over them; the script's path."""
    listed, script = folder / LISTED, folder / SCRIPT
    write_text(listed, "".join(f"{directory}\n" for directory in directories))
    (folder / LOGS).mkdir(exist_ok=True)  # Slurm does not make it
    job = Job(
        kind="sweep", name=f"sweep-{folder.name}", command=["optimize", POINT_CONFIG, "--resume", "auto"],
        nodes=-(-array.ranks // array.site.ranks_per_node), ranks=array.ranks, time=array.time,
        points=Points.listed_in(listed, array.limit), output=str(folder / LOGS / "%A_%a.log"),
    )  # fmt: skip
    write_text(script, render(job, array.site))
    return script


def submit(folder: Path, script: Path) -> str:
    """Submit it; the job's id, which is remembered."""
    job = slurm.submit(script)
    write_text(folder / JOB, f"{job}\n")
    logger.info("array job %s submitted: squeue --job %s, logs in %s", job, job, folder / LOGS)
    return job
