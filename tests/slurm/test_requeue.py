"""A job that is stopped from outside is requeued, goes on, and ends as the run that nothing stopped, bit for bit.

The warning before the time limit is sent by hand: Slurm looks at limits only every half minute.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, fingerprint
from tests.slurm.conftest import ENDED, Slurm

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(300)]

# Adam far beyond its optimum: a run that lasts, since nothing but the number of steps ends it.
SETTINGS = (
    "optimizer.name=adam", "optimizer.options.learning_rate=0.01", "optimizer.gradient_tolerance=0",
    "optimizer.relative_tolerance=0", "optimizer.max_steps=800", "checkpoint.every_steps=5", "run.report=false",
)  # fmt: skip
SCRIPT = """#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=1 --time=10 --requeue --signal=USR1@120 --open-mode=append --output=job.log
srun --kill-on-bad-exit=1 python -m hpcfit optimize {config} --resume auto {settings}
code=$?
if [ "$code" = 75 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
"""


def settings(directory: Path) -> list[str]:
    return [word for setting in (f"run.directory={directory}", *SETTINGS) for word in ("--set", setting)]


@pytest.fixture(scope="module")
def uninterrupted(two_sources, tmp_path_factory):
    """The run directory of the same fit in one go, on one rank."""
    directory = tmp_path_factory.mktemp("uninterrupted") / "run"
    command = [sys.executable, "-m", "hpcfit", "optimize", str(two_sources), *settings(directory)]
    subprocess.run(command, check=True, capture_output=True, timeout=300, cwd=ROOT)
    return directory


class Job:
    """A submitted fit that is interrupted again and again."""

    def __init__(self, slurm: Slurm, config: Path, folder: Path, *options: str):
        self.slurm, self.folder, self.restarts, self.step = slurm, folder, 0, 0
        script = folder / "job.sh"
        script.write_text(SCRIPT.format(config=config, settings=" ".join(settings(folder / "run"))))
        self.id = slurm.sbatch(script, *options)

    def wait_for_progress(self) -> None:
        """Until this start of the job has written checkpoints of its own."""
        started = self.step + 10
        self.slurm.wait_until(lambda: self.newest() > started or self.has_ended(), "new checkpoints", timeout=300)
        assert not self.has_ended(), self.log()
        self.step = self.newest()
        assert not (self.folder / "run/metrics.json").exists(), "the run ended before it was interrupted"

    def newest(self) -> int:
        """The step of the newest checkpoint."""
        names = [path.name for path in (self.folder / "run/checkpoints").glob("step_*.h5")]
        return max((int(name.split(".")[0].removeprefix("step_")) for name in names), default=0)

    def has_ended(self) -> bool:
        """Whether it will not be started again."""
        return self.slurm.job(self.id)["JobState"] in ENDED

    def is_requeued(self) -> None:
        """It waits for its next start: soon, but Slurm refuses one in the very second in which it revoked the job."""
        self.restarts += 1
        self.slurm.wait(self.id, "PENDING")
        assert self.slurm.job(self.id)["Restarts"] == str(self.restarts)
        self.slurm.ok("scontrol", "update", f"jobid={self.id}", "starttime=now+3")

    def log(self) -> str:
        """What all starts of the job have printed."""
        return (self.folder / "job.log").read_text()

    def ends_like(self, uninterrupted: Path) -> None:
        """It ends, and nothing shows in the result."""
        assert self.slurm.wait(self.id, "COMPLETED", timeout=300)["Restarts"] == str(self.restarts)
        assert self.log().count("resuming from") == self.restarts
        assert fingerprint(self.folder / "run") == fingerprint(uninterrupted)
        for name in ("fitted", "steps", "evaluations"):
            assert json.loads((self.folder / "run/metrics.json").read_text())[name] == json.loads(
                (uninterrupted / "metrics.json").read_text()
            )[name]  # fmt: skip


def test_warned_by_a_signal_then_its_batch_node_dies(slurm, two_sources, uninterrupted, tmp_path):
    job = Job(slurm, two_sources, tmp_path)
    job.wait_for_progress()
    slurm.ok("scancel", "--signal=USR1", job.id)
    job.is_requeued()
    assert "signal SIGUSR1" in job.log()
    job.wait_for_progress()
    lose_node(slurm, "n1")
    job.is_requeued()
    job.ends_like(uninterrupted)


def test_preempted_then_its_other_node_dies(slurm, two_sources, uninterrupted, tmp_path):
    job = Job(slurm, two_sources, tmp_path, "--partition=preempt")
    job.wait_for_progress()
    slurm.ok("srun", "--nodes=2", "--exclusive", "true")
    job.is_requeued()
    assert "signal SIGTERM" in job.log()
    job.wait_for_progress()
    lose_node(slurm, "n2")
    job.is_requeued()
    job.ends_like(uninterrupted)


def lose_node(slurm: Slurm, node: str) -> None:
    """A node dies, Slurm is told (it would find out after SlurmdTimeout), and a new one takes its place."""
    slurm.kill_node(node)
    slurm.ok("scontrol", "update", f"nodename={node}", "state=down", "reason=power")
    slurm.start_node(node)
