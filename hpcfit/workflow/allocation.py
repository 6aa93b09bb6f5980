"""[cluster] kind = "allocation": scheduler, driver and workers inside one Slurm job that was granted already."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from distributed import Client, LocalCluster

from hpcfit.config import ClusterConfig
from hpcfit.errors import InputError, together
from hpcfit.log import logger
from hpcfit.workflow.dashboard import free_address
from hpcfit.workflow.launch import child_environment, in_slurm
from hpcfit.workflow.workers import wait_for_workers

TAIL_BYTES = 2000  # of what the workers said, in an error
WORKER = ("--nthreads", "1", "--memory-limit", "0", "--no-dashboard", "--death-timeout", "60")


def allocation(config: ClusterConfig) -> contextlib.AbstractContextManager[Client]:
    """The tasks of an srun share out the roles among them; a batch script starts workers by an srun of its own."""
    if not in_slurm():
        raise InputError(
            "[cluster] kind = 'allocation', but this is no Slurm job (SLURM_JOB_ID is not set)",
            remedy="start it by sbatch or srun, or set kind = 'slurm' to have worker jobs submitted",
        )
    return _tasks_of_a_step(config) if "SLURM_STEP_ID" in os.environ else _step_of_workers(config)


@contextlib.contextmanager
def _tasks_of_a_step(config: ClusterConfig) -> Iterator[Client]:
    """Task 0 becomes the scheduler, task 1 goes on as the driver; the others become workers and never return."""
    tasks = int(os.environ["SLURM_NTASKS"])
    if tasks < 3:
        raise together(
            InputError(
                f"[cluster] kind = 'allocation' under an srun of {tasks} tasks: scheduler and driver take one each",
                remedy="start at least 3 tasks, or start hpcfit in the batch script without srun",
            )
        )
    interrupt = signal.getsignal(signal.SIGINT)
    from dask_jobqueue.slurm import SLURMRunner

    dashboard = free_address(config.dashboard) if os.environ["SLURM_PROCID"] == "0" else config.dashboard
    place = [os.environ.get(name, "0") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")]
    runner = SLURMRunner(
        scheduler_file=f".hpcfit-scheduler-{'-'.join(place)}.json", worker_class="distributed.Nanny",
        scheduler_options={"dashboard_address": dashboard, "interface": config.interface},
        worker_options={"nthreads": 1, "memory_limit": 0, "interface": config.interface},
    )  # fmt: skip
    signal.signal(signal.SIGINT, interrupt)  # the runner ends its other tasks by SIGINT; here Ctrl-C is Ctrl-C
    with runner, Client(runner) as client:
        logger.info("cluster: %d workers in this step", tasks - 2)
        wait_for_workers(client, config.patience, last_words=str)
        yield client


@contextlib.contextmanager
def _step_of_workers(config: ClusterConfig) -> Iterator[Client]:
    """The scheduler in this process, and the workers as the tasks of an srun that ends with it."""
    workers = config.workers or int(os.environ.get("SLURM_NTASKS", 1))
    scheduler = LocalCluster(
        n_workers=0, interface=config.interface, host=None if config.interface else _own_address(),
        dashboard_address=free_address(config.dashboard), silence_logs=logging.CRITICAL,
    )  # fmt: skip
    with scheduler, Client(scheduler) as client, _workers(scheduler.scheduler_address, workers, config) as (step, said):
        logger.info("cluster: %d workers in this allocation", workers)
        wait_for_workers(
            client, config.patience, last_words=lambda: _tail(said), all_ended=lambda: step.poll() is not None
        )
        yield client


def _own_address() -> str:
    from distributed.utils import get_ip

    return get_ip()


@contextlib.contextmanager
def _workers(address: str, number: int, config: ClusterConfig) -> Iterator[tuple[subprocess.Popen, Path]]:
    """The srun of the workers, and the file of what they say."""
    interface = ["--interface", config.interface] if config.interface else []
    command = ["srun", "--overlap", f"--ntasks={number}", "--kill-on-bad-exit=0", "--mpi=none", "--cpu-bind=none"]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", address, *WORKER, *interface]
    with tempfile.NamedTemporaryFile(prefix="hpcfit-workers-") as said:
        step = subprocess.Popen([*command, *worker], env=child_environment(), stdout=said, stderr=subprocess.STDOUT)
        try:
            yield step, Path(said.name)
        finally:
            step.terminate()
            step.wait()


def _tail(said: Path) -> str:
    return said.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
