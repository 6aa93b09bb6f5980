"""Worker jobs that end are replaced: whether they died, ran out of time or never came to work.

Dask's own means fall short: `scale` leaves dead jobs dead; `adapt` replaces only jobs of one process that had begun.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distributed import Client
from distributed.core import Status

from hpcfit.errors import HpcfitError, InputError
from hpcfit.log import logger
from hpcfit.workflow import slurm

if TYPE_CHECKING:
    from dask_jobqueue import SLURMCluster

INTERVAL = 30.0  # seconds between two questions to Slurm, which answers everybody
TAIL_LINES = 15  # of a worker's log, in an error
FRUITLESS = 3  # jobs in a row, for each that was asked for, that may end before they worked


class Jobs:
    """The worker jobs of a cluster, as Slurm and their logs tell of them."""

    def __init__(self, cluster: SLURMCluster, logs: Path):
        self._cluster, self._logs = cluster, logs

    def ids(self) -> dict[str, str]:
        """The Slurm id of each submitted job that is still wanted, by Dask's name of it."""
        found = {name: job.job_id for name, job in self._cluster.workers.items() if name in self._cluster.worker_spec}
        return {str(name): str(number) for name, number in found.items() if number}

    def ended(self) -> dict[str, str]:
        """Those that neither wait nor run."""
        ids, alive = self.ids(), slurm.alive(self._cluster.job_name)
        return {name: job for name, job in ids.items() if job not in alive}

    def all_ended(self) -> bool:
        """True where as many jobs as were asked for have been submitted, and have ended."""
        return len(self.ids()) == len(self._cluster.worker_spec) and self.ids() == self.ended()

    def working(self) -> set[str]:
        """The Slurm ids of the jobs that have workers, which are named like their job, or job-0, job-1 ..."""
        workers = {str(worker["name"]) for worker in self._cluster.scheduler_info["workers"].values()}
        named = workers | {worker.rpartition("-")[0] for worker in workers}
        return {job for name, job in self.ids().items() if name in named}

    def last_words(self, jobs: list[str] | None = None) -> str:
        """Slurm's words on the jobs (by default all), and the end of their logs."""
        jobs = list(self.ids().values()) if jobs is None else jobs
        logs = [_tail(path) for path in sorted(self._logs.glob("*.err")) if path.stem.rpartition("-")[2] in jobs]
        return "\n".join(filter(None, [*logs, slurm.described(jobs)]))

    def submit(self, number: int) -> None:
        """Submit so many jobs; raises InputError with what sbatch says."""
        for _ in range(number):
            self._cluster.worker_spec.update(self._cluster.new_worker_spec())
        self._cluster.sync(self._submit_missing)

    def submit_again(self, names: list[str]) -> None:
        """Submit these jobs anew; raises InputError with what sbatch says."""
        self._cluster.sync(self._submit_missing, names)

    async def _submit_missing(self, names: Sequence[str] = ()) -> None:
        """Forget the jobs of these names; and Dask's cluster, awaited, submits what it is to have and has not."""
        for name in names:
            self._cluster.workers.pop(name, None)
        try:
            await self._cluster
        except RuntimeError as error:  # dask-jobqueue's, with the output of sbatch in it
            self._forget_refused()
            said = str(error).partition("stderr:\n")[2].strip() or error
            raise InputError(f"sbatch refuses a worker job: {said}", remedy="correct what Slurm names above") from None

    def _forget_refused(self) -> None:
        for name, job in list(self._cluster.workers.items()):
            if not job.job_id:
                job.status = Status.failed  # else Dask stumbles over it when the cluster is closed
                del self._cluster.workers[name]


class Replacing:
    """Submits jobs again that have ended; `look` is to be called now and then."""

    def __init__(self, jobs: Jobs, client: Client):
        self._jobs, self._client = jobs, client
        self._worked, self._left_alone = set(), set()
        self._fruitless, self._allowed = 0, FRUITLESS * len(jobs.ids())

    def look(self) -> HpcfitError | None:
        """Replace what has ended; what is wrong when no worker is left and none will come any more."""
        self._worked |= self._jobs.working()
        ended = self._jobs.ended()
        return self._replace(ended) if set(ended.values()) - self._left_alone else None

    def _replace(self, ended: dict[str, str]) -> HpcfitError | None:
        said = self._jobs.last_words(list(ended.values()))
        self._fruitless = 0 if self._worked & set(ended.values()) else self._fruitless + len(ended)
        if self._fruitless > self._allowed:
            return self._leave(ended, f"worker jobs end before they work, the last {self._fruitless} in a row:\n{said}")
        logger.warning("%d worker jobs have ended and are submitted again:\n%s", len(ended), said)
        try:
            self._jobs.submit_again(list(ended))
        except InputError as error:
            return self._leave(ended, f"worker jobs have ended, and {error}")
        return None

    def _leave(self, ended: dict[str, str], why: str) -> HpcfitError | None:
        """Go on with the workers there are, if there are any."""
        self._left_alone |= set(ended.values())
        if not self._client.nthreads():
            return HpcfitError(why, remedy="call again: it goes on from what is complete")
        logger.warning("%s", why)
        return None


def _tail(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
    return "\n".join([f"{path}:", *lines]) if lines else ""
