"""Measured maps: the real lattice, round trips, and every way a file can be wrong."""

import gemmi
import numpy as np
import pytest

from hpcfit.config import ExperimentConfig
from hpcfit.errors import InputError
from hpcfit.physics.reciprocal import inverse_d2, sphere
from hpcfit.readers import maps
from hpcfit.readers.map_lattice import LAT_MASK
from hpcfit.readers.map_raw import RawMap
from hpcfit.testsystems import lattice

CELL = (10.0, 11.0, 12.0, 90.0, 90.0, 90.0)
HKL = np.array([[1, 0, 0], [-1, 0, 0], [0, 2, 1], [3, 1, -2], [1, 1, 1]])


def read(path, **keys):
    return maps.read_map(ExperimentConfig(file=path, **keys))


def write_mtz(path, **columns):
    """Columns: name -> (type, values)."""
    mtz = gemmi.Mtz(with_base=True)
    mtz.set_cell_for_all(gemmi.UnitCell(*CELL))
    mtz.spacegroup = gemmi.find_spacegroup_by_name("P 21 21 21")
    mtz.add_dataset("map")
    for name, (kind, _) in columns.items():
        mtz.add_column(name, kind)
    mtz.set_data(np.column_stack([HKL, *(values for _, values in columns.values())]).astype(np.float32))
    mtz.write_to_file(str(path))
    return path


def test_the_measured_nuclease_lattice(shared_data):
    found = read(shared_data / "diffuse/snase/snc_diffuse.lat", space_group="P 41")
    # Facts of the data README: 62 x 62 x 80 voxels, 117,010 valid, hkl = 0 at voxel (30, 30, 39).
    assert (len(found), found.masked, found.sigma_invalid) == (117010, 62 * 62 * 80 - 117010, 0)
    assert found.hkl.min() >= -39
    np.testing.assert_allclose(found.cell, (48.5, 48.5, 63.5, 90, 90, 90), rtol=1e-3)
    assert (found.intensity.min(), found.intensity.max()) == pytest.approx((688, 3324), abs=1)
    # 0.9958: the Friedel correlation measured independently. It is lost by an origin that is off by one voxel.
    index = {tuple(h): i for i, h in enumerate(found.hkl.tolist())}
    pairs = np.array([(i, index[mate]) for h, i in index.items() if (mate := (-h[0], -h[1], -h[2])) in index])
    assert np.corrcoef(found.intensity[pairs].T)[0, 1] == pytest.approx(0.9958, abs=5e-5)


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_lattice_round_trip_in_both_byte_orders(tmp_path, byte_order):
    rng = np.random.default_rng(0)
    grid = rng.random((5, 6, 7)).astype(np.float32)
    grid[1, 2, 3] = LAT_MASK
    path = tmp_path / "map.lat"
    lattice.write_lat(path, grid, lattice.lat_header(grid.shape, (2, 3, 3), CELL, byte_order))
    found = read(path)
    assert (len(found), found.masked, found.ndiv, found.space_group) == (5 * 6 * 7 - 1, 1, (1, 1, 1), "P 1")
    # The limits of the header are float32.
    np.testing.assert_allclose(found.cell, CELL, rtol=1e-6)
    np.testing.assert_array_equal(found.intensity, grid[tuple(np.add(found.hkl, [2, 3, 3]).T)])


def test_lattice_of_fractional_indices_has_the_unit_cell(tmp_path):
    path, box = tmp_path / "map.lat", (20.0, 22.0, 12.0)
    lattice.write_lat(path, np.ones((5, 5, 5)), lattice.lat_header((5, 5, 5), (2, 2, 2), box))
    np.testing.assert_allclose(read(path, ndiv=(2, 2, 1)).cell, CELL, rtol=1e-6)
    with pytest.raises(InputError, match=r"steps of a cell \[20.*cell = \[10"):
        read(path, cell=CELL)


