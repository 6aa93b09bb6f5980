"""[cluster] kind = "slurm": workers that are Slurm jobs of their own, submitted from here (dask-jobqueue)."""

from __future__ import annotations

import contextlib
import shlex
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from distributed import Client
from distributed.security import Security

from hpcfit.config import ClusterConfig
from hpcfit.log import logger
from hpcfit.store.files import disk_errors
from hpcfit.workflow import slurm
from hpcfit.workflow.cluster import replacing
from hpcfit.workflow.cluster.dashboard import NO_PAGES, dashboard_address
from hpcfit.workflow.cluster.encryption import PROTOCOL, as_files, made_for_a_run, words
from hpcfit.workflow.cluster.replacing import Jobs, Replacing
from hpcfit.workflow.cluster.watching import watched
from hpcfit.workflow.cluster.workers import wait_for_workers
from hpcfit.workflow.jobs.job import literally, quote_for_sbatch
from hpcfit.workflow.jobs.options import check_line

if TYPE_CHECKING:
    from dask_jobqueue import SLURMCluster


@contextlib.contextmanager
def worker_jobs(config: ClusterConfig, what: str) -> Iterator[Client]:
    """Submit `jobs` jobs and wait for the first worker; from then on a job that ends is replaced."""
    logs = config.logs or Path.cwd() / "cluster-logs"
    with disk_errors(logs / "log"):
        logs.mkdir(parents=True, exist_ok=True)
    with (
        as_files(made_for_a_run(), logs) as files, _cluster(config, what, logs, files) as cluster,
        Client(cluster) as client,
    ):  # fmt: skip
        _check_script(cluster.job_script())
        jobs = Jobs(cluster, logs)
        jobs.submit(config.jobs)
        logger.info("cluster: %d worker jobs of %d cores submitted, logs in %s", config.jobs, config.cores, logs)
        wait_for_workers(client, config.patience, last_words=jobs.last_words, all_ended=jobs.all_ended)
        if config.maximum_jobs is not None:
            cluster.adapt(minimum_jobs=config.jobs, maximum_jobs=config.maximum_jobs)
        with watched(client, Replacing(jobs, client).look, replacing.INTERVAL):
            yield client


def _cluster(config: ClusterConfig, what: str, logs: Path, files: Security) -> SLURMCluster:
    from hpcfit.workflow.cluster.jobqueue import WorkerJobs

    job, log = f"hpcfit-{what}".replace(" ", "-"), f"{literally(logs)}/%x-%J"
    asked = {
        **{name: getattr(config, name) for name in ("partition", "account", "constraint", "qos")},
        "time": config.walltime, "error": f"{log}.err", "output": f"{log}.out",
    }  # fmt: skip
    # Dask's own lines for these would hold them unquoted.
    lines = [f"--{name}={quote_for_sbatch(value)}" for name, value in asked.items() if value]
    # A job that Slurm ran again would be one more beside the one that replaced it.
    lines = ["--no-requeue", *lines, *config.directives]
    for line in [*lines, *config.prologue]:
        check_line("[cluster]", line)
    return WorkerJobs(
        cores=config.cores, processes=config.cores, memory=config.memory, job_name=job,
        job_extra_directives=lines, job_directives_skip=["#SBATCH -t "], job_script_prologue=config.prologue,
        interface=config.interface, python=shlex.quote(config.python or sys.executable),
        # Slurm limits the job; Dask would spill and pause before. The scheduler's dashboard shows all workers.
        worker_extra_args=["--memory-limit", "0", *NO_PAGES, *map(shlex.quote, words(files))],
        security=files, protocol=PROTOCOL,
        scheduler_options={"dashboard_address": dashboard_address(config)}, silence_logs="critical",
    )  # fmt: skip


def _check_script(script: str) -> None:
    """Have Slurm say what it does not accept before Dask asks again and again."""
    with tempfile.NamedTemporaryFile("w", prefix="hpcfit-worker-", suffix=".sh") as file:
        file.write(script)
        file.flush()
        slurm.submit(Path(file.name), "--test-only")
