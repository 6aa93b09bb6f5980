"""A run shown on a Dask dashboard: a scheduler on one rank, a worker on each, in threads that cannot harm the run.

A worker is there to be seen on Dask's own pages and to report; no task is ever dealt to it. What fails here ends the
monitor with one warning, never the run: see ``Monitor``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import dask
from distributed import Scheduler, Worker
from distributed.core import Status
from distributed.protocol.pickle import dumps
from distributed.security import Security
from distributed.system import MEMORY_LIMIT

from hpcfit.log import logger
from hpcfit.workflow.cluster.addresses import free_address, loopback_of, own_address, unused_port
from hpcfit.workflow.cluster.dashboard import HTTP
from hpcfit.workflow.cluster.encryption import PROTOCOL, made_for_a_run
from hpcfit.workflow.pages.collector import FIT_TOPIC
from hpcfit.workflow.pages.guard import ROUTES, guard, warn_where_others_see
from hpcfit.workflow.pages.hooks import HpcfitPage

PATIENCE = 30.0  # seconds until a scheduler that does not answer is given up
LONGEST_SILENCE = 60.0  # seconds without a heartbeat; after 300 a scheduler takes a worker for dead
FAREWELL = 1.0  # seconds that the end of a run may wait for its monitor

# Dask watches itself and its tasks closely, which would cost a run that has none some per cent of its time.
SETTINGS = {
    "distributed.worker.profile.enabled": False,  # samples the stacks of threads every 10 ms
    "distributed.admin.tick.interval": "1s",  # otherwise 20 ms
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.admin.system-monitor.interval": "1s",
    "distributed.admin.system-monitor.disk": False,
    **{f"distributed.worker.memory.{limit}": False for limit in ("target", "spill", "pause")},
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.scheduler.http.routes": ROUTES,
    "distributed.scheduler.dashboard.bokeh-application": {
        "allow_websocket_origin": ["*"],  # compared by the guard, which also knows the end of a tunnel
        "keep_alive_milliseconds": 10000, "check_unused_sessions_milliseconds": 5000,
    },
}  # fmt: skip

# What runs code that is sent from elsewhere, by who has the certificates too: a scheduler of ours has no use for it.
BLOCKED_IN_SCHEDULER = [
    "run_function", "feed", "broadcast", "register-client", "register_scheduler_plugin", "register_worker_plugin",
    "register_nanny_plugin", "unregister_scheduler_plugin", "unregister_worker_plugin", "scatter", "restart",
]  # fmt: skip
BLOCKED_IN_WORKER = ["run", "run_coroutine", "upload_file", "plugin-add", "update_data", "actor_execute"]

MUTED = ("distributed", "tornado", "bokeh", "asyncio")


@dataclass(frozen=True)
class Place:
    """The place where the ranks of a run meet. scheduler: tls://host:port; dashboard: host:port of a scheduler of our
    own, None for one that was there before; security: by which they know each other, None for one that is trusted
    without."""

    scheduler: str
    dashboard: str | None
    security: Security | None = None


class RankWorker(Worker):
    """A worker that is always paused, so that schedulers show it and deal it no task.

    every: seconds between its heartbeats, whatever the scheduler wants.
    """

    def __init__(self, scheduler: str, *, every: float, **options: Any):
        super().__init__(scheduler, heartbeat_interval=f"{every} s", **options)

    async def heartbeat(self) -> None:
        """Dask's hook, called again and again; the scheduler's answer sets another interval each time."""
        await super().heartbeat()
        self.periodic_callbacks["heartbeat"].callback_time = 1e3 * self.heartbeat_interval

    @property
    def status(self) -> Status:
        """The status that the scheduler is told: paused while the worker runs."""
        return super().status

    @status.setter
    def status(self, value: Status) -> None:
        Worker.status.fset(self, Status.paused if value == Status.running else value)


class Monitor:
    """One rank's part in showing a run: a daemon thread with a worker, and the scheduler where this rank serves it.

    message: what this rank has to report now, asked for in that thread every so many seconds and once at the end.
    cores: where the thread may run; a rank's own thread is pinned to its share.
    Nothing here raises, and only ``close`` waits, for ``FAREWELL`` seconds at most.
    """

    def __init__(
        self, place: Place, rank: int, *, name: str, message: Callable[[], dict[str, Any]], every: float,
        cores: Iterable[int],
    ):  # fmt: skip
        self._place, self._rank, self._name = place, rank, name
        self._message, self._every, self._cores = message, every, cores
        self._ending = threading.Event()
        self._wake: Callable[[], Any] = lambda: None
        self._thread = threading.Thread(target=self._run, daemon=True, name="hpcfit-monitor")

    def start(self) -> None:
        """Begin, in the background."""
        _mute()
        dask.config.set(SETTINGS)
        self._thread.start()

    def close(self) -> None:
        """Send a last report and leave; what takes longer than a moment is left to die with the process."""
        self._ending.set()
        with suppress(RuntimeError):  # the thread has ended already
            self._wake()
        self._thread.join(FAREWELL)

    def _run(self) -> None:
        with suppress(OSError):
            os.sched_setaffinity(0, self._cores)
        try:
            asyncio.run(self._live())
        except Exception as error:
            if self._rank == 0:  # what ends the monitor of one rank mostly ends it on all
                reason = str(error) or type(error).__name__
                logger.warning("the run goes on without its dashboard at %s: %s", self._place.scheduler, reason)

    async def _live(self) -> None:
        loop, end = asyncio.get_running_loop(), asyncio.Event()
        self._wake = lambda: loop.call_soon_threadsafe(end.set)
        if self._ending.is_set():  # before there was anybody to wake
            end.set()
        async with AsyncExitStack() as opened:
            if self._rank == 0 and self._place.dashboard:
                await opened.enter_async_context(_scheduler(self._place))
            worker = await opened.enter_async_context(self._worker())
            await self._started(worker, end)
            if self._rank == 0 and not self._place.dashboard:
                await _install_page(worker)
            while not end.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(end.wait(), self._every)
                if worker.status != Status.paused:
                    raise ConnectionError("its scheduler has ended or cannot be reached any more")
                worker.log_event(FIT_TOPIC, self._message())

    @asynccontextmanager
    async def _worker(self) -> AsyncIterator[RankWorker]:
        """This rank's worker, not yet started, in a scratch folder of its own.

        For our own scheduler it listens where nobody on the network reaches it. Another's must reach it, by the
        certificates of the config; without them (`trust`) whoever reaches it may run code in a rank.
        """
        with tempfile.TemporaryDirectory(prefix="hpcfit-monitor-", ignore_cleanup_errors=True) as scratch:
            worker = RankWorker(
                self._place.scheduler, every=min(self._every, LONGEST_SILENCE), name=self._name, nthreads=1,
                memory_limit=MEMORY_LIMIT, local_directory=scratch, security=self._place.security,
                dashboard=False, dashboard_address=HTTP,
                host=loopback_of(self._rank) if self._place.dashboard is not None else None,
                blocked_handlers=BLOCKED_IN_WORKER,
            )  # fmt: skip
            try:
                yield worker
            finally:
                with suppress(Exception):
                    closing = worker.close(timeout=FAREWELL / 2, executor_wait=False, nanny=False)
                    await asyncio.wait_for(closing, FAREWELL)

    async def _started(self, worker: RankWorker, end: asyncio.Event) -> None:
        """Wait until the worker is registered; TimeoutError where nothing answers, or not before the run ends."""
        starting, ending = asyncio.ensure_future(worker.start()), asyncio.ensure_future(end.wait())
        done, _ = await asyncio.wait({starting, ending}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if starting not in done:
            starting.cancel()
            waited = "until the end of the run" if done else f"for {PATIENCE:.0f} s"
            raise TimeoutError(f"nothing answered {waited}")
        starting.result()


def choose_place(dashboard: str, *, one_node: bool) -> Place:
    """Free addresses for a scheduler and its dashboard; OSError where there are none.

    Other nodes must reach the scheduler; where there are none, it is for this node alone.
    """
    warn_where_others_see(dashboard)
    host = "127.0.0.1" if one_node else own_address()
    return Place(f"{PROTOCOL}{host}:{unused_port(host)}", free_address(dashboard), made_for_a_run())


@asynccontextmanager
async def _scheduler(place: Place) -> AsyncIterator[Scheduler]:
    host, _, port = place.scheduler.removeprefix(PROTOCOL).rpartition(":")
    scheduler = Scheduler(
        host=host, port=int(port), protocol=PROTOCOL, security=place.security, dashboard_address=place.dashboard,
        dashboard=True, plugins=[HpcfitPage()],
        blocked_handlers=BLOCKED_IN_SCHEDULER,
    )  # fmt: skip
    guard(scheduler)
    try:
        yield await scheduler
    finally:
        with suppress(Exception):
            await asyncio.wait_for(scheduler.close(), FAREWELL)


async def _install_page(worker: RankWorker) -> None:
    """Put the page onto a scheduler that was there before; it needs hpcfit in its environment for that."""
    try:
        await worker.scheduler.register_scheduler_plugin(
            plugin=dumps(HpcfitPage()), name=HpcfitPage.name, idempotent=True
        )
    except Exception as error:
        logger.warning("the scheduler cannot show the page /hpcfit: %s", str(error) or type(error).__name__)


def _mute() -> None:
    """Dask's messages on lost connections are no news to who reads the log of a fit; `Monitor` says what matters."""
    for name in {*MUTED, *(known for known in logging.root.manager.loggerDict if known.split(".")[0] in MUTED)}:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