def test_zeros_are_missing_in_lattices_without_a_mask_value(tmp_path):
    grid = np.ones((4, 4, 4))
    grid[0, 0] = 0
    lattice.write_lat(tmp_path / "old.lat", grid, lattice.lat_header(grid.shape, (1, 1, 1), CELL))
    assert (len(read(tmp_path / "old.lat")), read(tmp_path / "old.lat").masked) == (60, 4)


def test_a_truncated_lattice_is_said(tmp_path):
    path = tmp_path / "map.lat"
    lattice.write_lat(path, np.ones((4, 4, 4)), lattice.lat_header((4, 4, 4), (1, 1, 1), CELL))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match=f"it has {36 + 4 * 64 - 5} bytes, its header asks for {36 + 4 * 64}"):
        read(path)
    path.write_bytes(b"abc")
    with pytest.raises(InputError, match="not a whole LUNUS lattice"):
        read(path)


def test_archive_with_everything(tmp_path):
    path = tmp_path / "map.npz"
    np.savez(
        path,
        hkl=HKL,
        intensity=[1.0, np.nan, 3, 4, 5],
        sigma=[0.1, 0.1, 0.3, 0, -1],
        mask=np.array([1, 1, 1, 1, 1], bool),
        ndiv=(2, 1, 1),
        cell=CELL,
        space_group="P 41",
    )
    found = read(path)
    np.testing.assert_array_equal(found.hkl, HKL[[0, 2]])
    np.testing.assert_array_equal(found.sigma, [0.1, 0.3])
    assert (found.masked, found.sigma_invalid, found.ndiv, found.space_group) == (1, 2, (2, 1, 1), "P 41")
    assert found.cell == CELL


def test_mask_false_is_left_out_and_the_config_overrides(tmp_path, caplog):
    path = tmp_path / "map.npz"
    np.savez(
        path, hkl=HKL, intensity=np.arange(1.0, 6), other=np.arange(6.0, 11), mask=np.array([0, 1, 1, 0, 1]), cell=CELL
    )
    found = read(path, intensity="other", cell=(10.5, *CELL[1:]), ndiv=(3, 3, 3))
    np.testing.assert_array_equal(found.intensity, [7, 8, 10])
    assert (found.masked, found.sigma, found.ndiv, found.cell[0]) == (2, None, (3, 3, 3), 10.5)
    assert "cell" in caplog.text


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"hkl": HKL, "intensity": np.ones(5)}, "does not say its cell"),
        ({"hkl": HKL, "intensity": np.ones(4), "cell": CELL}, r"'intensity' has shape \(4,\), hkl has 5 rows"),
        ({"hkl": HKL / 2, "intensity": np.ones(5), "cell": CELL}, "not integers"),
        ({"hkl": HKL, "I": np.ones(5), "cell": CELL}, "no array 'intensity'; it has hkl, I, cell"),
        ({"hkl": HKL, "intensity": np.full(5, np.nan), "cell": CELL}, "no voxel to fit: of 5, 5 are masked"),
    ],
)
def test_archives_that_cannot_be_used(tmp_path, arrays, words):
    np.savez(tmp_path / "map.npz", **arrays)
    with pytest.raises(InputError, match=words):
        read(tmp_path / "map.npz")


