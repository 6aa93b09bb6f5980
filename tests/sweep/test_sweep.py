"""Sweeps: which points there are, what they are called, and that only what is not finished is run.

What is not proven here: Slurm arrays (tests/slurm/test_sweep_array.py), and that the page is good to look at.
"""

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from hpcfit.config import ClusterConfig
from hpcfit.errors import InputError
from hpcfit.kinds.table import load_config
from hpcfit.sweep import command as commands
from hpcfit.sweep import cores, fit_task
from hpcfit.sweep.cores import own_cores
from hpcfit.sweep.fit_identity import Identities
from hpcfit.sweep.points import (
    Axis,
    bootstrap,
    folds,
    grid,
    points_of,
    seeds,
    split_values,
    write_plan,
)  # fmt: skip
from tests.command import ROOT, sets
from tests.conftest import assert_one_clear_error, wait_for
from tests.store.changed import changed_catalog

SHORT = sets("optimizer.max_steps=2", "run.report=false")


@pytest.fixture
def config(two_sources, tmp_path):
    """A config beside a map and a store of its own, which a test may change."""
    shutil.copytree(two_sources.parent, folder := tmp_path / "input")
    return folder / two_sources.name


def identity(config) -> str:
    return Identities()(config)


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


def test_a_key_of_a_list_of_tables_and_seeds_are_axes_of_any_kind(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(
        '[run]\ndirectory = "run"\n[problem]\nkind = "structure"\nenergy = {form = "lennard-jones", n = 4}\n'
        '[[problem.method]]\nname = "a"\noptimizer = "adam"\n'
    )
    points = points_of(path, (), [grid("problem.method.0.rate=0.1,0.2"), seeds(2)], tmp_path / "sweep")
    assert [tuple(point.values.values()) for point in points] == [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)]


def test_folds_seeds_and_bootstrap_are_axes_over_keys_of_the_config(config, tmp_path):
    points = points_of(config, (), [folds(3), seeds(2), bootstrap(2)], tmp_path / "sweep")
    chosen = [(p.config.problem.fold, p.config.run.seed, p.config.problem.bootstrap) for p in points]
    assert chosen == [(fold, seed, sample) for fold in (0, 1, 2) for seed in (0, 1) for sample in (1, 2)]
    assert {p.config.problem.folds for p in points} == {3}
    assert all(p.config.problem.starts == ["random"] for p in points)
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
        "cluster.kind=local", "prepare.sample=9",
    ):  # fmt: skip
        assert identity(load_config(config, [same])) == name, same
    simulate = ["simulate.directory=x", "simulate.system=[{name='a', topology='b', force_field=['c']}]"]
    assert identity(load_config(config, simulate)) == name
    for other in (
        "problem.theta=1e-9", "run.seed=1", "run.precision=float64", "optimizer.max_steps=9", "frames.include=[\"a\"]",
        "experiment.ndiv=[2, 2, 2]",
    ):  # fmt: skip
        assert identity(load_config(config, [other])) != name, other


def test_a_point_has_another_name_when_its_input_changes(config):
    """Not when a file only moves, or a store is written again as it was."""
    folder = config.parent
    (folder / "prior.csv").write_text("frame,weight\n")
    prior = [f"problem.prior={folder / 'prior.csv'}"]
    moved = [f"experiment.file={shutil.copy(folder / 'map.npz', folder / 'copy.npz')}"]
    name, with_prior = identity(load_config(config)), identity(load_config(config, prior))
    assert identity(load_config(config, moved)) == name != with_prior
    changed_catalog(folder / "frames.store", lambda catalog: catalog.update(command="hpcfit prepare once more"))
    assert identity(load_config(config)) == name

    (folder / "prior.csv").write_text("frame,weight\n0,1\n")
    assert identity(load_config(config, prior)) != with_prior
    with np.load(folder / "map.npz") as values:
        np.savez(folder / "copy.npz", **(dict(values) | {"intensity": 2 * values["intensity"]}))
    assert identity(load_config(config, moved)) != name
    changed_catalog(folder / "frames.store", lambda catalog: catalog["shards"][0].update(plan="of other frames"))
    assert identity(load_config(config)) != name


