"""Sweeps: which points there are, what they are called, and that only what is not finished is run.

What is not proven here: Slurm arrays (tests/slurm/test_sweep_array.py), and that the page is good to look at.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from hpcfit.config import load_config
from hpcfit.errors import InputError
from hpcfit.workflow.cores import own_cores
from hpcfit.workflow.sweep import (
    Axis,
    bootstrap,
    folds,
    grid,
    identity,
    points_of,
    seeds,
    split_values,
    write_plan,
)  # fmt: skip
from hpcfit.workflow.tethered import tethered
from tests.conftest import ROOT, assert_one_clear_error

CONFIG = '[frames]\nstore = "s"\n[experiment]\nfile = "map.npz"\n[problem]\nkind = "frame-weights"\n'
SHORT = ["--set", "optimizer.max_steps=2", "--set", "run.report=false"]


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    return path


# ---- axes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0,1e-3,1e-2", ["0", "1e-3", "1e-2"]),
        ("lbfgs,adam", ["lbfgs", "adam"]),
        ("[1, 2],[3]", ["[1, 2]", "[3]"]),
        ("{a = 1, b = [2, 3]},{a = 2}", ["{a = 1, b = [2, 3]}", "{a = 2}"]),
        ("\"a,b\",'c,d'", ['"a,b"', "'c,d'"]),
        ("1,", ["1", ""]),
    ],
)
def test_commas_inside_brackets_and_quotes_do_not_divide(text, values):
    assert split_values(text) == values


@pytest.mark.parametrize("text", ["problem.theta", "theta=1,2", "problem.theta=", "problem.theta=1,,2"])
def test_a_malformed_grid_is_said(text):
    with pytest.raises(InputError, match=r"--grid .*expected section\.key=value"):
        grid(text)


def test_folds_seeds_and_bootstrap_are_axes_over_keys_of_the_config(config, tmp_path):
    points = points_of(config, (), [folds(3), seeds(2), bootstrap(2)], tmp_path / "sweep")
    chosen = [(p.config.problem.fold, p.config.run.seed, p.config.problem.bootstrap) for p in points]
    assert chosen == [(fold, seed, sample) for fold in (0, 1, 2) for seed in (0, 1) for sample in (1, 2)]
    assert {p.config.problem.folds for p in points} == {3}
    assert {p.config.problem.start for p in points} == {"random"}
    with pytest.raises(InputError, match="--folds 1: at least 2"):
        folds(1)


def test_points_are_the_product_with_typed_values(config, tmp_path):
    axes = [grid("problem.theta=0,1e-3"), grid("optimizer.name=lbfgs,adam"), grid("optimizer.options={},{b1 = 0.8}")]
    points = points_of(config, ["optimizer.max_steps=7"], axes, tmp_path / "sweep")
    assert [tuple(point.values.values()) for point in points][:3] == [
        (0.0, "lbfgs", {}),
        (0.0, "lbfgs", {"b1": 0.8}),
        (0.0, "adam", {}),
    ]
    assert len({point.directory for point in points}) == 8
    assert {point.config.optimizer.max_steps for point in points} == {7}


# ---- names --------------------------------------------------------------------------------------------------------


def test_the_name_of_a_point_is_the_hash_of_what_decides_its_result(config):
    name = identity(load_config(config))
    for same in (
        "run.directory=elsewhere", "run.report=false", "monitor.dask=true", "checkpoint.every_steps=3",
        "cluster.kind=local",
    ):  # fmt: skip
        assert identity(load_config(config, [same])) == name, same
    for other in (
        "problem.theta=1e-9", "run.seed=1", "run.precision=float64", "optimizer.max_steps=9", "frames.include=[\"a\"]",
        "experiment.file=other.npz",
    ):  # fmt: skip
        assert identity(load_config(config, [other])) != name, other


def test_the_same_fit_twice_is_an_error(config, tmp_path):
    def make(*axes: Axis):
        points_of(config, (), axes, tmp_path)

    with pytest.raises(InputError, match=r"are the same fit: problem.theta=0.0 and problem.theta = 0.0"):
        make(grid("problem.theta=0,0.0"))
    with pytest.raises(InputError, match="same fit"):
        make(grid("checkpoint.keep=1,2"))
    with pytest.raises(InputError, match=r"problem.theta is given by two axes"):
        make(grid("problem.theta=0"), grid("problem.theta=1"))
    with pytest.raises(InputError, match="a sweep without an axis is one fit"):
        make()


def test_each_point_has_a_config_that_runs_by_itself(config, tmp_path):
    config.write_text(CONFIG + '[cluster]\nkind = "local"\n[monitor]\ndask = true\n')
    axes = [grid("problem.theta=0,0.5")]
    points = points_of(config, (), axes, tmp_path / "sweep")
    write_plan(tmp_path / "sweep", axes, points)
    for point in points:
        read = load_config(point.directory / "config.toml")
        assert read == point.config
        assert read.run.directory == point.directory
        assert read.cluster is None
        assert not read.monitor.dask  # a hundred dashboards would fight for one port
        assert identity(read) == point.directory.name


# ---- running ------------------------------------------------------------------------------------------------------


def rows(folder) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "sweep.csv").read_text().splitlines()))


def written(folder) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/metrics.json")}


@pytest.mark.slow
def test_a_point_that_fails_is_in_the_table_and_nothing_is_run_twice(hpcfit, two_sources, tmp_path):
    folder, missing = tmp_path / "sweep", tmp_path / "other.npz"
    (tmp_path / "config.toml").write_text(
        two_sources.read_text().replace('"frames.store"', f'"{two_sources.parent / "frames.store"}"')
        + '[cluster]\nkind = "local"\nworkers = 2\ndashboard = "127.0.0.1:0"\n'
    )
    maps = f"experiment.file={missing},{two_sources.parent / 'map.npz'}"
    command = [
        "sweep",
        tmp_path / "config.toml",
        "--grid",
        maps,
        "--set",
        "problem.folds=2",
        "--directory",
        folder,
        *SHORT,
    ]

    done = hpcfit(*command)
    assert done.returncode == 1, done.stderr
    failed, finished = rows(folder)
    assert [failed["state"], finished["state"]] == ["failed", "finished"]
    assert "other.npz does not exist" in failed["error"]
    assert failed["cc"] == ""
    assert 0 < float(finished["cc_free"]) <= 1
    assert f"{missing} does not exist" in (folder / "sweep.html").read_text()
    first = written(folder)
    assert set(first) == {finished["directory"]}

    missing.write_bytes((two_sources.parent / "map.npz").read_bytes())
    again = hpcfit(*command)
    assert again.returncode == 0, again.stderr
    assert "1 of them finished" in again.stderr
    repaired, untouched = rows(folder)
    assert written(folder)[untouched["directory"]] == first[untouched["directory"]]
    assert repaired["state"] == "finished"
    assert repaired["cc_free"] == untouched["cc_free"]  # the same map under another name


@pytest.mark.slow
def test_a_fit_that_stops_with_75_is_continued_to_the_same_result(hpcfit, two_sources, tmp_path):
    """One of the two points uses up its wall clock at every step; in turn in this process, without a cluster."""
    limits = ["--grid", "optimizer.wall_clock_minutes=1e-5,60"]
    folder = tmp_path / "sweep"
    done = hpcfit("sweep", two_sources, *limits, "--directory", folder, *SHORT)
    assert done.returncode == 0, done.stderr
    short, long = rows(folder)
    assert (folder / short["directory"] / "log.txt").read_text().count("resuming from") >= 1
    assert "resuming from" not in (folder / long["directory"] / "log.txt").read_text()
    assert [short[name] for name in ("cc", "ess", "loss", "steps")] == [
        long[name] for name in ("cc", "ess", "loss", "steps")
    ]


def test_a_plan_starts_nothing(hpcfit, two_sources, tmp_path):
    folder = tmp_path / "sweep"
    done = hpcfit("sweep", two_sources, "--grid", "problem.theta=0,1", "--directory", folder, "--plan", "--array")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("not started") == 2
    assert "#SBATCH --array=0-1" in (folder / "array.sbatch").read_text()
    listed = (folder / "points.txt").read_text().splitlines()
    assert listed == [
        str(folder / row["directory"]) for row in json.loads((folder / "sweep.json").read_text())["points"]
    ]
    assert not list(folder.glob("*/history.jsonl"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--grid", "problem.thetaa=1"], "unknown key 'problem.thetaa' = 1: did you mean 'theta'?"),
        (["--grid", "optimizer.name=adm"], "adam"),
        (["--grid", "problem.theta=1", "--wait", "--site", "x"], "--site, --wait would have no effect without --array"),
        (["--grid", "problem.theta=1", "--ranks", "0"], "--ranks 0"),
        ([], "a sweep without an axis is one fit"),
    ],
)  # fmt: skip
def test_mistakes_are_found_before_anything_runs(hpcfit, two_sources, tmp_path, options, words):
    done = hpcfit("sweep", two_sources, *options, "--directory", tmp_path / "sweep")
    assert_one_clear_error(done, [words])
    assert not (tmp_path / "sweep").exists()


# ---- a worker's child ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_whole_affinity")
def test_children_side_by_side_have_cores_of_their_own():
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("one core is nothing to share out")
    taken, release = [], threading.Event()

    def hold():
        with own_cores(1):
            taken.append(os.sched_getaffinity(0))
            release.wait(30)

    holders = [threading.Thread(target=hold) for _ in range(len(cores) + 1)]
    for holder in holders:
        holder.start()
    end = time.monotonic() + 30
    while len(taken) < len(cores) and time.monotonic() < end:
        time.sleep(0.05)
    assert sorted(core for mask in taken for core in mask) == sorted(cores)  # one each; the last one waits
    release.set()
    for holder in holders:
        holder.join(30)
    assert len(taken) == len(cores) + 1


def test_more_cores_than_there_are_bind_nothing():
    cores = os.sched_getaffinity(0)
    with own_cores(len(cores) + 1) as held:
        assert held == []
        assert os.sched_getaffinity(0) == cores


def test_a_child_is_told_to_end_when_its_parent_is_killed(tmp_path):
    said = tmp_path / "said"
    child = f"trap 'echo told > {said}; exit' TERM; echo ready; while :; do sleep 0.1; done"
    parent = f"import subprocess\nsubprocess.run({tethered(['bash', '-c', child])!r})"
    running = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert running.stdout.readline() == "ready\n"
    running.send_signal(signal.SIGKILL)
    running.wait(10)
    end = time.monotonic() + 10
    while not said.exists() and time.monotonic() < end:
        time.sleep(0.05)
    running.stdout.close()
    assert said.read_text() == "told\n"
