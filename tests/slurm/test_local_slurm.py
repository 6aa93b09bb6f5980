"""The local Slurm itself: what a user sees of it, and that it leaves nothing behind. It is not a test of Slurm."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm.conftest import TOOL, running_cluster

SEGMENTS = Path("/dev/shm")
# A rank that is killed in the middle leaves its shared memory; a process in a session of its own outlives its step.
MESSY = """#!/bin/bash
touch /dev/shm/mpich_shm_left_by_$SLURM_JOB_ID
setsid sleep 600 &
echo $! > pids; echo $$ >> pids
sleep 600
"""


def tool(*words, **options) -> subprocess.CompletedProcess:
    return subprocess.run([TOOL, *words], capture_output=True, text=True, timeout=300, check=False, **options)


def alive(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:  # also where it ends while it is read
        return False


def test_nodes_share_out_their_fake_gpus(slurm):
    command = ["bash", "-c", "echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES"]
    one_each = slurm.ok("srun", "-N2", "-n4", "--gpus-per-task=1", *command)
    assert sorted(one_each.splitlines()) == ["n1 0", "n1 1", "n2 0", "n2 1"]
    all_of_node = slurm.ok("srun", "-N2", "-n2", "--gpus-per-node=2", *command)
    assert sorted(all_of_node.splitlines()) == ["n1 0,1", "n2 0,1"]


def test_status_shows_how_to_use_it(slurm):
    shown = tool("status", "--directory", slurm.directory)
    assert shown.returncode == 0
    assert shown.stdout == f"export SLURM_CONF={slurm.directory}/slurm.conf\n"
    assert "n2" in shown.stderr


@pytest.mark.parametrize("node_lost", [False, True])
def test_down_leaves_nothing_of_a_messy_job(installed, tmp_path, node_lost):
    with running_cluster("messy") as cluster:
        (tmp_path / "messy.sh").write_text(MESSY)
        job = cluster.sbatch(tmp_path / "messy.sh")
        written = tmp_path / "pids"
        cluster.wait_until(lambda: written.exists() and written.read_text().count("\n") == 2, "the job has started")
        pids = written.read_text().split()
        assert all(map(alive, pids))
        if node_lost:
            cluster.kill_node("n1")
    assert not any(map(alive, pids))
    assert not cluster.directory.exists()
    assert not (SEGMENTS / f"mpich_shm_left_by_{job}").exists()
    commands = subprocess.run(["ps", "-eww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    assert str(cluster.directory) not in commands


def test_one_node_binds_its_ranks_to_cores(installed, two_sources):
    if os.cpu_count() < 2:
        pytest.skip("one core")
    with running_cluster("bound", "--cpus-per-node=2") as cluster:
        done = cluster.run("srun", "-n2", "--cpu-bind=cores", "python", "-m", "hpcfit", "check", two_sources)
    assert done.returncode == 0, done.stderr
    lines = [line.split("INFO ")[1].split() for line in done.stderr.splitlines() if " n1 " in line]
    assert [line[:5] for line in lines] == [["0", "n1", "0", "0", "0"], ["1", "n1", "1", "1", "1"]]


@pytest.mark.skipif(os.getuid() != 0 or not Path("/usr/bin/python3").exists(), reason="becomes another user by root")
def test_it_works_for_a_user_without_rights(installed):
    script = TOOL.read_text()  # the user may not be allowed to read the checkout
    directory = Path(f"/tmp/hpcfit-{os.getpid()}-nobody")

    def as_nobody(*command, **options):
        return subprocess.run(
            command, user="nobody", group="nogroup", extra_groups=[], cwd="/", capture_output=True, text=True,
            timeout=300, check=False, **options,
        )  # fmt: skip

    up = as_nobody("/usr/bin/python3", "-", "up", "--nodes=2", "--directory", directory, input=script)
    try:
        assert up.returncode == 0, up.stderr
        environment = os.environ | {"SLURM_CONF": f"{directory}/slurm.conf"}
        assert as_nobody("srun", "-N2", "id", "-un", env=environment).stdout == "nobody\nnobody\n"
    finally:
        down = as_nobody("/usr/bin/python3", "-", "down", "--directory", directory, input=script)
    assert down.returncode == 0, down.stderr
    assert not directory.exists()


def test_mistakes_are_one_line_each(slurm, tmp_path):
    (tmp_path / "letter").write_text("dear")
    for words, told in (
        (["up", "--directory", slurm.directory], "down` first"),
        (["up", "--directory", "/tmp/" + 60 * "x"], "at most 60"),
        (["down", "--directory", tmp_path], "left alone"),
        (["status", "--directory", "/tmp/nowhere"], "no cluster"),
        (["kill-node", "n7", "--directory", slurm.directory], "n1, n2"),
    ):
        done = tool(*words)
        assert done.returncode == 2
        assert told in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "letter").exists()


@pytest.mark.skipif(Path("/usr/sbin/sinfo").exists(), reason="Slurm's commands are where the daemons are looked for")
def test_without_slurm_it_names_the_packages(tmp_path):
    (tmp_path / "python3").symlink_to(sys.executable)
    done = tool("up", "--directory", tmp_path / "s", env={"PATH": str(tmp_path)})
    assert done.returncode == 2
    assert "apt-get install slurm-wlm munge" in done.stderr
