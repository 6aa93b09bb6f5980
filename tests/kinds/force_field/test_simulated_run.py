"""Runs that simulate: known truth, the same bits on any ranks and through interruptions, what may be wrong."""

import csv
import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from hpcfit.kinds.force_field.files import AVERAGES, DERIVATIVES, GRADIENT, OBSERVABLES, PARAMETERS
from hpcfit.kinds.force_field.simulated import case
from hpcfit.kinds.force_field.simulated.direction import Size, direction
from hpcfit.kinds.force_field.simulated.gradient import WAYS
from tests.command import ROOT, here, sets
from tests.conftest import assert_one_clear_error, history, wait_for
from tests.kinds.force_field.wells import COLD, CONFIG, write_wells
from tests.workflow.crew_tasks import Gate

ON, PULLED, BACK = (True, False), (True, True), (False, False)  # (forward, pulled)
AUTO = sets("problem.tangents=auto")
SAME = ("fit", "step", "evaluation", "loss", "chi2", "chi2_held_out", "k", "windows", "gradient_norm")
# `hpcfit`, whose root waits at a gate before the evaluation of the fourth round, or in the equilibration.
HELD = """
import sys
from pathlib import Path
from hpcfit import cli
from hpcfit.commands.run import Recorder
from hpcfit.kinds.force_field.simulated.equilibration import Equilibration
from tests.workflow.crew_tasks import Gate
place, gate = sys.argv.pop(1), Gate(Path(sys.argv.pop(1)))
evaluated, walked = Recorder.__call__, Equilibration._walk
def held(recorder, params):
    if recorder.step == 4 and not gate.waiting() and recorder.world.is_root:
        gate.wait()
    return evaluated(recorder, params)
def slow(work, unit, number):
    if unit == 1 and number == 1 and not gate.waiting():
        gate.wait()
    yield from walked(work, unit, number)
if place == "rounds":
    Recorder.__call__ = held
else:
    Equilibration._walk = slow
cli.main()
"""


@pytest.fixture
def folder(tmp_path):
    write_wells(tmp_path)
    return tmp_path


