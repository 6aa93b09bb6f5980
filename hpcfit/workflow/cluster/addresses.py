"""Addresses on which a dashboard and its scheduler listen, and how a browser far away gets there."""

from __future__ import annotations

import os
import socket

from hpcfit.errors import InputError, together

PORTS_TRIED = 100


def free_address(address: str) -> str:
    """`host:port` as it is, or with the next higher port that is free; OSError where the host is none of ours."""
    host, _, port = address.rpartition(":")
    for number in range(int(port), int(port) + PORTS_TRIED):
        if number == 0 or is_free(host, number):
            return f"{host}:{number or unused_port(host)}"
    raise OSError(f"no free port from {port} to {int(port) + PORTS_TRIED - 1} on {host or 'any interface'}")


def is_free(host: str, port: int) -> bool:
    """True where nothing listens at host:port. Raises OSError where the host is none of ours."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError:
            return False
        except OSError as error:
            if "in use" in str(error):
                return False
            raise
    return True


def unused_port(host: str) -> int:
    """A port that the system gives away."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def check_interface(name: str | None) -> None:
    """Raise InputError unless this machine has a network interface of this name; None means any."""
    import psutil

    known = psutil.net_if_addrs()
    if name is not None and name not in known:
        raise together(
            InputError(
                f"[cluster] interface = '{name}': {socket.gethostname()} has no such network interface;"
                f" it has {', '.join(known)}",
                remedy="name one that scheduler and workers share, or leave it out",
            )
        )


def own_address() -> str:
    """This node's address on its network, for the ranks on other nodes."""
    found = socket.gethostbyname(socket.gethostname())
    if not found.startswith("127."):
        return found
    from distributed.utils import get_ip  # Debian's /etc/hosts gives a machine's name a loopback address

    return get_ip()


def loopback_of(rank: int) -> str:
    """A loopback address of its own for each rank: Dask tells workers apart by address, also those of other nodes."""
    return f"127.{1 + rank // 62500}.{rank // 250 % 250}.{1 + rank % 250}"


def tunnel(dashboard: str) -> str:
    """The ssh command that brings a dashboard on this node to a browser elsewhere."""
    host, _, port = dashboard.rpartition(":")
    node, login = socket.gethostname(), os.environ.get("SLURM_SUBMIT_HOST", "LOGIN_NODE")
    if host.startswith("127.") or host == "localhost":
        return f"ssh -J {login} -L {port}:127.0.0.1:{port} {node}"
    return f"ssh -L {port}:{node}:{port} {login}"
