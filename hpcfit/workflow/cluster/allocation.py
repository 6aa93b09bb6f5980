"""[cluster] kind = "allocation": scheduler, driver and workers inside one Slurm job that was granted already."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from distributed import Client, LocalCluster
from distributed.security import Security

from hpcfit.config import ClusterConfig
from hpcfit.errors import HpcfitError, InputError, together
from hpcfit.log import logger
from hpcfit.workflow.cluster.addresses import own_address
from hpcfit.workflow.cluster.dashboard import HTTP, NO_PAGES, dashboard_address
from hpcfit.workflow.cluster.encryption import PROTOCOL, as_files, made_for_a_run, of_step, publish, published, words
from hpcfit.workflow.cluster.watching import watched
from hpcfit.workflow.cluster.workers import wait_for_workers
from hpcfit.workflow.launch import child_environment, in_slurm

TAIL_BYTES = 2000  # of what the workers said, in an error
STEP_LOOK = 2.0  # seconds between two looks whether the workers' srun has ended
WORKER = ("--nthreads", "1", "--memory-limit", "0", *NO_PAGES, "--death-timeout", "60")


def allocation(config: ClusterConfig) -> contextlib.AbstractContextManager[Client]:
    """The tasks of an srun share out the roles among them; a batch script starts workers by an srun of its own."""
    if not in_slurm():
        raise InputError(
            "[cluster] kind = 'allocation', but this is no Slurm job (SLURM_JOB_ID is not set)",
            remedy="start it by sbatch or srun, or set kind = 'slurm' to have worker jobs submitted",
        )
    # The shell of `salloc` is a step as well, of one task.
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    return _tasks_of_a_step(config, tasks) if tasks > 1 else _step_of_workers(config)


@contextlib.contextmanager
def _tasks_of_a_step(config: ClusterConfig, tasks: int) -> Iterator[Client]:
    """Task 0 becomes the scheduler, task 1 goes on as the driver; the others become workers and never return."""
    if tasks < 3 or config.workers not in (None, tasks - 2):
        raise together(
            InputError(
                f"[cluster] kind = 'allocation' under an srun of {tasks} tasks: scheduler and driver take one each,"
                f" which leaves {max(tasks - 2, 0)} of at least {config.workers or 1} workers",
                remedy="start two tasks more than workers, or start hpcfit in the batch script without srun",
            )
        )
    from hpcfit.workflow.cluster.jobqueue import TasksOfAStep

    dashboard = dashboard_address(config) if os.environ["SLURM_PROCID"] == "0" else config.dashboard
    place = [os.environ.get(name, "0") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")]
    certificates = of_step(Path.cwd(), *place)
    if os.environ["SLURM_PROCID"] == "0":
        publish(made_for_a_run(), certificates)
    try:
        security = published(certificates, config.patience)
        interrupt = signal.signal(signal.SIGINT, lambda *_: sys.exit())  # the runner so ends its other tasks
        runner = TasksOfAStep(
            security, scheduler_file=f".hpcfit-scheduler-{'-'.join(place)}.json", worker_class="distributed.Nanny",
            scheduler_options={"dashboard_address": dashboard, "interface": config.interface, "protocol": PROTOCOL},
            worker_options={"nthreads": 1, "memory_limit": 0, "interface": config.interface, "dashboard_address": HTTP},
        )  # fmt: skip
        signal.signal(signal.SIGINT, interrupt)
        with runner, Client(runner, security=security) as client:
            logger.info("cluster: %d workers in this step", tasks - 2)
            wait_for_workers(client, config.patience)
            yield client
    finally:
        if os.environ["SLURM_PROCID"] == "1":  # the driver, which is the last: others read them when they begin
            shutil.rmtree(certificates, ignore_errors=True)


@contextlib.contextmanager
def _step_of_workers(config: ClusterConfig) -> Iterator[Client]:
    """The scheduler in this process, and the workers as the tasks of an srun that ends with it."""
    security = made_for_a_run()
    scheduler = LocalCluster(
        n_workers=0, interface=config.interface, host=None if config.interface else own_address(),
        dashboard_address=dashboard_address(config), silence_logs=logging.CRITICAL, security=security,
        protocol=PROTOCOL,
    )  # fmt: skip
    with (
        as_files(security, Path.cwd()) as files, scheduler, Client(scheduler) as client,
        _Step(scheduler.scheduler_address, files, config) as step,
    ):  # fmt: skip
        wait_for_workers(client, config.patience, last_words=step.last_words, all_ended=step.ended)
        with watched(client, step.look, STEP_LOOK):
            yield client


class _Step:
    """The srun of the workers, while the ``with`` block lasts."""

    def __init__(self, address: str, security: Security, config: ClusterConfig):
        self._address, self._security, self._interface = address, security, config.interface
        self._tasks, cores = (int(os.environ.get(name, 1)) for name in ("SLURM_NTASKS", "SLURM_CPUS_PER_TASK"))
        self._workers = config.workers or self._tasks
        self._cores = max(1, self._tasks * cores // self._workers)

    def __enter__(self) -> _Step:
        self._said = tempfile.NamedTemporaryFile(prefix="hpcfit-workers-")
        self._srun = subprocess.Popen(
            self._command(), env=child_environment(), stdout=self._said, stderr=subprocess.STDOUT
        )
        logger.info("cluster: %d workers in this allocation", self._workers)
        return self

    def _command(self) -> list[str]:
        layout = ["--overlap", f"--ntasks={self._workers}", f"--cpus-per-task={self._cores}", "--cpu-bind=none"]
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", self._address, *WORKER, *words(self._security)]
        interface = ["--interface", self._interface] if self._interface else []
        # One worker that dies is not to take the others along; and none of them is a rank.
        return ["srun", *layout, "--kill-on-bad-exit=0", "--mpi=none", *worker, *interface]

    def __exit__(self, *_exception) -> None:
        self._srun.terminate()
        self._srun.wait()
        self._said.close()

    def ended(self) -> bool:
        """Whether no worker is left."""
        return self._srun.poll() is not None

    def last_words(self) -> str:
        """The end of what the workers and srun said."""
        return Path(self._said.name).read_bytes()[-TAIL_BYTES:].decode(errors="replace")

    def look(self) -> HpcfitError | None:
        """The error, if the workers have ended."""
        if not self.ended():
            return None
        return HpcfitError(
            f"the workers have ended:\n{self.last_words()}", remedy="call again: it goes on from what is complete"
        )
