"""Two commands that write into one folder: the second ends with one error that names the first."""

import os
import signal
import subprocess

import pytest

from hpcfit.kinds.table import load_config
from hpcfit.ranks import Ranks
from hpcfit.simulation.replicas import all_replicas
from hpcfit.store.locks import LOCK, locked
from tests.command import HPCFIT, ROOT, sets
from tests.conftest import assert_one_clear_error, history, wait_for
from tests.prepare.test_prepare_faults import trajectory_config, write_trajectory
from tests.simulation import simulations

UNENDING = ("optimizer.name=adam", "optimizer.max_steps=1000000000", "optimizer.gradient_tolerance=0",
            "optimizer.relative_tolerance=0", "run.report=false")  # fmt: skip


@pytest.fixture
def fitting(two_sources, tmp_path):
    """A fit that goes on, and the words of others in its directory."""
    words = ["optimize", str(two_sources), *sets(f"run.directory={tmp_path / 'run'}")]
    job = subprocess.Popen([*HPCFIT, *words, *sets(*UNENDING)], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: (tmp_path / "run/history.jsonl").exists() and len(history(tmp_path / "run")) > 3)
        yield job, words
    finally:
        job.kill()
        job.wait()


def said_of(pid, folder):
    return [f"{folder} is in use by another hpcfit", f"process {pid} on ", ", since 20"]


def test_a_second_fit_is_refused_and_the_first_goes_on(hpcfit, fitting, tmp_path):
    job, words = fitting
    config = (tmp_path / "run/config.toml").read_bytes()
    for more in ((), ("--overwrite",), ("--resume",), ("--resume", "auto")):
        assert_one_clear_error(hpcfit(*words, *more), said_of(job.pid, tmp_path / "run"))
    so_far = len(history(tmp_path / "run"))
    wait_for(lambda: len(history(tmp_path / "run")) > so_far)
    assert (tmp_path / "run/config.toml").read_bytes() == config


@pytest.mark.mpi
def test_a_second_fit_on_ranks_says_it_once(hpcfit, fitting, tmp_path):
    job, words = fitting
    assert_one_clear_error(hpcfit(*words, "--overwrite", ranks=2), said_of(job.pid, tmp_path / "run"))


def test_after_a_kill_or_a_signal_the_next_one_goes_on(hpcfit, fitting, tmp_path):
    job, words = fitting
    job.send_signal(signal.SIGTERM)
    assert job.wait(120) == 75
    assert not (tmp_path / "run" / LOCK).exists()
    settings = sets(*UNENDING)
    again = subprocess.Popen([*HPCFIT, *words, "--resume", *settings], cwd=ROOT, stderr=subprocess.DEVNULL)
    wait_for((tmp_path / "run" / LOCK).exists)
    again.kill()
    again.wait()
    assert (tmp_path / "run" / LOCK).exists()
    done = hpcfit(*words, "--overwrite", *sets("optimizer.max_steps=1", "run.report=false"))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run" / LOCK).exists()


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.mpi)])
def test_a_second_preparation_is_refused_before_it_reads_anything(hpcfit, tmp_path, ranks):
    write_trajectory(tmp_path / "a.xyz", n_frames=70)
    trajectory_config(tmp_path)
    with locked(tmp_path / "store", Ranks()):
        done = hpcfit("prepare", tmp_path / "config.toml", ranks=ranks)
        assert_one_clear_error(done, said_of(os.getpid(), tmp_path / "store"))
        assert [path.name for path in (tmp_path / "store").iterdir()] == [LOCK]
    assert not (tmp_path / "store").exists()
    done = hpcfit("prepare", tmp_path / "config.toml", ranks=ranks)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "store" / LOCK).exists()


def test_a_second_preparation_or_simulation_on_a_cluster_starts_none(hpcfit, tmp_path):
    write_trajectory(tmp_path / "a.xyz", n_frames=70)
    trajectory_config(tmp_path)
    path = tmp_path / "config.toml"
    path.write_text(path.read_text() + '[cluster]\nkind = "local"\nworkers = 1\n')
    with locked(tmp_path / "store", Ranks()):
        done = hpcfit("prepare", path, apart=True)
    assert_one_clear_error(done, said_of(os.getpid(), tmp_path / "store"))
    assert "cluster:" not in done.stderr
    config = simulations.write_dipeptide(tmp_path, replicas=1, frames=1)
    settings = load_config(config)
    with locked(settings.simulate.directory, Ranks()):
        done = hpcfit("simulate", config, apart=True)
        assert [path.name for path in settings.simulate.directory.iterdir()] == [LOCK]
    assert_one_clear_error(done, said_of(os.getpid(), settings.simulate.directory))
    assert not any(replica.folder.exists() for replica in all_replicas(settings.simulate))
