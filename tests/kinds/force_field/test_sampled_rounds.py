"""Systems that OpenMM samples: a fitted System has the observable, rounds find a known truth and go on when stopped."""

import csv
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("openmm")

from hpcfit.kinds.force_field.files import PARAMETERS
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.simulation.replica_run import simulate_replica
from hpcfit.store.piece import piece_file, read_piece
from hpcfit.store.pieces import read_chain
from hpcfit.testsystems import argon
from tests.command import ROOT, WIDE, apart, here, sets
from tests.conftest import assert_one_clear_error, wait_for
from tests.kinds.force_field.sampled import LENGTH, write_argon, write_dimers
from tests.simulation.simulations import replicas
from tests.workflow.crew_tasks import Gate

# `hpcfit`, which waits at a gate before the fit of the second round.
HELD = """
import sys
from pathlib import Path
from hpcfit import cli
from hpcfit.commands import pipeline
from tests.workflow.crew_tasks import Gate
if __name__ == "__main__":
    gate, run = Gate(Path(sys.argv.pop(1))), pipeline.run_hpcfit
    def held(*arguments, ranks):
        if "round_002" in arguments[1]:
            gate.wait()
        return run(*arguments, ranks=ranks)
    pipeline.run_hpcfit = held
    cli.main()
"""
SAMPLING = """
[simulate]
directory = "{name}"
replicas = {replicas}
frames = 100
interval = 0.2
equilibration = 5.0
step = 0.005
friction = 5.0
platform = "CPU"
energies = true
temperatures = [94.4]
seed = {seed}
[[simulate.system]]
name = "argon"
topology = "argon.pdb"
system = "{system}"
"""
FIT = """
[run]
directory = "run"
report = false
[problem]
kind = "force-field"
estimator = "fluctuation"
windows = 6
[[problem.parameter]]
name = "lj.epsilon"
transform = "log"
scale = 0.05
[[problem.system]]
name = "liquid"
system = "argon.xml"
topology = "argon.pdb"
temperature = 94.4
frames = "sample/argon*"
[[problem.system.observable]]
name = "vaporisation"
observable = "vaporisation-enthalpy"
values = 6.5
sigma = 0.01
"""


# ---- a fitted System -------------------------------------------------------------------------------------------------


def sampled(folder, name, system, seed, count):
    """Enthalpies of vaporisation of replicas that OpenMM makes of a System, by its own energies, kJ/mol."""
    (folder / f"{name}.toml").write_text(SAMPLING.format(name=name, system=system, seed=seed, replicas=count))
    found = []
    for replica in replicas(folder / f"{name}.toml"):
        simulate_replica(replica)
        pieces = read_chain(replica.folder, replica.settings.digest).pieces
        rows = [read_piece(replica.folder / piece_file(one.number)).rows.values for one in pieces]
        energy = np.concatenate([values["potential_energy"] for values in rows]).mean()
        found.append(-energy / argon.N + GAS_CONSTANT * argon.TEMPERATURE)
    return np.array(found)


def test_a_fitted_system_simulated_by_openmm_has_the_fitted_observable(tmp_path):
    """epsilon such that the enthalpy of vaporisation is 6.5 kJ/mol; what OpenMM says of the System has the errors of
    both samples, and the curvature of one step, (4 % of epsilon)^2, beside."""
    write_argon(tmp_path, "argon", 0.96)
    before = sampled(tmp_path, "sample", "argon.xml", seed=0, count=6)
    (tmp_path / "config.toml").write_text(FIT)
    done = here("optimize", tmp_path / "config.toml")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    error = before.std(ddof=1) / len(before) ** 0.5
    assert metrics["averages_before"][0] == pytest.approx(before.mean(), abs=2e-4)  # OpenMM's CPU platform is single
    after = sampled(tmp_path, "again", "run/liquid.xml", seed=1, count=6)
    both = np.hypot(error, after.std(ddof=1) / len(after) ** 0.5)
    print(f"enthalpy of vaporisation {before.mean():.4f} -> {after.mean():.4f} +- {both:.4f}, fitted to 6.5")
    assert abs(before.mean() - 6.5) > 10 * both
    assert abs(after.mean() - 6.5) < 3.5 * both + 6.5 * 0.04**2


