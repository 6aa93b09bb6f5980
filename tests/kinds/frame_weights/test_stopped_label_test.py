"""The test whether a map tells labels apart is stopped by a signal, and `--resume auto` ends with the same bits."""

import json
import os
import signal

import pytest

from hpcfit.kinds.frame_weights import label_test
from tests.command import here, sets

SETTINGS = ("problem.theta=0.01", "problem.starts=['prior']", "optimizer.max_steps=3", "run.report=false")


def words(config, directory, *more):
    return ["optimize", str(config), "--resume", "auto", *sets(f"run.directory={directory}", *SETTINGS, *more)]


def result(directory) -> dict:
    metrics = json.loads((directory / "metrics.json").read_text())
    told = {name: metrics[name] for name in ("labels", "warnings", "fitted")}
    return told | {"weights": (directory / "weights.csv").read_bytes()}


@pytest.fixture(scope="module")
def whole(two_sources, tmp_path_factory):
    directory = tmp_path_factory.mktemp("labels") / "run"
    here(*words(two_sources, directory)).check_returncode()
    found = result(directory)
    assert {row["label"] for row in found["labels"]} == {"A", "B"}
    return found


def test_a_signal_stops_it_and_evaluations_are_not_repeated(hpcfit, two_sources, whole, tmp_path, monkeypatch):
    differ, calls = label_test._differ, []

    def counted(evaluation, grid):
        calls.append(evaluation.loss)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return differ(evaluation, grid)

    monkeypatch.setattr(label_test, "_differ", counted)
    done = hpcfit(*words(two_sources, tmp_path / "run"))
    assert done.returncode == 75, done.stderr
    assert len(calls) == 4
    assert not (tmp_path / "run/metrics.json").exists()
    done = hpcfit(*words(two_sources, tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "'labels alone' goes on: 4 of" in done.stderr
    assert done.stderr.count("has ended before") == 1
    assert result(tmp_path / "run") == whole


@pytest.mark.mpi
def test_the_clock_stops_it_after_each_evaluation_on_other_ranks(hpcfit, two_sources, whole, tmp_path):
    first = hpcfit(*words(two_sources, tmp_path / "run", "optimizer.wall_clock_minutes=1e-9"), ranks=2)
    assert first.returncode == 75, first.stderr
    assert "wall clock" in first.stderr
    done = hpcfit(*words(two_sources, tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert result(tmp_path / "run") == whole
