"""The door of a dashboard: whose requests pass, and whose are refused, by user, origin and name."""

import http.client
import os
import subprocess

import pytest

from hpcfit.config import ClusterConfig
from hpcfit.workflow.cluster.opening import open_cluster
from hpcfit.workflow.pages.guard import is_loopback, owner, warn_where_others_see
from tests.workflow import browser

pytestmark = pytest.mark.programs

WEBSOCKET = {
    "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "bokeh",
}  # fmt: skip
PAGES = ["/hpcfit", "/status", "/health", "/metrics", "/info/main/workers.html", "/individual-plots.json", "/nothing"]
SOCKETS = ["/hpcfit/ws", "/status/ws", "/eventstream"]


@pytest.fixture(scope="module")
def port():
    """The port of the dashboard of a cluster here."""
    with open_cluster(ClusterConfig(workers=1, dashboard="127.0.0.1:0"), "test") as crew:
        yield crew.client.scheduler_info()["services"]["dashboard"]


def status(port: int, path: str, **headers: str) -> int:
    """The status of the answer to a request from this process."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return connection.getresponse().status
    finally:
        connection.close()


def test_pages_and_websockets_of_its_own_origin_are_answered(port):
    for path in PAGES[:-1]:
        assert status(port, path) == 200
    for name in (f"127.0.0.1:{port}", f"localhost:{port}", "localhost:9000"):  # the last through a tunnel
        assert status(port, "/hpcfit", Host=name, Origin=f"http://{name}") == 200
        assert status(port, "/eventstream", Host=name, Origin=f"http://{name}", **WEBSOCKET) == 101
    with browser.session(f"http://127.0.0.1:{port}/hpcfit") as opened:
        assert "Nothing has been reported yet" in browser.text(opened)


@pytest.mark.parametrize("path", [*PAGES, *SOCKETS])
@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "http://evil.example:{port}", "http://127.0.0.1:1", "https://127.0.0.1", "null", ""],
)
def test_a_page_of_another_origin_is_refused(port, path, origin):
    upgrade = WEBSOCKET if path in SOCKETS else {}
    assert status(port, path, Origin=origin.format(port=port), **upgrade) == 403


@pytest.mark.parametrize("path", [*PAGES, *SOCKETS])
def test_a_foreign_name_of_this_address_is_refused(port, path):
    name = f"evil.example:{port}"
    upgrade = WEBSOCKET if path in SOCKETS else {}
    assert status(port, path, Host=name, Origin=f"http://{name}", **upgrade) == 403


def test_nobody_is_told_addresses_or_led_on(port):
    for path in ("/json/identity.json", "/json/counts.json", "/json/index.html", f"/proxy/{port}/127.0.0.1/status"):
        assert status(port, path) == 404


ASK = """
import sys, urllib.error, urllib.request
for path in sys.argv[2:]:
    try:
        print(urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}{path}", timeout=300).status)
    except urllib.error.HTTPError as error:
        print(error.code)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_user_of_this_node_is_refused(port):
    def asked(**who):
        command = ["/usr/bin/env", "python3", "-c", ASK, str(port), *PAGES]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd="/", env=PATH, **who)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert asked(user=65534, group=65534, extra_groups=[]) == ["403"] * len(PAGES)
    assert asked() == ["200"] * (len(PAGES) - 1) + ["404"]


PATH = {"PATH": "/usr/bin:/bin"}


def test_the_kernel_knows_who_has_the_other_end(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        connection.connect()
        ends = connection.sock.getsockname(), connection.sock.getpeername()
        assert owner(*ends) == os.getuid()
    finally:
        connection.close()
    assert owner(("192.0.2.77", 1), ("127.0.0.1", port)) is None


@pytest.mark.parametrize("address", ["0.0.0.0:8787", ":8787", "10.0.0.1:0", "node7:8787"])
def test_a_dashboard_on_a_network_is_warned_of(address, caplog):
    warn_where_others_see(address)
    assert f"the dashboard at {address} is seen by everybody on its network" in caplog.text


@pytest.mark.parametrize("address", ["127.0.0.1:8787", "localhost:0", "[::1]:8787"])
def test_a_dashboard_on_loopback_is_not(address, caplog):
    warn_where_others_see(address)
    assert not caplog.text


def test_what_loopback_is():
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.3.2.1", "localhost", "::1", "::ffff:127.0.0.1"))
    assert not any(is_loopback(host) for host in ("10.0.0.1", "0.0.0.0", "::", "fe80::1%eth0", "evil.example", ""))
