"""The fits of a study: how theta is chosen, what resamples draw, and that the defaults find a known truth.

How a study goes on after an interruption is in tests/commands/test_study.py.
"""

import csv
import json

import numpy as np
import pytest

from hpcfit.commands.optimize import run_optimize
from hpcfit.fit.problem import FrameRows
from hpcfit.kinds.frame_weights.conclusions import choose_theta
from hpcfit.kinds.frame_weights.groups import independent_frames
from hpcfit.kinds.frame_weights.orbit_choice import OrbitChoice
from hpcfit.kinds.frame_weights.problem import PriorRows
from hpcfit.kinds.frame_weights.study import _drawn
from hpcfit.kinds.table import load_config
from hpcfit.physics.scattering import diffuse_intensity
from hpcfit.ranks import Ranks
from hpcfit.statistics.blocks import inefficiency
from hpcfit.testsystems.synthetic import Source, cubic_reflections, gaussian_frames, write_map, write_problem

# ---- the choice of theta -------------------------------------------------------------------------------------------


def table(**folds):
    """Rows as cross-validation gives them, largest theta first; by the misfits of their folds."""
    return [{"theta": name, "folds": values, "misfit_free": float(np.mean(values))} for name, values in folds.items()]


def test_the_best_theta_is_taken_where_it_is_better_beyond_its_error():
    rows = table(prior=[-0.5, -0.6, -0.7], large=[-0.7, -0.8, -0.9], small=[-0.8, -0.9, -1.0])
    assert choose_theta(rows) == 2  # better by 0.1 in every fold: the error of that difference is 0


def test_the_largest_theta_within_one_standard_error_is_taken():
    # large - small: 0.1, -0.1, 0.1, 0 with mean 0.025 and error 0.0957 / 2 = 0.048
    rows = table(prior=[-0.1] * 4, large=[-0.8, -0.9, -0.8, -0.9], small=[-0.9, -0.8, -0.9, -0.9])
    assert choose_theta(rows) == 1


def test_the_error_is_that_of_paired_differences():
    """The folds differ by far more than the thetas, which all agree in order: unpaired errors would hide it."""
    level = np.array([0.0, 1.0, 2.0, 3.0])
    rows = table(prior=level + 0.3, large=level + np.array([0.11, 0.1, 0.1, 0.09]), small=level)
    assert choose_theta(rows) == 2
    noisy = level + np.array([0.4, -0.2, 0.3, -0.1])  # mean 0.1, error 0.29 / 2
    assert choose_theta(table(prior=level + 0.5, large=noisy, small=level)) == 1


def test_the_prior_weights_are_kept_where_nothing_is_better():
    rows = table(prior=[-0.9, -0.8], large=[-0.85, -0.75], small=[-0.5, -0.6])
    assert choose_theta(rows) == 0
    within = table(prior=[-0.9, -0.8], large=[-1.0, -0.78], small=[-0.5, -0.6])  # 0.04 better, to an error of 0.06
    assert choose_theta(within) == 0


# ---- resamples -----------------------------------------------------------------------------------------------------


def test_frames_that_are_drawn_twice_have_twice_the_prior_weight():
    ids = np.r_[np.arange(60), [-1] * 4].reshape(1, 64)
    rows = FrameRows(ids, 60, PriorRows(np.where(ids >= 0, -np.log(60), 0.0), ids > 0, np.full(ids.shape, -1)))
    counts = np.where(ids >= 0, np.arange(64) % 3, 0).astype(float)
    drawn = _drawn(rows, counts)
    w0 = np.where(drawn.ids >= 0, np.exp(drawn.more.log_prior), 0.0)
    np.testing.assert_allclose(w0, counts / 60, rtol=1e-14)
    assert np.array_equal(drawn.ids >= 0, counts > 0)
    assert not np.any(drawn.more.follows & (drawn.ids < 0))
    assert drawn.total == 60


def test_orbits_of_a_fold_are_judged_and_the_test_set_is_left_out():
    part = np.array([0, 0, 1, 0, 1, 0])
    chosen = OrbitChoice(part, np.ones(6))
    fold = np.array([True, False, True, False, False, True])
    without = chosen.without(fold)
    assert without.part.tolist() == [1, 0, 0, 0, 0, 1]
    assert without.drawn.tolist() == [1, 1, 0, 1, 0, 1]
    assert without.fitted.tolist() == [False, True, False, True, False, False]
    again = chosen.resampled(3)
    assert again.drawn[part == 1].tolist() == [1, 1]
    assert again.drawn[part == 0].sum() == 4
    assert np.array_equal(again.drawn, chosen.resampled(3).drawn)
    assert any(not np.array_equal(again.drawn, chosen.resampled(seed).drawn) for seed in range(4, 8))


