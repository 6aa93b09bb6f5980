"""Runs of kind "force-field": the same bits on any ranks and through interruptions, known truth, what may be wrong."""

import csv
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from hpcfit.kinds.force_field.files import OBSERVABLES, PARAMETERS, WEIGHTS
from hpcfit.testsystems import tabulated_ensembles
from tests.command import ROOT, here, sets
from tests.conftest import also_on_ranks, assert_one_clear_error, history, wait_for
from tests.kinds.force_field.small import CONFIG, write_small
from tests.workflow.crew_tasks import Gate

SAME = ("fit", "step", "evaluation", "loss", "chi2", "kl_weights", "kl_force_field", "gradient_norm")  # of the history
SCAN = {"problem.alpha": "[2.0, 20.0]", "problem.folds": "3"}
CHOSEN = [f"{key}={value}" for key, value in SCAN.items()]

# `hpcfit`, whose root waits at a gate before an evaluation of the second fit.
HELD = """
import sys
from pathlib import Path
from hpcfit import cli
from hpcfit.commands.run import Recorder
from tests.workflow.crew_tasks import Gate
gate, evaluated = Gate(Path(sys.argv.pop(1))), Recorder.__call__
def held(recorder, params):
    if recorder.fit == 1 and not gate.waiting() and recorder.step - recorder._before == 3 and recorder.world.is_root:
        gate.wait()
    return evaluated(recorder, params)
Recorder.__call__ = held
cli.main()
"""


@pytest.fixture
def folder(tmp_path):
    write_small(tmp_path)
    (tmp_path / "config.toml").write_text(CONFIG)
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with its run on one rank."""
    folder = tmp_path_factory.mktemp("whole")
    write_small(folder)
    (folder / "config.toml").write_text(CONFIG)
    done = here("optimize", folder / "config.toml", *sets(*CHOSEN))
    assert done.returncode == 0, done.stderr
    return folder


def result(run):
    """All that must be the same on any ranks, through interruptions."""
    metrics = json.loads((run / "metrics.json").read_text())
    tables = [(run / name).read_text() for name in (PARAMETERS, OBSERVABLES, WEIGHTS)]
    keys = ("fitted", "before", "ensembles", "parameters", "combinations", "cross_validation", "prices")
    rows = [tuple(row[name] for name in SAME) for row in history(run)]
    return {key: metrics[key] for key in keys}, tables, rows


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [pytest.param(2, marks=pytest.mark.nightly), 3])  # of two blocks: one rank has none
def test_ranks_find_the_same_bits(whole, ranks, tmp_path, hpcfit):
    run = tmp_path / "run"
    done = hpcfit("optimize", whole / "config.toml", *sets(*CHOSEN, f"run.directory={run}"), ranks=ranks)
    assert done.returncode == 0, done.stderr
    assert result(run) == result(whole / "run")


@pytest.mark.mpi
def test_an_interrupted_run_goes_on_to_the_same_bits(whole, mpiexec, tmp_path):
    gate, script, run = Gate(tmp_path / "gate"), tmp_path / "held.py", tmp_path / "run"
    script.write_text(HELD)
    words = ["optimize", whole / "config.toml", *sets(*CHOSEN, f"run.directory={run}")]
    command = [mpiexec, "-n", "2", sys.executable, script, gate.folder, *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    job = subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment)
    wait_for(lambda: job.poll() is not None or gate.waiting())
    assert job.poll() is None, job.communicate()[1]
    os.kill(*gate.waiting(), signal.SIGTERM)
    gate.open()
    said = job.communicate(timeout=300)[1]
    assert job.returncode == 75, said
    assert not (run / "metrics.json").exists()
    again = here(*words, "--resume")
    assert again.returncode == 0, again.stderr
    assert result(run) == result(whole / "run")


def test_the_tables_of_a_run_say_what_the_fit_found(whole):
    run = whole / "run"
    metrics = json.loads((run / "metrics.json").read_text())
    rows = list(csv.DictReader((run / PARAMETERS).read_text().splitlines()))
    assert [(row["name"], row["unit"]) for row in rows] == [
        ("shift", "kT"), ("tilt", "kT"), ("proton A", "Hz"), ("proton B", "Hz"), ("proton C", "Hz"),
    ]  # fmt: skip
    assert [float(row["start"]) for row in rows] == [0, 0, 9.0, -1.5, 0.5]
    assert all(float(row["error"]) > max(float(row["error_of_data"]), float(row["error_of_frames"])) for row in rows)
    weights = list(csv.DictReader((run / WEIGHTS).read_text().splitlines()))
    assert len(weights) == 70 + 41
    for name in ("one", "two"):
        for column in ("simulated", "force_field", "weight"):
            assert sum(float(r[column]) for r in weights if r["ensemble"] == name) == pytest.approx(1, abs=1e-12)
    assert float(weights[-1]["weight"]) == 0, "a frame without weight in the simulation takes no part"
    data = list(csv.DictReader((run / OBSERVABLES).read_text().splitlines()))
    w = np.array([float(row["weight"]) for row in weights[:70]])
    means = w @ np.load(whole / "one_means.npy")
    after = [float(row["after"]) for row in data if row["ensemble"] == "one" and row["data"] == "means"]
    assert after == pytest.approx(means.tolist(), rel=1e-12)
    distances = (w @ np.load(whole / "one_distances.npy") ** -6.0) ** (-1 / 6)
    after = [float(row["after"]) for row in data if row["ensemble"] == "one" and row["data"] == "distances"]
    assert after == pytest.approx(distances.tolist(), rel=1e-12)
    assert metrics["prices"]["alpha"] in (2.0, 20.0)
    assert len(metrics["fits"]) == 2 * 3 + 1 + 2


def test_validation_data_are_reported_and_change_nothing(folder):
    text = CONFIG.replace('[[problem.ensemble]]\nname = "two"', """[[problem.ensemble.data]]
