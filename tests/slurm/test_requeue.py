"""A job that is stopped from outside is requeued, goes on, and ends as the run that nothing stopped, bit for bit.

The warning before the time limit is sent by hand: Slurm looks at limits only every half minute.
"""

import json
from pathlib import Path

import pytest

from tests.command import here, sets
from tests.conftest import fingerprint
from tests.slurm.conftest import ENDED, Slurm

pytestmark = pytest.mark.mpi

# Adam far beyond its optimum: nothing but the number of steps ends it, and that is each start's own.
SETTINGS = (
    "optimizer.name=adam", "optimizer.options.learning_rate=0.01", "optimizer.gradient_tolerance=0",
    "optimizer.relative_tolerance=0", "checkpoint.every_steps=5", "run.report=false",
)  # fmt: skip
ENDLESS = 10**9
SCRIPT = """#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=1 --time=10 --requeue --signal=USR1@120 --open-mode=append --output=job.log
goal=goal-${{SLURM_RESTART_COUNT:-0}}
while [ ! -s "$goal" ]; do sleep 0.1; done
srun --kill-on-bad-exit=1 python -m hpcfit optimize {config} --resume auto {settings}=$(cat "$goal")
code=$?
if [ "$code" = 75 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
"""


def settings(directory: Path) -> list[str]:
    """To be followed by a number of steps."""
    given = (f"run.directory={directory}", *SETTINGS, "optimizer.max_steps")
    return sets(*given)


class Job:
    """A submitted fit that is interrupted again and again; each of its starts waits to be told how far to go."""

    def __init__(self, slurm: Slurm, config: Path, folder: Path, *options: str):
        self.slurm, self.config, self.folder, self.restarts, self.step = slurm, config, folder, 0, 0
        script = folder / "job.sh"
        script.write_text(SCRIPT.format(config=config, settings=" ".join(settings(folder / "run"))))
        self.id = slurm.sbatch(script, *options)

    def goes_on_to(self, steps: int) -> None:
        """What this start of the job waits for."""
        (self.folder / f"goal-{self.restarts}").write_text(str(steps))

    def makes_progress(self) -> None:
        """Until this start of the job has written checkpoints of its own, and on and on."""
        self.goes_on_to(ENDLESS)
        self.slurm.wait_until(lambda: self.newest() > self.step + 10 or self.has_ended(), "new checkpoints")
        assert not self.has_ended(), self.log()

    def newest(self) -> int:
        """The step of the newest checkpoint."""
        names = [path.name for path in (self.folder / "run/checkpoints").glob("step_*.h5")]
        return max((int(name.split(".")[0].removeprefix("step_")) for name in names), default=0)

    def has_ended(self) -> bool:
        """Whether it will not be started again."""
        return self.slurm.job(self.id)["JobState"] in ENDED

    def is_started_again(self) -> None:
        """Soon, but Slurm refuses it in the very second in which it revoked the job."""
        self.restarts += 1
        self.slurm.wait_until(lambda: self.slurm.job(self.id)["Restarts"] == str(self.restarts), "the job in the queue")
        self.slurm.run("scontrol", "update", f"jobid={self.id}", "starttime=now+3")  # refused if it has started
        self.slurm.wait(self.id, "RUNNING")
        self.step = self.newest()

    def log(self) -> str:
        """What all starts of the job have printed."""
        return (self.folder / "job.log").read_text()

    def ends_as_if_uninterrupted(self) -> None:
        """It ends, and nothing shows in the result: as that of the same fit in one go, on one rank."""
        steps, whole = self.step + 100, self.folder / "whole"
        self.goes_on_to(steps)
        *words, last = settings(whole)
        done = here("optimize", self.config, *words, f"{last}={steps}")
        assert done.returncode == 0, done.stderr
        assert self.slurm.wait(self.id, "COMPLETED")["Restarts"] == str(self.restarts)
        assert self.log().count("resuming from") == self.restarts
        assert fingerprint(self.folder / "run") == fingerprint(whole)
        for name in ("fitted", "steps", "evaluations"):
            assert json.loads((self.folder / "run/metrics.json").read_text())[name] == json.loads(
                (whole / "metrics.json").read_text()
            )[name]  # fmt: skip


def test_warned_by_a_signal_then_its_batch_node_dies(slurm, two_sources, tmp_path):
    job = Job(slurm, two_sources, tmp_path)
    job.makes_progress()
    slurm.ok("scancel", "--signal=USR1", job.id)
    job.is_started_again()
    assert "signal SIGUSR1" in job.log()
    job.makes_progress()
    lose_node(slurm, "n1")
    job.is_started_again()
    job.ends_as_if_uninterrupted()


@pytest.mark.nightly
def test_preempted_then_its_other_node_dies(slurm, two_sources, tmp_path):
    job = Job(slurm, two_sources, tmp_path, "--partition=preempt")
    job.makes_progress()
    slurm.ok("srun", "--nodes=2", "--exclusive", "true")
    job.is_started_again()
    assert "signal SIGTERM" in job.log()
    job.makes_progress()
    lose_node(slurm, "n2")
    job.is_started_again()
    job.ends_as_if_uninterrupted()


def lose_node(slurm: Slurm, node: str) -> None:
    """A node dies, Slurm is told (it would find out after SlurmdTimeout), and a new one takes its place."""
    slurm.kill_node(node)
    slurm.ok("scontrol", "update", f"nodename={node}", "state=down", "reason=power")
    slurm.start_node(node)
