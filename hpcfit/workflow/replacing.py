"""Worker jobs that end are replaced: whether they died, ran out of time or never came to work.

Dask's own means fall short: `scale` leaves dead jobs dead; `adapt` replaces only jobs of one process that had begun.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from distributed import Client

from hpcfit.errors import HpcfitError
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
        """Whether as many jobs as were asked for have been submitted, and have ended."""
        return len(self.ids()) == len(self._cluster.worker_spec) and self.ids() == self.ended()

    def working(self) -> set[str]:
        """The Slurm ids of the jobs that have workers, which are named like their job, or job-0, job-1 ..."""
        workers = {str(worker["name"]) for worker in self._cluster.scheduler_info["workers"].values()}
        named = workers | {worker.rpartition("-")[0] for worker in workers}
        return {job for name, job in self.ids().items() if name in named}

    def last_words(self, jobs: list[str] | None = None) -> str:
        """What Slurm says of the jobs (by default all), and the end of their logs."""
        jobs = list(self.ids().values()) if jobs is None else jobs
        logs = [_tail(path) for path in sorted(self._logs.glob("*.err")) if path.stem.rpartition("-")[2] in jobs]
        return "\n".join(filter(None, [*logs, slurm.described(jobs)]))

    def submit_again(self, names: list[str]) -> None:
        """Submit these jobs anew; raises RuntimeError with what Slurm says."""
        self._cluster.sync(self._submit_again, names)

    async def _submit_again(self, names: list[str]) -> None:
        for name in names:
            self._cluster.workers.pop(name, None)
        await self._cluster  # Dask's cluster submits what it should have and has not


@contextlib.contextmanager
def replaced(jobs: Jobs, client: Client) -> Iterator[None]:
    """Inside, ended jobs are submitted again. Raises HpcfitError when no worker is left and none comes any more."""
    keeper = _Keeper(jobs, client)
    keeper.start()
    try:
        yield
    except HpcfitError:
        if keeper.trouble:
            raise keeper.trouble from None
        raise
    finally:
        keeper.done.set()
        keeper.join()


class _Keeper(threading.Thread):
    """Looks after the jobs until `done`; what it cannot mend is its `trouble`, at which the work is cancelled."""

    def __init__(self, jobs: Jobs, client: Client):
        super().__init__(daemon=True, name="hpcfit-worker-jobs")
        self._jobs, self._client = jobs, client
        self._worked, self._fruitless, self._allowed = set(), 0, FRUITLESS * max(1, len(jobs.ids()))
        self.done, self.trouble = threading.Event(), None

    def run(self) -> None:
        while not self.done.wait(INTERVAL) and self.trouble is None:
            self._worked |= self._jobs.working()
            with contextlib.suppress(HpcfitError):  # Slurm does not answer just now
                self._replace(self._jobs.ended())

    def _replace(self, ended: dict[str, str]) -> None:
        if not ended:
            return
        said = self._jobs.last_words(list(ended.values()))
        self._fruitless = 0 if self._worked & set(ended.values()) else self._fruitless + len(ended)
        if self._fruitless > self._allowed:
            self._give_up(f"worker jobs end before they work, the last {self._fruitless} in a row", said)
            return
        logger.warning("%d worker jobs have ended and are submitted again:\n%s", len(ended), said)
        try:
            self._jobs.submit_again(list(ended))
        except RuntimeError as error:  # what dask-jobqueue makes of an error of sbatch
            self._give_up("worker jobs have ended, and Slurm takes no others", str(error))

    def _give_up(self, what: str, said: str) -> None:
        """Go on with the workers there are; without any, end the work."""
        if self._client.nthreads():
            logger.warning("%s:\n%s", what, said)
            return
        self.trouble = HpcfitError(f"{what}:\n{said}", remedy="see above; call again, it goes on from what is complete")
        self._client.loop.add_callback(_cancel, list(self._client.futures.values()))


def _cancel(futures: list) -> None:
    """Wake up who waits for them."""
    for state in futures:
        state.cancel()


def _tail(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:]
    return "\n".join([f"{path}:", *lines]) if lines else ""
