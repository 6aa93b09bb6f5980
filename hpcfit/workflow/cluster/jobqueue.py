"""Changes to dask-jobqueue: what its sbatch is told, and how the tasks of an srun speak to each other.

To be imported where it is needed, in the main thread: importing dask_jobqueue makes Ctrl-C end the process with code 0,
which is undone here.
"""

from __future__ import annotations

import signal
from typing import Any

from distributed.core import rpc
from distributed.security import Security

_interrupt = signal.getsignal(signal.SIGINT)
from dask_jobqueue import SLURMCluster  # noqa: E402
from dask_jobqueue.slurm import SLURMJob, SLURMRunner  # noqa: E402

signal.signal(signal.SIGINT, _interrupt)

from hpcfit.workflow.slurm import environment  # noqa: E402


class WorkerJob(SLURMJob):
    """A worker job whose sbatch and scancel do not know of the job that the driver may run in."""

    @staticmethod
    async def _call(cmd: list[str], **options: Any) -> str:
        return await SLURMJob._call(cmd, env=environment(), **options)


class TasksOfAStep(SLURMRunner):
    """The tasks of an srun as scheduler, driver and workers, which speak to each other by TLS."""

    def __init__(self, security: Security, *, scheduler_options: dict, worker_options: dict, **options: Any):
        self.security, own = security, {"security": security}
        super().__init__(scheduler_options=scheduler_options | own, worker_options=worker_options | own, **options)

    async def before_client_start(self) -> None:
        """Dask's hook, after it has opened a connection of its own that knows no certificates."""
        self.scheduler_comm = rpc(self.scheduler_address, connection_args=self.security.get_connection_args("client"))


class WorkerJobs(SLURMCluster):
    """A cluster of such jobs. Certificates of its workers are given as `worker_extra_args`."""

    job_cls = WorkerJob

    def _get_worker_security(self, security: Security | None) -> None:
        """Dask's hook; its own would put the paths into the script unquoted."""
