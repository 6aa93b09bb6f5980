"""Opening clusters on this machine: workers, dashboard, schedulers that run already, and clear errors."""

import contextlib
import gc
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest

from hpcfit.config import ClusterConfig
from hpcfit.errors import InputError
from hpcfit.kinds.table import load_config
from hpcfit.workflow.cluster import opening as cluster
from hpcfit.workflow.cluster import workers
from hpcfit.workflow.cluster.encryption import as_files, made_for_a_run
from hpcfit.workflow.cluster.opening import open_cluster
from tests.conftest import ROOT, wait_for
from tests.workflow import crew_tasks

pytestmark = pytest.mark.programs

ANY_PORT = "127.0.0.1:0"
FILES = "".join(f'{name} = "{name}.pem"\n' for name in ("ca", "cert", "key"))


@pytest.fixture(autouse=True)
def _clients_that_failed_are_gone():
    """Collect clients now: one that is collected while another one starts waits for ever for Dask's lock of both."""
    yield
    gc.collect()


def local(**keys):
    return open_cluster(ClusterConfig(**{"workers": 1, "dashboard": ANY_PORT} | keys), "test")


def spawned():
    """The worker processes of this process."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it may end meanwhile
            if "spawn" in " ".join(process.cmdline()):
                found.add(process.pid)
    return found


def test_the_default_is_a_process_for_each_core_and_none_stays(caplog):
    with caplog.at_level(logging.INFO, "hpcfit"), open_cluster(ClusterConfig(dashboard=ANY_PORT), "test") as crew:
        assert crew.size == len(os.sched_getaffinity(0))
        assert len(spawned()) >= crew.size
        assert f"cluster: {crew.size} processes here" in caplog.text
    wait_for(lambda: not spawned())


def test_a_taken_port_of_the_dashboard_gives_another_one(caplog):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with caplog.at_level(logging.INFO, "hpcfit"), local(dashboard=f"127.0.0.1:{port}") as crew:
            found = crew.client.scheduler_info()["services"]["dashboard"]
            assert found != port
            assert f"127.0.0.1:{port} is taken, 127.0.0.1:{found} is used" in caplog.text
            assert f"dashboard http://127.0.0.1:{found}/status on {socket.gethostname()}" in caplog.text
            with urllib.request.urlopen(f"http://127.0.0.1:{found}/status", timeout=300) as page:
                assert page.status == 200


def test_an_error_closes_the_cluster_and_passes_through():
    with pytest.raises(ZeroDivisionError), local() as crew:
        raise ZeroDivisionError(crew.map(crew_tasks.square, range(3)))
    wait_for(lambda: not spawned())


@pytest.mark.parametrize("number", [signal.SIGUSR1, pytest.param(signal.SIGTERM, marks=pytest.mark.nightly)])
def test_a_signal_closes_the_cluster_with_code_75(number, tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(
        "import time\nfrom hpcfit import log\nfrom hpcfit.config import ClusterConfig\n"
        "from hpcfit.ranks import end_job\nfrom hpcfit.workflow.cluster.opening import open_cluster\n"
        "if __name__ == '__main__':\n"
        "    log.set_up(0, 1)\n"
        "    try:\n"
        f"        with open_cluster(ClusterConfig(workers=1, dashboard='{ANY_PORT}'), 'test') as crew:\n"
        "            print('open', flush=True)\n"
        "            crew.map(time.sleep, [600])\n"
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
        _, errors = driver.communicate(timeout=300)
    assert driver.returncode == 75, errors
    assert f"stopped by {number.name}" in errors
    assert "Traceback" not in errors
    _, alive = psutil.wait_procs(workers, timeout=300)
    assert not alive


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A crew whose scheduler others may join who have its certificates: `joined` are the keys of a config for that."""
    with local() as crew, as_files(crew.client.security, tmp_path_factory.mktemp("running")) as files:
        named = {"ca": files.tls_ca_file, "cert": files.tls_client_cert, "key": files.tls_client_key}
        crew.joined = {"kind": "address", "address": crew.client.scheduler.address}
        crew.joined |= {name: Path(value) for name, value in named.items()}
        yield crew


@pytest.mark.parametrize("as_file", [False, True])
def test_a_running_scheduler_is_used_and_left_running(running, tmp_path, as_file):
    address = running.client.scheduler.address
    if as_file:
        (tmp_path / "scheduler.json").write_text(json.dumps({"address": address}))
    given = str(tmp_path / "scheduler.json") if as_file else address
    with open_cluster(ClusterConfig(**running.joined | {"address": given}), "test") as crew:
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
    with pytest.raises(InputError) as caught, open_cluster(
        ClusterConfig(kind="address", address=address, trust=True), "test"
    ):  # fmt: skip
        pass
    assert f"address = {address}" in str(caught.value)
    assert reason in str(caught.value)
    assert "remedy: start one" in str(caught.value)


