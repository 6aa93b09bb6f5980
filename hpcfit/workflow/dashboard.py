"""The address of Dask's dashboard: one that is free, and where a user finds it."""

from __future__ import annotations

import socket

from distributed import Client

from hpcfit.config import ClusterConfig
from hpcfit.log import logger


def free_address(address: str) -> str:
    """`host:port` as it is, or with port 0 (any free one) where something listens already."""
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            logger.info("dashboard: %s cannot be had (%s), another port is taken", address, error.strerror)
            return f"{host}:0"
    return address


def say_dashboard(config: ClusterConfig, client: Client) -> None:
    """Where the pages are; they are bound to loopback unless the config says otherwise, so on which machine matters."""
    port = client.scheduler_info(n_workers=0)["services"].get("dashboard")
    if port is None:
        return
    if config.kind == "address":
        logger.info("cluster: dashboard %s", client.dashboard_link)
        return
    bound, machine = config.dashboard.rpartition(":")[0], client.run_on_scheduler(socket.gethostname)
    logger.info("cluster: dashboard http://%s:%d/status on %s", bound, port, machine)
