"""Dask's dashboard: at an address that is free, and where a user finds it."""

from __future__ import annotations

import socket

from distributed import Client

from hpcfit.config import ClusterConfig
from hpcfit.errors import InputError
from hpcfit.log import logger
from hpcfit.workflow.cluster.addresses import free_address
from hpcfit.workflow.pages.guard import warn_where_others_see

# A worker serves numbers of its own by HTTP to whoever asks: on its loopback. The scheduler's pages show them all.
HTTP = "127.0.0.1:0"
NO_PAGES = ("--no-dashboard", "--dashboard-address", HTTP)


def dashboard_address(config: ClusterConfig) -> str:
    """The dashboard's host:port, with the next port that is free. Raises InputError for a host that is not ours."""
    warn_where_others_see(config.dashboard)
    if config.dashboard.endswith(":0"):
        return config.dashboard
    try:
        found = free_address(config.dashboard)
    except OSError as error:
        raise InputError(
            f"[cluster] dashboard = {config.dashboard}: {error}", remedy="give 127.0.0.1:8787, or another port"
        ) from None
    if found != config.dashboard:
        logger.info("dashboard: %s is taken, %s is used", config.dashboard, found)
    return found


def say_dashboard(config: ClusterConfig, client: Client) -> None:
    """Log where the pages are; they are bound to loopback unless the config says otherwise: the machine matters."""
    port = client.scheduler_info(n_workers=0)["services"].get("dashboard")
    if port is None:
        return
    if config.kind == "address":
        logger.info("cluster: dashboard %s", client.dashboard_link)
        return
    host, machine = config.dashboard.rpartition(":")[0], client.run_on_scheduler(socket.gethostname)
    logger.info("cluster: dashboard http://%s:%d/status on %s", host or machine, port, machine)
