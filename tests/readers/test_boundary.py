"""The boundary of readers: whatever a library raises is the one error, with file, place and remedy."""

import zlib

import pytest

from hpcfit.errors import DamagedFile, InputError
from hpcfit.readers import gromacs_files
from hpcfit.readers.boundary import reading
from hpcfit.readers.positions import open_positions
from hpcfit.store.frame import Topology
from tests.prepare.force_inputs import ELEMENTS, truth, write_md


@pytest.mark.parametrize(
    "error", [OSError(5, "cut"), KeyError("cut"), zlib.error("cut"), MemoryError("cut"), AssertionError("cut\nmore")]
)
def test_whatever_a_library_raises_is_an_input_error(error):
    words = rf"x.trr, frame 3: {type(error).__name__}: .*cut.*\n.*check it"
    with pytest.raises(InputError, match=words) as found, reading("x.trr, frame 3", "check it"):
        raise error
    assert "more" not in str(found.value)
    assert found.value.__cause__ is error


def test_an_error_without_words_is_named():
    with pytest.raises(InputError, match="x: StopIteration: StopIteration"), reading("x", "check it"):
        raise StopIteration


@pytest.mark.parametrize("error", [DamagedFile("of hpcfit"), KeyboardInterrupt("a stop")])
def test_own_errors_and_stops_pass(error):
    with pytest.raises(type(error)) as found, reading("x", "check it"):
        raise error
    assert found.value is error


def test_a_frame_that_a_library_cannot_read_is_named(tmp_path, monkeypatch):
    """Of a kind that no reader is known to raise."""
    reader = open_positions(write_md(tmp_path / "run.trr", truth(5)), Topology(ELEMENTS, None))
    assert (reader.n_frames, reader.announced, reader.elements) == (5, 5, ())

    def fails(row, *values):
        raise ZeroDivisionError("nothing there")

    frames = reader.frames(range(2, 5))
    assert next(frames).row == 2
    monkeypatch.setattr(gromacs_files, "_frame", fails)
    with pytest.raises(InputError, match=r"run.trr, frame 3 cannot be read: ZeroDivisionError: nothing there"):
        next(frames)


def test_frames_have_what_their_file_says(tmp_path):
    what = truth(5)
    reader = open_positions(write_md(tmp_path / "run.trr", what), Topology(ELEMENTS, None))
    frames = list(reader.frames(range(1, 5, 2)))
    assert [frame.row for frame in frames] == [1, 3]
    assert [frame.time for frame in frames] == pytest.approx(what.time[[1, 3]])
    assert all(frame.pbc == (True, True, True) for frame in frames)
    assert all(isinstance(frame.step, int) for frame in frames)
