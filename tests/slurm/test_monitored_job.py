"""A monitored fit as a job: its dashboard and `hpcfit watch` know when Slurm ends it, and how to get to its node."""

import contextlib
import json
import os
import socket
from datetime import datetime

import pytest

from hpcfit.workflow.slurm import end_of_job
from tests.conftest import history
from tests.slurm.conftest import Slurm
from tests.workflow import browser

pytestmark = pytest.mark.mpi

SCRIPT = """#!/bin/bash
#SBATCH --nodes=2 --ntasks-per-node=1 --time=10 --output=job.log
srun --kill-on-bad-exit=1 python -m hpcfit optimize {config} --monitor {settings}
"""
SETTINGS = (
    "optimizer.name=adam", "optimizer.options.learning_rate=0.002", "optimizer.gradient_tolerance=0",
    "optimizer.relative_tolerance=0", "optimizer.max_steps=100000000", "monitor.dashboard=127.0.0.1:0",
)  # fmt: skip


@pytest.mark.parametrize("page", [False, pytest.param(True, marks=pytest.mark.nightly)])
def test_the_end_of_the_job_is_in_the_table_and_on_the_page(slurm_here: Slurm, two_sources, tmp_path, page):
    slurm, run = slurm_here, tmp_path / "run"
    settings = " ".join(f"--set {setting}" for setting in (f"run.directory={run}", *SETTINGS))
    (tmp_path / "job.sh").write_text(SCRIPT.format(config=two_sources, settings=settings))
    job = slurm.sbatch(tmp_path / "job.sh")
    try:
        slurm.wait_until((run / "monitor.json").exists, "the dashboard")
        address = json.loads((run / "monitor.json").read_text())
        port = address["dashboard"].rpartition(":")[2]
        assert address["tunnel"] == f"ssh -J {os.uname().nodename} -L {port}:127.0.0.1:{port} {socket.gethostname()}"
        begun = datetime.fromisoformat(slurm.job(job)["StartTime"]).timestamp()
        assert end_of_job(job) == begun + 600
        slurm.wait_until(lambda: answers(address["dashboard"]), "the dashboard's answer")
        slurm.wait_until(lambda: (run / "history.jsonl").exists() and history(run), "the first step")
        if page:
            with browser.session(f"{address['dashboard']}/hpcfit") as opened:
                browser.take_in_until(opened, lambda: "time limit of the Slurm job" in browser.text(opened))
                assert "running on 2 ranks" in browser.text(opened)
        shown = slurm.ok("python", "-m", "hpcfit", "watch", run, "--once")
        assert "time limit of the Slurm job" in shown
        assert "running" in shown
    finally:
        slurm.run("scancel", job)
    slurm.wait(job)


def answers(address: str) -> bool:
    """Whether a dashboard listens already."""
    with contextlib.suppress(OSError):
        return bool(browser.get(f"{address}/health"))
    return False


def test_a_job_that_slurm_does_not_know_has_no_end(slurm_here: Slurm):
    assert end_of_job("99999999") is None
