"""Runs at constant pressure: known truth, no pathwise derivatives, the same bits, what may be wrong."""

import json
import os
import signal
import subprocess
import sys

import pytest

from hpcfit.kinds.force_field.files import DERIVATIVES, OBSERVABLES, PARAMETERS
from hpcfit.observables.thermodynamics import BAR, DENSITY
from tests.command import ROOT, here, sets
from tests.conftest import assert_one_clear_error, history, wait_for
from tests.kinds.force_field.breathing import CONFIG, OUTER, Q, write_gas
from tests.kinds.force_field.test_simulated_run import HELD, SAME, rows_of
from tests.workflow.crew_tasks import Gate


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with its run on one rank."""
    folder = tmp_path_factory.mktemp("whole")
    write_gas(folder)
    done = here("optimize", folder / "config.toml")
    assert done.returncode == 0, done.stderr
    return folder


def found(run):
    """(q, its error of frames)"""
    [row] = rows_of(run, PARAMETERS)
    return float(row["value"]), float(row["error_of_frames"])


def test_a_parameter_that_adds_to_the_pressure_is_found(whole):
    """From the density alone; volumes and compressibility are those of what was found."""
    q, error = found(whole / "run")
    assert abs(q - Q) < 3 * error
    assert error < 0.02
    s = OUTER + q
    exact = {("density", "0"): DENSITY * s, ("moments", "0"): 9 / s, ("moments", "1"): 90 / s**2}
    exact["compressibility", "0"] = 1 / s / BAR
    for row in rows_of(whole / "run", OBSERVABLES):
        assert abs(float(row["after"]) - exact[row["data"], row["column"]]) < 4 * float(row["error_after"]), row


def test_derivatives_are_those_of_fluctuations_alone(whole):
    q, _ = found(whole / "run")
    s = OUTER + q
    exact = {("density", "0"): DENSITY, ("moments", "0"): -9 / s**2, ("moments", "1"): -180 / s**3}
    rows = {(row["observable"], row["item"]): row for row in rows_of(whole / "run", DERIVATIVES)}
    for name, value in exact.items():
        row = rows[name]
        assert abs(float(row["fluctuation"]) - value) < 4 * float(row["fluctuation_error"]), name
        assert float(row["fluctuation_error"]) < 0.2 * abs(value)
        for key in ("", "_error"):
            assert float(row["combined" + key]) == pytest.approx(float(row["fluctuation" + key]), rel=1e-14)
        assert [row[key] for key in ("pathwise", "pathwise_error", "left", "too_short")] == ["nan"] * 3 + ["False"]
    report = (whole / "run" / "report.html").read_text()
    assert "by the fluctuation formula alone" in report
    assert "what windows forget" not in report


def test_frames_are_weighed_anew_with_their_boxes(whole, tmp_path):
    chosen = ["problem.estimator=reweighting", "problem.derivative_draws=0", f"run.directory={tmp_path / 'run'}"]
    done = here("optimize", whole / "config.toml", *sets(*chosen, "run.report=false"))
    assert done.returncode == 0, done.stderr
    q, error = found(tmp_path / "run")
    assert abs(q - Q) < 3.5 * error
    assert error < 0.04


@pytest.mark.mpi
def test_interrupted_on_three_ranks_it_goes_on_to_the_same_bits(whole, tmp_path, mpiexec):
    """In the fourth round; boxes and reaches of trial moves are those of the checkpoint."""
    gate, script, run = Gate(tmp_path / "gate"), tmp_path / "held.py", tmp_path / "run"
    script.write_text(HELD)
    words = ["optimize", whole / "config.toml", *sets(f"run.directory={run}", "run.report=false")]
    command = [mpiexec, "-n", "3", sys.executable, script, "rounds", gate.folder, *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    job = subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment)
    wait_for(lambda: job.poll() is not None or gate.waiting())
    assert job.poll() is None, job.communicate()[1]
    os.kill(*gate.waiting(), signal.SIGTERM)
    gate.open()
    said = job.communicate(timeout=300)[1]
    assert job.returncode == 75, said
    again = here(*words, "--resume", "auto")
    assert again.returncode == 0, again.stderr
    assert result(run) == result(whole / "run")


def result(run):
    """All that must be the same."""
    metrics = json.loads((run / "metrics.json").read_text())
    tables = [(run / name).read_text() for name in (PARAMETERS, OBSERVABLES, DERIVATIVES)]
    rows = [tuple(row[name] for name in SAME if name != "k") for row in history(run)]
    return tables, rows, [metrics[key] for key in ("fitted", "parameters", "averages", "errors_of_averages")]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ('"fluctuation"', '"pathwise"', ["'gas' has a `pressure`", "'pathwise'", "'fluctuation' or 'reweighting'"]),
        ("friction = 1.5", 'friction = 1.5\nintegrator = "overdamped"', ["`pressure` needs velocities", "'middle'"]),
        (f"pressure = {OUTER * BAR}\n", "", ["`barostat_every` has no effect without `pressure`"]),
        (f"pressure = {OUTER * BAR}\nbarostat_every = 2\n", "", ["'density'", "needs frames of constant pressure"]),
        ("barostat_every = 2", "barostat_every = 0", ["barostat_every' = 0", "must be at least 1"]),
        ("pressure = 4", "pressure = 'high'# 4", ["pressure' = 'high'"]),
    ],
)  # fmt: skip
def test_a_wrong_pressure_is_one_clear_error(tmp_path, before, after, expected):
    write_gas(tmp_path)
    text = CONFIG.replace(before, after, 1)
    assert text != CONFIG
    (tmp_path / "config.toml").write_text(text)
    assert_one_clear_error(here("check", tmp_path / "config.toml"), expected)


def test_a_pressure_needs_a_box(tmp_path):
    write_gas(tmp_path)
    free = "import jax.numpy as jnp\ndef energy(x, parameters, box):\n    return parameters['q'][0] * jnp.sum(x**2)\n"
    (tmp_path / "breathing.py").write_text(free)
    text = CONFIG.replace("box = [2.5, 2.5, 2.5]\n", "")
    (tmp_path / "config.toml").write_text(text)
    done = here("check", tmp_path / "config.toml")
    assert_one_clear_error(done, ["'gas' has pressure = 4.98", "and no box", "give it a periodic box"])


def test_check_says_the_pressure(tmp_path):
    write_gas(tmp_path)
    assert "gas (8 particles, kT 1 kJ/mol, 4.98162 bar)" in here("check", tmp_path / "config.toml").stderr
