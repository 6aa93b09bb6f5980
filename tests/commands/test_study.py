"""A run of several fits that is interrupted: those that have ended are not repeated, and the result is the same."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from hpcfit.fit import hooks
from hpcfit.fit.stop import Stop
from hpcfit.testsystems import synthetic
from tests.command import ROOT, here, sets
from tests.commands.test_records import records
from tests.conftest import wait_for
from tests.workflow.crew_tasks import Gate

pytestmark = pytest.mark.slow

# Three starts, two thetas in two folds, a fit of all orbits at the theta that starts were not compared at, the final
# one, two resamples of either kind, and one without theta.
STUDY = 'theta = [0.01, 0.1]\nfolds = 2\nresamples = 2\nstarts = ["prior", "clusters"]\n'
SETTINGS = ("optimizer.max_steps=8", "checkpoint.every_steps=2", "run.report=false")
FITS = 3 + 2 * 2 + 1 + 1 + 2 * 2 + 1


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """130 frames with two labels, whose spread falls on other reflections; the map has more of the second."""
    H = len(synthetic.cubic_reflections(2.0))
    a, b = (synthetic.gaussian_frames(n, H, seed, bragg=1.0) for n, seed in ((70, 0), (60, 1)))
    sources = [synthetic.Source("A", a, "A"), synthetic.Source("B", b[:, ::-1], "B")]
    w_t = np.r_[np.full(70, 0.2 / 70), np.full(60, 0.8 / 60)]
    folder = tmp_path_factory.mktemp("study")
    return synthetic.write_problem(folder, sources, w_t, d_min=2.0, noise=0.1, options=STUDY)


def words(config, directory, *more):
    given = (f"run.directory={directory}", *SETTINGS)
    return ["optimize", str(config), *sets(*given), *more]


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The directory of the study in one go, on one rank."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    done = here(*words(config, directory))
    assert done.returncode == 0, done.stderr
    return directory


SAME = ("fitted", "uniform", "theta", "starts", "cross_validation", "l_curve", "errors", "fits", "final_fit", "steps",
        "evaluations", "loss", "stopped")  # fmt: skip


def result(directory):
    """What of the metrics no interruption may change."""
    metrics = json.loads((directory / "metrics.json").read_text())
    return {name: metrics[name] for name in SAME} | {"weights": (directory / "weights.csv").read_text()}


# `hpcfit`, whose root waits at a gate when five fits of a study have ended.
HELD_AFTER = 5
HELD = """
import sys
from pathlib import Path
from hpcfit import cli
from hpcfit.fit.checkpoint import Records
from tests.workflow.crew_tasks import Gate
gate, save, saved = Gate(Path(sys.argv.pop(1))), Records.save, []
def save_and_wait(records, name, record):
    save(records, name, record)
    saved.append(name)
    if len(saved) == {after}:
        records.grid.world.on_root(gate.wait)
Records.save = save_and_wait
cli.main()
"""


def interrupted(mpiexec, config, directory, number):
    """A study on two ranks, of which one gets a signal when some fits have ended; its exit code."""
    import psutil

    gate, script = Gate(directory.parent / "gate"), directory.parent / "held.py"
    script.write_text(HELD.format(after=HELD_AFTER))
    command = [mpiexec, "-n", "2", sys.executable, script, gate.folder, *words(config, directory)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    job = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment)
    wait_for(lambda: job.poll() is not None or gate.waiting())
    assert job.poll() is None, job.communicate()[1]
    ranks = [p.pid for p in psutil.Process(job.pid).children(recursive=True) if "python" in p.name()]
    os.kill(ranks[-1], number)
    gate.open()
    job.communicate(timeout=300)
    return job.returncode


def test_the_study_has_all_its_fits(whole):
    metrics = result(whole)
    assert len(metrics["fits"]) == FITS
    assert len(set(metrics["fits"])) == FITS
    assert len(records(whole)) == FITS
    assert {row["start"] for row in metrics["starts"]} == {"prior", "A", "B"}
    assert [row["theta"] for row in metrics["cross_validation"]] == [None, 0.1, 0.01]
    assert set(metrics["errors"]) == {"frames", "orbits"}


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("number", "code", "ranks"),
    [(signal.SIGTERM, 75, 1), pytest.param(signal.SIGKILL, None, 3, marks=pytest.mark.nightly)],
)
def test_an_interrupted_study_ends_as_the_whole_one_on_other_ranks(
    hpcfit, mpiexec, config, whole, tmp_path, number, code, ranks
):
    run = tmp_path / "run"
    ended = interrupted(mpiexec, config, run, number)
    assert ended == code if code else ended != 0
    assert not (run / "metrics.json").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in records(run)}
    assert len(kept) == HELD_AFTER
    done = hpcfit(*words(config, run, "--resume"), ranks=ranks)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("has ended before") >= len(kept)
    assert {path.name: path.stat().st_mtime_ns for path in records(run) if path.name in kept} == kept
    assert result(run) == result(whole)


@pytest.mark.parametrize("after", [0, 4])
def test_fits_that_are_interrupted_together_go_on_from_where_they_were(config, whole, tmp_path, monkeypatch, after):
    """At the start of the folds, and amid them, where some have ended; with another checkpoint every step."""
    run, heeded = tmp_path / "run", hooks.Signals.__call__

    def stopped(signals, step):
        of_folds = step is not None and step.number == after and len(step.state.evaluations) == 2
        return Stop("a test", interrupted=True) if of_folds else heeded(signals, step)

    with monkeypatch.context() as patched:
        patched.setattr(hooks.Signals, "__call__", stopped)
        assert here(*words(config, run, "--set", "checkpoint.every_steps=1")).returncode == 75
    assert len(records(run)) == 3
    done = here(*words(config, run, "--resume"))
    assert done.returncode == 0, done.stderr
    assert f"step_{after:08d}.h5" in done.stderr
    assert result(run) == result(whole)


def test_a_record_that_is_cut_is_run_again(hpcfit, config, whole, tmp_path):
    shutil.copytree(whole, run := tmp_path / "run")
    (run / "metrics.json").unlink()
    record = run / "fits/start_A.h5"
    sound = record.read_bytes()
    record.write_bytes(sound[: len(sound) // 2])
    done = hpcfit(*words(config, run, "--resume"))
    assert done.returncode == 0, done.stderr
    assert "is damaged" in done.stderr
    assert done.stderr.count(" has ended before: ") == FITS - 1
    assert len(record.read_bytes()) > len(sound) // 2
    assert result(run) == result(whole)
