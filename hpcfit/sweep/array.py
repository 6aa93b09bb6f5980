"""The points of a sweep as the tasks of a Slurm array job: `srun hpcfit optimize` in each unfinished run directory."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from hpcfit.errors import InputError
from hpcfit.log import logger
from hpcfit.store.files import write_text
from hpcfit.workflow import slurm
from hpcfit.workflow.jobs.job import POINT_CONFIG, Job, Points, literally, render
from hpcfit.workflow.jobs.options import ArrayOptions
from hpcfit.workflow.jobs.site import Site, chosen_site

SCRIPT, REPORT_SCRIPT, LOGS = "array.sbatch", "report.sbatch", "logs"
REPORT_TIME = "00:10:00"  # reads a few small files of each point


def job_name(folder: Path) -> str:
    """The name of the array jobs of a sweep, which no other folder's have."""
    return f"sweep-{folder.name}-{_short_hash(str(folder))}"


def check_none_runs(folder: Path) -> None:
    """Raise InputError while an array of this sweep is queued or running: both would fit in the same directories.

    It is known by its name, whoever submitted the script.
    """
    if not (folder / SCRIPT).is_file() or shutil.which("squeue") is None:
        return
    jobs = sorted({job.partition("_")[0] for job in slurm.alive(job_name(folder))})
    if jobs:
        raise InputError(
            f"array job {jobs[0]} of the sweep in {folder} has not ended: {slurm.states(jobs)[jobs[0]]}",
            remedy=f"wait for it, or end it with `scancel {jobs[0]}`; `hpcfit report {folder}` shows what is there so"
            " far",
        )


def write_script(folder: Path, directories: Sequence[Path], ranks: int, array: ArrayOptions) -> Path:
    """Write the list of run directories and the job script over them, each on so many ranks; the script's path."""
    site = chosen_site(array)
    text, script = "".join(f"{directory}\n" for directory in directories), folder / SCRIPT
    listed = folder / f"points-{_short_hash(text)}.txt"  # a running array goes on reading the list it began with
    write_text(listed, text)
    (folder / LOGS).mkdir(exist_ok=True)  # Slurm does not make it
    job = Job(
        kind="sweep", name=job_name(folder), command=["optimize", POINT_CONFIG, "--resume", "auto"],
        nodes=-(-ranks // site.ranks_per_node), ranks=ranks, time=array.time,
        points=Points.listed_in(listed, array.limit), output=f"{literally(folder / LOGS)}/%A_%a.log",
    )  # fmt: skip
    write_text(script, render(job, site))
    return script


def submit(folder: Path, script: Path) -> str:
    """Submit it; the job's id."""
    job = slurm.submit(script)
    logger.info("array job %s submitted: squeue --job %s, logs in %s", job, job, folder / LOGS)
    return job


def submit_report(folder: Path, array_job: str, site: Site) -> str | None:
    """Submit a job that writes table and page when the array has ended; its id, None where Slurm refuses it."""
    script = folder / REPORT_SCRIPT
    job = Job(
        kind="report", name=f"{job_name(folder)}-report", command=["report", str(folder)], ranks=1, gpus=False,
        time=REPORT_TIME, output=f"{literally(folder / LOGS)}/report-%j.log",
    )  # fmt: skip
    write_text(script, render(job, site))
    try:
        return slurm.submit(script, f"--dependency=afterany:{array_job}")
    except InputError as error:  # the array is on its way without it
        logger.warning("no job will write table and page: %s", error)
        return None


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
