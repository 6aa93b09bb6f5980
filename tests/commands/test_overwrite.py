"""`--overwrite` replaces a run from the first step of the new one on: until then nothing of it is lost."""

import os
import shutil
import signal

import pytest

from hpcfit.commands.optimize import run_optimize
from hpcfit.errors import InputError, together
from hpcfit.kinds.table import load_config
from hpcfit.ranks import Ranks
from hpcfit.runs import directory as run_directory
from hpcfit.runs.directory import RunDirectory
from hpcfit.runs.files import EARLIER
from hpcfit.workflow.stopping import handled_by
from tests.command import here, sets
from tests.conftest import assert_one_clear_error, fingerprint

SHORT = ("optimizer.max_steps=3", "run.report=false")


def contents(folder):
    """Every file with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def ended(two_sources, tmp_path_factory):
    """The directory of a run that has ended."""
    directory = tmp_path_factory.mktemp("ended") / "run"
    here("optimize", two_sources, *sets(f"run.directory={directory}", *SHORT)).check_returncode()
    return directory


@pytest.fixture
def run(ended, tmp_path):
    """A copy of it."""
    return shutil.copytree(ended, tmp_path / "run")


ADAM = "optimizer.name=adam"
WRONG = {
    "a rate that is no number": ([ADAM, "optimizer.options={learning_rate=nan}"], "must be a finite number"),
    "an infinite rate": ([ADAM, "optimizer.options={learning_rate=inf}"], "must be a finite number"),
    "a text": ([ADAM, "optimizer.options={learning_rate='x'}"], "'adam' does not take the options"),
    "a decay of no number": ([ADAM, "optimizer.options={b1=nan}"], "must be a finite number"),
    "a schedule of no number": (
        [ADAM, "optimizer.options={learning_rate={schedule='constant_schedule', value=nan}}"],
        "must be a finite number",
    ),
    "a first step of no number": (["optimizer.options={first_step=nan}"], "must be a finite number"),
    "an unknown option": ([ADAM, "optimizer.options={rate=1}"], "no option 'rate'"),
}


@pytest.mark.parametrize(("settings", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_option_is_an_error_of_check_too_and_touches_nothing(hpcfit, two_sources, run, settings, words):
    before = contents(run)
    options = sets(f"run.directory={run}", *SHORT, *settings)
    assert_one_clear_error(hpcfit("optimize", two_sources, "--overwrite", *options), [words])
    assert contents(run) == before
    assert_one_clear_error(hpcfit("check", two_sources, *options), [words])


@pytest.mark.parametrize("settings", [[], ["problem.starts=['uniform']"]])
def test_a_run_that_fails_before_its_first_step_puts_everything_back(hpcfit, two_sources, run, monkeypatch, settings):
    """The study ends with an error before it has done anything."""

    def fail(case, fits):
        raise together(InputError("nothing can be fitted", remedy="none"))

    monkeypatch.setattr("hpcfit.kinds.frame_weights.study.study", fail)
    before = contents(run)
    done = hpcfit("optimize", two_sources, "--overwrite", *sets(f"run.directory={run}", *SHORT, *settings))
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    after = contents(run)
    assert after.pop("run.log").startswith(before.pop("run.log"))  # it says besides that the new run took no step
    assert after == before
    assert "the earlier run in" in done.stderr


@pytest.mark.mpi
def test_ranks_put_everything_back_too(hpcfit, two_sources, run):
    before = contents(run)
    done = hpcfit("optimize", two_sources, "--overwrite", *sets(f"run.directory={run}", "problem.l2=1e300"), ranks=2)
    assert done.returncode in (1, 2), done.stderr
    assert done.stderr.count("hpcfit: error") == 1
    assert contents(run) == before


def test_a_good_run_replaces_the_earlier_one(hpcfit, two_sources, ended, run):
    options = sets(f"run.directory={run}", *SHORT, "problem.theta=0.1")
    assert hpcfit("optimize", two_sources, "--overwrite", *options).returncode == 0
    assert not list(run.glob(f"{EARLIER}*"))
    assert set(contents(run)) == set(contents(ended))
    assert fingerprint(run) != fingerprint(ended)


def test_stopped_before_its_first_step_it_goes_on_and_then_replaces(hpcfit, two_sources, ended, run, monkeypatch):
    whole = RunDirectory.open

    def opened(*given):
        os.kill(os.getpid(), signal.SIGTERM)
        return whole(*given)

    settings = [f"run.directory={run}", *SHORT, "problem.theta=0.1"]
    with monkeypatch.context() as patched, handled_by(signal.SIG_IGN):
        patched.setattr(RunDirectory, "open", opened)
        assert run_optimize(load_config(two_sources, settings), Ranks(), overwrite=True) == 75
    assert contents(run / EARLIER) == contents(ended)
    assert not (run / "hpcfit.lock").exists()
    assert hpcfit("optimize", two_sources, "--resume", *sets(*settings)).returncode == 0
    assert set(contents(run)) == set(contents(ended))
    assert hpcfit("runs", run.parent).stdout.count("frame-weights") == 1


def test_killed_before_its_first_step_the_earlier_run_is_found_again(hpcfit, two_sources, ended, run):
    """As SIGKILL leaves it: everything is set aside, and the new run has written its first files."""
    directory = RunDirectory(run)
    directory.set_aside(["weights.csv", "weights.h5", "map.h5", "sources.csv"])
    directory.open(load_config(two_sources, [f"run.directory={run}"]))
    directory._history.close()
    assert not (run / "metrics.json").exists()
    done = hpcfit("optimize", two_sources, *sets(f"run.directory={run}", *SHORT))
    assert_one_clear_error(done, ["already holds a run"])
    assert "the earlier run in" in done.stderr
    assert contents(run) == contents(ended)


def killed_at(number, monkeypatch):
    """From the so many-th file on nothing is moved."""
    moved, count = os.replace, iter(range(10**6))

    def replace(*paths):
        if next(count) >= number:
            raise KeyboardInterrupt
        moved(*paths)

    monkeypatch.setattr(run_directory.os, "replace", replace)


@pytest.mark.parametrize("way", ["set_aside", "take_back"])
def test_killed_while_files_are_moved_away_or_back_nothing_is_lost(ended, run, monkeypatch, way):
    left, kept = ["weights.csv", "weights.h5", "map.h5", "sources.csv"], contents(ended)
    for number in range(len(kept) + 2):
        if way == "take_back":
            RunDirectory(run).set_aside(left)
        with monkeypatch.context() as patched:
            killed_at(number, patched)
            try:
                getattr(RunDirectory(run), way)(left)
            except KeyboardInterrupt:
                pass
            else:
                break
        RunDirectory(run).recover(left)
        assert contents(run) == kept, number
    assert number > 5
