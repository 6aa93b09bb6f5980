"""BioEn's HDF5 of numbers over their sigmas gives the same data as text; its faults, and pickles, are errors."""

import pickle

import h5py
import numpy as np
import pytest
from pydantic import ValidationError

from hpcfit.config.observables.averages import AveragedConfig
from hpcfit.errors import InputError
from hpcfit.observables.frame_tables import data_of, open_data

VALUE, SIGMA = np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.2, 0.5])
CALCULATED = np.array([[1.5, 2.5, 3.5], [1.0, 2.0, 4.0], [2.0, 2.25, 3.0], [1.25, 3.0, 5.0]])  # [T, M]


def write(path, **other):
    """As `bioen.fileio.dump` does: arrays by name at the root."""
    arrays = {"YTilde": (VALUE / SIGMA)[None], "yTilde": (CALCULATED / SIGMA).T, "w0": np.full((4, 1), 0.25)} | other
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            if values is not None:
                file.create_dataset(name, data=values)
    return path


def opened(measured, calculated=None, **more):
    return open_data(AveragedConfig(name="data", measured=measured, calculated=calculated or measured, **more), [])


def test_hdf5_gives_the_data_of_the_text_files(tmp_path, caplog):
    np.savetxt(tmp_path / "exp.csv", np.stack([VALUE, SIGMA], 1), delimiter=",")
    np.savetxt(tmp_path / "calc.csv", CALCULATED, delimiter=",")
    text, found = opened(tmp_path / "exp.csv", tmp_path / "calc.csv"), opened(write(tmp_path / "data.h5"))
    assert (found.frames.n_rows, found.size) == (4, 3)
    np.testing.assert_allclose(found.features(slice(1, 4)), text.features(slice(1, 4)), rtol=1e-13, atol=1e-13)
    data = data_of([[found]])
    np.testing.assert_array_equal(data.sigma, 1.0)
    assert not caplog.records


def test_prior_weights_that_are_not_uniform_are_said_to_be_unused(tmp_path, caplog):
    opened(write(tmp_path / "data.h5", w0=np.array([[0.1], [0.2], [0.3], [0.4]])))
    assert "data.h5 has prior weights (w0), which are not used" in caplog.text


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"yTilde": None}, "data.h5 has no dataset yTilde; it has YTilde, w0"),
        ({"YTilde": None}, "data.h5 has no dataset YTilde"),
        ({"YTilde": np.ones((2, 3))}, r"YTilde has shape \[2, 3\]"),
        ({"YTilde": np.ones((1, 2))}, "has 3 columns, .*data.h5 has 2 rows"),
        ({"yTilde": np.full((3, 4), np.nan)}, r"yTilde \[0, 0\] is nan"),
        ({"yTilde": np.zeros((3, 0))}, r"yTilde has shape \[3, 0\] and type float64"),
        ({"yTilde": np.array([b"a", b"b"])}, r"yTilde has shape \[2\] and type"),
    ],
)
def test_what_is_wrong_in_hdf5_is_one_error(tmp_path, other, said):
    with pytest.raises(InputError, match=said):
        opened(write(tmp_path / "data.h5", **other))


def test_a_file_that_is_no_hdf5_is_one_error(tmp_path):
    (tmp_path / "data.h5").write_text("1 2 3")
    with pytest.raises(InputError, match=r"data\.h5 cannot be read as HDF5"):
        opened(tmp_path / "data.h5")


@pytest.mark.parametrize("more", [{"power": 6}, {"adjusted": "offset"}, {"adjusted": "both"}])
def test_numbers_over_sigmas_are_not_adjusted_by_what_has_a_unit(tmp_path, more):
    with pytest.raises(ValidationError, match="needs numbers that are not over their sigmas"):
        opened(write(tmp_path / "data.h5"), **more)


def test_numbers_over_sigmas_are_not_compared_with_others(tmp_path):
    (tmp_path / "exp.dat").write_text("a 1 0.1\n")
    with pytest.raises(ValidationError, match="give it as both measured and calculated"):
        opened(tmp_path / "exp.dat", write(tmp_path / "data.h5"))


class Code:
    """Leaves a mark when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("key", ["measured", "calculated"])
def test_a_pickle_is_refused_and_none_of_its_code_runs(tmp_path, key):
    (tmp_path / "input.pkl").write_bytes(pickle.dumps(Code(tmp_path / "mark")))
    np.savetxt(tmp_path / "other.csv", np.ones((2, 2)), delimiter=",")
    paths = {"measured": tmp_path / "other.csv", "calculated": tmp_path / "other.csv"} | {key: tmp_path / "input.pkl"}
    with pytest.raises(InputError, match=r"(?s)input.pkl is a pickle.*runs that code.*Path\('input.pkl'"):
        opened(**paths)
    assert not (tmp_path / "mark").exists()


def test_the_remedy_for_a_pickle_of_generic_data_gives_files_that_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    models = dict(enumerate(CALCULATED))
    items = ["abc", 3, list(VALUE), dict(zip("abc", VALUE)), list(SIGMA), dict(zip("abc", SIGMA)), models]
    (tmp_path / "input.pkl").write_bytes(pickle.dumps(items))
    with pytest.raises(InputError) as refused:
        opened(tmp_path / "input.pkl")
    code = (
        refused.value.remedy.partition("in Python: ")[2].partition("; of arrays")[0].replace("and of generic data ", "")
    )
    exec(code, {})  # what a user who trusts the file would do
    found = opened(tmp_path / "measured.npy", tmp_path / "calculated.npy")
    np.testing.assert_array_equal(found.frames.rows(slice(None)), CALCULATED)
    np.testing.assert_array_equal(found.measured.sigma, SIGMA)
