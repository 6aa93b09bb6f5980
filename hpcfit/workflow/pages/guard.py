"""The door of a dashboard: pages and websockets for the user whose run it is, and for pages of its own origin.

A dashboard listens on loopback, which all users of a node share, and every page in a browser can ask for it. Those of
hpcfit's schedulers refuse with 403

- a request of another user of this node, as the kernel knows the owner of the connection; a tunnel of ssh belongs to
  who has logged in. Where a dashboard is told to listen on a network, users of other nodes cannot be told apart;
- a page of another origin than its own, which browsers name in the header Origin;
- a name that is not this node's in the header Host: a foreign name may be led to any address.

This module is also what a scheduler preloads.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from distributed import Scheduler
from tornado.httputil import HTTPServerRequest
from tornado.routing import Router
from tornado.web import Application, HTTPError, RequestHandler

from hpcfit.log import logger

CONNECTIONS = ("/proc/net/tcp", "/proc/net/tcp6")
ROUTES = [  # without Dask's /json, which tells addresses of all parts, and its proxy to what else listens on a node
    "distributed.http.scheduler.prometheus", "distributed.http.scheduler.info", "distributed.http.health",
    "distributed.http.statics",
]  # fmt: skip


def dask_setup(scheduler: Scheduler) -> None:
    """Guard the dashboard of a scheduler; Dask calls this function of a module that a scheduler preloads."""
    guard(scheduler)


def guard(scheduler: Scheduler) -> None:
    """Refuse from now on what others ask of this scheduler's dashboard."""
    server = scheduler.http_server
    server.request_callback = Guard(scheduler.http_application, server.address)


class Guard(Router):
    """Hands requests on to an application, or refuses them. host: the address that it listens on."""

    def __init__(self, application: Application, host: str):
        self._application, self._refused = application, Application([(r".*", Refused)])
        self._names = {"localhost", socket.gethostname().lower(), host.lower()}
        if not is_loopback(host):
            self._names.add(socket.getfqdn().lower())

    def find_handler(self, request: HTTPServerRequest, **options: Any) -> Any:
        """Tornado's hook: who answers a request."""
        may = self._is_of_this_node(request) and is_of_own_origin(request) and is_of_this_user(request)
        return (self._application if may else self._refused).find_handler(request, **options)

    def _is_of_this_node(self, request: HTTPServerRequest) -> bool:
        """True for a Host that is an address, or a name of this node."""
        name = (urlsplit(f"//{request.host}").hostname or "").lower()
        return name in self._names or is_address(name)


class Refused(RequestHandler):
    """Answers everything with 403."""

    def prepare(self) -> None:
        """Tornado's hook, before any method."""
        raise HTTPError(403)

    def log_exception(self, *_error: Any) -> None:
        """Tornado's hook; who asks cannot fill the log."""


def is_of_own_origin(request: HTTPServerRequest) -> bool:
    """True where no page asks, or one of the very address that the request is sent to."""
    headers = request.headers
    origins = [headers[name] for name in ("Origin", "Sec-Websocket-Origin") if name in headers]
    return all(urlsplit(origin).netloc.lower() == request.host.lower() for origin in origins)


def is_of_this_user(request: HTTPServerRequest) -> bool:
    """True where this user or root has the other end of the connection, or another machine has it."""
    stream = request.connection.stream
    if stream.socket is None:  # closed
        return False
    peer, own = stream.socket.getpeername()[:2], stream.socket.getsockname()[:2]
    user = owner(peer, own)
    return user in (os.getuid(), 0) if user is not None else not is_loopback(peer[0])


def owner(peer: tuple[str, int], own: tuple[str, int]) -> int | None:
    """The user id of who has the end `peer` of a connection whose other end is `own`; None for one of another machine.

    On systems without Linux' list of connections that is nobody on loopback.
    """
    ends = [{f"{written}:{port:04X}" for written in _as_listed(host)} for host, port in (peer, own)]
    for path in CONNECTIONS:
        with suppress(OSError):
            for line in Path(path).read_text().splitlines()[1:]:
                _, local, remote, _, _, _, _, user, *_ = line.split()
                if local in ends[0] and remote in ends[1]:
                    return int(user)
    return None


def _as_listed(host: str) -> list[str]:
    """An address as the kernel lists it, words of 32 bits in its own order; of IPv4 also the form in IPv6."""
    address = ipaddress.ip_address(host.partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    forms = [address.packed] + ([b"\0" * 10 + b"\xff\xff" + address.packed] if address.version == 4 else [])
    return ["".join(f"{word:08X}" for word in struct.unpack(f"={len(form) // 4}I", form)) for form in forms]


def warn_where_others_see(dashboard: str) -> None:
    """Log a warning unless a dashboard, host:port, listens on loopback alone, where other users are refused."""
    if not is_loopback(dashboard.rpartition(":")[0].strip("[]")):
        logger.warning(
            "the dashboard at %s is seen by everybody on its network: keep it on 127.0.0.1, and use ssh -L", dashboard
        )


def is_loopback(host: str) -> bool:
    """True for an address that only this machine reaches."""
    if not is_address(host):
        return host == "localhost"
    address = ipaddress.ip_address(host.partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def is_address(host: str) -> bool:
    """True for an address and not a name."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
