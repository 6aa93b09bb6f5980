"""What somebody else on a node may try: a message that runs code where it is unpickled, at every port that listens."""

import contextlib
import os
import socket
import ssl
import struct
from pathlib import Path

import psutil
from distributed.protocol import dumps
from distributed.protocol.serialize import ToPickle
from distributed.protocol.utils import pack_frames_prelude

PATIENCE = 120.0  # seconds until a port that neither answers nor closes is an error


class Makes:
    """An object whose unpickling makes a file."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def message(path: Path) -> bytes:
    """A message of Dask as it goes over the wire; who reads it makes a folder there."""
    frames = dumps({"op": "identity", "payload": ToPickle(Makes(path))})
    body = pack_frames_prelude(frames) + b"".join(map(bytes, frames))
    return struct.pack("Q", len(body)) + body


def plain(connection: socket.socket) -> socket.socket:
    """Without encryption."""
    return connection


def without_certificate(connection: socket.socket) -> socket.socket:
    """Encrypted, by somebody who has no certificate and believes any."""
    return _believing().wrap_socket(connection)


def with_own_certificate(connection: socket.socket) -> socket.socket:
    """Encrypted, with a certificate of another run."""
    from hpcfit.workflow.cluster.encryption import made_for_a_run

    own = made_for_a_run()
    context = own.get_connection_args("client")["ssl_context"]
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)


def _believing() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def ways_to(address: tuple[str, int]) -> list:
    """The ways to try at a port: who speaks HTTP without encryption would wait for the end of an encrypted line."""
    with socket.create_connection(address, PATIENCE) as connection:
        try:
            connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            web = connection.recv(5) == b"HTTP/"
        except ConnectionError:
            web = False
    return [plain] if web else [plain, without_certificate, with_own_certificate]


def send(address: tuple[str, int], path: Path, way) -> None:
    """Send it to a port, and wait until who listens there has read all of it, or has hung up."""
    with contextlib.ExitStack() as open_until_then:
        bare = open_until_then.enter_context(socket.create_connection(address, PATIENCE))
        try:
            connection = open_until_then.enter_context(way(bare))
            connection.sendall(message(path))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
        except TimeoutError:
            raise
        except OSError:  # hung up, or no handshake
            pass


def listening(*processes: psutil.Process) -> set[tuple[str, int]]:
    """The addresses at which these processes and their children listen: (host, port)."""
    found = set()
    for process in processes:
        for one in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                found |= {
                    tuple(connection.laddr)
                    for connection in one.net_connections("tcp")
                    if connection.status == psutil.CONN_LISTEN
                }
    return found


def send_everywhere(addresses, folder: Path) -> list[str]:
    """Send to each address in each way; who made a folder: "host:port, way"."""
    made = []
    for host, port in sorted(addresses):
        for way in ways_to((host, port)):
            path = folder / f"{host}-{port}-{way.__name__}"
            send((host, port), path, way)
            made += [f"{host}:{port}, {way.__name__}"] if path.exists() else []
    return made
