"""A run directory by its files: what is read, what is said of what is missing, and what --overwrite removes."""

import json
import os
from pathlib import Path

import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.table import KINDS, Kind, files_left
from hpcfit.runs.directory import RunDirectory
from hpcfit.runs.files import LEFT, RunFiles
from hpcfit.runs.study import StudyFile


def test_a_run_is_read_as_far_as_it_is(tmp_path):
    run = RunFiles(tmp_path)
    assert (run.finished, run.evaluated, run.study, run.checkpoint()) == (False, False, None, None)
    (tmp_path / "config.toml").write_text('[problem]\nkind = "force-map"\n')
    StudyFile(tmp_path).announce(["pass", "fit"])
    (tmp_path / "checkpoints").mkdir()
    for number, time in ((1, 100), (2, 200)):
        path = tmp_path / f"checkpoints/step_{number}.h5"
        path.touch()
        os.utime(path, (time, time))
    assert (run.kind, run.study.total, run.study.ended, run.checkpoint()) == ("force-map", 2, 0, 200.0)
    (tmp_path / "metrics.json").write_text(json.dumps({"kind": "force-map", "loss": 1.5}))
    assert run.finished
    assert run.metrics["loss"] == 1.5


@pytest.mark.parametrize(
    ("text", "said"), [(None, "has no metrics.json: the run is not complete"), ("{", "metrics.json is not JSON")]
)
def test_what_is_missing_or_broken_is_named(tmp_path, text, said):
    if text is not None:
        (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(InputError, match=said):
        RunFiles(tmp_path).metrics  # noqa: B018
    with pytest.raises(InputError, match="nowhere does not exist"):
        RunFiles(tmp_path / "nowhere").config  # noqa: B018


def test_overwriting_removes_what_runs_of_any_known_kind_leave_and_nothing_else(tmp_path):
    kind = Kind(*["text"] * 7, files=("offsets.csv",))
    mine = ("notes.txt",)
    made = {
        "config.toml",
        "environment.json",
        "fits/a.h5",
        "fits/a.stage",
        "checkpoints/step_1.h5",
        "weights.csv",
        "maps.h5",
        "offsets.csv",
        *LEFT,
    }
    for name in (*mine, *made):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    directory = RunDirectory(tmp_path)
    directory.set_aside(files_left(kind))
    directory.forget_earlier()
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == {"notes.txt"}


def test_the_files_of_each_kind_lie_in_the_run_directory_or_in_a_folder_of_it():
    for kind in KINDS.values():
        assert kind.files
        assert len(set(kind.files)) == len(kind.files)
        parts = [Path(name).parts for name in kind.files]
        assert all(len(one) <= 2 and not {"..", "/", "*"} & set(one) for one in parts)
        assert not set(LEFT) & set(kind.files)
