"""`--resume auto`: begins, continues or does nothing, as the run directory is; and what it will not do."""

import json
import shutil

import pytest

from tests.command import here, sets
from tests.conftest import assert_one_clear_error, fingerprint
from tests.store.changed import resealed


def words(config, directory, *settings, steps=12):
    given = (f"run.directory={directory}", f"optimizer.max_steps={steps}", "run.report=false", *settings)
    return ["optimize", str(config), "--resume", "auto", *sets(*given)]


@pytest.fixture(scope="module")
def finished(two_sources, tmp_path_factory):
    """The run directory of a fit in one go, begun by `--resume auto` itself."""
    directory = tmp_path_factory.mktemp("finished") / "run"
    done = here(*words(two_sources, directory))
    assert done.returncode == 0, done.stderr
    return directory


def contents(directory) -> dict[str, tuple]:
    """Every file with its bytes and its time."""
    return {
        str(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in directory.rglob("*") if path.is_file()
    }  # fmt: skip


def test_a_finished_run_is_left_as_it_is(hpcfit, two_sources, finished):
    before = contents(finished)
    done = hpcfit(*words(two_sources, finished))
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stderr
    assert contents(finished) == before


@pytest.mark.mpi
def test_an_unfinished_run_goes_on_with_a_further_goal_or_other_ranks(hpcfit, two_sources, finished, tmp_path):
    first = hpcfit(*words(two_sources, tmp_path / "run", steps=5), ranks=2)
    assert first.returncode == 0, first.stderr
    second = hpcfit(*words(two_sources, tmp_path / "run"))
    assert second.returncode == 0, second.stderr
    assert "resuming after" in second.stderr
    assert fingerprint(tmp_path / "run") == fingerprint(finished)


@pytest.mark.parametrize("left", ["no checkpoint", "a damaged checkpoint"])
def test_without_a_whole_checkpoint_it_begins_again_and_says_so(hpcfit, two_sources, finished, tmp_path, left):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run/metrics.json").unlink()
    shutil.rmtree(tmp_path / "run/fits")
    for checkpoint in (tmp_path / "run/checkpoints").iterdir():
        if left == "no checkpoint":
            checkpoint.unlink()
        else:
            checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    done = hpcfit(*words(two_sources, tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "begins again" in done.stderr
    assert ("is damaged" in done.stderr) == (left == "a damaged checkpoint")
    assert fingerprint(tmp_path / "run") == fingerprint(finished)


def test_another_run_is_neither_continued_nor_replaced(hpcfit, two_sources, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    before = contents(tmp_path / "run")
    done = hpcfit(*words(two_sources, tmp_path / "run", "problem.theta=0.5"))
    assert_one_clear_error(done, ['"theta":0.0', '"theta":0.5'])
    assert contents(tmp_path / "run") == before
    shutil.rmtree(tmp_path / "run/checkpoints")
    shutil.rmtree(tmp_path / "run/fits")
    before = contents(tmp_path / "run")
    done = hpcfit(*words(two_sources, tmp_path / "run", "problem.theta=0.5"))
    assert_one_clear_error(done, ["no whole checkpoint", "--overwrite"])
    assert contents(tmp_path / "run") == before


def test_a_checkpoint_of_another_layout_is_not_continued(hpcfit, two_sources, finished, tmp_path):
    """Whole, with a checksum that fits: written by a version whose parameters meant something else."""
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run/metrics.json").unlink()
    shutil.rmtree(tmp_path / "run/fits")
    *older, newest = sorted((tmp_path / "run/checkpoints").iterdir())
    for path in older:
        path.unlink()
    schema = json.loads(newest.read_bytes()[:512])["schema"]
    resealed(newest, schema=schema - 1)
    done = hpcfit(*words(two_sources, tmp_path / "run"))
    assert_one_clear_error(done, [f"has schema {schema - 1} ", f"reads schema {schema}", "or start anew"])


def test_without_auto_there_must_be_something_to_resume(hpcfit, two_sources, tmp_path):
    command = [word for word in words(two_sources, tmp_path / "run") if word != "auto"]
    assert_one_clear_error(hpcfit(*command), ["no whole checkpoint"])
    assert not (tmp_path / "run").exists()