GOOD = {"hkl": HKL, "intensity": np.arange(1.0, 6), "cell": CELL}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ndiv": (-1, 1, 1)}, r"ndiv = \[-1.0, 1.0, 1.0\]"),
        ({"ndiv": (0, 1, 1)}, "ndiv = "),
        ({"ndiv": (1.5, 1, 1)}, r"ndiv = \[1.5"),
        ({"ndiv": (1, 1)}, r"ndiv = \[1.0, 1.0\]"),
        ({"ndiv": np.array(["1", "1", "1"])}, "ndiv of type <U1"),
        ({"cell": (np.nan, *CELL[1:])}, r"cell = \[nan"),
        ({"cell": (-5.0, *CELL[1:])}, r"cell = \[-5"),
        ({"cell": (10, 10, 10, 10, 90, 170)}, "cell = "),
        ({"cell": CELL[:3]}, "cell = "),
        ({"mask": np.array(["False"] * 5)}, "mask of type <U5 has 'False'"),
        ({"mask": np.array([0, 1, 2, 1, 1])}, "mask of type int64 has 2"),
        ({"mask": np.array([0, 1, np.nan, 1, 1])}, "mask of type float64 has nan"),
        ({"hkl": HKL.astype(np.int64) + 2**32}, "hkl reach 4.29"),
        ({"hkl": np.array([["1", "2", "3"]] * 5)}, "not integers"),
        ({"intensity": np.arange(1.0, 6) * (1 + 1j)}, "intensity of type complex128"),
        ({"intensity": np.array(["a"] * 5)}, "intensity of type <U1"),
        ({"sigma": np.array(["a"] * 5)}, "sigma of type <U1"),
        ({"half1": np.ones(5) * 1j, "half2": np.ones(5)}, "half-sets of type complex128"),
    ],
    ids=["negative", "zero", "fraction", "two", "text of ndiv", "nan", "length", "angles", "half a cell", "words",
         "twos", "nan of mask", "wrapped", "text of hkl", "complex", "text", "text of sigma", "complex halves"],
)  # fmt: skip
def test_what_can_be_no_map_names_the_array_and_its_value(tmp_path, changed, words):
    np.savez(tmp_path / "map.npz", **GOOD | changed)
    with pytest.raises(InputError, match=words):
        read(tmp_path / "map.npz")


@pytest.mark.parametrize("mask", [[0, 1, 1, 0, 1], [False, True, True, False, True], [0.0, 1, 1, 0, 1]],
                         ids=["integers", "booleans", "numbers"])  # fmt: skip
def test_masks_of_zeros_and_ones_are_read(tmp_path, mask):
    np.savez(tmp_path / "map.npz", **GOOD, mask=np.array(mask))
    np.testing.assert_array_equal(read(tmp_path / "map.npz").intensity, [2, 3, 5])


def test_columns_of_an_mtz_may_stand_in_any_order(tmp_path):
    import gemmi

    usual = write_mtz(tmp_path / "map.mtz", I=("J", [1, 2, 3, 4, 5]), SIGI=("Q", [0.1] * 5))
    file = gemmi.read_mtz_file(str(usual))
    other = gemmi.Mtz()
    other.spacegroup = file.spacegroup
    other.set_cell_for_all(file.cell)
    order = ["I", "SIGI", "L", "H", "K"]
    other.add_dataset("data")
    for label in order:
        other.add_column(label, file.column_with_label(label).type)
    other.set_data(np.column_stack([np.array(file.column_with_label(label).array) for label in order]))
    other.write_to_file(str(tmp_path / "other.mtz"))
    np.testing.assert_array_equal(read(tmp_path / "other.mtz").hkl, read(usual).hkl)
    np.testing.assert_array_equal(read(tmp_path / "other.mtz").intensity, read(usual).intensity)


def test_a_column_of_another_type_is_no_intensity(tmp_path):
    path = write_mtz(tmp_path / "map.mtz", I=("J", np.ones(5)), PHI=("P", np.ones(5)), SIGI=("Q", np.ones(5)))
    for label, kind in (("PHI", "P, a phase"), ("SIGI", "Q, a standard deviation")):
        with pytest.raises(InputError, match=f"'{label}' has type {kind}; an intensity"):
            read(path, intensity=label)


def test_what_a_refinement_leaves_is_said_to_be_bragg_data(tmp_path, caplog):
    columns = {"I": ("J", np.arange(1, 6)), "FreeR_flag": ("I", [0, 1, 0, 0, 1]), "PHIC": ("P", np.ones(5))}
    read(write_mtz(tmp_path / "map.mtz", **columns))
    assert "has free flags (FreeR_flag) and phases (PHIC), as Bragg data" in caplog.text


