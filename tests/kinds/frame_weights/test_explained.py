"""What weights mean: exact weights give the energy that made them, profiles those of known distributions."""

import csv
import json

import numpy as np
import pytest

from hpcfit.commands.optimize import run_optimize
from hpcfit.errors import InputError
from hpcfit.kinds.frame_weights.explained import SMALLEST, FrameNumbers, WeighedFrames, explain, fit_rows, remarks
from hpcfit.kinds.table import load_config
from hpcfit.ranks import Ranks
from hpcfit.statistics.resampling import blocks_of_frames, resampled_blocks
from hpcfit.testsystems.known_energy import KT, write_known_energy

T = 600
SOURCE, LABEL = np.repeat([0, 1, 2], 200), np.array(["a", "a", "b"])


def weighed(energy, w0=None, w=None):
    w0 = np.full(T, 1 / T) if w0 is None else w0
    w = w0 * np.exp(-energy / KT) if w is None else w
    return WeighedFrames(w / w.sum(), w0, SOURCE, LABEL, KT)


def coordinates(seed=0):
    return np.random.default_rng(seed).standard_normal((T, 2)) * [2.0, 0.3] + [5.0, -1.0]


def test_weights_of_a_known_energy_have_the_slope_of_that_energy():
    x, w0 = coordinates(), np.random.default_rng(1).random(T)
    found = explain(FrameNumbers(["u", "v"], x), weighed(1.5 * x[:, 0] - 4 * x[:, 1], w0 / w0.sum()))
    assert found["together"]["slopes"] == pytest.approx([1.5, -4.0], rel=1e-9)
    assert found["together"]["errors"] == pytest.approx([0, 0], abs=1e-9)
    assert found["together"]["r2_held_out"] == pytest.approx(1)
    alone = explain(FrameNumbers(["energy"], (3 * x[:, :1])), weighed(3 * x[:, 0]))["alone"][0]
    assert (alone["slopes"][0], alone["r2_held_out"]) == pytest.approx((1, 1))


def test_shuffled_numbers_explain_nothing():
    x = coordinates()[:, :1]
    found = explain(FrameNumbers(["x"], np.random.default_rng(3).permutation(x)), weighed(2 * x[:, 0]))["alone"][0]
    assert abs(found["slopes"][0]) < 3 * found["errors"][0]
    assert found["r2_held_out"] < 0.01


def test_frames_without_weight_are_counted_and_take_no_part():
    x = coordinates()[:, :1]
    w = np.exp(-2 * x[:, 0] / KT)
    w[::10], w[1::50] = 0.0, 1e-3 * SMALLEST * w.sum() / T
    found = explain(FrameNumbers(["x"], x), weighed(None, w=w))
    assert (found["zero"], found["near_zero"]) == (60, 12)
    assert found["alone"][0]["slopes"][0] == pytest.approx(2)
    assert "72 of 600 frames" in remarks(found)[0]
    assert sum(found["profiles"][0]["share_after"]) == pytest.approx(1)


def test_constant_columns_are_named_and_left_out():
    found = explain(FrameNumbers(["x", "mass"], np.column_stack([coordinates()[:, 0], np.full(T, 0.1)])), weighed(0.0))
    assert found["constant"] == ["mass"]
    assert [row[1] for row in fit_rows(found)] == ["x"]
    assert any("'mass' does not vary" in one for one in remarks(found))


def test_prior_weights_leave_nothing_to_explain():
    found = explain(FrameNumbers(["x"], coordinates()[:, :1]), weighed(np.zeros(T)))
    assert found["alone"][0]["r2"] is None
    assert any("nothing to explain" in one for one in remarks(found))
    json.dumps(found, allow_nan=False)


def test_profiles_differ_by_the_energy_of_the_bin():
    """Of a number with few values, whose bins hold one value each, after - before = ΔU but for a constant."""
    x = np.random.default_rng(2).integers(0, 24, T).astype(float)
    [found] = explain(FrameNumbers(["x"], x[:, None]), weighed(0.3 * x))["profiles"]
    change = np.array(found["after"]) - np.array(found["before"])
    assert np.diff(change) == pytest.approx(0.3, rel=1e-9)
    assert found["before"] == pytest.approx(-KT * np.log(np.bincount(x.astype(int)) / T))
    # The mean of counts of blocks: as binomial ones, sd(p) / p = sqrt((1 - p) / (p T)), for independent frames.
    p = np.array(found["share_before"])
    binomial = KT * np.sqrt((1 - p) / (p * T))
    assert np.mean(np.array(found["before_error"]) / binomial) == pytest.approx(1, abs=0.2)


