"""A kind of problem that another package brings: every command works on it, and hpcfit was not told of it.

It also stands for what few kinds of hpcfit use: blocks of 4 frames, data that are a tree, numbers of a frame beside
them, rows of single frames, tables instead of [frames], an optimizer of one fit's own, tangents, a stage.
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import ROOT, apart, sets
from tests.conftest import assert_one_clear_error, history, wait_for
from tests.workflow.crew_tasks import Gate

CONFIG = """
[run]
directory = "run"
[problem]
kind = "toy"
penalty = 0.5
[[series]]
points = 13
slope = 2.0
[[series]]
points = 8
slope = 3.0
"""
SAME = ("fit", "step", "evaluation", "loss", "misfit", "spread", "gradient_norm")  # of the history

# `hpcfit`, whose root waits at a gate before its 5th evaluation.
HELD = """
import sys
from pathlib import Path
from hpcfit import cli
from hpcfit.commands.run import Recorder
from tests.workflow.crew_tasks import Gate
gate, evaluated = Gate(Path(sys.argv.pop(1))), Recorder.__call__
def held(recorder, params):
    if recorder.count == 4 and recorder.world.is_root:
        gate.wait()
    return evaluated(recorder, params)
Recorder.__call__ = held
cli.main()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of an installed package, and a config of its kind beside it."""
    folder = tmp_path_factory.mktemp("toy")
    installed = folder / "site"
    shutil.copytree(Path(__file__).parent / "toykind", installed / "toykind")
    about = installed / "toykind-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toykind\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[hpcfit.kinds]\ntoy = toykind:KIND\n")
    (folder / "config.toml").write_text(CONFIG)
    return folder


@pytest.fixture(autouse=True)
def _installed(folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder / "site"), str(ROOT)]))


def launcher(mpiexec, ranks):
    return [mpiexec, "-n", str(ranks)] if ranks > 1 else []


def optimized(folder, directory, *options, start=()):
    done = apart("optimize", folder / "config.toml", *sets(f"run.directory={directory}"), *options, launcher=start)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def whole(folder):
    """The directory of a run on one rank."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder / "site"), str(ROOT)]))
        optimized(folder, folder / "whole")
    return folder / "whole"


def result(directory):
    """What must be the same on any ranks, through interruptions."""
    metrics = json.loads((directory / "metrics.json").read_text())
    table = (directory / "offsets.csv").read_text()
    rows = [tuple(row[name] for name in SAME) for row in history(directory)]
    return metrics["fitted"], metrics["slope"], metrics["rough"], metrics["slopes"], table, rows


@pytest.mark.mpi
def test_three_ranks_find_the_same_bits_as_one(folder, whole, mpiexec, tmp_path):
    optimized(folder, tmp_path / "run", "--set", "run.report=false", start=launcher(mpiexec, 3))
    assert result(tmp_path / "run") == result(whole)
    metrics = json.loads((whole / "metrics.json").read_text())
    assert metrics["identity"]["blocks"] == "4 frames"
    assert metrics["rough"]["stopped"] == "all rounds done", "its own optimizer ends by itself"
    assert [row["fit"] for row in history(whole)].count(0) == 7, "the start and six rounds"
    assert len((whole / "offsets.csv").read_text().splitlines()) == 1 + 21
    assert 2 < metrics["slope"] < 3
    assert metrics["warnings"] == ["this is a toy"]


def test_what_a_stage_adds_up_is_what_the_fit_by_tangents_finds(whole):
    slopes = json.loads((whole / "metrics.json").read_text())["slopes"]
    # The misfit is a parabola: L-BFGS ends where its gradient is below the tolerance of 1e-6.
    assert slopes["forward"] == pytest.approx(slopes["regression"], rel=1e-5)


def test_rows_are_those_of_the_result(whole):
    """What is left of a point is in proportion to its offset: d/d offset of left^2 + penalty firmness offset^2 is 0."""
    rows = list(csv.DictReader((whole / "offsets.csv").read_text().splitlines()))
    for row in rows:
        firmness = 1 + int(row["point"]) / len(rows)
        assert float(row["left"]) == pytest.approx(0.5 * firmness * float(row["offset"]), rel=1e-3, abs=1e-4)
    states = {row["name"]: row["state"] for row in json.loads((whole / "study.json").read_text())["study"]}
    assert states == dict.fromkeys(["moments", "rough", "slope", "fine"], "ended")


