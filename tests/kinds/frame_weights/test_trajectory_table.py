"""Frames of tables: their trajectories and states from a file or a store, shares of states, what weights mean."""

import csv
import json

import numpy as np
import pytest

from hpcfit.config.observables.averages import AveragedConfig
from hpcfit.errors import InputError
from hpcfit.kinds.frame_weights.averages.trajectory_table import open_trajectories
from hpcfit.observables.frame_tables import open_data
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.testsystems import averaged_ensembles
from tests.command import here

FRAMES, MEAN, SIGMA = 120, 0.4, 0.05
CONFIG = """
[run]
directory = "run"
[problem]
kind = "frame-weights"
data = "averages"
theta = 2.0
resamples = 3
trajectories = "trajectories.csv"
explain = "numbers.csv"
PRIOR
[[problem.experiment]]
name = "mean"
measured = "measured.npy"
calculated = "calculated.npy"
[optimizer]
gradient_tolerance = 1e-11
relative_tolerance = 0.0
"""
HEAD = "frame,source,label,state\n"


def opened(text, tmp_path, w0=(0.25, 0.25, 0.25, 0.25)):
    path = tmp_path / "trajectories.csv"
    path.write_text(text)
    return open_trajectories(path, [], np.array(w0))


def test_sources_labels_and_states_are_those_of_the_file(tmp_path):
    found = opened(HEAD + "0,b,cold,up\n1,b,cold,down\n2,a,hot,up\n3,a,hot,up\n", tmp_path)
    assert list(found.sources) == ["a", "b"]
    assert found.source.tolist() == [1, 1, 0, 0]
    assert found.label.tolist() == ["hot", "cold"]
    assert list(found.groups) == ["down", "up"]
    assert found.group.tolist() == [1, 0, 1, 1]
    assert found.of_groups(np.array([0.1, 0.2, 0.3, 0.4])) == pytest.approx([0.2, 0.8])


def test_labels_are_states_where_no_state_is_given(tmp_path):
    found = opened("frame,source,label\n0,b,cold\n1,b,cold\n2,a,hot\n3,c,\n", tmp_path)
    assert list(found.groups) == ["all frames", "cold", "hot"]  # a frame of no label is of no state
    assert found.label.tolist() == ["hot", "cold", "c"]


def test_frames_without_prior_weight_take_no_part(tmp_path):
    found = opened(HEAD + "0,b,,up\n1,a,,down\n2,a,,up\n3,a,,up\n", tmp_path, np.array([0, 0.5, 0.25, 0.25]))
    assert list(found.sources) == ["a"]
    assert found.source.tolist() == [-1, 0, 0, 0]
    assert found.group.tolist() == [-1, 0, 1, 1]


def test_so_many_labels_are_trajectories(tmp_path):
    text = "frame,source,label\n" + "".join(f"{n},s{n},l{n}\n" for n in range(9))
    found = opened(text, tmp_path, np.full(9, 1 / 9))
    assert list(found.groups) == ["all frames"]
    assert len(found.sources) == 9


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("frame,label\n0,a\n1,a\n2,a\n3,a\n", "no source"),
        ("source\na\na\na\na\n", "no frame"),
        ("frame,source,source\n0,a,b\n1,a,b\n2,a,b\n3,a,b\n", "two columns source"),
        ("frame,source\n0,a\n1,a\n2,a\n", "has 3 frames, the tables have 4"),
        ("frame,source\n0,a\n2,a\n1,a\n3,a\n", "row 1 is of frame '2'"),
        ("frame,source\n0,a\n1,\n2,a\n3,a\n", "frame 1 has no source"),
        ("frame,source\n0,a\n1\n2,a\n3,a\n", "row 1 has not 2 fields"),
        ("frame,source\n0,a\n1,a,b\n2,a\n3,a\n", "row 1 has not 2 fields"),
        ("frame,source,label\n0,a,x\n1,a,y\n2,a,x\n3,a,x\n", "label 'y', frames before it 'x'"),
        ("", "has the columns none"),
    ],
)
def test_a_file_that_does_not_fit_is_one_error(text, said, tmp_path):
    with pytest.raises(InputError, match=said) as error:
        opened(text, tmp_path)
    assert "trajectories.csv" in str(error.value)


def test_frames_of_a_store_are_of_its_sources(tmp_path):
    averaged_ensembles.write_positions(tmp_path / "frames.store", averaged_ensembles.frames((70, 60), 1).positions)
    np.save(tmp_path / "measured.npy", [[10.0, 1.0]])
    settings = {"measured": tmp_path / "measured.npy", "positions": tmp_path / "frames.store"}
    config = AveragedConfig(name="d", observable="distances", atoms=[[0, 10]], **settings)
    found = open_trajectories(None, [open_data(config, [])], np.full(130, 1 / 130))
    assert list(found.sources) == ["frames"]
    assert np.all(found.source == 0)
    assert list(found.groups) == ["all frames"]