def test_a_missing_input_is_said(config):
    for option, message in (
        ("experiment.file=no.npz", r"\[experiment\] file .*no\.npz does not exist"),
        ("problem.prior=no.csv", r"\[problem\] prior .*no\.csv does not exist"),
        ("experiment.file=frames.store", r"\[experiment\] file .*frames\.store: Is a directory"),
        ("frames.store=no.store", "is not a complete store"),
    ):
        with pytest.raises(InputError, match=message):
            identity(load_config(config, [option]))


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
    config.write_text(config.read_text() + '[cluster]\nkind = "local"\n[monitor]\ndask = true\n')
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
@pytest.mark.programs
def test_a_point_that_fails_is_in_the_table_and_nothing_is_run_twice(hpcfit, two_sources, tmp_path):
    folder, damaged = tmp_path / "sweep", tmp_path / "other.npz"
    damaged.write_bytes(b"no map")
    (tmp_path / "config.toml").write_text(
        two_sources.read_text().replace('"frames.store"', f'"{two_sources.parent / "frames.store"}"')
        + '[cluster]\nkind = "local"\nworkers = 1\ndashboard = "127.0.0.1:0"\n'
    )
    maps = f"experiment.file={damaged},{two_sources.parent / 'map.npz'}"
    folds = sets("problem.folds=2", "problem.fold=0")
    command = ["sweep", tmp_path / "config.toml", "--grid", maps, *folds, "--directory", folder, *SHORT]

    done = hpcfit(*command, apart=True)
    assert done.returncode == 1, done.stderr
    failed, finished = rows(folder)
    assert [failed["state"], finished["state"]] == ["failed", "finished"]
    assert str(damaged) in failed["error"]
    assert failed["cc"] == ""
    assert 0 < float(finished["cc_free"]) <= 1
    assert str(damaged) in (folder / "sweep.html").read_text()
    first = written(folder)
    assert set(first) == {finished["directory"]}

    with np.load(two_sources.parent / "map.npz") as values:
        np.savez(damaged, **(dict(values) | {"intensity": 2 * values["intensity"]}))
    again = hpcfit(*command, apart=True)
    assert again.returncode == 0, again.stderr
    assert "1 of them finished" in again.stderr
    repaired, untouched = rows(folder)
    assert written(folder)[untouched["directory"]] == first[untouched["directory"]]
    assert repaired["state"] == "finished"
    assert repaired["directory"] != failed["directory"]
    assert float(repaired["cc_free"]) == pytest.approx(float(untouched["cc_free"]), abs=1e-3)  # no scale in a CC


@pytest.mark.slow
def test_a_fit_that_stops_with_75_is_continued_to_the_same_result(hpcfit, two_sources, tmp_path):
    """One of the two points uses up its wall clock at every step; in turn in this process, without a cluster.

    The frames have one label: the test of labels would stop after each of its evaluations too.
    """
    limits = ["--grid", "optimizer.wall_clock_minutes=1e-5,60", *sets('frames.exclude=["B"]')]
    folder = tmp_path / "sweep"
    done = hpcfit("sweep", two_sources, *limits, "--directory", folder, *SHORT, *sets("optimizer.max_steps=1"))
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
    script, [points] = (folder / "array.sbatch").read_text(), folder.glob("points-*.txt")
    assert "#SBATCH --array=0-1" in script
    assert str(points) in script
    listed = points.read_text().splitlines()
    assert listed == [
        str(folder / row["directory"]) for row in json.loads((folder / "sweep.json").read_text())["points"]
    ]
    assert not list(folder.glob("*/history.jsonl"))
    assert hpcfit("report", folder).returncode == 0
    assert (folder / "sweep.html").exists()


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


