"""`hpcfit prepare` with a [cluster]: the bytes of one process, workers that die, stops, damaged inputs, many inputs."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import ase.io
import numpy as np
import pytest

from hpcfit.store.files import sha256_of_file
from hpcfit.store.structure_factors import open_store
from tests.command import ROOT, WIDE, here
from tests.conftest import assert_one_clear_error, wait_for
from tests.prepare.test_prepare import D_MIN, FRAMES, MTZ, folder, runs  # noqa: F401  (fixtures)
from tests.prepare.test_prepare_faults import write_trajectory
from tests.store.test_shard import flip_byte
from tests.workflow.crew_tasks import Gate
from tests.workflow.held import held

pytestmark = pytest.mark.programs

CLUSTER = '[cluster]\nworkers = 2\ndashboard = "127.0.0.1:0"\n'


def checksums(store):
    """Of all files but the virtual view, whose bytes HDF5 does not determine."""
    return {path.name: sha256_of_file(path) for path in store.iterdir() if path.name != "store.h5"}


@pytest.fixture
def mixed(tmp_path, runs, folder):  # noqa: F811
    """Writes a config of two trajectories and a folder of MTZ files, with what is given below it; its path."""
    trajectories = "".join(f'[[prepare.source]]\ntrajectory = "{name}/run.extxyz"\n' for name in FRAMES)

    def write(below=""):
        path = tmp_path / "config.toml"
        keys = f'[frames]\nstore = "store"\n[prepare]\nd_min = {D_MIN}\nshard_frames = 64\nsample = 10\n'
        path.write_text(keys + MTZ + trajectories + below)
        return path

    return write


@pytest.mark.mpi
def test_a_cluster_and_ranks_write_the_bytes_of_one_process(tmp_path, mixed, hpcfit):
    found = []
    for below, ranks in (("", 1), ("", 2), (CLUSTER, 1)):
        done = hpcfit("prepare", mixed(below), ranks=ranks, apart=bool(below))
        assert done.returncode == 0, done.stderr
        assert "205 frames x" in done.stderr
        assert open_store(tmp_path / "store").n_frames == 205
        found.append(checksums(tmp_path / "store"))
        (tmp_path / "store").rename(tmp_path / f"store_{len(found)}")
    assert len(found[0]) == 6 + 3  # shards; catalog, reference and missing.csv
    assert found[0] == found[1] == found[2]


def started(config):
    """`hpcfit prepare`, its standard error piped, and the gate at which both workers wait with two shards done."""
    gate = Gate(config.parent / "gate")
    shutil.rmtree(gate.folder, ignore_errors=True)
    command = held("held_after_two_shards", gate, "prepare", config)
    driver = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ | WIDE)
    wait_for(lambda: len(gate.waiting()) == 2 or driver.poll() is not None)
    assert driver.poll() is None, driver.stderr.read()
    return driver, gate


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """The config of a preparation of 20 shards, and what its store must be."""
    folder = tmp_path_factory.mktemp("long")  # noqa: F811
    for name in "ab":
        write_trajectory(folder / f"{name}.xyz", n_frames=640)
    config = folder / "config.toml"
    config.write_text(
        '[frames]\nstore = "store"\n[prepare]\nd_min = 0.8\nshard_frames = 64\nsample = 4\n'
        '[[prepare.source]]\ntrajectory = "*.xyz"\n'
    )
    done = here("prepare", config)
    assert done.returncode == 0, done.stderr
    config.write_text(config.read_text() + CLUSTER)
    found = checksums(folder / "store")
    assert len(found) == 20 + 2
    return config, found


@pytest.fixture
def complete(long, tmp_path):
    """A copy of its folder, with the store; the config's path."""
    return Path(shutil.copytree(long[0].parent, tmp_path / "complete")) / "config.toml"