name = "validation"
calculated = "one_means.npy"
measured = "one_measured_means.npy"
held_out = true
[[problem.ensemble]]
name = "two\"""")  # fmt: skip
    losses = []
    for number, one in enumerate((CONFIG, text)):
        (folder / "config.toml").write_text(one)
        done = here(
            "optimize", folder / "config.toml", *sets(f"run.directory={folder / str(number)}", "problem.resamples=0")
        )
        assert done.returncode == 0, done.stderr
        losses.append(json.loads((folder / str(number) / "metrics.json").read_text()))
    assert losses[0]["loss"] == pytest.approx(losses[1]["loss"], rel=1e-12)  # equations of another size are solved
    assert "chi2_held_out" not in losses[0]["fitted"]
    assert losses[1]["fitted"]["chi2_held_out"] > 0


def test_known_corrections_and_curve_are_found_within_their_errors(tmp_path):
    demo = tmp_path / "demo"
    assert here("init", "force-field/tabulated", "--demo", demo).returncode == 0
    chosen = sets("problem.alpha=1000.0", "problem.resamples=6", "run.report=true")
    done = here("optimize", demo / "config.toml", *chosen)
    assert done.returncode == 0, done.stderr
    truth = [*tabulated_ensembles.PHI, *tabulated_ensembles.TRUE]
    rows = list(csv.DictReader((demo / "run" / PARAMETERS).read_text().splitlines()))
    for row, true in zip(rows, truth):
        assert abs(float(row["value"]) - true) < 3 * float(row["error"]), row
    metrics = json.loads((demo / "run/metrics.json").read_text())
    assert metrics["fitted"]["chi2_held_out"] < 0.75 * metrics["before"]["chi2_held_out"]
    page = (demo / "run/report.html").read_text()
    for words in (
        "Outcome",
        "correlation matrix of the fitted parameters",
        "weights of frames by ensemble",
        "Convergence",
    ):
        assert words in page
    assert page.count("<img") == 5


# ---- what is wrong -------------------------------------------------------------------------------------------------


def nan_in_terms(folder):
    terms = np.load(folder / "two_terms.npy")
    terms[17, 1] = np.nan
    np.save(folder / "two_terms.npy", terms)
    return ["two_terms.npy: row 17, column 1 is nan"]


def sigma_of_zero(folder):
    np.save(folder / "one_measured_couplings.npy", [[6.0, 1.0], [4.0, 0.0]])
    return ["one_measured_couplings.npy: row 1, column 1 is 0", "sigma must be above 0"]


def frames_missing(folder):
    np.save(folder / "one_means.npy", np.load(folder / "one_means.npy")[:-1])
    return ["ensemble 'one'", "one_torsions.npy has 70 rows", "one_means.npy has 69"]


def no_measurement(folder):
    np.save(folder / "one_measured_means.npy", [[0.1, 0.2], [0.1, 0.2]])
    return ["data 'means'", "one_means.npy has 3 columns", "one_measured_means.npy has 2 rows"]


def negative_weight(folder):
    np.save(folder / "two_weights.npy", np.linspace(-1, 1, 41))
    return ["two_weights.npy: row 0", "a weight must not be negative"]


