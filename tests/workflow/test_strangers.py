"""Others on the same node: what they send to a port runs nothing, and what they ask a dashboard for is refused."""

import contextlib
import json

import psutil
import pytest

from hpcfit.config import ClusterConfig
from hpcfit.workflow.cluster.opening import open_cluster
from tests.conftest import history, wait_for
from tests.workflow import crew_tasks
from tests.workflow.browser import get
from tests.workflow.strangers import listening, send_everywhere
from tests.workflow.test_monitor import ENDLESS, running


@pytest.mark.programs
def test_a_message_to_a_cluster_here_runs_nothing(tmp_path):
    before = listening(psutil.Process())  # those of MPI, where a test of this process has begun it
    with open_cluster(ClusterConfig(workers=1, dashboard="127.0.0.1:0"), "test") as crew:
        found = [one for one in listening(psutil.Process()) if one not in before]
        assert len(found) >= 5, "scheduler, nanny and worker, and the dashboards of two"
        assert {host for host, _ in found} == {"127.0.0.1"}
        for process in psutil.Process().children(recursive=True):
            assert "PRIVATE" not in f"{process.cmdline()}{process.environ()}", (
                "where others may see it, or children get it"
            )
        assert send_everywhere(found, tmp_path) == []
        assert crew.map(crew_tasks.square, range(3)) == [0, 1, 4]


@pytest.mark.mpi
def test_a_message_to_a_monitored_fit_runs_nothing(mpiexec, two_sources, tmp_path):
    directory = tmp_path / "run"
    (made := tmp_path / "made").mkdir()
    with running(mpiexec, two_sources, directory, *ENDLESS, "monitor.dashboard=127.0.0.1:0") as job:
        wait_for(lambda: both_report(directory))
        ranks = [one for one in psutil.Process(job.pid).children(recursive=True) if "hpcfit" in one.cmdline()]
        found = listening(*ranks)
        ours = {(host, port) for host, port in found if host.startswith("127.")}
        assert len(ours) >= 4, "scheduler, dashboard and two workers; other addresses are those of MPI"
        assert send_everywhere(ours, made) == []
        seen = len(history(directory))
        wait_for(lambda: len(history(directory)) > seen + 10)
        assert job.poll() is None
        assert "goes on without its dashboard" not in job.log()
        assert listening(*ranks) == found, "each is there still"


def both_report(directory):
    """Whether the dashboard of a monitored fit of two ranks has seen both."""
    with contextlib.suppress(OSError, ValueError):
        dashboard = json.loads((directory / "monitor.json").read_text())["dashboard"]
        return 'dask_scheduler_workers{state="paused"} 2.0' in get(f"{dashboard}/metrics")
    return False
