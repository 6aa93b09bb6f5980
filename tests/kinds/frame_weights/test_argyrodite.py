"""Real ab-initio MD with a known answer, thinned to every fifth or tenth frame: `tools/argyrodite` fits all of them."""

import csv
import json

import numpy as np
import pytest

from hpcfit.commands.optimize import run_optimize
from hpcfit.kinds.table import load_config
from hpcfit.prepare.command import run_prepare
from hpcfit.ranks import Ranks
from hpcfit.testsystems import argyrodite

TARGETS = {label: {label: 1.0} for label in argyrodite.CLASSES} | {"mixture": {"50p": 0.7, "100p": 0.3}}


def thinned(text, fine):
    """A config as it is, or to 2 A, where two fifths of the reflections are."""
    assert f"d_min = {argyrodite.D_MIN}" in text
    return text if fine else text.replace(f"d_min = {argyrodite.D_MIN}", "d_min = 2.0")


def prepared(folder, data, fine):
    """A store of all runs of the iodide: every fifth frame, or every tenth."""
    config = folder / "prepare.toml"
    text = argyrodite.prepare_config(data, "Li6PS5I", "frames.store", stride=5 if fine else 10)
    config.write_text(thinned(text, fine).replace("[prepare]", "[prepare]\nsample = 16"))
    run_prepare(load_config(config), Ranks())
    return folder / "frames.store"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "fine"), [pytest.param("100p", True, marks=pytest.mark.nightly), pytest.param("mixture", False)]
)
def test_the_classes_of_the_target_are_found_in_the_iodide(shared_data, tmp_path, target, fine):
    """By the default settings, in P1, from the prior weights and from each class."""
    frames = prepared(tmp_path, shared_data / "diffuse/argyrodite", fine)
    argyrodite.write_target(frames, TARGETS[target], tmp_path / "target.npz")
    config = tmp_path / "fit.toml"
    config.write_text(thinned(argyrodite.fit_config(frames, "target.npz", "run"), fine))
    assert run_optimize(load_config(config, ["run.report=false", "problem.resamples=0"]), Ranks()) == 0
    rows = list(csv.DictReader((tmp_path / "run/sources.csv").read_text().splitlines()))
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    truth = np.array([TARGETS[target].get(label, 0.0) for label in argyrodite.CLASSES])
    sums = np.array([sum(float(row["weight"]) for row in rows if row["label"] == c) for c in argyrodite.CLASSES])
    # The runs of the target are not those of the fit, and each has its own disorder: three runs of four.
    assert np.abs(sums - truth).max() < 0.1
    free = next(row["cc_free"] for row in metrics["cross_validation"] if row["theta"] == metrics["theta"])
    assert free > 0.89
    # All folds are fitted in the basin of the best start: none falls out of step with the others.
    assert metrics["fitted"]["cc"] > free > metrics["uniform"]["cc"]
    ends = {start["start"]: start["cc"] for start in metrics["starts"]}
    if target in ends:
        assert max(ends[label] for label in argyrodite.CLASSES) == ends[target]
