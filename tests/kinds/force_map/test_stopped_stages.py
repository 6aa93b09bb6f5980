"""Passes over the frames that a signal or the clock stops: exit code 75, and `--resume auto` ends with the same bits.

By the command line; what sends a signal is the pass itself, so that it comes at the same frame on any machine.
"""

import json
import os
import signal
from itertools import cycle

import h5py
import numpy as np
import pytest

from hpcfit.kinds.force_map import mapped_frames, passes
from hpcfit.testsystems.harmonic_beads import HarmonicBeads, write_force_store
from tests.command import here, sets
from tests.kinds.force_map.force_map_runs import force_map_config

FRAMES, CUT = 150, 70  # two shards of two blocks each
CONFIG = force_map_config("""
blocks = 5
bootstrap = 2
[problem.beads]
each = "index 1 4 8"
[problem.map]
methods = ["basic", "optimal", "features"]
use = "optimal"
ridge = 0.01
noise = 0.05
[problem.force_matching]
types = "one"
pair_functions = 5
[optimizer]
max_steps = 2
""")
NOW = "optimizer.wall_clock_minutes=1e-9"  # the clock has run out after the first unit of work


def written(folder, scale: float = 1.0):
    system = HarmonicBeads(10)
    r, f = system.frames(FRAMES, 1)
    f[65] *= scale
    sources = {"a": (r[:CUT], f[:CUT], None), "b": (r[CUT:], f[CUT:], None)}
    write_force_store(folder / "store", system.particles, sources)
    (folder / "config.toml").write_text(CONFIG)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return written(tmp_path_factory.mktemp("stages"))


@pytest.fixture(scope="module")
def whole(folder):
    """What a run in one go leaves."""
    here(*words(folder, folder / "whole")).check_returncode()
    return result(folder / "whole")


def words(folder, directory, *more):
    return ["optimize", str(folder / "config.toml"), "--resume", "auto", *sets(f"run.directory={directory}", *more)]


def result(directory) -> dict:
    """All numbers that a run has found."""
    metrics = json.loads((directory / "metrics.json").read_text())
    told = ("maps", "chosen", "learning", "inefficiency", "comparison", "force_matching", "warnings")
    files = [directory / "maps.h5", *sorted((directory / "mapped").glob("*.h5"))]
    return {name: metrics[name] for name in told} | {path.name: arrays_of(path) for path in files}


def arrays_of(path) -> dict[str, str]:
    """The numbers of every dataset of a file, by its name."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: str(item[()].tolist())}) if hasattr(item, "shape") else None
        )
    return found


def stopped_by(number, at: int, monkeypatch, module, name: str) -> None:
    """Have a function of a pass send its process a signal at its call number ``at``."""
    called, calls = getattr(module, name), []

    def signalling(*arguments):
        calls.append(name)
        if len(calls) == at:
            os.kill(os.getpid(), number)
        return called(*arguments)

    monkeypatch.setattr(module, name, signalling)


def states(directory) -> dict[str, str]:
    return {row["name"]: row["state"] for row in json.loads((directory / "study.json").read_text())["study"]}


def test_a_signal_in_the_first_pass_stops_it_and_nothing_is_done_twice(hpcfit, folder, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stopped_by(signal.SIGTERM, 3, patch, passes, "add_products")
        done = hpcfit(*words(folder, tmp_path / "run"))
    assert done.returncode == 75, done.stderr
    assert "SIGTERM" in done.stderr
    assert states(tmp_path / "run") == {"products of forces": "running", "mapped frames": "to come"}
    counted = []
    add = passes.add_products
    monkeypatch.setattr(passes, "add_products", lambda *given: (counted.append(given[1].number), add(*given)))
    done = hpcfit(*words(folder, tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "goes on: 3 of 4 units are done" in done.stderr
    assert counted == [3]
    assert result(tmp_path / "run") == whole
    assert states(tmp_path / "run") == {"products of forces": "ended", "mapped frames": "ended"}


def test_a_signal_in_the_second_pass_leaves_whole_shards_only(hpcfit, folder, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stopped_by(signal.SIGUSR1, 5, patch, mapped_frames, "normal_equations")  # in the second shard
        done = hpcfit(*words(folder, tmp_path / "run"))
    assert done.returncode == 75, done.stderr
    assert [path.name for path in (tmp_path / "run/mapped").glob("?.h5")] == ["a.h5"]
    assert not (tmp_path / "run/mapped/catalog.json").exists()
    done = hpcfit(*words(folder, tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "'products of forces' has ended before" in done.stderr
    assert "'mapped frames' goes on: 1 of 2 units are done" in done.stderr
    assert result(tmp_path / "run") == whole


def test_a_pass_that_is_longer_than_every_job_ends_all_the_same(hpcfit, folder, whole, tmp_path):
    """Each job ends after its first unit of work."""
    jobs = 1
    while (done := hpcfit(*words(folder, tmp_path / "run", NOW))).returncode == 75:
        jobs += 1
        assert "wall clock" in done.stderr
        assert jobs < 20, "no job made any progress"
    assert done.returncode == 0, done.stderr
    assert jobs > 4
    assert result(tmp_path / "run") == whole


@pytest.mark.mpi
def test_the_same_on_other_ranks_each_time(hpcfit, folder, whole, tmp_path):
    codes = []
    for ranks in cycle((2, 1, 3)):
        done = hpcfit(*words(folder, tmp_path / "run", NOW), ranks=ranks)
        codes.append(done.returncode)
        if done.returncode != 75:
            break
    assert codes[-1] == 0, done.stderr
    assert len(codes) >= 3
    assert result(tmp_path / "run") == whole


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.mpi)])
def test_forces_whose_products_are_no_numbers_are_one_error_with_block_and_frames(hpcfit, tmp_path, ranks):
    done = hpcfit(*words(written(tmp_path, scale=1e30), tmp_path / "run"), ranks=ranks)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("hpcfit: error") == 1
    assert "block 1 of 4, frames 64 to 69" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_of_stages_alone_is_not_overwritten_unasked_and_begins_anew_when_told(hpcfit, folder, whole, tmp_path):
    assert hpcfit(*words(folder, tmp_path / "run", NOW)).returncode == 75
    record = tmp_path / "run/fits/products_of_forces.stage"
    assert record.exists()
    anew = [word for word in words(folder, tmp_path / "run") if word not in ("--resume", "auto")]
    assert "already holds a run" in hpcfit(*anew).stderr
    (tmp_path / "run/history.jsonl").unlink()
    assert "already holds a run" in hpcfit(*anew).stderr
    done = hpcfit(*anew, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert "goes on" not in done.stderr
    assert result(tmp_path / "run") == whole
    assert np.isfinite(np.load(tmp_path / "run/force_map.npy")).all()
