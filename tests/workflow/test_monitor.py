"""A fit of two ranks on the dashboard: what is seen there, and that nothing which happens there is felt by the fit."""

import asyncio
import contextlib
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from distributed import Client, rpc

from hpcfit.workflow.cluster.addresses import free_address, loopback_of, tunnel
from hpcfit.workflow.pages.monitor import Monitor, Place
from hpcfit.workflow.pages.style import COLORS
from tests.command import ROOT, apart, here, sets
from tests.conftest import history, wait_for
from tests.workflow import browser
from tests.workflow.browser import columns, get, needs_chromium, photograph, share_of, text

pytestmark = pytest.mark.mpi

# Steps that are all alike, some milliseconds each, as many as are asked for.
STEADY = [
    "optimizer.name=adam", "optimizer.options.learning_rate=0.002", "optimizer.gradient_tolerance=0",
    "optimizer.relative_tolerance=0", "run.report=false", "monitor.every=0.1",
]  # fmt: skip
ENDLESS = ("optimizer.max_steps=1000000000", "optimizer.wall_clock_minutes=60")


def arguments(config, directory, *settings):
    return ["optimize", str(config), *sets(f"run.directory={directory}", *STEADY, *settings)]


@contextlib.contextmanager
def running(mpiexec, config, directory, *settings):
    """A monitored fit of two ranks in the background; ended with SIGTERM, if it has not ended itself."""
    known = [sys.executable, "-m", "tests.workflow.known", "hpcfit", directory.parent / "place"]
    command = [mpiexec, "-n", "2", *known, *arguments(config, directory, *settings), "--monitor"]
    (scratch := directory.parent / "scratch").mkdir()
    with open(directory.parent / f"{directory.name}.log", "w+", encoding="utf-8") as log:
        job = subprocess.Popen(command, cwd=ROOT, stderr=log, stdout=log, env=os.environ | {"TMPDIR": str(scratch)})
        job.scratch = lambda: list(scratch.glob("hpcfit-monitor-*"))
        job.log = lambda: Path(log.name).read_text(encoding="utf-8")
        job.place = lambda: pickle.loads((directory.parent / "place").read_bytes())
        try:
            yield job
        finally:
            if job.poll() is None:
                terminate_ranks(job)
            job.wait(300)


