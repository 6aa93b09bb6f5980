"""The other commands as a user types them."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys

import h5py
import numpy as np
import pytest

from hpcfit.commands.optimize import run_optimize
from hpcfit.kinds.table import load_config
from hpcfit.ranks import Ranks
from hpcfit.runs.directory import RunDirectory
from hpcfit.store.stream import StructureFactors
from hpcfit.workflow.stopping import handled_by
from tests.command import ROOT, apart, sets
from tests.conftest import assert_one_clear_error, history
from tests.store.test_shard import flip_byte


def test_help_lists_the_commands_and_imports_nothing_heavy():
    done = apart("--help")
    assert done.returncode == 0
    for command in (
        "simulate", "prepare", "check", "optimize", "report", "store", "doctor", "pipeline", "job", "sweep", "init",
        "explain",
    ):  # fmt: skip
        assert command in done.stdout
    code = (
        "import sys; sys.argv = ['hpcfit', '--help']\nfrom hpcfit.cli import main\n"
        "try: main()\nexcept SystemExit: pass\nprint(sorted(sys.modules))"
    )
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout
    for heavy in ("jax", "numpy", "h5py", "pydantic", "mpi4py", "matplotlib", "gemmi", "dask", "bokeh", "openmm"):
        assert f"'{heavy}'" not in modules


def test_check_prints_what_a_run_would_be_and_leaves_nothing(hpcfit, two_sources):
    done = hpcfit("check", two_sources)
    assert done.returncode == 0, done.stderr
    for words in (
        "300 of 300",
        "618 in 618 orbits",
        "1 x 1",
        "core",
        "block sums",
        "in one pass",
        "s a step, if the passes reach",
        "ready to run",
    ):
        assert words in done.stderr
    assert not (two_sources.parent / "run").exists()


@pytest.mark.mpi
def test_check_and_doctor_show_every_rank(hpcfit, two_sources):
    ranks = [[str(rank), socket.gethostname(), str(rank)] for rank in range(2)]  # rank, node, number on the node
    done = hpcfit("check", two_sources, ranks=2)
    assert done.returncode == 0, done.stderr
    said = [line.partition("INFO ")[2].split()[:3] for line in done.stderr.splitlines()]
    assert [line for line in said if line in ranks] == ranks
    doctor = hpcfit("doctor", ranks=2)
    assert doctor.returncode == 0, doctor.stderr
    assert "MPI sees 2 ranks" in doctor.stdout
    assert "PMI_SIZE = 2" in doctor.stdout
    assert "libmpi" in doctor.stdout
    assert "HDF5_USE_FILE_LOCKING" in doctor.stdout
    assert [line.split()[:3] for line in doctor.stdout.splitlines()[-2:]] == ranks


def test_store_info_and_verify(hpcfit, two_sources, tmp_path):
    import shutil

    store = tmp_path / "store"
    shutil.copytree(two_sources.parent / "frames.store", store)
    info = hpcfit("store", "info", store)
    assert info.returncode == 0
    for words in ("first", "second", "190", "110", "float16", "618"):
        assert words in info.stdout
    assert hpcfit("store", "verify", store).returncode == 0
    flip_byte(store / "first.000000.h5")
    damaged = hpcfit("store", "verify", store)
    assert damaged.returncode == 2
    assert "first.000000.h5" in damaged.stderr
    assert "frames 0 to 63" in damaged.stderr


def test_optimize_leaves_a_whole_run_directory_and_report_rebuilds_it(hpcfit, two_sources, tmp_path):
    run = tmp_path / "run"
    done = hpcfit("optimize", two_sources, *sets(f"run.directory={run}", "optimizer.max_steps=3"))
    assert done.returncode == 0, done.stderr
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "config.toml", "environment.json", "history.jsonl", "history.h5", "weights.csv", "weights.h5", "sources.csv",
        "map.h5", "metrics.json", "report.html", "checkpoints",
    }  # fmt: skip
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["fitted"]["cc"] > metrics["uniform"]["cc"]
    assert "max_steps" in metrics["stopped"]
    (run / "report.html").unlink()
    assert hpcfit("report", run).returncode == 0
    assert "<html" in (run / "report.html").read_text()[:200]
    # the resolved config runs by itself
    settings = sets(f"run.directory={tmp_path / 'again'}", "run.report=false")
    again = hpcfit("optimize", run / "config.toml", "--overwrite", *settings)
    assert again.returncode == 0, again.stderr
    repeated = json.loads((tmp_path / "again/metrics.json").read_text())
    assert repeated["fitted"] == metrics["fitted"]
    # the bandwidth of memory is measured for the report alone
    assert set(metrics["rate"]) == {"gb_per_s_per_rank", "bandwidth_gb_per_s", "fraction"}
    assert set(repeated["rate"]) == {"gb_per_s_per_rank"}
    assert hpcfit("report", tmp_path / "again").returncode == 0
    assert "measured memory bandwidth" in (tmp_path / "again/report.html").read_text()


def test_weights_are_a_table_in_which_everything_agrees(hpcfit, two_sources, tmp_path):
    import math

    import h5py

    run = tmp_path / "run"
    options = sets(f"run.directory={run}", "optimizer.max_steps=2", "run.report=false", "problem.temperature=250")
    done = hpcfit("optimize", two_sources, *options)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((run / "weights.csv").read_text().splitlines()))
    assert [int(row["frame"]) for row in rows] == list(range(300))
    assert [row["source"] for row in rows] == ["first"] * 190 + ["second"] * 110
    assert [int(row["index"]) for row in rows] == [*range(190), *range(110)]
    w = [float(row["weight"]) for row in rows]
    assert math.fsum(w) == pytest.approx(1, abs=1e-12)
    for row, w_t in zip(rows, w):
        assert float(row["log_weight"]) == pytest.approx(math.log(w_t), abs=1e-12)
        # -kT ln(T w) with k = 8.314462618e-3 kJ/mol/K
        assert float(row["delta_G_kJ_mol"]) == pytest.approx(-8.314462618e-3 * 250 * math.log(300 * w_t), abs=1e-9)
    sources = {
        row["source"]: float(row["weight"]) for row in csv.DictReader((run / "sources.csv").read_text().splitlines())
    }
    assert sources["first"] == pytest.approx(math.fsum(w[:190]), abs=1e-12)
    with h5py.File(run / "weights.h5") as file:
        assert file["weight"][:].tolist() == w


def test_a_signal_while_frames_are_read_ends_it_on_the_spot_and_changes_nothing(two_sources, tmp_path, monkeypatch):
    read, after = StructureFactors.read, []

    def signalled(*given):
        os.kill(os.getpid(), signal.SIGTERM)
        after.append(read(*given))

    monkeypatch.setattr(StructureFactors, "read", signalled)
    config = load_config(two_sources, [f"run.directory={tmp_path / 'run'}"])
    with handled_by(signal.SIG_IGN):
        assert run_optimize(config, Ranks()) == 75
    assert after == []
    assert not (tmp_path / "run").exists()


def test_a_signal_before_the_first_step_is_not_lost(two_sources, tmp_path, monkeypatch):
    """SIGTERM when frames have been read: the run stops at its first step, with a checkpoint."""
    whole = RunDirectory.open

    def opened(*given):
        os.kill(os.getpid(), signal.SIGTERM)
        return whole(*given)

    monkeypatch.setattr(RunDirectory, "open", opened)
    config = load_config(two_sources, [f"run.directory={tmp_path / 'run'}"])
    with handled_by(signal.SIG_IGN):
        assert run_optimize(config, Ranks()) == 75
    (checkpoint,) = (tmp_path / "run/checkpoints").iterdir()
    assert checkpoint.name.startswith("step_00000000")
    assert len(history(tmp_path / "run")) == 1
    assert "SIGTERM" in json.loads((tmp_path / "run/stopped.json").read_text())["reason"]


def test_prior_weights_from_an_earlier_run(hpcfit, two_sources, tmp_path):
    """With a high price of leaving them, the weights stay at the prior: those of the first run."""
    import numpy as np

    first, second = tmp_path / "first", tmp_path / "second"
    common = ["--set", "run.report=false", "--set", "optimizer.max_steps=3"]
    assert hpcfit("optimize", two_sources, *common, "--set", f"run.directory={first}").returncode == 0
    prior = ["--set", f"problem.prior={first / 'weights.csv'}", "--set", "problem.theta=1e6"]
    done = hpcfit("optimize", two_sources, *common, *prior, "--set", f"run.directory={second}")
    assert done.returncode == 0, done.stderr
    tables = [np.genfromtxt(run / "weights.csv", delimiter=",", names=True, usecols=4) for run in (first, second)]
    np.testing.assert_allclose(tables[1]["weight"], tables[0]["weight"], rtol=1e-4)
    assert np.ptp(tables[0]["weight"]) > 1e-5
    metrics = json.loads((second / "metrics.json").read_text())
    assert metrics["fitted"]["kl"] < 1e-6
    assert metrics["uniform"]["kl"] > 1e-4


def test_only_the_chosen_sources_take_part(hpcfit, two_sources, tmp_path):
    run = tmp_path / "run"
    options = ["--set", f"run.directory={run}", "--set", "optimizer.max_steps=1", "--set", "run.report=false"]
    done = hpcfit("optimize", two_sources, *options, "--set", 'frames.exclude=["A"]')
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((run / "weights.csv").read_text().splitlines()))
    assert {row["source"] for row in rows} == {"second"}
    assert [int(row["frame"]) for row in rows] == list(range(190, 300))
    assert sum(float(row["weight"]) for row in rows) == pytest.approx(1, abs=1e-12)


def test_a_fold_is_held_out_judged_and_shown(hpcfit, two_sources, tmp_path):
    run = tmp_path / "run"
    done = hpcfit(
        "optimize", two_sources, "--set", f"run.directory={run}", "--set", "problem.folds=5", "--set", "problem.fold=2",
        "--set", "optimizer.max_steps=5",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "fold 2 of 5" in done.stderr
    fitted = json.loads((run / "metrics.json").read_text())["fitted"]
    with h5py.File(run / "map.h5") as file:
        free, weights = file["held_out"][:], file["multiplicity"][:]
        pair = np.array([file["calculated"][:], file["observed"][:]])
    for name, part in {"cc": ~free, "cc_free": free}.items():
        covariance = np.cov(pair[:, part], aweights=weights[part])
        # The kernel is float32: 1e-7 an intensity, less in their sums.
        assert fitted[name] == pytest.approx(covariance[0, 1] / np.sqrt(np.prod(np.diag(covariance))), abs=1e-6)
    assert "CC free" in (run / "report.html").read_text()


def test_a_fold_outside_the_folds_is_an_error(hpcfit, two_sources):
    done = hpcfit("check", two_sources, "--set", "problem.folds=3", "--set", "problem.fold=3")
    assert_one_clear_error(done, ["fold = 3", "folds = 3"])


@pytest.mark.mpi
def test_commands_of_one_process_say_everything_once_on_three(hpcfit, two_sources, tmp_path):
    run, store = tmp_path / "run", two_sources.parent / "frames.store"
    options = sets(f"run.directory={run}", "optimizer.max_steps=1", "run.report=false")
    assert hpcfit("optimize", two_sources, *options).returncode == 0
    for words, said in {
        ("store", "info", store): "reflections",
        ("store", "verify", store): "are as they were written",
        ("watch", run, "--once"): "finished",
        ("job", two_sources, "--nodes", "2"): "srun",
        ("report", run): "report",
    }.items():
        alone, together = hpcfit(*words, apart=True), hpcfit(*words, ranks=3)
        assert together.returncode == alone.returncode == 0, together.stderr
        lines = [_said(done) for done in (alone, together)]
        assert lines[0] == lines[1], words
        assert said in "\n".join(lines[1]), lines
    for words in (("store", "info", tmp_path / "none"), ("report", tmp_path / "none"), ("watch", tmp_path / "none")):
        assert_one_clear_error(hpcfit(*words, ranks=3), [str(tmp_path / "none")])


def _said(done):
    """The lines that a command wrote, without numbers: times among them."""
    return [re.sub(r"[\d.]+ *", "#", line).rstrip() for line in (done.stdout + done.stderr).splitlines()]
