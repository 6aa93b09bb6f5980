"""A real Slurm of two nodes on this machine, for all tests of this folder; skipped where Slurm is not installed."""

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT

TOOL = ROOT / "tools/local-slurm"
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")


@dataclass(frozen=True)
class Slurm:
    """A running cluster: nodes n1 and n2 with 2 CPUs and 2 fake GPUs each; partitions debug (default) and preempt.

    environment: what makes Slurm's commands talk to it; `hpcfit`'s Python comes first on PATH.
    """

    directory: Path
    environment: dict[str, str]

    def run(self, *command, timeout: float = 300, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess:
        """Run a command (srun, scontrol, hpcfit ...) to its end, with further environment variables."""
        return subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, timeout=timeout, cwd=cwd, check=False,
            env=self.environment | variables,
        )  # fmt: skip

    def ok(self, *command, **options) -> str:
        """The output of a command that must succeed."""
        done = self.run(*command, **options)
        assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def sbatch(self, script: Path, *options, cwd: Path | None = None) -> str:
        """Submit a script; the job's id."""
        return self.ok("sbatch", "--parsable", *options, script, cwd=cwd or script.parent).strip()

    def job(self, job: str) -> dict[str, str]:
        """What `scontrol show job` says, by field: JobState, Reason, Restarts, NodeList, ExitCode ..."""
        shown = self.ok("scontrol", "--oneliner", "show", "job", job)
        return dict(re.findall(r"(\S+?)=(\S*)", shown))

    def wait(self, job: str, *states: str, timeout: float = 240) -> dict[str, str]:
        """Wait until the job is in one of ``states`` (by default: has ended); its fields."""
        states = states or ENDED
        return self.wait_until(lambda: self._job_in(job, states), f"job {job} {' or '.join(states)}", timeout)

    def _job_in(self, job: str, states: tuple[str, ...]) -> dict[str, str] | None:
        fields = self.job(job)
        assert fields["JobState"] in states or fields["JobState"] not in ENDED, fields
        return fields if fields["JobState"] in states else None

    def wait_until(self, condition, what: str, timeout: float = 240):
        """The first true value of ``condition()``."""
        end = time.monotonic() + timeout
        while not (value := condition()):
            assert time.monotonic() < end, f"not within {timeout} s: {what}\n{self.run('squeue', '--long').stdout}"
            time.sleep(0.1)
        return value

    def kill_node(self, node: str) -> None:
        """Kill a node's daemon, step daemons and job processes, as a power cut would."""
        self.ok(TOOL, "kill-node", node, "--directory", self.directory)

    def start_node(self, node: str) -> None:
        """Start a killed node again and wait until it takes jobs."""
        self.ok(TOOL, "start-node", node, "--directory", self.directory)
        self.wait_until(lambda: self._state(node) in ("IDLE", "MIXED", "ALLOCATED"), f"node {node} back")

    def _state(self, node: str) -> str:
        shown = self.ok("scontrol", "--oneliner", "show", "node", node)
        return re.search(r" State=(\S+)", shown)[1]


def pytest_collection_modifyitems(items):
    """Everything in this folder needs a Slurm."""
    for item in items:
        if Path(item.fspath).is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def installed():
    """Slurm and munge are installed here."""
    sbin = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    missing = [name for name in ("slurmctld", "slurmd", "munged", "srun") if shutil.which(name, path=sbin) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: apt-get install slurm-wlm munge")


@pytest.fixture(scope="session")
def slurm(installed):
    """The cluster, for the whole session: end or cancel what you start."""
    with running_cluster("shared", "--nodes=2", "--cpus-per-node=2", "--gpus-per-node=2") as cluster:
        yield cluster


@contextmanager
def running_cluster(name: str, *options: str):
    """A cluster of its own, which is gone afterwards."""
    directory = Path(f"/tmp/hpcfit-{os.getpid()}-{name}")  # sockets need short names: pytest's own folders are too deep
    started = subprocess.run(
        [TOOL, "up", "--directory", directory, *options], capture_output=True, text=True, timeout=300, check=False
    )
    assert started.returncode == 0, started.stderr
    try:
        yield Slurm(directory, environment(started.stdout))
    finally:
        subprocess.run([TOOL, "down", "--directory", directory], check=True, timeout=300)


def environment(exported: str) -> dict[str, str]:
    """This environment with the cluster's SLURM_CONF and this Python's commands, without traces of a job around it."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SBATCH", "PMI"))}
    name, _, value = exported.strip().removeprefix("export ").partition("=")
    return outer | {
        name: value,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), outer["PATH"], "/usr/sbin", "/sbin"]),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), outer.get("PYTHONPATH")])),
    }


@pytest.fixture
def slurm_here(slurm, monkeypatch) -> Slurm:
    """The same cluster, to which this very process talks: for functions that call Slurm's commands themselves."""
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)
    return slurm
