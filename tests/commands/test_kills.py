"""SIGKILL at any place, time and again: what is continued ends with the same bits, and nothing stands in its way."""

import os
import shutil
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest

from hpcfit.simulation.replica_run import simulate_replica
from hpcfit.store.files import sha256_of_file
from tests.command import HPCFIT, ROOT, WIDE, sets
from tests.commands.killed import COUNTED
from tests.conftest import history, wait_for
from tests.prepare.test_prepare_faults import trajectory_config, write_trajectory
from tests.simulation import simulations
from tests.simulation.test_simulate import same_files

KILLS = [3, pytest.param(20, marks=pytest.mark.nightly)]


def killed(number, *words):
    """Run the command until it is killed there, or to its end where that is before."""
    command = [sys.executable, "-m", "tests.commands.killed", str(number), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env=os.environ | WIDE)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done


def killed_again_and_again(kills, words, folder, check):
    """Kill and continue the command so many times, each at a place drawn from those that it still has; where it has
    ended, `check` what it left, and begin anew."""
    total = int(killed(0, *words).stderr.rpartition(COUNTED)[2])
    assert total > 20
    check()
    shutil.rmtree(folder)
    rng, so_far = np.random.default_rng(2026), 0
    while so_far < kills:
        if killed(rng.integers(1, total), *words).returncode:
            so_far += 1
            continue
        check()
        shutil.rmtree(folder)
    assert killed(0, *words).returncode == 0
    check()


@pytest.mark.slow
@pytest.mark.programs
@pytest.mark.parametrize("kills", KILLS)
def test_a_fit_that_is_killed_ends_the_same(two_sources, tmp_path, kills):
    run, expected = tmp_path / "run", []
    settings = (f"run.directory={run}", "optimizer.max_steps=12", "run.report=false", "checkpoint.every_steps=2")
    words = ["optimize", two_sources, "--resume", "auto", *sets(*settings, "problem.starts=['prior', 'uniform']")]

    def check():
        losses = [(row["evaluation"], row["loss"], row["gradient_norm"]) for row in history(run)]
        expected.append((losses, (run / "weights.csv").read_bytes(), values(run / "map.h5")))
        assert expected[-1] == expected[0]
        assert not [path for path in run.rglob("*") if path.name.endswith((".tmp", ".lock"))]

    killed_again_and_again(kills, words, run, check)


def values(path):
    """The bytes of every dataset of a file."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()].tobytes()}))
    return found


@pytest.mark.slow
@pytest.mark.programs
@pytest.mark.parametrize("kills", KILLS)
def test_a_preparation_that_is_killed_ends_the_same(tmp_path, hpcfit, kills):
    write_trajectory(tmp_path / "a.xyz", n_frames=300)
    trajectory_config(tmp_path)
    store, expected = tmp_path / "store", []

    def check():
        expected.append({path.name: sha256_of_file(path) for path in store.iterdir() if path.name != "store.h5"})
        assert expected[-1].keys() == expected[0].keys()
        shards = {name: digest for name, digest in expected[-1].items() if name.endswith(".h5")}
        assert shards.items() <= expected[0].items()  # the catalog names the command line
        assert hpcfit("store", "verify", store).returncode == 0

    killed_again_and_again(kills, ["prepare", tmp_path / "config.toml"], store, check)


@pytest.mark.slow
@pytest.mark.programs
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.nightly)])
def test_a_simulation_that_is_killed_ends_the_same(tmp_path, hpcfit, kills):
    """With all its workers, each time when there are some pieces more."""
    config = simulations.write_dipeptide(tmp_path, replicas=2, frames=3 * (kills + 2), piece=3)
    expected = simulations.replicas(config, f"simulate.directory='{tmp_path / 'undisturbed'}'")
    found = simulations.replicas(config)
    for number in range(kills):
        job = subprocess.Popen(
            [*HPCFIT, "simulate", str(config)], cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL
        )
        wait_for(lambda number=number, job=job: job.poll() is not None or pieces(found) > number)
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()
    done = hpcfit("simulate", config, apart=True)
    assert done.returncode == 0, done.stderr
    for replica in expected:
        simulate_replica(replica)
    assert all(map(same_files, found, expected))
    assert not list(found[0].folder.parent.rglob("*.lock"))


def pieces(replicas):
    """How many pieces all of them have."""
    return sum(len(list(replica.folder.glob("piece_*.h5"))) for replica in replicas)