def test_no_worker_within_the_patience_is_an_error(running):
    from distributed import LocalCluster

    config = {"kind": "address", "patience": 0.3, "trust": True}
    with (
        LocalCluster(n_workers=0, dashboard_address=ANY_PORT, loop=running.client.loop) as empty,
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
    with pytest.raises(InputError) as caught, open_cluster(ClusterConfig(**running.joined), "test"):
        pass
    for text in ("worker tls://", *words, "[cluster] python or prologue"):
        assert text in str(caught.value)


def test_a_worker_that_cannot_import_hpcfit_is_refused(running, tmp_path):
    from distributed import LocalCluster

    (tmp_path / "hpcfit").mkdir()
    (tmp_path / "hpcfit/__init__.py").write_text("raise ImportError('not installed here')\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with LocalCluster(n_workers=0, dashboard_address=ANY_PORT, loop=running.client.loop) as empty:
        command = [sys.executable, "-m", "distributed.cli.dask_worker", empty.scheduler_address, "--no-dashboard"]
        worker = subprocess.Popen(
            command, env=environment | {"PYTHONPATH": str(tmp_path)}, cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        try:
            config = ClusterConfig(kind="address", address=empty.scheduler_address, trust=True)
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


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """Stands for Slurm's sbatch: takes every script for a test, and then refuses it."""
    program = tmp_path / "sbatch"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *--test-only*) exit 0;; esac\n'
        "echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return ClusterConfig(kind="slurm", logs=tmp_path, dashboard=ANY_PORT)


def test_a_job_that_is_refused_when_it_is_submitted_is_an_error(sbatch, capfd):
    with pytest.raises(InputError, match="sbatch refuses a worker job: sbatch: error: QOSMaxSubmit"), open_cluster(
        sbatch, "test"
    ):  # fmt: skip
        pass
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"kind": "slurm", "interface": "ib9"}, "interface = 'ib9': .* has no such network interface; it has lo"),
        ({"kind": "local", "dashboard": "192.0.2.77:8787"}, "dashboard = 192.0.2.77:8787: .*annot assign"),
    ],
)
def test_what_this_machine_does_not_have_is_an_error(keys, words):
    with pytest.raises(InputError, match=words), open_cluster(ClusterConfig(**keys), "test"):
        pass


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('kind = "slurm"\nmemory = "four GB"', "'cluster.memory' = 'four GB'"),
        ('dashboard = "8787"', "'cluster.dashboard' = '8787'"),
        ('kind = "slurm"\nworkers = 3', "with kind = 'slurm' workers would have no effect"),
        ('kind = "slurm"\njobs = 3\nmaximum_jobs = 2', "maximum_jobs = 2 is smaller than jobs = 3"),
        ('kind = "address"', "needs address: tls://host:port of a running scheduler, or its file"),
        ('kind = "address"\naddress = "tcp://a:1"', "needs certificates, ca, cert, key is missing: whoever reaches a"),
        ('kind = "address"\naddress = "s.json"', "needs certificates"),
        ('kind = "address"\naddress = "tls://a:1"\ntrust = true', "trust = true is for tcp://, and the scheduler's"),
        (f'kind = "address"\naddress = "tls://a:1"\n{FILES}trust = true', "is for a scheduler without certificates"),
        (f'kind = "address"\naddress = "tcp://a:1"\n{FILES}', "certificates are for tls://, and the scheduler's"),
        (FILES, "ca, cert, key would have no effect without address"),
    ],
)
def test_what_a_cluster_cannot_be_is_an_error_of_the_config(tmp_path, table, words):
    (tmp_path / "config.toml").write_text(f"[cluster]\n{table}\n")
    with pytest.raises(InputError, match=re.escape(words)):
        load_config(tmp_path / "config.toml")


def test_a_scheduler_file_lies_beside_the_config(tmp_path):
    (tmp_path / "config.toml").write_text(f'[cluster]\nkind = "address"\naddress = "scheduler.json"\n{FILES}')
    cluster = load_config(tmp_path / "config.toml").cluster
    assert cluster.address == str(tmp_path / "scheduler.json")
    assert (cluster.ca, cluster.key) == (tmp_path / "ca.pem", tmp_path / "key.pem")


def test_certificates_that_are_none_are_one_error(running, tmp_path):
    config = {**running.joined, "ca": tmp_path / "nowhere.pem"}
    with pytest.raises(InputError, match=r"nowhere.pem.* cannot be used: No such file"), open_cluster(
        ClusterConfig(**config), "test"
    ):  # fmt: skip
        pass
    (tmp_path / "other.pem").write_text("no certificate\n")
    config = {**running.joined, "key": tmp_path / "other.pem"}
    with pytest.raises(InputError, match=r"other.pem cannot be used: \[SSL"), open_cluster(
        ClusterConfig(**config), "test"
    ):  # fmt: skip
        pass


def test_a_scheduler_with_other_certificates_is_one_error(running, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 1.0)
    with as_files(made_for_a_run(), tmp_path) as files:
        named = {"ca": files.tls_ca_file, "cert": files.tls_client_cert, "key": files.tls_client_key}
        config = {**running.joined, **{name: Path(value) for name, value in named.items()}}
        with pytest.raises(InputError, match=r"no Dask scheduler answers at \[cluster\] address = tls://"), (
            open_cluster(ClusterConfig(**config), "test")
        ):  # fmt: skip
            pass
