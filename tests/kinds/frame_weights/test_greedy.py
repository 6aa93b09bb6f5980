"""The removal of frames as `hpcfit optimize` does it, step by step against a search written independently."""

import csv
import json

import numpy as np
import pytest

from hpcfit.commands.optimize import run_optimize
from hpcfit.kinds.frame_weights.orbits import match_orbits
from hpcfit.kinds.table import load_config
from hpcfit.prepare.command import run_prepare
from hpcfit.ranks import Ranks
from hpcfit.readers.maps import read_map
from hpcfit.store.structure_factors import open_store
from hpcfit.testsystems import snase, snase_table
from hpcfit.testsystems.argyrodite import all_frames
from hpcfit.testsystems.synthetic import Source, cubic_reflections, gaussian_frames, write_problem
from tests.kinds.frame_weights.reference_greedy import greedy_removal

# Sums of float32 would not tell a removal from another one that is as good to 1e-7.
OPTIONS = ["run.precision=float64", "run.report=false"]
REMOVAL = """[problem]
kind = "frame-weights"
weights = "binary"
resamples = 0
[optimizer]
name = "greedy"
"""


def reference_search(config):
    """The reference's search on the frames and the map of a config, as the fit has them."""
    store = open_store(config.frames.store)
    orbits = match_orbits(store.reference.reflections, read_map(config.experiment), config.problem)
    assert len(orbits.column) == len(orbits.observed)  # P1: a reflection is an orbit
    return greedy_removal(all_frames(store)[:, orbits.column], orbits.observed[orbits.orbit])


def assert_same_search(config):
    assert run_optimize(config, Ranks()) == 0
    expected = reference_search(config)
    run = config.run.directory
    history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    # float64 sums of 1e4 terms
    np.testing.assert_allclose([row["cc"] for row in history], expected.correlation, atol=1e-11)
    with open(run / "weights.csv", newline="") as file:
        weight = np.array([float(row["weight"]) for row in csv.DictReader(file)])
    np.testing.assert_array_equal(np.flatnonzero(weight > 1e-9), expected.kept)
    np.testing.assert_allclose(weight[expected.kept], 1 / len(expected.kept))
    return expected


def test_greedy_removes_the_same_frames_as_the_reference(tmp_path):
    T, kept = 40, np.arange(0, 40, 4)
    F_th = gaussian_frames(T, len(cubic_reflections()), seed=3)
    write_problem(tmp_path, [Source("a", F_th)], np.isin(np.arange(T), kept) / len(kept), noise=0.2)
    tables = '[frames]\nstore = "frames.store"\n[experiment]\nfile = "map.npz"\n'
    (tmp_path / "greedy.toml").write_text(f"{tables}{REMOVAL}")
    expected = assert_same_search(load_config(tmp_path / "greedy.toml", OPTIONS))
    assert len(expected.removed) > T / 4


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:MDAnalysis")
def test_greedy_removes_the_same_frames_of_a_crystal(shared_data, tmp_path):
    data = shared_data / "diffuse/snase"
    prepare = tmp_path / "prepare.toml"
    short = snase.short_simulation(data).replace("label", "stride = 8\nlabel")
    prepare.write_text(snase.prepare_config([short], "frames.store"))
    run_prepare(load_config(prepare), Ranks())
    fit = snase_table.Fit(snase_table.Setting("frames", snase.AS_IN_FILE, "P1"), "greedy", "total")
    config = tmp_path / "greedy.toml"
    text = snase_table.fit_config(fit, data, tmp_path / "frames.store")
    config.write_text(text.replace(f"folds = {snase_table.FOLDS}\n", ""))
    expected = assert_same_search(load_config(config, OPTIONS))
    assert len(expected.removed) > 2
