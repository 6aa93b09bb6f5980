"""Opening clusters on this machine: workers, dashboard, schedulers that run already, and clear errors."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import psutil
import pytest

from hpcfit.config import ClusterConfig
from hpcfit.errors import InputError
from hpcfit.workflow import cluster, workers
from hpcfit.workflow.cluster import open_cluster
from tests.conftest import ROOT
from tests.workflow import crew_tasks

ANY_PORT = "127.0.0.1:0"


def local(**keys):
    return open_cluster(ClusterConfig(**{"workers": 1, "dashboard": ANY_PORT} | keys), "test")


def spawned():
    """The worker processes of this process."""
    processes = psutil.Process().children(recursive=True)
    return {process.pid for process in processes if "spawn" in " ".join(process.cmdline())}


def test_the_default_is_a_process_for_each_core_and_none_stays(caplog):
    with caplog.at_level(logging.INFO, "hpcfit"), open_cluster(ClusterConfig(dashboard=ANY_PORT), "test") as crew:
        assert crew.size == len(os.sched_getaffinity(0))
        assert len(spawned()) >= crew.size
        assert f"cluster: {crew.size} processes here" in caplog.text
    assert not spawned()


def test_a_taken_port_of_the_dashboard_gives_another_one(caplog):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with caplog.at_level(logging.INFO, "hpcfit"), local(dashboard=f"127.0.0.1:{port}") as crew:
            found = crew.client.scheduler_info()["services"]["dashboard"]
            assert found != port
            assert f"127.0.0.1:{port} cannot be had" in caplog.text
            assert f"dashboard http://127.0.0.1:{found}/status on {socket.gethostname()}" in caplog.text
            with urllib.request.urlopen(f"http://127.0.0.1:{found}/status", timeout=30) as page:
                assert page.status == 200


def test_an_error_closes_the_cluster_and_passes_through():
    with pytest.raises(ZeroDivisionError), local() as crew:
        raise ZeroDivisionError(crew.map(crew_tasks.square, range(3)))
    assert not spawned()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_closes_the_cluster_with_code_75(number, tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(
        "import time\nfrom hpcfit import log\nfrom hpcfit.config import ClusterConfig\n"
        "from hpcfit.ranks import end_job\nfrom hpcfit.workflow.cluster import open_cluster\n"
        "if __name__ == '__main__':\n"
        "    log.set_up(0, 1)\n"
        "    try:\n"
        f"        with open_cluster(ClusterConfig(workers=1, dashboard='{ANY_PORT}'), 'test') as crew:\n"
        "            print('open', flush=True)\n"
        "            crew.map(time.sleep, [60])\n"
        "    except Exception as error:\n"
        "        end_job(error)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", script]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as driver:
        assert driver.stdout.readline() == "open\n"
        workers = psutil.Process(driver.pid).children(recursive=True)
        driver.send_signal(number)
        _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 75, errors
    assert f"stopped by {number.name}" in errors
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive


@pytest.fixture(scope="module")
def running():
    """A crew whose scheduler others may join."""
    with local() as crew:
        yield crew


@pytest.mark.parametrize("as_file", [False, True])
def test_a_running_scheduler_is_used_and_left_running(running, tmp_path, as_file):
    address = running.client.scheduler.address
    if as_file:
        (tmp_path / "scheduler.json").write_text(json.dumps({"address": address}))
    given = str(tmp_path / "scheduler.json") if as_file else address
    with open_cluster(ClusterConfig(kind="address", address=given), "test") as crew:
        assert crew.map(crew_tasks.square, range(3)) == [0, 1, 4]
    assert running.map(crew_tasks.square, [5]) == [25]


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("tcp://127.0.0.1:1", "Timed out trying to connect"),
        ("nonsense://here", "nonsense"),
        ("no/such/file.json", "No such file"),
    ],
)
def test_an_address_that_does_not_answer_is_one_error_with_the_address(monkeypatch, address, reason):
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 0.5)
    with pytest.raises(InputError) as caught, open_cluster(ClusterConfig(kind="address", address=address), "test"):
        pass
    assert f"address = {address}" in str(caught.value)
    assert reason in str(caught.value)
    assert "remedy: start one" in str(caught.value)


def test_no_worker_within_the_patience_is_an_error():
    from distributed import LocalCluster

    config = {"kind": "address", "patience": 0.3}
    with (
        LocalCluster(n_workers=0, dashboard_address=ANY_PORT) as empty,
        pytest.raises(InputError, match=r"no worker came within 0.3 s \(\[cluster\] patience\)"),
        open_cluster(ClusterConfig(address=empty.scheduler_address, **config), "test"),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("__version__", "99.1", ["has hpcfit ", "here it is hpcfit 99.1"]),
        ("HERE", "Python 3.99", ["runs Python 3.", "here it is Python 3.99"]),
    ],
)
def test_a_worker_of_another_version_is_refused(running, monkeypatch, name, value, words):
    monkeypatch.setattr(workers, name, value)
    address = running.client.scheduler.address
    with pytest.raises(InputError) as caught, open_cluster(ClusterConfig(kind="address", address=address), "test"):
        pass
    for text in ("worker tcp://", *words, "[cluster] python or prologue"):
        assert text in str(caught.value)


def test_a_worker_that_cannot_import_hpcfit_is_refused(tmp_path):
    from distributed import LocalCluster

    (tmp_path / "hpcfit").mkdir()
    (tmp_path / "hpcfit/__init__.py").write_text("raise ImportError('not installed here')\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with LocalCluster(n_workers=0, dashboard_address=ANY_PORT) as empty:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", empty.scheduler_address, "--no-dashboard"]
        worker = subprocess.Popen(
            command, env=environment | {"PYTHONPATH": str(tmp_path)}, cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        try:
            config = ClusterConfig(kind="address", address=empty.scheduler_address)
            with pytest.raises(InputError, match=r"worker tcp:.*cannot import hpcfit \(not installed here\)"), (
                open_cluster(config, "test")
            ):  # fmt: skip
                pass
        finally:
            worker.terminate()
            worker.wait()


def test_an_allocation_outside_of_slurm_is_an_error(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(InputError, match="SLURM_JOB_ID is not set"), open_cluster(
        ClusterConfig(kind="allocation"), "test"
    ):  # fmt: skip
        pass


def test_worker_jobs_without_slurm_are_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="`sbatch` is not on PATH"), open_cluster(
        ClusterConfig(kind="slurm", logs=tmp_path, dashboard=ANY_PORT), "test"
    ):  # fmt: skip
        pass
