"""MTZ frames: expansion to P1 with phases, columns, and reflections that differ between files."""

import gzip

import gemmi
import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.physics import reciprocal, scattering
from hpcfit.prepare.sources import unread, with_checksums
from hpcfit.readers import mtz, mtz_frames
from hpcfit.readers.expansion import expansion
from hpcfit.readers.reflections import agree, survey
from hpcfit.store.files import sha256_of_file

CELLS = {
    "P 41": (12.0, 12.0, 15.0, 90, 90, 90),
    "P 21 21 21": (11.0, 12.0, 13.0, 90, 90, 90),
    "C 1 2 1": (14.0, 11.0, 12.0, 90, 105, 90),
    "P 31 2 1": (12.0, 12.0, 14.0, 90, 90, 120),
    "F d -3 m :2": (14.0, 14.0, 14.0, 90, 90, 90),
}
ONE = (1, 1, 1)


def crystal(group):
    """Elements and fractional coordinates of two atoms in general places, and of all their images in the cell."""
    rng = np.random.default_rng(5)
    elements, x = ["S", "O"], rng.random((2, 3))
    images = [[op.apply_to_xyz(list(a)) for a in x] for op in gemmi.find_spacegroup_by_name(group).operations()]
    return elements, np.concatenate(images)


def write(path, group, *, d_min=2.5, leave_out=(), columns=("FC", "PHIC"), cell=None):
    """The asymmetric part of the structure factors of `crystal`, without rows `leave_out`."""
    space_group, cell = gemmi.find_spacegroup_by_name(group), cell or CELLS[group]
    hkl = gemmi.make_miller_array(gemmi.UnitCell(*cell), space_group, d_min)
    elements, x = crystal(group)
    s2 = reciprocal.inverse_d2(hkl, ONE, cell)
    f = scattering.structure_factors_direct(elements * (len(x) // 2), x, hkl, s2)
    file = gemmi.Mtz(with_base=True)
    file.spacegroup = space_group
    file.set_cell_for_all(gemmi.UnitCell(*cell))
    file.add_dataset("frame")
    for name, kind in zip(columns, "FP", strict=True):
        file.add_column(name, kind)
    rows = np.column_stack([hkl, np.abs(f), np.degrees(np.angle(f))]).astype(np.float32)
    file.set_data(np.delete(rows, list(leave_out), axis=0))
    file.write_to_file(str(path))
    return path


@pytest.mark.parametrize(("columns", "words"), [
    (("PHIC", "FC"), r"'PHIC' has type P, a phase; an amplitude \(F\)"),
    (("FC", "FC"), r"'FC' has type F, an amplitude; a phase \(P\) is wanted"),
    (("H", "PHIC"), "'H' has type H, an index"),
], ids=["swapped", "no phase", "index"])  # fmt: skip
def test_columns_of_other_types_are_refused(tmp_path, columns, words):
    with pytest.raises(InputError, match=words):
        mtz.read_mtz(write(tmp_path / "a.mtz", "P 41"), columns)


@pytest.mark.parametrize("group", list(CELLS))
def test_expansion_to_p1_is_direct_summation_of_the_whole_cell(tmp_path, group):
    data = mtz.read_mtz(write(tmp_path / "a.mtz", group))
    plan = expansion(data.hkl, data.space_group)
    hkl, f = plan.hkl, plan.apply(data.structure_factors())
    elements, x = crystal(group)
    expected = scattering.structure_factors_direct(
        elements * (len(x) // 2), x, hkl, reciprocal.inverse_d2(hkl, ONE, CELLS[group])
    )
    # Amplitudes and phases are float32 in the file, phases up to 180 degrees.
    np.testing.assert_allclose(f, expected, atol=np.abs(f).max() * (6e-8 + np.pi * 1.2e-7))
    wanted = reciprocal.sphere(CELLS[group], ONE, 2.5)
    absent = set(map(tuple, wanted.tolist())) - set(map(tuple, hkl.tolist()))
    # What the file does not have is systematically absent.
    group = gemmi.find_spacegroup_by_name(group).operations()
    assert all(group.is_systematically_absent(h) for h in absent)
    assert len(hkl) + len(absent) == len(wanted)


def store_of(patterns, d_min=None, columns=None, ndiv=ONE):
    sources = [mtz_frames.open_mtz_source(str(p), "", columns, slice(None)) for p in patterns]
    reflections, presence = agree(survey([file for s in sources for file in s.reflection_files]), ndiv, d_min)
    return [source.on(reflections) for source in sources], reflections, presence


def test_a_folder_gives_frames_in_natural_order_on_common_reflections(tmp_path):
    for number, leave_out in ((1, ()), (2, (0, 5)), (10, (7,))):
        write(tmp_path / f"frame{number}.mtz", "P 41", leave_out=leave_out)
    (source,), reflections, presence = store_of([tmp_path])
    assert [p.file.name for p in presence] == ["frame1.mtz", "frame2.mtz", "frame10.mtz"]
    assert source.n_frames == 3
    frames = list(source.frames(0, 3))
    assert [frame.file for frame in frames] == [str(p.file) for p in presence]
    elements, x = crystal("P 41")
    s2 = reciprocal.inverse_d2(reflections.hkl, ONE, reflections.cell)
    assert np.all(np.diff(s2) > -1e-12)
    expected = scattering.structure_factors_direct(elements * 4, x, reflections.hkl, s2)
    for frame in frames:
        np.testing.assert_allclose(frame.structure_factors, expected, atol=1e-6 * np.abs(expected).max())
    # Every file lacks what another has; nothing is dropped without a count.
    full = presence[0].reflections
    assert presence[0].missing == 0
    for row in presence:
        assert row.missing == full - row.reflections
        assert row.unused == row.reflections - len(reflections)
    assert len(reflections) < full - presence[1].missing


def test_missing_numbers_count_as_missing_reflections(tmp_path):
    write(tmp_path / "a.mtz", "P 41")
    file = gemmi.read_mtz_file(str(write(tmp_path / "b.mtz", "P 41")))
    data = np.array(file, copy=True)
    data[3, 3] = np.nan
    file.set_data(data)
    file.write_to_file(str(tmp_path / "b.mtz"))
    _, reflections, presence = store_of([tmp_path])
    assert presence[1].missing > 0
    assert len(reflections) == presence[1].reflections


def test_resolution_limit_of_the_store(tmp_path):
    write(tmp_path / "a.mtz", "P 21 21 21")
    _, reflections, _ = store_of([tmp_path], d_min=3.5)
    assert reciprocal.inverse_d2(reflections.hkl, ONE, reflections.cell).max() <= 3.5**-2 * (1 + 1e-9)
    assert reflections.space_group == "P 21 21 21"


def test_indices_of_a_supercell_divide_its_cell(tmp_path):
    write(tmp_path / "a.mtz", "P 21 21 21")
    _, reflections, _ = store_of([tmp_path], ndiv=(2, 3, 1))
    np.testing.assert_allclose(reflections.cell[:3], (5.5, 4, 13))


def test_columns_are_found_by_themselves_or_by_name(tmp_path):
    default = mtz.read_mtz(write(tmp_path / "a.mtz", "P 41"))
    model = mtz.read_mtz(write(tmp_path / "b.mtz", "P 41", columns=("FMODEL", "PHIFMODEL")))
    named = mtz.read_mtz(write(tmp_path / "c.mtz", "P 41", columns=("FOO", "BAR")), ("FOO", "BAR"))
    np.testing.assert_array_equal(model.structure_factors(), default.structure_factors())
    np.testing.assert_array_equal(named.structure_factors(), default.structure_factors())


@pytest.mark.parametrize("columns", [("FC_ALL", "PHIC_ALL"), ("F-model", "PHIF-model"), ("FMODEL", "PHIFMODEL")])
def test_columns_of_refmac_and_phenix_are_found(tmp_path, columns):
    found, usual = (mtz.read_mtz(write(tmp_path / name, "P 41", columns=names))
                    for name, names in (("a.mtz", columns), ("b.mtz", ("FC", "PHIC"))))  # fmt: skip
    np.testing.assert_array_equal(found.structure_factors(), usual.structure_factors())


def test_compressed_files_are_frames_as_others_are(tmp_path):
    for number in range(3):
        path = write(tmp_path / f"frame{number}.mtz", "F d -3 m :2", leave_out=[number])
        if number:
            (tmp_path / f"frame{number}.mtz.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    source = mtz_frames.open_mtz_source(str(tmp_path), "", None, slice(None))
    assert [one.name for one in source.files] == ["frame0.mtz", "frame1.mtz.gz", "frame2.mtz.gz"]
    (tmp_path / "one").mkdir()
    one = write(tmp_path / "one/frame1.mtz", "F d -3 m :2", leave_out=[1])
    found, expected = mtz.read_mtz(source.files[1]), mtz.read_mtz(one)
    assert found.space_group == expected.space_group == "F d -3 m:2"
    np.testing.assert_array_equal(found.structure_factors(), expected.structure_factors())


def test_a_missing_column_lists_those_there_are(tmp_path):
    path = write(tmp_path / "a.mtz", "P 41", columns=("FOO", "BAR"))
    with pytest.raises(InputError, match=r"a.mtz has no amplitude and phase.*it has H, K, L, FOO, BAR"):
        mtz.read_mtz(path)
    with pytest.raises(InputError, match=r"a.mtz has no column 'FC'; it has H, K, L, FOO, BAR"):
        mtz.read_mtz(path, ("FC", "BAR"))


def test_files_without_common_reflections_are_named_with_both_ranges(tmp_path):
    hkl = gemmi.make_miller_array(gemmi.UnitCell(*CELLS["P 41"]), gemmi.find_spacegroup_by_name("P 41"), 2.5)
    low, high = (np.flatnonzero(hkl[:, 2] <= 2), np.flatnonzero(hkl[:, 2] > 2))
    write(tmp_path / "a.mtz", "P 41", leave_out=low)
    write(tmp_path / "b.mtz", "P 41", leave_out=high)
    with pytest.raises(
        InputError, match=r"no reflection is common(.|\n)*a.mtz: .*l 3 to \d, cell(.|\n)*b.mtz: .*l 0 to 2, cell"
    ):
        store_of([tmp_path])


def test_files_of_different_crystals_are_refused(tmp_path):
    write(tmp_path / "a.mtz", "P 41")
    write(tmp_path / "b.mtz", "P 41", cell=(12.5, 12.5, 15, 90, 90, 90))
    with pytest.raises(InputError, match=r"b.mtz has cell \(12.5.*a.mtz has \(12.0"):
        store_of([tmp_path])


def test_a_file_that_changed_after_the_store_was_begun_is_said(tmp_path):
    path = write(tmp_path / "a.mtz", "P 41")
    (source,), reflections, _ = store_of([tmp_path])
    write(path, "P 41", leave_out=(4,))
    with pytest.raises(InputError, match=f"a.mtz has .* of the {len(reflections)} reflections"):
        list(source.frames(0, 1))


def test_nothing_there_and_not_an_mtz(tmp_path):
    with pytest.raises(InputError, match="no MTZ file at"):
        mtz_frames.open_mtz_source(str(tmp_path / "*.mtz"), "", None, slice(None))
    (tmp_path / "x.mtz").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"x.mtz cannot be read as MTZ"):
        mtz.read_mtz(tmp_path / "x.mtz")


def test_a_glob_and_a_range_of_frames(tmp_path):
    for number in range(5):
        write(tmp_path / f"f{number}.mtz", "P 41", d_min=4.0)
    source = mtz_frames.open_mtz_source(str(tmp_path / "f*.mtz"), "x", None, slice(1, None, 2))
    assert ([f.name for f in source.files], source.name, source.label) == (["f1.mtz", "f3.mtz"], "f", "x")
    assert list(unread(source)) == list(source.files)


def test_checksums_find_their_sources(tmp_path):
    for number in range(5):
        write(tmp_path / f"f{number}.mtz", "P 41", d_min=4.0, leave_out=(number,) if number == 4 else ())
    pattern = str(tmp_path / "f*.mtz")
    opened = [mtz_frames.open_mtz_source(pattern, "", None, rows) for rows in (slice(0, 2), slice(2, 4), slice(3, 5))]
    checksums = [sha256_of_file(file) for source in opened for file in unread(source)]
    one, same, other = with_checksums(opened, checksums)
    assert one.digest == same.digest  # equal files, equal bytes
    assert other.digest not in (one.digest, opened[0].digest)
