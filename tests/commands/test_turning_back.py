"""A first step that is far too long, by the command line: the fit turns back, or says which frames it failed on."""

import pytest

from tests.command import sets
from tests.conftest import history

SHORT = ("run.report=false", "optimizer.max_steps=12")
SCALED = (*SHORT, "problem.objective=student-t")


def test_a_fit_turns_back_from_where_its_sums_overflow(hpcfit, two_sources, tmp_path):
    """ln of the scale goes up to 3000: no number is exp(3000)."""
    settings = (*SCALED, f"run.directory={tmp_path / 'run'}", "optimizer.options={first_step=3000.0}")
    done = hpcfit("optimize", two_sources, *sets(*settings))
    assert done.returncode == 0, done.stderr
    losses = [row["loss"] for row in history(tmp_path / "run")]
    assert any(loss != loss for loss in losses[1:5])
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.mpi)])
def test_one_that_cannot_turn_back_names_block_and_frames_once(hpcfit, two_sources, tmp_path, ranks):
    """Weights that may be any number become 1e200, whose squares are none."""
    adam = ("optimizer.name=adam", "optimizer.options={learning_rate=1e200}")
    settings = (*SHORT, *adam, f"run.directory={tmp_path / 'run'}", "problem.weights=free")
    done = hpcfit("optimize", two_sources, *sets(*settings), ranks=ranks)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("hpcfit: error") == 1
    assert "block 0 of 5, frames 0 to 63" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_overflows_for_all_frames_alike_is_said_to_come_from_no_frame(hpcfit, two_sources, tmp_path):
    adam = ("optimizer.name=adam", "optimizer.options={learning_rate=1e4}")
    done = hpcfit("optimize", two_sources, *sets(*SCALED, *adam, f"run.directory={tmp_path / 'run'}"))
    assert done.returncode == 1, done.stderr
    assert "tile 0 of" in done.stderr
    assert "parameters that all frames share" in done.stderr