def test_checksums_are_compared_on_a_cluster(complete, hpcfit):
    store = complete.parent / "store"
    whole = hpcfit("store", "verify", store, "--cluster", complete, apart=True)
    assert whole.returncode == 0, whole.stderr
    assert "1280 frames in 20 shards are as they were written" in whole.stderr
    flip_byte(store / "b.xyz.0000064-0000128.h5")
    damaged = hpcfit("store", "verify", store, "--cluster", complete, apart=True)
    assert damaged.returncode == 2
    assert damaged.stderr.count("is damaged: chunk (0, ") == 1
    assert "b.xyz.0000064-0000128.h5" in damaged.stderr


def test_a_store_is_made_anew_from_another_on_a_cluster(complete, hpcfit, tmp_path):
    again = tmp_path / "config.toml"
    source = '[[prepare.source]]\nstore = "complete/store"\n'
    again.write_text('[frames]\nstore = "store"\n[prepare]\nshard_frames = 320\n' + source + CLUSTER)
    done = hpcfit("prepare", again, apart=True)
    assert done.returncode == 0, done.stderr
    assert [shard.frames for shard in open_store(tmp_path / "store").shards] == [320] * 4
    one, other = open_store(tmp_path / "store"), open_store(complete.parent / "store")
    assert one.reference.digest() == other.reference.digest()


@pytest.fixture
def emptied(long):
    """The same without its store."""
    config, found = long
    for path in (config.parent / "store").iterdir():
        path.unlink()
    return config, found


def test_a_killed_worker_costs_nothing_but_time(emptied):
    config, expected = emptied
    driver, gate = started(config)
    os.kill(gate.waiting()[0], signal.SIGKILL)
    gate.open()
    _, errors = driver.communicate(timeout=300)
    assert driver.returncode == 0, errors
    assert "lost its worker" in errors
    assert checksums(config.parent / "store") == expected


def test_a_stopped_preparation_ends_with_75_and_goes_on_later(emptied, hpcfit):
    config, expected = emptied
    driver, _ = started(config)
    driver.send_signal(signal.SIGTERM)
    _, errors = driver.communicate(timeout=300)
    assert driver.returncode == 75, errors
    assert "stopped by SIGTERM" in errors
    assert not (config.parent / "store/catalog.json").exists()
    again = hpcfit("prepare", config, apart=True)
    assert again.returncode == 0, again.stderr
    assert "shards are there and complete" in again.stderr
    assert checksums(config.parent / "store") == expected


def test_a_damaged_input_is_one_clear_error(mixed, tmp_path, hpcfit):
    images = ase.io.read(tmp_path / "two/run.extxyz", index=":")
    images[100].positions[2] = np.nan
    ase.io.write(tmp_path / "two/run.extxyz", images)
    done = hpcfit("prepare", mixed(CLUSTER), apart=True)
    assert_one_clear_error(done, ["two/run.extxyz", "frame 100: the position of atom 2"])
    assert not (tmp_path / "store/catalog.json").exists()


def test_many_inputs(tmp_path, hpcfit):
    for number in range(60):
        write_trajectory(tmp_path / f"{number:03d}.xyz", n_frames=3)
    (tmp_path / "config.toml").write_text(
        '[frames]\nstore = "store"\n[prepare]\nd_min = 2\n[[prepare.source]]\ntrajectory = "*.xyz"\n' + CLUSTER
    )
    done = hpcfit("prepare", tmp_path / "config.toml", apart=True)
    assert done.returncode == 0, done.stderr
    store = open_store(tmp_path / "store")
    assert [shard.source for shard in store.shards] == [f"{number:03d}.xyz" for number in range(60)]
    assert [shard.first_id for shard in store.shards] == list(range(0, 180, 3))


@pytest.mark.mpi
def test_several_ranks_with_a_cluster_are_one_clear_error(mixed, hpcfit):
    done = hpcfit("prepare", mixed(CLUSTER), ranks=2)
    assert_one_clear_error(done, ["= 2: 2 processes were started", "without mpiexec or srun"])


@pytest.mark.mpi
def test_a_wrong_config_is_one_clear_error_on_any_number_of_ranks(mixed, hpcfit):
    done = hpcfit("prepare", mixed(CLUSTER + "wokers = 3\n"), ranks=2)
    assert_one_clear_error(done, ["unknown key 'cluster.wokers' = 3", "did you mean 'workers'"])
