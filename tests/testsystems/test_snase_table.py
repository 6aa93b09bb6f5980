"""The fits of the nuclease table: their configs are valid and say what they should, and their metrics become rows."""

from pathlib import Path

import pytest

from hpcfit.kinds.table import load_config
from hpcfit.testsystems import snase_table
from hpcfit.testsystems.snase_table import Fit, Setting

PLAN = list(snase_table.planned("short", ["own", "network"], ["short", "own"]))
PRIOR, GAIN = [0.5, 0.7, 0.6], 0.125  # of the folds; exact in binary
FIT = Fit(Setting("short"), "default", "anisotropic")


@pytest.mark.parametrize("fit", PLAN, ids=lambda fit: fit.name)
def test_configs_are_valid_and_say_what_is_fitted(fit, tmp_path):
    path = tmp_path / "fit.toml"
    path.write_text(snase_table.fit_config(fit, Path("/data"), Path("/work/frames.store")))
    config = load_config(path)
    assert (config.run.directory, config.experiment.reindex) == (tmp_path / fit.name, fit.setting.reindex)
    assert (config.problem.laue, config.problem.d_min) == (fit.setting.laue, fit.setting.d_min)
    assert config.problem.anisotropic == (fit.maximised == "anisotropic")
    assert (config.problem.weights == "binary") == (fit.method in ("greedy", "genetic"))
    assert config.optimizer.name == {"default": "lbfgs"}.get(fit.method, fit.method)
    assert config.problem.n_folds == (0 if fit.method == "genetic" else snase_table.FOLDS)
    if fit.method == "default":
        assert set(snase_table.THETAS) < set(config.problem.thetas)


def test_every_fit_has_its_own_run_and_lunus_is_compared_with_once():
    assert len({fit.name for fit in PLAN}) == len(PLAN) == 4 * 4 + 2 * 3 * 2
    as_lunus = [fit for fit in PLAN if fit.setting.laue == "P1"]
    assert {fit.setting.ensemble for fit in as_lunus} == {"short"}
    assert {fit.setting.reindex for fit in as_lunus} == {"h,k,l"}
    assert {fit.setting.reindex for fit in PLAN if fit not in as_lunus} == {"k,h,-l"}


def fold_row(theta, gain):
    found = {"theta": theta}
    for free in snase_table.FREE.values():
        folds = [value + gain for value in PRIOR]
        found |= {f"{free}_folds": folds, free: sum(folds) / 3, f"{free}_error": 0.1}
    return found


def metrics(theta):
    values = {"cc": 0.8, "cc_anisotropic": 0.2, "ess": 50.0}
    return {
        "frames": 163, "orbits": 3008, "theta": theta, "evaluations": 70, "evaluations_of_all_fits": 2000,
        "uniform": {"cc": 0.7, "cc_anisotropic": 0.1, "ess": 163.0}, "fitted": values,
        "l_curve": [{"theta": t, **values} for t in (0.1, 0.03, 0.0)],
        "cross_validation": [fold_row(None, 0.0), fold_row(0.1, GAIN), fold_row(0.03, 0.0), fold_row(0.0, -GAIN)],
        "errors": {"frames": {"metrics": {"cc": 0.01, "cc_anisotropic": 0.02}}},
    }  # fmt: skip


def test_gains_are_those_within_each_fold():
    at_01, at_0, chosen = snase_table.rows(FIT, metrics(0.1))
    assert [row["theta"] for row in (at_01, at_0, chosen)] == [0.1, 0.0, 0.1]
    for free in snase_table.FREE.values():
        assert [row[f"{free}_gain"] for row in (at_01, at_0, chosen)] == pytest.approx([GAIN, -GAIN, GAIN], abs=1e-15)
        # folds differ by 0.2, differences within a fold by rounding
        assert chosen[f"{free}_gain_error"] < 1e-15 < chosen[f"{free}_error"]
    assert (chosen["cc_error_frames"], chosen["cc_anisotropic_error_frames"]) == (0.01, 0.02)
    assert "evaluations" not in at_0  # it began where another theta had ended
    assert set(chosen) < set(snase_table.COLUMNS)


def test_uniform_weights_are_a_row_and_may_be_what_was_chosen():
    *_, chosen = snase_table.rows(FIT, metrics(None))
    assert (chosen["theta"], chosen["cc_free_gain"], chosen["cc_free_anisotropic_gain"]) == ("uniform", 0.0, 0.0)
    row = snase_table.uniform_row(FIT, metrics(0.1))
    assert (row["weights"], row["cc"], row["ess"]) == ("uniform", 0.7, 163.0)
    assert row["cc_free"] == pytest.approx(sum(PRIOR) / 3)


def test_a_search_that_is_not_cross_validated_has_no_held_out_numbers():
    found = metrics(0.0)
    for key in ("cross_validation", "l_curve", "errors"):
        del found[key]
    [row] = snase_table.rows(Fit(Setting("short"), "genetic", "total"), found)
    assert row["cc"] == 0.8
    assert not any("free" in key or "error" in key for key in row)