@pytest.mark.parametrize("how", ["batch column", "rows twice"])
def test_unmerged_reflections_are_refused(tmp_path, how):
    import gemmi

    more = {"M_ISYM": ("Y", np.ones(5))} if how == "batch column" else {}
    path = write_mtz(tmp_path / "map.mtz", I=("J", np.ones(5)), **more)
    if how == "rows twice":
        file = gemmi.read_mtz_file(str(path))
        file.set_data(np.vstack([np.array(file)] * 2))
        file.write_to_file(str(path))
    with pytest.raises(InputError, match=r"map.mtz is unmerged \(columns M_ISYM\)|10 rows have 5 different indices"):
        read(path)


def test_mtz_keeps_indices_group_and_sigma(tmp_path):
    path = write_mtz(tmp_path / "map.mtz", I=("J", [1, 2, np.nan, 4, 5]), SIGI=("Q", [0.1, 0.2, 0.3, 0, 0.5]))
    found = read(path)
    np.testing.assert_array_equal(found.hkl, HKL[[0, 1, 4]])
    np.testing.assert_allclose(found.sigma, [0.1, 0.2, 0.5], rtol=1e-7)
    assert (found.space_group, found.masked, found.sigma_invalid) == ("P 21 21 21", 1, 1)
    np.testing.assert_allclose(found.cell, CELL)
    np.testing.assert_allclose(read(path, ndiv=(2, 1, 1)).cell, (5, *CELL[1:]))


def test_root_of_the_intensity_is_squared(tmp_path):
    path = write_mtz(tmp_path / "map.mtz", sqrtIdiff=("F", [1, 2, 3, 4, 5]), SIGsqrtIdiff=("Q", [0.5] * 5))
    found = read(path)
    np.testing.assert_array_equal(found.intensity, np.arange(1, 6) ** 2)
    # sigma(v^2) = 2 v sigma(v)
    np.testing.assert_array_equal(found.sigma, np.arange(1.0, 6))


def test_missing_columns_are_listed(tmp_path):
    path = write_mtz(tmp_path / "map.mtz", FOO=("R", np.ones(5)), BAR=("R", np.ones(5)))
    with pytest.raises(InputError, match=r"no intensity column.*it has H, K, L, FOO, BAR"):
        read(path)
    with pytest.raises(InputError, match="no column 'IMEAN'; it has H, K, L, FOO, BAR"):
        read(path, intensity="IMEAN")
    np.testing.assert_array_equal(read(path, intensity="FOO").intensity, np.ones(5))


HALVES = {"half1": np.array([1.0, 2, 3, 4, 5]), "half2": np.array([1.5, np.nan, 2.5, 4, 4])}


def test_halves_of_an_archive_follow_their_voxels(tmp_path):
    path = tmp_path / "map.npz"
    np.savez(path, hkl=HKL, intensity=[1.0, 2, np.nan, 4, 5], other=np.arange(5.0), cell=CELL, **HALVES)
    found = read(path)
    assert (len(found), found.halves.dtype) == (4, np.float64)  # the voxel without its second half stays
    np.testing.assert_array_equal(found.halves, np.stack(list(HALVES.values()), axis=1)[[0, 1, 3, 4]])
    named = read(path, halves=["other", "half1"])
    np.testing.assert_array_equal(named.halves[:, 0], [0, 1, 3, 4])


def test_halves_of_an_mtz_are_named_and_squared_where_they_are_roots(tmp_path):
    path = write_mtz(tmp_path / "map.mtz", I=("J", np.ones(5)), A=("R", HALVES["half1"]), sqrtB=("F", HALVES["half2"]))
    assert read(path).halves is None
    expected = np.stack([HALVES["half1"], HALVES["half2"] ** 2], axis=1)
    np.testing.assert_array_equal(read(path, halves=["A", "sqrtB"]).halves, expected)
    with pytest.raises(InputError, match="no column 'C'; it has H, K, L, I, A, sqrtB"):
        read(path, halves=["A", "C"])