# ---- a whole run -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["equal", "given"])
def run(request, tmp_path_factory):
    """The folder of a run on one average of a number x, and x; three trajectories, states by the sign of x."""
    place = tmp_path_factory.mktemp("mean")
    random = np.random.default_rng(3)
    x = random.standard_normal(FRAMES)
    np.save(place / "calculated.npy", x[:, None])
    np.save(place / "measured.npy", [[MEAN, SIGMA]])
    w0 = random.uniform(0.5, 1.5, FRAMES)
    w0[7] = 0.0  # which leaves one frame out
    np.save(place / "w0.npy", w0)
    rows = [f"{n},s{n // 40},,{'up' if x[n] > 0 else 'down'}" for n in range(FRAMES)]
    (place / "trajectories.csv").write_text(HEAD + "\n".join(rows) + "\n")
    (place / "numbers.csv").write_text("frame,x\n" + "\n".join(f"{n},{float(x[n])!r}" for n in range(FRAMES)) + "\n")
    prior = 'prior = "w0.npy"' if request.param == "given" else ""
    (place / "config.toml").write_text(CONFIG.replace("PRIOR", prior))
    done = here("optimize", place / "config.toml")
    assert done.returncode == 0, done.stderr
    return place / "run", x


def test_weights_of_one_average_are_explained_by_its_number(run):
    """ln(w / w0) is linear in what is averaged: -kT ln(w / w0) has the slope -kT d ln(w / w0) / dx, and R2 is 1.

    At the minimum theta d ln w / dx = (mean of x - measured) / -sigma^2 by the derivative of the loss.
    """
    folder, x = run
    metrics = json.loads((folder / "metrics.json").read_text())
    with (folder / "weights.csv").open() as file:
        w = np.array([float(row["weight"]) for row in csv.DictReader(file)])
    [one] = metrics["explained"]["alone"]
    slope = GAS_CONSTANT * 300.0 * (w @ x - MEAN) / SIGMA**2 / 2.0
    assert one["slopes"] == [pytest.approx(slope, rel=1e-5)]
    assert one["r2"] == pytest.approx(1, abs=1e-8)
    assert one["r2_held_out"] == pytest.approx(1, abs=1e-8)
    with (folder / "explained.csv").open() as file:
        assert [row["number"] for row in csv.DictReader(file)] == ["x"]


def test_shares_of_states_are_sums_of_weights_with_errors_and_biases(run):
    folder, x = run
    metrics = json.loads((folder / "metrics.json").read_text())
    with (folder / "weights.csv").open() as file:
        w, w0 = np.array([[float(row["weight"]), float(row["prior"])] for row in csv.DictReader(file)]).T
    up, down = (next(row for row in metrics["groups"] if row["group"] == name) for name in ("up", "down"))
    assert up["weight"] == pytest.approx(w[x > 0].sum())
    assert up["prior"] == pytest.approx(w0[x > 0].sum())
    assert down["frames"] + up["frames"] == np.sum(w0 > 0)
    assert up["delta_G"] == pytest.approx(-GAS_CONSTANT * 300 * np.log(up["weight"] / up["prior"]))
    free = next(row["without_theta"] for row in metrics["populations"] if row["group"] == "up")
    assert free > up["weight"] > up["prior"]  # theta pulls to the prior
    for kind in ("frames", "data"):
        found = metrics["errors"][kind]
        assert found["groups"]["up"] == pytest.approx(found["groups"]["down"], rel=1e-6)  # they sum to 1
        assert found["bias"]["up"] == pytest.approx(-found["bias"]["down"], abs=1e-9)
    assert metrics["errors"]["frames"]["groups"]["up"] > 0
    assert set(metrics["independent_frames"]) == {"s0", "s1", "s2"}
    page = (folder / "report.html").read_text()
    for words in ("What the weights mean", "a hundredth of theta", "Summed weight of each of the groups"):
        assert words in page


def test_sources_with_labels_of_their_own_and_few_frames_leave_nothing_to_draw(run, tmp_path):
    folder, _ = run
    rows = "".join(f"{n},s{n},s{n},{n % 2}\n" for n in range(FRAMES))
    (folder.parent / "single.csv").write_text(HEAD + rows)
    place = tmp_path / "run"
    more = ("--set", "problem.trajectories=single.csv", "--set", f"run.directory={place}", "--set", "run.report=false")
    done = here("optimize", folder.parent / "config.toml", *more)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((place / "metrics.json").read_text())
    assert set(metrics["errors"]) == {"data"}
    assert any("no errors by resampling frames" in text for text in metrics["warnings"])