def test_blocks_are_those_that_resamples_draw():
    n_blocks = np.array([10, 3, 7])
    block = blocks_of_frames(SOURCE, n_blocks)
    counts = resampled_blocks(SOURCE, n_blocks, 4)
    assert block.max() == 19
    assert all(len(set(counts[block == number])) == 1 for number in range(20))


def test_single_frames_that_share_a_label_are_drawn_as_sources():
    """Of three sources every ninth resample or so draws each once: no error, whatever is drawn."""
    x = np.array([[0.0], [1.0], [3.0], [4.0], [6.0], [7.0]])
    w = np.exp(-x[:, 0] / KT)
    sources = WeighedFrames(w / w.sum(), np.full(6, 1 / 6), np.arange(6), np.array(["a"] * 3 + ["b"] * 3), KT)
    found = explain(FrameNumbers(["x"], x), sources)
    assert (found["blocks"], found["resamples"]) == (6, 200)
    assert found["alone"][0]["slopes"][0] == pytest.approx(1)


@pytest.mark.parametrize("weights", ["binary", "sigmoid"])
def test_an_option_without_effect_is_refused(tmp_path, weights):
    config = write_known_energy(tmp_path, d_min=3.0).config
    options = [f"problem.weights={weights}", *(["optimizer.name=greedy"] if weights == "binary" else [])]
    with pytest.raises(InputError, match=r"explain.*no effect"):
        load_config(config, options)


@pytest.mark.parametrize(
    ("text", "said"),
    [("frame,x\n0,1\n", "not frame 1"), ("frame,x\n0,1\n0,1\n", "second time"), ("frame\n0\n", "columns are frame")],
)
def test_bad_numbers_are_one_error_before_any_fit(tmp_path, text, said):
    config = write_known_energy(tmp_path, d_min=3.0).config
    (tmp_path / "numbers.csv").write_text(text)
    with pytest.raises(InputError, match=rf"\[problem\] explain.*numbers\.csv.*{said}"):
        run_optimize(load_config(config, []), Ranks())


def test_a_run_writes_what_its_weights_mean(tmp_path):
    config = write_known_energy(tmp_path, frames=20, d_min=2.5, options="theta = 0.1\n").config
    assert run_optimize(load_config(config, []), Ranks()) == 0
    rows = list(csv.DictReader((tmp_path / "run/explained.csv").read_text().splitlines()))
    assert [(row["fit"], row["number"]) for row in rows] == [
        *(("alone", name) for name in ("energy", "x", "shuffled")),
        *(("together", name) for name in ("energy", "x", "shuffled")),
    ]
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["explained"]["constant"] == ["mass"]
    assert metrics["explained"]["together"]["dependent"]
    profiles = list(csv.DictReader((tmp_path / "run/profiles.csv").read_text().splitlines()))
    assert sum(float(row["share_after"]) for row in profiles if row["number"] == "x") == pytest.approx(1)
    page = (tmp_path / "run/report.html").read_text()
    assert "What the weights mean" in page
    assert "not determined" in page


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_energy_that_the_map_was_made_by_is_found(tmp_path):
    """Not proven: that a map of frames other than those of the fit, or a smaller one, decides as much."""
    config = write_known_energy(tmp_path, options="theta = 0.0\n").config
    assert run_optimize(load_config(config, ["run.report=false"]), Ranks()) == 0
    found = json.loads((tmp_path / "run/metrics.json").read_text())["explained"]
    alone = {one["names"][0]: one for one in found["alone"]}
    assert abs(alone["energy"]["slopes"][0] - 1) < 3 * alone["energy"]["errors"][0]
    assert alone["energy"]["slopes"][0] > 10 * alone["energy"]["errors"][0]
    assert alone["energy"]["r2_held_out"] == pytest.approx(alone["energy"]["r2"], abs=0.1)
    assert abs(alone["shuffled"]["slopes"][0]) < 3 * alone["shuffled"]["errors"][0]
    assert alone["shuffled"]["r2_held_out"] < 0.05