# ---- rounds ----------------------------------------------------------------------------------------------------------


def rows_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def times(folder):
    """When each file of trajectories and results was written."""
    chosen = [*folder.rglob("*.h5"), *folder.rglob("metrics.json")]
    return {path: path.stat().st_mtime_ns for path in chosen}


@pytest.mark.programs
def test_rounds_that_were_stopped_go_on_to_a_known_truth(tmp_path):
    """The mean length is that of bonds of 0.15 nm; the System begins with 3 % more."""
    config, gate, script = write_dimers(tmp_path), Gate(tmp_path / "gate"), tmp_path / "held.py"
    script.write_text(HELD)
    words = ["pipeline", str(config), "--rounds", "2"]
    environment = os.environ | WIDE | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), str(gate.folder), *words]
    job = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment)
    wait_for(lambda: job.poll() is not None or gate.waiting())
    assert job.poll() is None, job.communicate()[1]
    os.kill(*gate.waiting(), signal.SIGTERM)
    gate.open()
    said = job.communicate(timeout=300)[1]
    assert job.returncode == 75, said
    written = times(tmp_path / "run")
    assert len(rows_of(tmp_path / "run/rounds.csv")) == 1
    again = apart(*words)
    assert again.returncode == 0, again.stderr
    assert "holds the result of this config already" in again.stderr
    assert written.items() <= times(tmp_path / "run").items()
    first, second = rows_of(tmp_path / "run/rounds.csv")
    found, error = (float(second[key]) for key in ("bond.length", "error of bond.length"))
    assert abs(found - LENGTH) < 3 * error < 0.005 * LENGTH
    assert float(second["chi2_before"]) < 0.01 * float(first["chi2_before"])
    start = [float(row["start"]) for row in rows_of(tmp_path / "run/round_002" / PARAMETERS)]
    assert start == [float(first["bond.length"])]
    # Around the first start: the prior of the logarithm is 0.5.
    prior = json.loads((tmp_path / "run/round_002/metrics.json").read_text())["fitted"]["prior"]
    assert prior == pytest.approx((np.log(found / (1.03 * LENGTH)) / 0.5) ** 2, rel=1e-6)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("[simulate]", '[simulate]\ndirectory = "x"', ["[simulate] directory have no effect on rounds"]),
        ('system = "dimers.xml"\n',
         'energy = "lengths.py:mean"\nparameters = {k = 1.0}\nmasses = 1.0\npositions = "x.npy"\n',
         ["system 'dimers' is to be sampled by OpenMM, which needs `system`"]),
        ('"reweighting"', '"pathwise"', ["'pathwise' is of trajectories"]),
        ("temperature = 300.0", "temperature = 300.0\nfriction = 5.0", ["friction have no effect on frames"]),
        ("[simulate]", "[other]", ["unknown key 'other'"]),
    ],
)  # fmt: skip
def test_wrong_rounds_are_one_clear_error(tmp_path, before, after, expected):
    config = write_dimers(tmp_path)
    text = config.read_text()
    assert before in text
    config.write_text(text.replace(before, after, 1))
    assert_one_clear_error(here("pipeline", config, "--rounds", "1"), expected)


def test_a_kind_without_rounds_says_so(two_sources):
    assert_one_clear_error(here("pipeline", two_sources, "--rounds", "2"), ["kind = 'frame-weights' has no rounds"])


def test_rounds_count_from_one(tmp_path):
    config = write_dimers(tmp_path)
    assert_one_clear_error(here("pipeline", config, "--rounds", "0"), ["--rounds 0"])
    without = here("pipeline", config, *sets("problem.estimator='fluctuation'"))
    assert_one_clear_error(without, ["[simulate] has no `directory`", "--rounds"])
