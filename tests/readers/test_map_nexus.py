"""Measured maps from tables of mdx2: fractional indices, counts, half-sets, and tables that are not whole.

`write_table` lays a file out as mdx2 1.0.5 does.
"""

import h5py
import numpy as np
import pytest

from hpcfit.config import ExperimentConfig
from hpcfit.errors import InputError
from hpcfit.readers.maps import read_map

CELL = (10.0, 11.0, 12.0, 90.0, 90.0, 90.0)
HKL = np.array([[1, 0, 0], [-1, 2, 5], [0, 2, 1], [3, 1, -2], [8, -3, 4]])
NDIV = (2, 3, 4)


def write_table(path, *, ndiv=NDIV, crystal=None, name="entry/hkl_table", **columns):
    """The table of hkl / ndiv; crystal: (cell, space group) of a second object in the file."""
    columns = {"intensity": np.arange(1.0, 6, dtype=np.float32), **columns}
    with h5py.File(path, "w") as file:
        file.attrs["mdx2_version"] = "1.0.5"
        table = file.create_group(name)
        table.attrs.update(mdx2_module="mdx2.data", mdx2_class="HKLTable")
        table["h"], table["k"], table["l"] = (HKL / ndiv).T
        table["ndiv"] = np.array(ndiv)
        for column, values in columns.items():
            table[column] = values
        if crystal is not None:
            file["entry/crystal/unit_cell"], file["entry/crystal/space_group"] = crystal
    return path


def read(path, **keys):
    return read_map(ExperimentConfig(file=path, **({"cell": CELL} | keys)))


@pytest.mark.parametrize("suffix", ["nxs", "h5"])
def test_indices_are_multiples_of_one_over_ndiv(tmp_path, suffix):
    found = read(write_table(tmp_path / f"map.{suffix}", intensity_error=np.full(5, 0.5, np.float32)))
    np.testing.assert_array_equal(found.hkl, HKL)
    np.testing.assert_array_equal(found.intensity, np.arange(1, 6))
    np.testing.assert_array_equal(found.sigma, [0.5] * 5)
    assert (found.ndiv, found.cell, found.space_group, found.halves) == (NDIV, CELL, "P 1", None)


def test_voxels_without_counts_or_numbers_are_masked(tmp_path):
    path = write_table(tmp_path / "map.nxs", intensity=[1, np.nan, 3, 4, 5], count=np.array([2, 0, 0, 1, 7], np.int32))
    found = read(path)
    np.testing.assert_array_equal(found.hkl, HKL[[0, 3, 4]])
    assert (found.masked, found.sigma) == (2, None)


def test_the_crystal_in_the_same_file_is_used(tmp_path):
    path = write_table(tmp_path / "map.nxs", crystal=(CELL, "P 21 21 21"))
    found = read(path, cell=None)
    assert (found.cell, found.space_group) == (CELL, "P 21 21 21")


def test_other_columns_have_their_own_errors(tmp_path):
    path = write_table(tmp_path / "map.nxs", other=np.full(5, 9.0), other_error=np.full(5, 3.0))
    found = read(path, intensity="other")
    assert (found.intensity[0], found.sigma[0]) == (9, 3)
    assert read(path, sigma="other").sigma[0] == 9


def test_halves_of_a_split_merge_are_found(tmp_path):
    first, second = np.arange(5.0), np.array([1, 1, np.nan, 3, 3])
    path = write_table(tmp_path / "map.nxs", group_0_intensity=first, group_1_intensity=second, third=second)
    np.testing.assert_array_equal(read(path).halves, np.stack([first, second], axis=1))
    swapped = read(path, halves=("third", "group_0_intensity")).halves
    np.testing.assert_array_equal(swapped, np.stack([second, first], axis=1))


def test_a_table_elsewhere_in_the_file_is_found(tmp_path):
    assert len(read(write_table(tmp_path / "map.nxs", name="scaled/merged"))) == 5


def changed(path, change):
    write_table(path)
    with h5py.File(path, "a") as file:
        change(file["entry/hkl_table"])
    return path


def replaced(name, values):
    def change(table):
        del table[name]
        table[name] = values

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.pop("k"), r"has 0 groups with datasets h, k and l \(none\)"),
        (lambda table: table.copy(table, table.file, "again"), "2 groups with datasets h, k and l .*/again"),
        (lambda table: table.pop("intensity"), r"entry/hkl_table has no dataset intensity; it has h, k, l, ndiv"),
        (replaced("intensity", np.ones(4)), r"column 'intensity' has shape \(4,\), h has 5 rows"),
        (replaced("l", np.ones(4)), r"not lists of one length: h \(5,\), k \(5,\), l \(4,\)"),
        (replaced("ndiv", [1, 1, 1]), r"index \(0\.5, 0\.0, 0\.0\) is not a multiple of 1/ndiv, ndiv = \(1, 1, 1\)"),
        (replaced("ndiv", [2, 3, 0]), r"ndiv = \(2, 3, 0\) are not three positive integers"),
        (replaced("h", np.full(5, np.nan)), r"index \(nan, 0\.0, 0\.0\) is not a multiple .*5 of 5 rows"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, change, words):
    with pytest.raises(InputError, match=rf"map\.nxs.*{words}"):
        read(changed(tmp_path / "map.nxs", change))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"intensity": "IMEAN"}, "no dataset IMEAN; it has h, intensity, k, l, ndiv"),
        ({"sigma": "SIGI"}, "no dataset SIGI"),
        ({"halves": ("intensity", "half2")}, "no dataset half2"),
        ({"ndiv": (1, 1, 1)}, r"ndiv = \(2, 3, 4\), \[experiment\] ndiv = \(1, 1, 1\)"),
        ({"cell": None}, "does not say its cell"),
    ],
)
def test_what_the_config_asks_for_and_the_table_lacks(tmp_path, keys, words):
    with pytest.raises(InputError, match=rf"map\.nxs.*{words}"):
        read(write_table(tmp_path / "map.nxs"), **keys)


def test_a_truncated_table_is_named(tmp_path):
    path = write_table(tmp_path / "map.nxs")
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"map\.nxs cannot be read as HDF5"):
        read(path)
