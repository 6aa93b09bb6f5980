"""`hpcfit pipeline`: from a simulation to a finished fit in one call; stopped, and called again."""

import json
import os
import signal
import subprocess

import numpy as np
import pytest

from hpcfit.physics import reciprocal
from tests.command import HPCFIT, ROOT, WIDE
from tests.conftest import assert_one_clear_error, history, wait_for
from tests.prepare.test_prepare_faults import CELL, write_trajectory
from tests.simulation.simulations import EDGE, write_springs

pytestmark = pytest.mark.programs

CLUSTER = '[cluster]\nworkers = 2\ndashboard = "127.0.0.1:0"\n'
D_MIN = 2.5
ONE = CLUSTER.replace("workers = 2", "workers = 1")
SHORT, ENDLESS = "max_steps = 5\n", "max_steps = 1000000000\ngradient_tolerance = 0\nrelative_tolerance = 0\n"


def write_map(path, cell):
    """Some positive intensities to fit to: what a fit makes of them does not matter here."""
    hkl = reciprocal.sphere(cell, (1, 1, 1), D_MIN)
    intensity = np.random.default_rng(0).random(len(hkl)) + 1
    np.savez(path, hkl=hkl, intensity=intensity, ndiv=(1, 1, 1), cell=cell, space_group="P 1")


def tables(source, supercell=1):
    """The config of prepare and of a fit of five steps, without a cluster."""
    return (
        f'[frames]\nstore = "store"\n[prepare]\nd_min = {D_MIN}\nshard_frames = 64\nsample = 4\n'
        f'supercell = {[supercell] * 3}\n[[prepare.source]]\n{source}\n[experiment]\nfile = "map.npz"\n'
        f'[problem]\nkind = "frame-weights"\n[optimizer]\nname = "adam"\n{SHORT}'
        '[run]\ndirectory = "run"\nreport = false\n'
    )


@pytest.fixture
def config(tmp_path):
    """From trajectories to a fit of five steps."""
    write_trajectory(tmp_path / "a.xyz", n_frames=200)
    write_map(tmp_path / "map.npz", CELL)
    (tmp_path / "config.toml").write_text(tables('trajectory = "a.xyz"') + CLUSTER)
    return tmp_path / "config.toml"


@pytest.mark.mpi
def test_from_a_simulation_to_a_fit_on_two_ranks(tmp_path, hpcfit):
    pytest.importorskip("openmm")
    config = write_springs(tmp_path, atoms=20, frames=6, piece=3, replicas=2, interval=0.02, equilibration=0.02)
    write_map(tmp_path / "map.npz", (EDGE / 2,) * 3 + (90.0,) * 3)
    config.write_text(config.read_text() + tables('trajectory = "trajectories/springs*"', supercell=2) + ONE)
    done = hpcfit("pipeline", config, "--ranks", 2, apart=True)
    assert done.returncode == 0, done.stderr
    for words in ("2 replicas of 6 frames", "12 frames x", "optimize on 2 ranks", "1 x 2 (frames x slices)"):
        assert words in done.stderr
    assert json.loads((tmp_path / "run/metrics.json").read_text())
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "trajectories").rglob("*.h5")}
    assert len(written) >= 4
    again = hpcfit("pipeline", config, "--ranks", 2, apart=True)
    assert again.returncode == 0, again.stderr
    for words in ("12 frames were there", "holds the result of this config already"):
        assert words in again.stderr
    assert written == {path: path.stat().st_mtime_ns for path in (tmp_path / "trajectories").rglob("*.h5")}


def stopped(config, rows, number):
    """Start the pipeline, send it a signal when the fit has more than so many evaluations; its exit code and errors."""
    command = [*HPCFIT, "pipeline", str(config), "--ranks", "1"]
    driver = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ | WIDE)
    run = config.parent / "run"
    wait_for(lambda: driver.poll() is not None or ((run / "history.jsonl").exists() and len(history(run)) > rows))
    assert driver.poll() is None, driver.stderr.read()
    driver.send_signal(number)
    _, errors = driver.communicate(timeout=300)
    return driver.returncode, errors


def test_a_signal_reaches_the_fit_and_the_next_call_goes_on(config):
    config.write_text(config.read_text().replace(SHORT, ENDLESS).replace(CLUSTER, ONE))
    code, errors = stopped(config, 3, signal.SIGTERM)
    assert code == 75, errors
    first = history(config.parent / "run")
    code, errors = stopped(config, len(first) + 3, signal.SIGUSR1)
    assert code == 75, errors
    second = history(config.parent / "run")
    assert len(second) > len(first)
    assert [row["loss"] for row in second[: len(first)]] == [row["loss"] for row in first]
    assert [row["evaluation"] for row in second] == list(range(1, len(second) + 1))


@pytest.mark.mpi
def test_a_failing_fit_gives_its_exit_code(config, hpcfit):
    done = hpcfit("pipeline", config, "--set", "problem.laue=nonsense", apart=True)
    assert_one_clear_error(done, ["nonsense"])


@pytest.mark.mpi
def test_without_a_fit_or_under_mpiexec_it_is_one_clear_error(config, hpcfit):
    said = "= 2: 2 processes were started, while `hpcfit pipeline` is one process"
    assert_one_clear_error(hpcfit("pipeline", config, ranks=2), [said])
    config.write_text(config.read_text().replace('[experiment]\nfile = "map.npz"\n', ""))
    assert_one_clear_error(hpcfit("pipeline", config), ["no [experiment] table"])