@pytest.mark.parametrize(
    ("arrays", "keys", "words"),
    [
        ({"half1": np.ones(5)}, {}, "no array 'half2'; it has hkl, intensity, cell, half1"),
        ({}, {"halves": ["a", "b"]}, "no array 'a'"),
        ({"half1": np.ones(4), "half2": np.ones(5)}, {}, r"'half1' has shape \(4,\), hkl has 5 rows"),
        ({"half1": np.ones(5), "half2": np.full(5, np.nan)}, {}, "of 5 voxels, 0 have a value in both"),
        ({"half1": np.arange(5), "half2": np.arange(5)}, {}, "equal in all 5 voxels"),
    ],
)
def test_halves_that_cannot_be_used(tmp_path, arrays, keys, words):
    np.savez(tmp_path / "map.npz", hkl=HKL, intensity=np.arange(5.0), cell=CELL, **arrays)
    with pytest.raises(InputError, match=words):
        read(tmp_path / "map.npz", **keys)


def test_a_lattice_has_no_halves_and_one_column_is_not_two(tmp_path):
    lattice.write_lat(tmp_path / "map.lat", np.ones((4, 4, 4)), lattice.lat_header((4, 4, 4), (1, 1, 1), CELL))
    with pytest.raises(InputError, match=r"one value a voxel.*halves = \['a', 'b'\]"):
        read(tmp_path / "map.lat", halves=["a", "b"])
    with pytest.raises(ValueError, match="both halves are 'a'"):
        ExperimentConfig(file="map.npz", halves=["a", "a"])


@pytest.mark.parametrize("name", ["map.mtz", "map.npz", "map.lat", "map.nxs"])
def test_missing_and_damaged_files_are_named(tmp_path, name):
    with pytest.raises(InputError, match=f"{name} does not exist"):
        read(tmp_path / name)
    (tmp_path / name).write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match=name):
        read(tmp_path / name)


def test_an_unknown_format_is_said(tmp_path):
    with pytest.raises(InputError, match=r"'\.txt' is not a format"):
        read(tmp_path / "map.txt")


@pytest.mark.parametrize(
    ("text", "index", "lengths"), [("k,h,-l", (2, 1, -3), (11, 10, 12)), ("l,h,k", (3, 1, 2), (12, 10, 11))]
)
def test_a_map_in_another_setting_is_reindexed(tmp_path, text, index, lengths):
    cell = (10.0, 11.0, 12.0, 85.0, 95.0, 80.0)
    np.savez(tmp_path / "m.npz", hkl=[[1, 2, 3]], intensity=[5.0], cell=cell, ndiv=(1, 1, 1), space_group="P 1")
    found = read(tmp_path / "m.npz", reindex=text)
    assert tuple(found.hkl[0]) == index
    assert found.cell[:3] == pytest.approx(lengths)
    # The distance of the plane does not change with the names of the axes.
    assert inverse_d2([index], (1, 1, 1), found.cell) == pytest.approx(inverse_d2([[1, 2, 3]], (1, 1, 1), cell))


def test_axes_that_are_divided_differently_go_with_their_indices(tmp_path):
    np.savez(tmp_path / "m.npz", hkl=[[1, 2, 3]], intensity=[5.0], cell=CELL, ndiv=(1, 2, 4), space_group="P 1")
    assert read(tmp_path / "m.npz", reindex="k,h,-l").ndiv == (2, 1, 4)
    with pytest.raises(InputError, match="mixes"):
        read(tmp_path / "m.npz", reindex="h,h+k,l")


