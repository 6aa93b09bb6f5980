"""The CSV file of frame coordinates: read in the order of the fit, every fault named with file, frame and column."""

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.frame_weights.coordinates import read_coordinates


def written(tmp_path, text):
    path = tmp_path / "coordinates.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_come_in_the_order_of_the_frames(tmp_path):
    path = written(tmp_path, "phi,frame,psi\n-60,3,1e2\n-70.5,0,-40\n0,1,2\n")
    names, values = read_coordinates(path, np.array([0, 3]))
    assert names == ["phi", "psi"]
    assert values.tolist() == [[-70.5, -40.0], [-60.0, 100.0]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("frame,phi\n0,1\n1,abc\n", "phi of frame 1 is 'abc'"),
        ("frame,phi\n0,1\n1,nan\n", "phi of frame 1 is 'nan'"),
        ("frame,phi,psi\n0,1,2\n1,3\n", "psi of frame 1 is missing"),
        ("frame,phi\n0,1\n5,1\n", r"2 frames, but not frame 1 \(1 of 2"),
        ("frame,phi\n0,1\n0,2\n1,1\n", "line 3: frame 0 is there a second time"),
        ("frame,phi\n0,1\nfirst,1\n", "line 3: frame is 'first'"),
        ("phi,psi\n0,1\n", "columns are phi, psi"),
        ("frame\n0\n1\n", "columns are frame"),
        ("frame,phi,phi\n0,1,2\n1,1,2\n", "columns are frame, phi, phi"),
        ("", "columns are none"),
    ],
)
def test_faults_name_file_frame_and_column(tmp_path, text, said):
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=f"coordinates.csv.*{said}"):
        read_coordinates(path, np.arange(2))


def test_a_frame_outside_the_fit_may_hold_anything(tmp_path):
    names, values = read_coordinates(written(tmp_path, "frame,x\n0,1\n1,2\n9,unknown\n"), np.arange(2))
    assert (names, values.tolist()) == (["x"], [[1.0], [2.0]])


def test_no_file_is_said(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.csv does not exist"):
        read_coordinates(tmp_path / "nowhere.csv", np.arange(2))
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00frame")
    with pytest.raises(InputError, match="not a text file"):
        read_coordinates(tmp_path / "binary.csv", np.arange(2))