def terminate_ranks(job):
    """As a batch system does it before a job's time is over."""
    for process in psutil.Process(job.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "hpcfit" in process.cmdline():
                process.send_signal(signal.SIGTERM)


def losses(directory):
    return [row["loss"] for row in history(directory)]


def ask(place: Place, operation: str, *, address: str = "", **parameters):
    """One message to a scheduler, or to another server of its run, by who has the certificates; and the answer."""

    async def call():
        args = place.security.get_connection_args("client")
        async with rpc(address or place.scheduler, connection_args=args) as server:
            return await getattr(server, operation)(**parameters)

    return asyncio.run(asyncio.wait_for(call(), 300))


@pytest.fixture(scope="module")
def fit(mpiexec, two_sources, tmp_path_factory):
    """A monitored fit that goes on and on: its job, run directory, and the addresses of its dashboard and scheduler."""
    directory = tmp_path_factory.mktemp("monitored") / "run"
    settings = (*ENDLESS, "checkpoint.every_steps=50", "monitor.every=1", "monitor.dashboard=127.0.0.1:0")
    with running(mpiexec, two_sources, directory, *settings) as job:
        wait_for((directory / "monitor.json").exists)
        dashboard = json.loads((directory / "monitor.json").read_text())["dashboard"]
        wait_for(lambda: [worker["status"] for worker in workers(job).values()] == ["paused", "paused"])
        for words in ("hpcfit_checkpoint_age_seconds{", 'part="read",rank="0"', 'part="read",rank="1"'):
            wait_for(lambda words=words: words in get(f"{dashboard}/metrics"))
        yield job, directory, dashboard


def workers(job):
    """The names of the workers, and what the scheduler says of each."""
    with contextlib.suppress(OSError):
        return {worker["name"]: worker for worker in ask(job.place(), "identity")["workers"].values()}
    return {}


def test_every_rank_is_seen_as_a_worker_that_no_task_is_dealt_to(fit):
    job, _, dashboard = fit
    found = workers(job)
    assert set(found) == {"rank-0", "rank-1"}
    assert {worker["status"] for worker in found.values()} == {"paused"}
    assert 'dask_scheduler_workers{state="paused"} 2.0' in get(f"{dashboard}/metrics")
    assert all(worker["metrics"]["memory"] > 1e7 and worker["memory_limit"] > 1e9 for worker in found.values())


def test_code_sent_to_the_scheduler_or_a_worker_is_refused(fit):
    """Even by who has the certificates."""
    place = fit[0].place()
    identity = ask(place, "identity")
    for address, operation in ((identity["address"], "run_function"), (next(iter(identity["workers"])), "run")):
        with pytest.raises(ValueError, match=f"'{operation}' handler has been explicitly disallowed"):
            ask(place, operation, address=address, function=b"")
    with pytest.raises(ValueError, match="'register-client' handler has been explicitly disallowed"):
        ask(place, "register-client", client="c", versions={})


def test_the_page_follows_the_fit(fit):
    _, directory, dashboard = fit
    assert 'href="hpcfit"' in get(f"{dashboard}/workers")
    with browser.session(f"{dashboard}/hpcfit") as opened:
        browser.take_in_until(opened, lambda: "of at most 1000000000" in text(opened))
        shown = text(opened)
        for words in ("running on 2 ranks", "CC, anisotropic", "of 300 frames", "|gradient|", "checkpoint", "x mean"):
            assert words in shown
        assert "wall clock (optimizer.wall_clock_minutes)" in shown, "that ends before so many steps"
        before = columns(opened, "step")
        browser.take_in_until(opened, lambda: columns(opened, "step")[-1] > before[-1])
        steps, cc = (columns(opened, name).tolist() for name in ("step", "cc"))
        rows = {row["step"]: row for row in history(directory)}
        assert before[0] == steps[0] == 0, "a page that is opened late begins at the beginning"
        assert cc == [rows[step]["cc"] for step in steps[: len(cc)]]
        browser.take_in_until(opened, lambda: sorted(columns(opened, "rank")) == [0, 1])
        assert columns(opened, "now").sum() == pytest.approx(1.0)
        assert sorted(columns(opened, "before")) == pytest.approx([110 / 300, 190 / 300]), "the heavier first, now"
        assert columns(opened, "frames").sum() == 300


def test_prometheus_finds_the_gauges(fit):
    _, directory, dashboard = fit
    found = dict(re.findall(r"^(hpcfit_\w+)\{(?:[^}]*)\} (\S+)$", get(f"{dashboard}/metrics"), re.MULTILINE))
    row = next(row for row in history(directory) if row["step"] == float(found["hpcfit_step"]))
    for name in ("loss", "cc", "cc_anisotropic", "ess", "kl"):
        assert float(found[f"hpcfit_{name}"]) == row[name]
    assert float(found["hpcfit_passes"]) == row["passes"]
    assert 0 <= float(found["hpcfit_checkpoint_age_seconds"]) < 3600
    for part in ("compute", "reduce", "read"):
        for rank in (0, 1):
            assert f'hpcfit_step_seconds{{part="{part}",rank="{rank}"' in get(f"{dashboard}/metrics")


@needs_chromium
def test_a_real_browser_draws_the_page(fit, tmp_path):
    _, directory, _ = fit
    shown, pixels = photograph(directory, tmp_path / "page.png", "--until", "of at most")
    assert f"{history(directory)[0]['cc']:.4f}" in shown, "CC at the start"
    assert "slowest rank" in shown
    assert pixels.shape[1] == 1440
    lower = pixels[pixels.shape[0] // 2 :]  # two of the three rows of figures
    # Computing and weights by label, reductions, the histogram: one of its 40 bars is 0.002 of this, its legend 0.0002.
    for color in COLORS[:3]:
        assert share_of(lower, color) > 0.001


@pytest.mark.nightly
@needs_chromium
def test_a_real_browser_draws_dasks_page_of_workers(fit, tmp_path):
    _, directory, _ = fit
    shown, _ = photograph(directory, tmp_path / "workers.png", "--page", "workers", "--until", "rank-1")
    assert "rank-0" in shown


def test_the_fit_outlives_its_dashboard(fit):
    """The last of the tests with this fit: its scheduler ends, from then on the fit is alone."""
    job, directory, _ = fit
    with contextlib.suppress(OSError):
        ask(job.place(), "terminate")
    wait_for(lambda: "goes on without its dashboard" in job.log())
    seen = len(history(directory))
    wait_for(lambda: len(history(directory)) > seen + 100)
    assert job.poll() is None
    wait_for(lambda: not job.scratch())
    assert job.log().count("WARNING") == 1, job.log()
    assert "Traceback" not in job.log()


def test_a_signal_ends_a_monitored_fit_at_once_and_nothing_stays(fit):
    """And this is its end."""
    job, directory, _ = fit
    terminate_ranks(job)
    assert job.wait(300) == 75
    assert "Traceback" not in job.log()
    assert not (directory / "monitor.json").exists()
    assert not job.scratch()
    assert json.loads((directory / "stopped.json").read_text())["interrupted"]


FINITE = ("optimizer.max_steps=40",)


@pytest.fixture(scope="module")
def unwatched(two_sources, tmp_path_factory):
    """The losses of a fit that nobody watches, which are the same on any number of ranks."""
    directory = tmp_path_factory.mktemp("unwatched") / "run"
    done = here(*arguments(two_sources, directory, *FINITE))
    assert done.returncode == 0, done.stderr
    return losses(directory)


@pytest.fixture
def scheduler(tmp_path):
    """A scheduler in a process of its own, as a workflow has one: the process and its address."""
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
               "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(tmp_path / "scheduler.json")]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        yield process, wait_for(lambda: address_in(tmp_path / "scheduler.json"))
    finally:
        process.kill()
        process.wait()


def address_in(file):
    """The address in a scheduler's file; nothing as long as it is not whole."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads(file.read_text())["address"]


def test_a_fit_joins_a_scheduler_that_deals_it_no_task_and_is_killed(
    mpiexec, two_sources, scheduler, unwatched, tmp_path
):
    (process, address), directory = scheduler, tmp_path / "run"
    with running(mpiexec, two_sources, directory, *ENDLESS, f"monitor.address={address}", "monitor.trust=true") as job:
        with Client(address) as client:
            wait_for(lambda: len(client.scheduler_info()["workers"]) == 2)
            port = client.scheduler_info()["services"]["dashboard"]
            names = {worker["name"] for worker in client.scheduler_info()["workers"].values()}
            assert names == {"run-rank-0", "run-rank-1"}, "beside the ranks of other runs"
            waits = client.submit(os.getpid)
            wait_for(lambda: "hpcfit_step{" in get(f"http://127.0.0.1:{port}/metrics"))
            assert 'href="hpcfit"' in get(f"http://127.0.0.1:{port}/hpcfit")
            assert waits.status == "pending"
        process.send_signal(signal.SIGKILL)
        wait_for(lambda: "goes on without its dashboard" in job.log())
        seen = len(history(directory))
        wait_for(lambda: len(history(directory)) > max(seen, len(unwatched)))
        terminate_ranks(job)
        assert job.wait(300) == 75
    assert losses(directory)[: len(unwatched)] == unwatched
    assert job.log().count("goes on without its dashboard") == 1, job.log()
    assert "Traceback" not in job.log()


@pytest.fixture
def deaf():
    """The address of a scheduler that does not answer."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield f"tcp://127.0.0.1:{taken.getsockname()[1]}"


def test_an_address_that_does_not_answer_is_one_warning(hpcfit, two_sources, deaf, unwatched, tmp_path):
    settings = (*FINITE, f"monitor.address={deaf}", "monitor.trust=true", "monitor.dask=true")
    done = hpcfit(*arguments(two_sources, tmp_path / "run", *settings), ranks=2)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "run") == unwatched
    assert done.stderr.count("goes on without its dashboard") == 1
    assert f"{deaf}: nothing answered" in done.stderr, "until the end of the run, or for as long as it waits"
    assert "Traceback" not in done.stderr


def test_a_run_that_ends_before_its_monitor_has_begun_is_not_waited_for(deaf, caplog):
    monitor = Monitor(Place(deaf, None), 0, name="rank-0", message=dict, every=1.0, cores=os.sched_getaffinity(0))
    monitor._ending.set()  # as `close` does; the thread has come no further than to its start
    monitor._run()
    assert "nothing answered until the end of the run" in caplog.text


def test_a_dashboard_that_cannot_be_is_one_warning(two_sources, unwatched, tmp_path):
    settings = (*FINITE, "monitor.dask=true", "monitor.dashboard=192.0.2.77:8787")  # an address of nobody (RFC 5737)
    done = apart(*arguments(two_sources, tmp_path / "run", *settings))
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "run") == unwatched
    assert done.stderr.count("no dashboard: [monitor] dashboard = '192.0.2.77:8787'") == 1


def test_a_taken_port_gives_the_next_free_one():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = free_address(f"127.0.0.1:{port}")
    assert port < int(found.rpartition(":")[2]) < port + 100


def test_each_rank_has_a_loopback_address_of_its_own():
    found = {loopback_of(rank) for rank in range(200_000)}
    assert len(found) == 200_000
    for address in (loopback_of(0), loopback_of(199_999)):
        assert address.startswith("127.")
        assert socket.inet_aton(address)


def test_the_tunnel_fits_where_the_dashboard_listens(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "node7")
    monkeypatch.setenv("SLURM_SUBMIT_HOST", "login1")
    assert tunnel("127.0.0.1:8787") == "ssh -J login1 -L 8787:127.0.0.1:8787 node7"
    assert tunnel("0.0.0.0:8788") == "ssh -L 8788:node7:8788 login1"