@pytest.mark.parametrize("text", ["k,h,l", "nonsense", "h/2,k,2l", "h,k", "x,y,z"])
def test_what_is_no_change_of_axes_is_refused(tmp_path, text):
    np.savez(tmp_path / "m.npz", hkl=[[1, 2, 3]], intensity=[5.0], cell=CELL, space_group="P 1")
    with pytest.raises(InputError, match="reindex"):
        read(tmp_path / "m.npz", reindex=text)


@pytest.mark.parametrize(("name", "compressed"), [("map.mtz", False), ("map.mtz.gz", True)])
def test_the_axes_of_a_rhombohedral_group_are_kept(tmp_path, name, compressed):
    """'R -3 m' alone is that of hexagonal axes."""
    import gzip

    import gemmi

    file = gemmi.Mtz(with_base=True)
    file.spacegroup = gemmi.find_spacegroup_by_name("R -3 m:R")
    file.set_cell_for_all(gemmi.UnitCell(10, 10, 10, 70, 70, 70))
    file.add_dataset("map")
    for label, kind in (("I", "J"), ("SIGI", "Q")):
        file.add_column(label, kind)
    file.set_data(np.array([[1, 0, 0, 5, 1], [1, 1, 0, 6, 1], [2, 1, 0, 7, 1]], np.float32))
    file.write_to_file(str(tmp_path / "map.mtz"))
    if compressed:
        (tmp_path / name).write_bytes(gzip.compress((tmp_path / "map.mtz").read_bytes()))
    assert read(tmp_path / name).space_group == "R -3 m:R"


# ---- maps that are written -----------------------------------------------------------------------------------------

OBLIQUE = (10.0, 11.0, 12.0, 80.0, 95.0, 110.0)


def a_sphere(cell, ndiv, sigma=True):
    """A map on all voxels of a sphere but 000, with numbers that float32 holds."""
    half = sphere(cell, ndiv, 2.5)
    hkl, rng = np.concatenate([half, -half]), np.random.default_rng(0)
    values, errors = (rng.random((2, len(hkl))) + 1).astype(np.float32).astype(float)
    return RawMap(hkl, values, errors if sigma else None, np.ones(len(hkl), bool), ndiv, cell, "P 1")


@pytest.mark.parametrize("suffix", maps.WRITERS)
@pytest.mark.parametrize(("cell", "ndiv"), [(CELL, (1, 1, 1)), (OBLIQUE, (2, 1, 3))])
@pytest.mark.parametrize("sigma", [True, False])
def test_a_written_map_is_read_back_with_equal_numbers(tmp_path, caplog, suffix, cell, ndiv, sigma):
    path, written = tmp_path / f"map{suffix}", a_sphere(cell, ndiv, sigma)
    maps.write_map(path, written, ["a test"])
    angles_lost = suffix == ".lat" and cell == OBLIQUE
    assert ("keeps no angles" in caplog.text) == angles_lost
    given = {} if suffix in (".nxs", ".h5") else {"ndiv": ndiv}
    found = read(path, **given, **({"cell": cell} if angles_lost else {}))
    order, half = (np.lexsort(hkl.T) for hkl in (found.hkl, written.hkl))
    if suffix == ".mtz":  # one of each Friedel pair
        half = half[np.isin(half, np.arange(len(written.hkl) // 2))]
    np.testing.assert_array_equal(found.hkl[order], written.hkl[half])
    np.testing.assert_array_equal(found.intensity[order], written.intensity[half])
    if sigma and suffix != ".lat":
        np.testing.assert_array_equal(found.sigma[order], written.sigma[half])
    else:
        assert found.sigma is None
    assert (found.ndiv, found.space_group) == (ndiv, "P 1")
    np.testing.assert_allclose(found.cell, cell, rtol=1e-6)


def test_a_map_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "map.nxs").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*map.nxs"):
        maps.write_map(tmp_path / "map.nxs", a_sphere(CELL, (1, 1, 1)), ["a test"])
    assert [path.name for path in tmp_path.iterdir()] == ["map.nxs"]
