"""Opening a Dask cluster of any kind: `open_cluster` gives a crew, and closes what it opened."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import dask
from distributed import Client, LocalCluster

from hpcfit.config import ClusterConfig
from hpcfit.errors import InputError
from hpcfit.log import logger
from hpcfit.workflow.cluster.addresses import check_interface
from hpcfit.workflow.cluster.allocation import allocation
from hpcfit.workflow.cluster.crew import Crew
from hpcfit.workflow.cluster.dashboard import dashboard_address, say_dashboard
from hpcfit.workflow.cluster.encryption import PROTOCOL, made_for_a_run, security_of
from hpcfit.workflow.cluster.worker_jobs import worker_jobs
from hpcfit.workflow.cluster.workers import wait_for_workers
from hpcfit.workflow.pages.hooks import add_work_page
from hpcfit.workflow.stopping import stopped_by_signals

ANSWER_SECONDS = 10  # for a scheduler that is said to run

SETTINGS = {
    "distributed.scheduler.allowed-failures": 0,  # a crew counts the workers that an item lost, and says so
    "distributed.scheduler.worker-saturation": 1.0,  # what waits, waits at the scheduler and dies with no worker
    "distributed.admin.large-graph-warning-threshold": "1 GB",  # a shared value is one task that holds it
    "distributed.nanny.pre-spawn-environ.DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "critical",  # in worker processes
}


@contextlib.contextmanager
def open_cluster(config: ClusterConfig, what: str) -> Iterator[Crew]:
    """A crew on the cluster that the config describes, closed at the end; `what` names the work in logs.

    Raises InputError when no worker comes, when one runs another hpcfit or Python, and for what Slurm refuses;
    SIGTERM and SIGUSR1 raise Stopped inside.
    """
    _quiet_dask()
    with dask.config.set(SETTINGS), stopped_by_signals(), _opened(config, what) as client:
        say_dashboard(config, client)
        client.forward_logging("hpcfit", logging.INFO)
        yield Crew(client, what)


def _opened(config: ClusterConfig, what: str) -> AbstractContextManager[Client]:
    if config.kind == "address":
        return _running_scheduler(config)
    check_interface(config.interface)
    add_work_page()
    if config.kind == "local":
        return _processes_here(config)
    return worker_jobs(config, what) if config.kind == "slurm" else allocation(config)


@contextlib.contextmanager
def _processes_here(config: ClusterConfig) -> Iterator[Client]:
    """One process of one thread for each core that this process may use."""
    workers = config.workers or len(os.sched_getaffinity(0))
    cluster = LocalCluster(
        n_workers=workers, threads_per_worker=1, memory_limit=0, dashboard_address=dashboard_address(config),
        silence_logs=logging.CRITICAL, security=made_for_a_run(), protocol=PROTOCOL,
    )  # fmt: skip
    with cluster, Client(cluster) as client:
        logger.info("cluster: %d processes here", workers)
        wait_for_workers(client, config.patience)
        yield client


@contextlib.contextmanager
def _running_scheduler(config: ClusterConfig) -> Iterator[Client]:
    """The scheduler at an address, or one that wrote a scheduler file; it is left running."""
    security = security_of(config, "[cluster]")
    try:
        address = config.address if "://" in config.address else _address_in(Path(config.address))
        config.check_protocol(address)
        client = Client(address, timeout=ANSWER_SECONDS, set_as_default=False, security=security)
    except (OSError, ValueError, KeyError) as error:  # a missing or bad file, a bad address, no answer
        raise InputError(
            f"no Dask scheduler answers at [cluster] address = {config.address}: {error}",
            remedy="start one (`dask scheduler`), or give its address tls://host:port or its scheduler file",
        ) from None
    with client:
        wait_for_workers(client, config.patience)
        yield client


def _address_in(scheduler_file: Path) -> str:
    return json.loads(scheduler_file.read_text(encoding="utf-8"))["address"]


def _quiet_dask() -> None:
    """Without Dask's messages on workers that come and go, for good: what matters of them hpcfit says itself."""
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).handlers[:] = [logging.NullHandler()]
