"""Real ab-initio MD with a known answer, thinned to every fifth frame: `tools/argyrodite` fits all of them."""

import csv
import json

import pytest

from hpcfit.commands.optimize import run_optimize
from hpcfit.commands.prepare import run_prepare
from hpcfit.config import load_config
from hpcfit.ranks import Ranks
from hpcfit.testsystems import argyrodite

THINNED = "stride = 5\n"


@pytest.mark.slow
@pytest.mark.usefixtures("_whole_affinity")
def test_the_class_of_disorder_is_found_in_the_iodide(shared_data, tmp_path):
    data = shared_data / "diffuse/argyrodite"
    candidates, target = argyrodite.split_runs(data, "Li6PS5I", "50p")
    for name, runs in {"candidates": candidates, "target": target}.items():
        text = argyrodite.prepare_config(data, "Li6PS5I", runs, f"{name}.store")
        config = tmp_path / f"{name}.toml"
        config.write_text(text.replace("label =", f"{THINNED}label ="))
        run_prepare(load_config(config), Ranks())
    argyrodite.write_target(tmp_path / "target.store", tmp_path / "target.npz")
    config = tmp_path / "fit.toml"
    config.write_text(argyrodite.fit_config("m-3m", "run"))
    assert run_optimize(load_config(config, ["run.report=false"]), Ranks()) == 0
    rows = csv.DictReader((tmp_path / "run/sources.csv").read_text().splitlines())
    weight = sum(float(row["weight"]) for row in rows if row["label"] == "50p")
    assert weight >= 0.99
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    alone = {fit["label"]: fit["cc"] for fit in metrics["labels"]}
    assert max(alone, key=alone.get) == "50p"
    # free weights on the true class can only do better than uniform ones; with all frames CC is above 0.998
    assert metrics["fitted"]["cc"] > alone["50p"] > 0.9