@pytest.mark.mpi
def test_a_stage_stopped_by_the_clock_goes_on_on_other_ranks(folder, whole, mpiexec, tmp_path):
    words = ["optimize", folder / "config.toml", *sets(f"run.directory={tmp_path / 'run'}", "run.report=false")]
    first = apart(*words, *sets("optimizer.wall_clock_minutes=1e-9"), launcher=launcher(mpiexec, 2))
    assert first.returncode == 75, first.stderr
    again = apart(*words, "--resume", "auto")
    assert again.returncode == 0, again.stderr
    assert "'moments' goes on: 2 of 6 units are done" in again.stderr
    assert result(tmp_path / "run") == result(whole)


@pytest.mark.mpi
def test_an_interrupted_run_goes_on_to_the_same_bits(folder, whole, mpiexec, tmp_path):
    gate, script, run = Gate(tmp_path / "gate"), tmp_path / "held.py", tmp_path / "run"
    script.write_text(HELD)
    words = ["optimize", folder / "config.toml", *sets(f"run.directory={run}", "run.report=false")]
    command = [*launcher(mpiexec, 2), sys.executable, script, gate.folder, *words]
    job = subprocess.Popen(list(map(str, command)), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: job.poll() is not None or gate.waiting())
    assert job.poll() is None, job.communicate()[1]
    os.kill(*gate.waiting(), signal.SIGTERM)
    gate.open()
    said = job.communicate(timeout=300)[1]
    assert job.returncode == 75, said
    assert not (run / "metrics.json").exists()
    assert len(history(run)) == 5
    again = optimized(folder, run, "--set", "run.report=false", "--resume")
    assert "resuming after 5 evaluations" in again.stderr
    assert result(run) == result(whole)


def test_a_sweep_has_its_metrics_in_table_and_page(folder, tmp_path):
    options = ["--grid", "problem.penalty=0.1,1.0", "--set", "run.report=false", "--directory", tmp_path / "sweep"]
    done = apart("sweep", folder / "config.toml", *options)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "sweep/sweep.csv").read_text().splitlines()))
    assert [row["state"] for row in rows] == ["finished"] * 2
    assert float(rows[0]["misfit"]) < float(rows[1]["misfit"])
    page = (tmp_path / "sweep/sweep.html").read_text()
    assert "least misfit" in page
    assert "what this toy is after" in page
    assert "misfit" in done.stdout.splitlines()[0], "a column of the terminal's table"


def test_watch_and_report_show_it(whole):
    shown = apart("watch", whole, "--once")
    assert shown.returncode == 0, shown.stderr
    assert "misfit" in shown.stdout
    (whole / "report.html").unlink()
    assert apart("report", whole).returncode == 0
    page = (whole / "report.html").read_text()
    assert "The line" in page
    assert "The slope is 2." in page


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ('[frames]\nstore = "s"\n', ["[frames] has no effect on [problem] kind = 'toy'"]),
        ('[optimizer]\nname = "greedy"\n', ["'greedy' selects frames", "kind = 'toy'"]),
        ("[[series]]\npoint = 3\n", ["unknown key 'series.2.point'", "did you mean 'points'"]),
        ('[experiment]\nfile = "map.npz"\n', ["[experiment] has no effect on [problem] kind = 'toy'"]),
    ],
)
def test_mistakes_in_its_tables_are_named(folder, tmp_path, more, expected):
    (tmp_path / "config.toml").write_text(CONFIG + more)
    assert_one_clear_error(apart("check", tmp_path / "config.toml"), expected)


def test_its_pipeline_and_chain_prepare_no_frames(folder, tmp_path):
    done = apart("pipeline", folder / "config.toml", *sets(f"run.directory={tmp_path / 'run'}", "run.report=false"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/metrics.json").is_file()
    chain = apart("job", folder / "config.toml", "--kind", "chain")
    assert "--kind optimize" in chain.stdout
    assert "--kind prepare" not in chain.stdout


def test_an_unknown_kind_lists_it_among_those_there_are(folder, tmp_path):
    (tmp_path / "config.toml").write_text(CONFIG.replace('"toy"', '"toys"'))
    known = "clusters, force-field, force-map, frame-weights, structure, toy"
    expected = ["config.toml", "'problem.kind' = 'toys'", "did you mean 'toy'", known]
    assert_one_clear_error(apart("check", tmp_path / "config.toml"), expected)


def test_a_package_that_cannot_be_loaded_is_named(folder, tmp_path, monkeypatch):
    about = tmp_path / "broken-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[hpcfit.kinds]\nbroken = nowhere:KIND\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    (tmp_path / "config.toml").write_text(CONFIG.replace('"toy"', '"broken"'))
    found = apart("check", tmp_path / "config.toml")
    assert_one_clear_error(found, ["broken = nowhere:KIND", "hpcfit.kinds", "cannot be loaded"])
