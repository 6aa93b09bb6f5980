"""Changes to dask-jobqueue: what its sbatch is told, and how the tasks of an srun speak to each other.

To be imported where it is needed, in the main thread: importing dask_jobqueue makes Ctrl-C end the process with code 0,
which is undone here.
"""

from __future__ import annotations

import signal
from typing import Any

_interrupt = signal.getsignal(signal.SIGINT)
from dask_jobqueue import SLURMCluster  # noqa: E402
from dask_jobqueue.slurm import SLURMJob  # noqa: E402

signal.signal(signal.SIGINT, _interrupt)

from hpcfit.workflow.slurm import environment  # noqa: E402


class WorkerJob(SLURMJob):
    """A worker job whose sbatch and scancel do not know of the job that the driver may run in."""

    @staticmethod
    async def _call(cmd: list[str], **options: Any) -> str:
        return await SLURMJob._call(cmd, env=environment(), **options)


class WorkerJobs(SLURMCluster):
    """A cluster of such jobs."""

    job_cls = WorkerJob