def test_a_fit_may_outlive_many_workers(monkeypatch):
    """A worker job ends at its time limit, and a fit may need dozens of them."""

    class Crew:
        def completed(self, work, items, *, names, retries):
            assert retries >= 100
            return [(number, 0) for number, _ in enumerate(items)]

    opened = contextlib.nullcontext(Crew())
    monkeypatch.setattr("hpcfit.workflow.cluster.opening.open_cluster", lambda config, what: opened)
    assert list(commands._codes(["a", "b"], 1, ClusterConfig())) == [(0, 0), (1, 0)]


# ---- a worker's child ---------------------------------------------------------------------------------------------


@pytest.fixture
def _own_locks(monkeypatch, tmp_path):
    """Locks of cores that nothing else on this machine knows."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.mark.processes  # of all cores
@pytest.mark.usefixtures("_own_locks")
def test_children_side_by_side_have_cores_of_their_own():
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("one core is nothing to share out")
    taken, release = [], threading.Event()

    def hold():
        with own_cores(1):
            taken.append(os.sched_getaffinity(0))
            release.wait()

    holders = [threading.Thread(target=hold, daemon=True) for _ in range(len(cores) + 1)]
    for holder in holders:
        holder.start()
    wait_for(lambda: len(taken) >= len(cores))
    assert sorted(core for mask in taken for core in mask) == sorted(cores)  # one each; the last one waits
    release.set()
    for holder in holders:
        holder.join()
    assert len(taken) == len(cores) + 1


@pytest.mark.processes  # of all cores
@pytest.mark.usefixtures("_own_locks")
def test_who_wants_more_cores_than_there_are_has_them_all():
    available = os.sched_getaffinity(0)
    with own_cores(len(available) + 1) as held:
        assert len(held) == len(available)
        assert os.sched_getaffinity(0) == available
        with contextlib.ExitStack() as files:
            assert cores._take(sorted(available), 1, cores._lock_folder(), files) == {}


def test_a_folder_of_locks_that_another_user_made_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    other = os.getuid() + 1
    monkeypatch.setattr("os.getuid", lambda: other)
    with pytest.raises(InputError, match=f"hpcfit-cores-{other} belongs to user {other - 1}, not to you"):
        cores._lock_folder()
    (tmp_path / f"hpcfit-cores-{other}").rmdir()
    (tmp_path / f"hpcfit-cores-{other}").write_text("")
    with pytest.raises(InputError, match=r"cannot make the folder .*: File exists"):
        cores._lock_folder()


def test_a_stopped_driver_ends_its_child_first(monkeypatch, tmp_path):
    child = f"trap 'echo told > {tmp_path}/said; exit 75' USR1; echo > {tmp_path}/ready; while :; do sleep 0.1; done"
    monkeypatch.setattr(fit_task, "hpcfit_command", lambda *_, **__: ["bash", "-c", child])
    monkeypatch.setattr(fit_task, "POLL_SECONDS", 0.05)

    class Stops:
        def report(self):
            if (tmp_path / "ready").exists():
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_task._run(tmp_path, 1, [], Stops())
    assert (tmp_path / "said").read_text() == "told\n"


def test_a_child_whose_parent_died_before_it_could_ask_does_not_begin(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    command = [sys.executable, "-m", "hpcfit.sweep.tethered", str(gone.pid), "touch", str(tmp_path / "begun")]
    assert subprocess.run(command, cwd=ROOT, timeout=300, check=False).returncode == -signal.SIGTERM
    assert not (tmp_path / "begun").exists()


def test_a_child_is_told_to_end_when_its_parent_is_killed(tmp_path):
    said = tmp_path / "said"
    child = f"trap 'echo told > {said}; exit' TERM; echo ready; while :; do sleep 0.1; done"
    parent = (
        "import subprocess\nfrom hpcfit.sweep.tethered import tethered\n"
        f"subprocess.run(tethered({['bash', '-c', child]!r}))"
    )
    running = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert running.stdout.readline() == "ready\n"
    running.send_signal(signal.SIGKILL)
    running.wait()
    running.stdout.close()
    wait_for(lambda: said.exists() and said.read_text() == "told\n")