@pytest.fixture
def cold(folder):
    """A folder whose config has the first system alone: half of what there is to compile."""
    (folder / "config.toml").write_text(COLD)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with its run on one rank."""
    folder = tmp_path_factory.mktemp("whole")
    write_wells(folder)
    done = here("optimize", folder / "config.toml", *AUTO)
    assert done.returncode == 0, done.stderr
    return folder


def metrics_of(run):
    return json.loads((run / "metrics.json").read_text())


def result(run):
    """All that must be the same on any ranks, through interruptions."""
    metrics = metrics_of(run)
    tables = [(run / name).read_text() for name in (PARAMETERS, OBSERVABLES, DERIVATIVES, GRADIENT, AVERAGES)]
    of_averages = ("averages", "errors_of_averages", "derivatives", "gradient")
    keys = ("fitted", "before", "parameters", *of_averages, "undetermined")
    return {key: metrics[key] for key in keys}, tables, [tuple(row[name] for name in SAME) for row in history(run)]


def rows_of(run, name):
    return list(csv.DictReader((run / name).read_text().splitlines()))


# ---- known truth -----------------------------------------------------------------------------------------------------


def test_the_force_constant_is_found_within_its_error(whole):
    """k = 2 from <x^2> = kT / k = 0.5 +- 0.02, whose error by data is 4 % of k: d ln<x^2> / d ln k = -1."""
    [row] = rows_of(whole / "run", PARAMETERS)
    keys = ("value", "error", "error_of_data", "error_of_frames")
    value, error, of_data, of_frames = (float(row[key]) for key in keys)
    assert error == pytest.approx(np.hypot(of_data, of_frames), rel=1e-12)
    assert of_data == pytest.approx(0.04 * 2, rel=0.2)  # by the slopes of the last draw
    assert abs(value - 2) < 3 * of_frames
    assert of_frames < 0.1


def test_each_round_leaves_its_averages_with_their_errors(whole):
    """Those of measured data make the chi2 of the history; x^2 of 24 windows has an error of its own each."""
    rows = rows_of(whole / "run", AVERAGES)
    assert [int(row["round"]) for row in rows] == np.repeat(np.arange(7), 4).tolist()
    assert {(row["system"], row["observable"], row["item"]) for row in rows[:4]} == {
        ("cold", "second", "0"), ("cold", "apart", "0"), ("warm", "moments", "0"), ("warm", "moments", "1"),
    }  # fmt: skip
    chi2 = [row["chi2"] for row in history(whole / "run")]
    second = [((float(row["average"]) - 0.5) / 0.02) ** 2 for row in rows if row["observable"] == "second"]
    np.testing.assert_allclose(second, chi2, rtol=1e-9)  # the distance stays below its bound
    errors = [float(row["error"]) for row in rows if row["observable"] == "second"]
    assert 0.005 < min(errors) < max(errors) < 0.05
    metrics = metrics_of(whole / "run")
    last = {(row["observable"], row["item"]): float(row["error"]) for row in rows[-4:]}
    assert metrics["noise_of_chi2"] == pytest.approx((last["second", "0"] / 0.02) ** 2, rel=1e-9)
    held_out = (last["moments", "0"] / 0.02) ** 2 + (last["moments", "1"] / 0.1) ** 2
    assert metrics["noise_of_chi2_held_out"] == pytest.approx(held_out, rel=1e-9)
    seconds = metrics["seconds"]
    assert {"equilibration", "rounds", "rounds: sums over ranks", "derivatives compared"} <= set(seconds)


def test_averages_after_the_fit_are_exact_within_their_errors(whole):
    """At the k that was found; those of held-out data are of another temperature."""
    [k] = (float(row["value"]) for row in rows_of(whole / "run", PARAMETERS))
    rows = rows_of(whole / "run", OBSERVABLES)
    exact = [1 / k, None, 1.5 / k, 3 * (1.5 / k) ** 2]
    assert [row["held_out"] for row in rows] == ["False", "False", "True", "True"]
    assert [row["bound"] for row in rows] == ["", "upper", "", ""]
    for row, value in zip(rows, exact):
        if value is not None:
            assert abs(float(row["after"]) - value) < 3.5 * float(row["error_after"])


def test_derivatives_by_all_estimators_are_exact_within_their_errors(whole):
    """d<x^2>/dk = -kT/k^2, d<x^4>/dk = -6 kT^2/k^3; windows of 30 ps forget."""
    [k] = (float(row["value"]) for row in rows_of(whole / "run", PARAMETERS))
    exact = {("second", "0"): -1 / k**2, ("moments", "0"): -1.5 / k**2, ("moments", "1"): -6 * 1.5**2 / k**3}
    found = {(row["observable"], row["item"]): row for row in rows_of(whole / "run", DERIVATIVES)}
    for name, value in exact.items():
        row = found[name]
        for way in ("pathwise", "fluctuation", "malliavin", "combined"):
            error = float(row[f"{way}_error"])
            assert abs(float(row[way]) - value) < 3.5 * error + 0.05 * abs(value), (name, way)
        assert row["too_short"] == "False"


def test_the_gradient_at_the_end_is_exact_within_its_errors_by_all_estimators(whole):
    """((1/k - 0.5) / 0.02^2) (-1/k^2): the distance keeps its bound, the other system is held out. Near its minimum the
    error is that of the average, here of 24 windows of 30 ps, times d<x^2>/dk / 0.02^2 = 600."""
    [k] = (float(row["value"]) for row in rows_of(whole / "run", PARAMETERS))
    rows = rows_of(whole / "run", GRADIENT)
    assert [(row["parameter"], row["way"]) for row in rows] == [("k", way) for way in WAYS]
    exact = (1 / k - 0.5) / 0.02**2 * (-1 / k**2)
    for row in rows:
        value, error = float(row["gradient"]), float(row["error"])
        assert abs(value - exact) < 3.5 * error
        assert 0.005 * 600 < error < 0.05 * 600
        assert float(row["signal_to_noise"]) == pytest.approx(abs(value) / error, rel=1e-12)
    assert metrics_of(whole / "run")["gradient"][0]["gradient"] == float(rows[0]["gradient"])


def test_tangents_are_carried_as_long_as_a_pilot_finds_best(whole):
    """Wells relax in 1 to 2 ps; windows have 30. The error at the end is told along what was used."""
    wells = metrics_of(whole / "run")["derivatives"]
    assert [one["system"] for one in wells] == ["cold", "warm"]
    for one in wells:
        windows = one["windows"]
        assert 1 < windows["used"] < 20
        assert 30 / windows["used"] == pytest.approx(round(30 / windows["used"]))
        assert len(windows["time"]) == 2 * windows["used"]  # a frame each 0.5 ps
        [k] = windows["parameters"]
        assert k["signal_pathwise"] > 2
        assert 0 < k["best"] <= windows["used"]
        total = np.hypot(windows["bias"], windows["noise"])
        np.testing.assert_allclose(windows["error"], total, rtol=1e-12)
        assert windows["best"] == windows["time"][int(np.argmin(total))]


@pytest.mark.parametrize("estimator", ["fluctuation", "reweighting"])
def test_other_estimators_find_the_same(cold, estimator):
    chosen = [f"problem.estimator={estimator}", "problem.derivative_draws=0"]
    done = here("optimize", cold / "config.toml", *sets(*chosen))
    assert done.returncode == 0, done.stderr
    [row] = rows_of(cold / "run", PARAMETERS)
    assert abs(float(row["value"]) - 2) < 3 * float(row["error_of_frames"])
    assert not (cold / "run" / DERIVATIVES).exists()


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("adam", ["optimizer.options={learning_rate=0.3}"]),
        ("lbfgs", ["problem.steps_a_draw=5"]),
        ("lbfgs", ["problem.estimator=reweighting"]),
    ],
)
def test_other_optimizers_take_rounds_as_well(cold, name, more):
    chosen = ["problem.solver=optimizer", f"optimizer.name={name}", "problem.rounds=10", "problem.derivative_draws=0"]
    done = here("optimize", cold / "config.toml", *sets(*chosen, *more))
    assert done.returncode == 0, done.stderr
    [row] = rows_of(cold / "run", PARAMETERS)
    assert abs(float(row["value"]) - 2) < 3 * float(row["error"])
    rows = history(cold / "run")
    assert rows[-1]["step"] == 10
    assert len({row["loss"] for row in rows}) == len(rows)


@pytest.mark.parametrize(("rounds", "told"), [(1, True), (0, False)])
def test_rounds_that_have_not_settled_are_told(cold, rounds, told):
    """One step of at most 0.05 scales leaves k where it was, 30 % off; without rounds nothing was to settle."""
    limits = [f"problem.rounds={rounds}", "problem.largest_step=0.05", "problem.derivative_draws=0"]
    done = here("optimize", cold / "config.toml", *sets(*limits))
    assert done.returncode == 0, done.stderr
    assert told == any("rounds have not settled" in one for one in metrics_of(cold / "run")["warnings"])


# ---- bits ------------------------------------------------------------------------------------------------------------


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [pytest.param(2, marks=pytest.mark.nightly), 3])
def test_ranks_simulate_the_same_bits(whole, ranks, tmp_path, hpcfit):
    run = tmp_path / "run"
    done = hpcfit("optimize", whole / "config.toml", *AUTO, *sets(f"run.directory={run}"), ranks=ranks)
    assert done.returncode == 0, done.stderr
    assert result(run) == result(whole / "run")


@pytest.mark.parametrize(
    ("place", "by"),
    [
        pytest.param("rounds", signal.SIGTERM, marks=[pytest.mark.mpi, pytest.mark.nightly]),
        pytest.param("rounds", signal.SIGKILL, marks=pytest.mark.mpi),
        ("equilibration", signal.SIGTERM),
    ],
)
def test_an_interrupted_simulation_goes_on_to_the_same_bits(whole, place, by, request, tmp_path):
    """A checkpoint a step: one that is killed goes on from the third round, on one rank instead of two."""
    gate, script, run = Gate(tmp_path / "gate"), tmp_path / "held.py", tmp_path / "run"
    script.write_text(HELD)
    words = ["optimize", whole / "config.toml", *AUTO]
    words += sets(f"run.directory={run}", "problem.block=4", "checkpoint.every_steps=1")
    launcher = [request.getfixturevalue("mpiexec"), "-n", "2"] if place == "rounds" else []
    command = [*launcher, sys.executable, script, place, gate.folder, *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    job = subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment)
    wait_for(lambda: job.poll() is not None or gate.waiting())
    assert job.poll() is None, job.communicate()[1]
    os.kill(*gate.waiting(), by)
    gate.open()
    said = job.communicate(timeout=300)[1]
    assert job.returncode == 75 if by == signal.SIGTERM else job.returncode not in (0, 75), said
    assert not (run / "metrics.json").exists()
    again = here(*words, "--resume", "auto")
    assert again.returncode == 0, again.stderr
    assert place != "rounds" or "resuming from" in again.stderr
    assert result(run) == result(whole / "run")


# ---- what may be wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("wells.py:energy", "wells.py:broken", ["gives an array of shape (2, 3)", "scalar"]),
        ("wells.py:energy", "wells.py:nowhere", ["is nan at the first positions"]),
        ("wells.py:energy", "wells.py:constant", ["has no gradient: no position changes it"]),
        ("wells.py:energy", "wells.py:enery", ["has no function enery", "energy"]),
        ("wells.py:energy", "missing.py:energy", ["missing.py does not exist"]),
        ("{k = 2.6}", "{k = 2.6, q = 1.0}", ["depends on parameter 'q'", "leave it out"]),
        ('name = "k"', 'name = "kk"', ["'kk': no system has parameters 'kk'", "did you mean 'k'"]),
        ("masses = [1.0, 1.5]", "masses = [1.0, 1.5, 2.0]", ["has 3 particles", "two.npy has 2"]),
        ("step = 0.05", "step = 0.07", ["7.14286 steps of 0.07 ps", "whole number"]),
        ("values = 0.5", "values = [0.5, 0.6]", ["'second' has 1 numbers", "2 values"]),
        ("sigma = 0.02\n", "", ["`values` and `sigma` go together"]),
        ('observable = "powers"', 'observable = "power"', ["observable = 'power': did you mean 'powers'"]),
        ("pairs = [[0, 1]]", "pairs = [[0, 2]]", ["pairs names atom 2 of 2", "count from 0"]),
        ("kT = 1.0", "kT = 1.0\ntemperature = 300.0", ["`temperature` (K) or `kT`"]),
        ("held_out = true", "held_out = false\nbound = 'uper'", ["bound' = 'uper'"]),
        ("rounds = 6", "rounds = 6\nskipped = 60", ["skipped = 60 of frames = 60"]),
        ("rounds = 6", "rounds = 6\nleast_share = 0.5", ["least_share has no effect on estimator = 'pathwise'"]),
        ("rounds = 6", "rounds = 6\nsteps_a_draw = 2\nsettled = 3", ["settled = 3 has no effect on steps_a_draw = 2"]),
        ("rounds = 6", "rounds = 6\nsettled = 9", ["settled = 9 is after the last of rounds = 6"]),
        ("{k = 2.6}\nmasses = 1.0", "{k = 2.5}\nmasses = 1.0", ["2.6 in system 'cold'", "2.5"]),
        ("rounds = 6", "rounds = 6\ntangents = 7", ["tangents = 7 do not divide frames = 60"]),
        ("rounds = 6", "rounds = 6\ntangents = 'auto'\nderivative_draws = 0", ["set them to 1 or more"]),
        ('"pathwise"', '"fluctuation"\ntangents = 10', ["tangents has no effect on estimator = 'fluctuation'"]),
        ('transform = "log"', "transform = 'logit'", ["transform' = 'logit'"]),
    ],
)  # fmt: skip
def test_a_wrong_simulation_is_one_clear_error(folder, before, after, expected):
    text = CONFIG.replace(before, after, 1)
    assert text != CONFIG
    (folder / "config.toml").write_text(text)
    assert_one_clear_error(here("check", folder / "config.toml"), expected)


def test_tangents_are_not_cut_where_a_motion_is_observed(cold):
    motion = 'observable = "mean-square-displacement"\natoms = "all"\nlags = [1.0]'
    text = COLD.replace('observable = "own"\nfunction = "wells.py:square"', motion)
    (cold / "config.toml").write_text(text.replace("rounds = 6", "rounds = 6\ntangents = 10"))
    expected = ["'second' of system 'cold' is of a motion", "tangents = 10 cuts"]
    assert_one_clear_error(here("check", cold / "config.toml"), expected)


def test_check_says_which_way_derivatives_are_taken_and_what_a_round_takes(cold):
    said = here("check", cold / "config.toml").stderr
    assert "pathwise: 1 tangents carried along, 2.4 plain steps a step, for Gauss-Newton" in said
    assert "s a round of 24 windows a rank" in said


@pytest.mark.parametrize(
    ("solver", "estimator", "P", "way", "words"),
    [
        ("gauss-newton", "pathwise", 30, ON, "30 tangents carried along, 31.4 plain steps a step, for Gauss-Newton"),
        ("gauss-newton", "pathwise", 50, PULLED, "pull-backs of 21 averaged numbers, 31.7 plain steps a step"),
        ("optimizer", "pathwise", 2, ON, "2 tangents carried along"),
        ("optimizer", "pathwise", 3, BACK, "the gradient alone, pulled back: 3.4 plain steps a step"),
        ("optimizer", "fluctuation", 3, BACK, "frames alone by 3 parameters"),
    ],
)
def test_the_cheaper_way_is_taken(solver, estimator, P, way, words):
    size = Size(coordinates=300, steps=100, stride=10, averaged=(1, 20))
    found = direction(SimpleNamespace(solver=solver, estimator=estimator), P, [size])
    assert (found.forward, found.pulled) == way
    assert found.matrix == (False,)
    assert words in found.reason


def test_many_parameters_of_small_systems_take_the_hessian_as_a_matrix():
    """Beside so many numbers that no pull-back of each pays; in the large system it costs more than it saves."""
    small, large = (Size(coordinates, 100, 10, (1000,)) for coordinates in (30, 3000))
    choice = SimpleNamespace(solver="gauss-newton", estimator="pathwise")
    both, alone = direction(choice, 300, [small, large]), direction(choice, 300, [small])
    assert (both.matrix, alone.matrix) == ((True, False), (True,))
    assert alone.costs[0] == both.costs[0] < both.costs[1]
    assert "300 tangents carried along by the Hessian as a matrix in 1 of 2 systems" in both.reason
    assert "by the Hessian as a matrix, " in alone.reason


MANY = """
def several(x, parameters, box):
    return 0.5 * jnp.sum(parameters["k"][:, None] * x**2)
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A folder with a run on one rank: four wells, of each its force constant, and one average of all."""
    folder = tmp_path_factory.mktemp("many")
    write_wells(folder)
    with (folder / "wells.py").open("a") as file:
        file.write(MANY)
    np.save(folder / "four.npy", np.random.default_rng(0).normal(scale=0.3, size=(4, 3)))
    text = COLD.partition('[[problem.system.observable]]\nname = "apart"')[0]
    for before, after in (
        ("wells.py:energy", "wells.py:several"), ("k = 2.6", "k = [2.6, 2.4, 2.2, 2.0]"), ("two.npy", "four.npy"),
        ("masses = [1.0, 1.5]", "masses = 1.0"), ("scale = 0.3", "prior = 0.3"), ("rounds = 6", "rounds = 3"),
        ("window = 30.0", "window = 3.0"), ("frames = 60", "frames = 6\nderivative_draws = 0"),
    ):  # fmt: skip
        assert before in text
        text = text.replace(before, after)
    (folder / "config.toml").write_text(text)
    done = here("optimize", folder / "config.toml")
    assert done.returncode == 0, done.stderr
    return folder


def test_more_parameters_than_data_are_fitted_by_pull_backs_of_the_data(many, monkeypatch, tmp_path):
    """The run that carries four tangents along finds the same."""
    assert "pull-backs of 1 averaged numbers, 4 plain steps" in here("check", many / "config.toml").stderr
    monkeypatch.setattr(case, "direction", lambda *given: direction(*given)._replace(pulled=False))
    done = here("optimize", many / "config.toml", *sets(f"run.directory={tmp_path}"))
    assert done.returncode == 0, done.stderr
    pulled, carried = (rows_of(run, PARAMETERS) for run in (many / "run", tmp_path))
    assert len(pulled) == 4
    for one, other in zip(pulled, carried):
        for name in ("value", "error_of_data", "error_of_frames"):
            assert float(one[name]) == pytest.approx(float(other[name]), rel=1e-10)
    losses = [[row["loss"] for row in history(run)] for run in (many / "run", tmp_path)]
    np.testing.assert_allclose(*losses, rtol=1e-10)


@pytest.mark.mpi
def test_ranks_pull_back_the_same_bits(many, tmp_path, hpcfit):
    done = hpcfit("optimize", many / "config.toml", *sets(f"run.directory={tmp_path}"), ranks=2)
    assert done.returncode == 0, done.stderr
    for name in (PARAMETERS, OBSERVABLES, AVERAGES):
        assert (tmp_path / name).read_text() == (many / "run" / name).read_text()
    assert [row["loss"] for row in history(tmp_path)] == [row["loss"] for row in history(many / "run")]


@pytest.mark.mpi
def test_a_start_that_explodes_is_one_error_on_ranks(folder, hpcfit):
    """Beyond its edge at |x| = sqrt(k / 0.08) = 5.7 the second particle of every window falls."""
    (folder / "config.toml").write_text(CONFIG.replace("wells.py:energy", "wells.py:bottomless", 1))
    np.save(folder / "two.npy", np.array([[0.3, 0.1, -0.2], [8.0, 0.2, 0.1]]))
    done = hpcfit("optimize", folder / "config.toml", ranks=2)
    assert_one_clear_error(done, ["system 'cold' exploded in its equilibration: window 0", "the force on atom 1"])


def test_more_than_half_of_the_windows_must_hold(cold):
    text = COLD.replace("wells.py:energy", "wells.py:bottomless").replace("equilibration = 6.0", "equilibration = 0.0")
    (cold / "config.toml").write_text(text.replace("window = 30.0", "window = 3.0"))
    starts = np.random.default_rng(0).normal(scale=0.3, size=(24, 2, 3))
    starts[:13, 1, 0] = 8.0
    np.save(cold / "two.npy", starts)
    assert_one_clear_error(here("optimize", cold / "config.toml"), ["more than half of a system's windows exploded"])


def test_windows_that_explode_are_counted_and_named(folder):
    """Starts of a stored sample go on without an equilibration: two of them lie beyond the edge."""
    text = COLD.replace("wells.py:energy", "wells.py:bottomless")
    text = text.replace("equilibration = 6.0", "equilibration = 0.0")
    text = text.replace("rounds = 6", "rounds = 0\nderivative_draws = 0").replace("window = 30.0", "window = 3.0")
    starts = np.random.default_rng(0).normal(scale=0.3, size=(24, 2, 3))
    starts[[3, 17], 1, 0] = 8.0
    np.save(folder / "two.npy", starts)
    (folder / "config.toml").write_text(text)
    done = here("optimize", folder / "config.toml")
    assert done.returncode == 0, done.stderr
    warnings = metrics_of(folder / "run")["warnings"]
    told = [one for one in warnings if "exploded in window" in one]
    assert len(told) >= 2
    assert all("the force on atom 1" in one for one in told if "window 3," in one or "window 17," in one)
    assert history(folder / "run")[-1]["windows"] <= 22
