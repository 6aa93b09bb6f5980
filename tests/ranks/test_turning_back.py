"""A first step that is far too long, by the command line: the fit turns back, or says which frames it failed on."""

import pytest

from tests.conftest import history

SHORT = ("--set", "run.report=false", "--set", "optimizer.max_steps=12")
SCALED = (*SHORT, "--set", "problem.objective=student-t")


def test_a_fit_turns_back_from_where_its_sums_overflow(hpcfit, two_sources, tmp_path):
    """ln of the scale goes up to 3000: no number is exp(3000)."""
    words = [*SCALED, "--set", f"run.directory={tmp_path / 'run'}", "--set", "optimizer.options={first_step=3000.0}"]
    done = hpcfit("optimize", two_sources, *words)
    assert done.returncode == 0, done.stderr
    losses = [row["loss"] for row in history(tmp_path / "run")]
    assert any(loss != loss for loss in losses[1:5])
    assert losses[-1] < losses[0]


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [1, 2])
def test_one_that_cannot_turn_back_names_block_and_frames_once(hpcfit, two_sources, tmp_path, ranks):
    """Weights that may be any number become 1e200, whose squares are none."""
    words = [*SHORT, "--set", f"run.directory={tmp_path / 'run'}", "--set", "problem.weights=free"]
    adam = ["--set", "optimizer.name=adam", "--set", "optimizer.options={learning_rate=1e200}"]
    done = hpcfit("optimize", two_sources, *words, *adam, ranks=ranks)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("hpcfit: error") == 1
    assert "block 0 of 5, frames 0 to 63" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_overflows_for_all_frames_alike_is_said_to_come_from_no_frame(hpcfit, two_sources, tmp_path):
    words = [*SCALED, "--set", f"run.directory={tmp_path / 'run'}"]
    adam = ["--set", "optimizer.name=adam", "--set", "optimizer.options={learning_rate=1e4}"]
    done = hpcfit("optimize", two_sources, *words, *adam)
    assert done.returncode == 1, done.stderr
    assert "tile 0 of" in done.stderr
    assert "parameters that all frames share" in done.stderr