def distance_of_zero(folder):
    distances = np.load(folder / "one_distances.npy")
    distances[5, 0] = 0
    np.save(folder / "one_distances.npy", distances)
    return ["one_distances.npy: row 5, column 0 is 0", "of power are distances, above 0"]


def constant_term(folder):
    for name in ("one", "two"):
        terms = np.load(folder / f"{name}_terms.npy")
        terms[:, 2] = 4.0
        np.save(folder / f"{name}_terms.npy", terms)
    return ["correction 'tilt': its term is the same in all frames"]


def column_beyond(folder):
    np.save(folder / "two_terms.npy", np.load(folder / "two_terms.npy")[:, :2])
    return ["correction 'tilt' sums column 2", "two_terms.npy", "has 2 columns"]


def text_in_csv(folder):
    lines = ["a,b", *["0.1,0.2"] * 69, "0.1,x"]
    (folder / "one_torsions.csv").write_text("\n".join(lines) + "\n")
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(text.replace("one_torsions.npy", "one_torsions.csv"))
    return ["one_torsions.csv: row 69, column b is 'x'"]


def missing_table(folder):
    (folder / "one_terms.npy").unlink()
    return ["one_terms.npy does not exist"]


TABLES = [
    nan_in_terms, sigma_of_zero, frames_missing, no_measurement, negative_weight, distance_of_zero, constant_term,
    column_beyond, text_in_csv, missing_table,
]  # fmt: skip


@pytest.mark.parametrize(("fault", "ranks"), also_on_ranks(TABLES, 3, always=(nan_in_terms,)))
def test_a_wrong_table_is_one_clear_error(folder, fault, ranks, hpcfit):
    expected = fault(folder)
    done = hpcfit("optimize", folder / "config.toml", ranks=ranks)
    assert_one_clear_error(done, expected)
    assert not (folder / "run" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("beta = 0.5\n", "", ["beta is missing"]),
        ("gamma = 0.7\n", "", ["gamma is missing"]),
        ("fitted = true\n", "", ["gamma = 0.7 has no effect"]),
        ("alpha = 2.0", "alpha = 0.0", ["'problem.alpha' = 0.0"]),
        ('curve = "proton"', 'curve = "protons"', ["no curve 'protons'", "did you mean 'proton'"]),
        ("columns = [2]", "columns = { three = [2] }", ["ensemble 'three', which there is not"]),
        ("columns = [2]", "columns = [2]\nvalue = 1.0", ["correction 'tilt': value = 1, fitted = true"]),
        ('name = "two"', 'name = "one"', ["the name 'one' is given twice"]),
        ('terms = "one_terms.npy"', 'term = "x"', ["unknown key", "did you mean 'terms'"]),
        ("power = 6", "power = 5", ["power"]),
        ("resamples = 2", "resamples = 2\nfolds = 99", ["folds = 99 of 14 data"]),
        ('estimator = "tabulated"', 'estimator = "tabulate"', ["did you mean 'tabulated'"]),
        ("[problem]", '[optimizer]\nname = "adam"\n[problem]', ["name = 'adam' has no effect", "solver = 'newton'"]),
        ("report = false", 'precision = "float64"', ["precision = 'float64' has no effect"]),
    ],
)  # fmt: skip
def test_a_wrong_config_is_one_clear_error(folder, before, after, expected):
    text = CONFIG.replace(before, after)
    assert text != CONFIG
    (folder / "config.toml").write_text(text)
    assert_one_clear_error(here("check", folder / "config.toml"), expected)


def test_terms_and_curves_that_nothing_uses_are_errors(folder):
    curve = '[[problem.curve]]\nname = "idle"\ncoefficients = [1.0, 1.0, 1.0]\n'
    (folder / "config.toml").write_text(CONFIG + curve)
    assert_one_clear_error(here("check", folder / "config.toml"), ["curve 'idle' is used by no data"])
    only = CONFIG.replace("columns = [0, 1]", "columns = { one = [0, 1] }").replace(
        "columns = [2]", "columns = { one = [2] }"
    )
    (folder / "config.toml").write_text(only)
    assert_one_clear_error(here("check", folder / "config.toml"), ["terms of ensemble 'two' are used by no correction"])


def test_check_and_watch_know_the_kind(whole):
    assert "14 fitted, 0 held out" in here("check", whole / "config.toml").stderr
    shown = here("watch", whole / "run", "--once")
    assert shown.returncode == 0, shown.stderr
    assert "chi2" in shown.stdout
