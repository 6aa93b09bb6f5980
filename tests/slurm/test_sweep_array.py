"""A sweep as a Slurm array, killed half-way and started again: what was finished is not run again."""

import csv
import json
import os
import re
import sys

import pytest

from hpcfit.sweep.array import job_name
from tests.command import HPCFIT, sets
from tests.slurm.conftest import Slurm
from tests.workflow.crew_tasks import Gate

POINTS, HELD = 4, 2
# In place of hpcfit: the later tasks of an array wait at a gate until it is open.
PROGRAM = """#!/bin/bash
task=${{SLURM_ARRAY_TASK_ID:-0}}
while [ "$task" -ge {held} ] && [ ! -e {gate}/open ]; do sleep 0.1; done
exec taskset --cpu-list $((task % {cores})) {python} -m hpcfit "$@"
"""


@pytest.fixture
def sweep(slurm: Slurm, two_sources, tmp_path):
    """`hpcfit sweep` of 4 points as an array, with further options; on a site file of its own."""
    # Nothing binds tasks to cores on this cluster, where all nodes are one machine: spread the tasks here.
    cores = len(os.sched_getaffinity(0))
    program, gate = tmp_path / "program", Gate(tmp_path / "gate")
    program.write_text(PROGRAM.format(cores=cores, python=sys.executable, gate=gate.folder, held=HELD))
    program.chmod(0o755)
    (tmp_path / "site.toml").write_text(
        f'description = "test"\nranks_per_node = 2\nmpi = "pmi2"\nprogram = "{program}"\n'
    )
    command = [
        *HPCFIT, "sweep", two_sources, "--grid", "problem.theta=0,1e-3",
        "--seeds", "2", "--directory", tmp_path / "sweep", "--array", "--site", tmp_path / "site.toml",
        "--time", "00:10:00", *sets("optimizer.max_steps=2", "run.report=false"),
    ]  # fmt: skip
    yield lambda *options: slurm.run(*command, *options)
    for name in (job_name(tmp_path / "sweep"), f"{job_name(tmp_path / 'sweep')}-report"):
        slurm.run("scancel", "--name", name)


@pytest.mark.slow
def test_a_killed_array_is_continued(sweep, slurm: Slurm, tmp_path):
    folder = tmp_path / "sweep"
    first = sweep()
    assert first.returncode == 0, first.stderr
    [job] = re.findall(r"array job (\d+) submitted", first.stderr)
    [report] = re.findall(r"job (\d+) writes table and page", first.stderr)
    [all_points] = folder.glob("points-*.txt")
    assert len(all_points.read_text().splitlines()) == POINTS

    again = sweep()
    assert again.returncode == 2
    assert f"array job {job} of the sweep in {folder} has not ended" in again.stderr

    slurm.wait_until(lambda: len(finished(folder)) == HELD, "the points that do not wait")
    slurm.ok("scancel", job)
    slurm.wait_until(lambda: job not in slurm.ok("squeue", "--noheader", "--format=%F"), "the array has ended")
    done = finished(folder)
    assert len(done) == HELD
    Gate(tmp_path / "gate").open()
    slurm.wait(report, "COMPLETED")
    assert [row["state"] for row in rows(folder)].count("finished") == len(done)

    last = sweep("--wait")
    assert last.returncode == 0, last.stderr
    assert f"{POINTS} points in {folder}, {len(done)} of them finished" in last.stderr
    [rest] = set(folder.glob("points-*.txt")) - {all_points}
    listed = {line.rpartition("/")[2] for line in rest.read_text().splitlines()}
    assert listed == names(folder) - done.keys()
    after = finished(folder)
    assert len(after) == POINTS
    assert {name: after[name] for name in done} == done  # not written again
    assert [row["state"] for row in rows(folder)] == ["finished"] * POINTS
    assert {float(row["cc"]) for row in rows(folder)} == {fitted_cc(folder, name) for name in after}
    assert len((folder / "sweep_means.csv").read_text().splitlines()) == 1 + POINTS // 2


def test_an_array_submitted_by_hand_is_seen(sweep, slurm: Slurm, tmp_path):
    folder = tmp_path / "sweep"
    assert sweep("--plan").returncode == 0
    job = slurm.sbatch(folder / "array.sbatch", "--hold")
    refused = sweep()
    assert refused.returncode == 2
    assert f"array job {job} of the sweep in {folder} has not ended: PENDING" in refused.stderr


def rows(folder) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "sweep.csv").read_text().splitlines()))


def names(folder) -> set[str]:
    return {path.parent.name for path in folder.glob("*/config.toml")}


def finished(folder) -> dict[str, int]:
    """When each finished point was written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/metrics.json")}


def fitted_cc(folder, name: str) -> float:
    return json.loads((folder / name / "metrics.json").read_text())["fitted"]["cc"]