def test_independent_frames_are_those_of_the_weights_along_each_source():
    """Weights that stay for 20 frames, in a source that comes second by name; a uniform source tells nothing."""
    held = np.repeat(np.random.default_rng(0).random(50), 20)
    source = np.array(["slow"] * 1000 + ["even"] * 100 + ["fast"] * 200)
    weight = np.concatenate([held, np.full(100, 0.3), np.tile([1.0, 2.0], 100)])
    names, number = np.unique(source, return_inverse=True)
    found = independent_frames(names, number, weight)
    assert found == {"slow": pytest.approx(1000 / inefficiency(held)), "fast": 200.0}
    assert found["slow"] < 100


# ---- known truths --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frames():
    """Two ensembles of 64 frames that scatter at other reflections, and a third one like the second."""
    H = len(cubic_reflections(2.0))
    a, b, truth = (gaussian_frames(n, H, seed, correlation=0.0, bragg=3.0) for seed, n in enumerate((64, 64, 300)))
    return a, b[:, ::-1], truth[:, ::-1]


def optimized(folder, frames, options, *settings):
    """Metrics and the summed weights of A and B, of a map of the third ensemble."""
    a, b, truth = frames
    sources = [Source("one", a, "A"), Source("two", b, "B")]
    config = write_problem(folder, sources, np.full(128, 1 / 128), d_min=2.0, options=options)
    intensity = diffuse_intensity(truth, np.full(len(truth), 1 / len(truth)))
    noisy = intensity * (1 + 0.05 * np.random.default_rng(0).standard_normal(len(intensity)))
    write_map(folder / "map.npz", cubic_reflections(2.0), noisy)
    assert run_optimize(load_config(config, ["run.report=false", *settings]), Ranks()) == 0
    metrics = json.loads((folder / "run/metrics.json").read_text())
    rows = csv.DictReader((folder / "run/sources.csv").read_text().splitlines())
    return metrics, [float(row["weight"]) for row in rows]


# With all options but the number of resamples, and of steps: an answer to 1e-6 is not what is asked here.
DEFAULTS = 'theta = "auto"\nstarts = ["prior", "clusters"]\nresamples = 2\n'


@pytest.fixture(scope="module")
def by_default(tmp_path_factory, frames):
    import os

    cores = os.sched_getaffinity(0)
    yield optimized(
        tmp_path_factory.mktemp("default"), frames, DEFAULTS, "optimizer.max_steps=40", "checkpoint.every_steps=0"
    )
    os.sched_setaffinity(0, cores)


@pytest.mark.slow
def test_defaults_find_the_label_that_the_map_is_of(by_default):
    metrics, (_, of_b) = by_default
    assert of_b > 0.95
    assert metrics["fitted"]["cc"] > metrics["uniform"]["cc"]
    best = metrics["starts"][0]
    assert best["misfit"] == min(row["misfit"] for row in metrics["starts"])
    assert best["groups"]["B"] > 0.95
    assert {row["start"] for row in metrics["starts"]} == {"prior", "A", "B"}


@pytest.mark.slow
def test_theta_is_chosen_by_the_table_that_is_reported(by_default):
    metrics, _ = by_default
    rows = metrics["cross_validation"]
    assert [row["theta"] for row in rows] == [None, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0]
    assert all(len(row["folds"]) == 5 for row in rows)
    assert metrics["theta"] == rows[choose_theta(rows)]["theta"]
    for row in rows:
        assert row["misfit_free"] == pytest.approx(np.mean(row["folds"]), rel=1e-12)
        assert row["misfit_free_error"] == pytest.approx(np.std(row["folds"], ddof=1) / np.sqrt(5), rel=1e-12)
    # The more the prior weights cost to leave, the nearer the fit stays to them.
    divergences = [row["kl"] for row in metrics["l_curve"]]
    assert divergences == sorted(divergences)
    assert all(sum(row["groups"].values()) == pytest.approx(1) for row in metrics["l_curve"])


@pytest.mark.slow
def test_errors_tell_the_spread_over_resamples(by_default):
    metrics, _ = by_default
    for kind in ("frames", "orbits"):
        found = metrics["errors"][kind]
        assert found["resamples"] == 2
        # Two shares that add up to 1 have one error.
        assert found["groups"]["A"] == pytest.approx(found["groups"]["B"], rel=1e-6, abs=1e-12)
        assert found["sources"] == {"one": found["groups"]["A"], "two": found["groups"]["B"]}
        assert found["metrics"]["cc"] > 0


@pytest.mark.slow
def test_frames_of_least_weight_are_dropped_round_by_round(tmp_path, frames):
    options = "dropping_rounds = 2\ndropping_percentile = 25\n"
    metrics, _ = optimized(tmp_path, frames, options, "optimizer.max_steps=20")
    assert [row["frames"] for row in metrics["dropping"]] == [96, 72]
    assert metrics["dropping"][1]["ess"] <= 72
