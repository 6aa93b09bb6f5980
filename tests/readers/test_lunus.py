"""LUNUS checkpoints as frames: values, Friedel mates, ranges, weights, and every way a file can be wrong.

No checkpoint of a real run can be had here; `write_checkpoint` lays one out as the program's source does.
"""

import csv

import h5py
import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.frame_weights.prior import open_prior
from hpcfit.kinds.table import load_config
from hpcfit.physics import reciprocal
from hpcfit.prepare import command as prepare
from hpcfit.ranks import Ranks
from hpcfit.readers import lunus as lunus_source
from hpcfit.readers.reflections import agree, survey
from hpcfit.store.structure_factors import open_store
from tests.prepare.test_prepare import CELL, D_MIN, folder  # noqa: F401  (a fixture)
from tests.readers.test_other_store import everything

ONE = (1, 1, 1)
FRAMES = 70


def write_checkpoint(path, hkl, f_th, *, weights=None, group="P 1", cell=CELL):
    """F [T, H] at hkl [H, 3], in the groups, names and types of xtraj.py."""
    with h5py.File(path, "w") as file:
        file.attrs["NX_class"] = "NXroot"
        file["entry/sample/unit_cell"] = cell
        file["entry/sample/unit_cell"].attrs["units"] = "angstrom"
        file["entry/sample/unit_cell_group"] = group
        file["entry/reflections/hkl"] = np.asarray(hkl, float)
        file["entry/reflections/diffuse"] = np.ones(len(hkl))
        file["entry/data/fcalc_list"] = np.stack([f_th.real, f_th.imag], axis=-1).astype(np.float32)
        file["entry/data/weights"] = np.ones(len(f_th), np.float32) if weights is None else np.float32(weights)
    return path


def at_random(hkl, frames=FRAMES, seed=0):
    """F [frames, H] around a common mean."""
    mean, *drawn = np.random.default_rng(seed).normal(size=(frames + 1, len(hkl), 2)) @ [10, 10j]
    return 3 * mean + np.array(drawn)


def jumbled(seed=1):
    """Reflections of the sphere in no order, a third of them as the other Friedel mate, and 000."""
    rng = np.random.default_rng(seed)
    hkl = rng.permutation(reciprocal.sphere(CELL, ONE, D_MIN))
    hkl[::3] *= -1
    return np.concatenate([[[0, 0, 0]], hkl])


@pytest.fixture
def checkpoint(tmp_path):
    """A file of 70 frames, its hkl and F as float32 has them."""
    hkl = jumbled()
    f_th = at_random(hkl).astype(np.complex64)
    return write_checkpoint(tmp_path / "checkpoint.nxs", hkl, f_th), hkl, f_th


def on_itself(path, frames=slice(None), ndiv=ONE):
    source = lunus_source.open_lunus(path, "", frames)
    return source.on(agree(survey(source.reflection_files), ndiv, None)[0])


def expected(f_th, hkl, wanted):
    """F at wanted reflections by a dictionary: F(-h) = F(h)*."""
    known = {tuple(h): f for h, f in zip(hkl.tolist(), f_th.T)}
    known |= {tuple(-i for i in h): f.conj() for h, f in known.items()}
    return np.stack([known[tuple(h)] for h in wanted.tolist()], axis=1)


def test_frames_come_in_order_on_one_hemisphere(checkpoint):
    path, hkl, f_th = checkpoint
    source = on_itself(path)
    wanted = source.reflections.hkl
    np.testing.assert_array_equal(wanted, reciprocal.sphere(CELL, ONE, D_MIN))
    found = list(source.frames(0, FRAMES))
    assert [frame.row for frame in found] == list(range(FRAMES))
    # Equal to the bit: what is float32 in the file is only conjugated.
    np.testing.assert_array_equal([frame.structure_factors for frame in found], expected(f_th, hkl, wanted))


def test_a_range_of_frames(checkpoint):
    path, hkl, f_th = checkpoint
    source = on_itself(path, slice(10, 50, 7))
    assert source.n_frames == 6
    found = list(source.frames(2, 4))
    assert [frame.row for frame in found] == [24, 31]
    np.testing.assert_array_equal(
        [frame.structure_factors for frame in found], expected(f_th[[24, 31]], hkl, source.reflections.hkl)
    )
    with pytest.raises(InputError, match=r"has 70 frames; 70:None:1 selects none"):
        lunus_source.open_lunus(path, "", slice(70, None, 1))


def test_one_frame_is_read_at_a_time(tmp_path):
    hkl = jumbled()
    f_th = at_random(hkl, 3)
    f_th[2, 5] = np.nan
    frames = on_itself(write_checkpoint(tmp_path / "c.nxs", hkl, f_th)).frames(0, 3)
    next(frames), next(frames)  # what is wrong in the third is not known yet
    where = ", ".join(map(str, hkl[5]))
    with pytest.raises(InputError, match=rf"c.nxs, frame 2: .* at hkl \({where}\) is \(nan.*1 of {len(hkl)} are not"):
        next(frames)


def test_the_space_group_is_a_label_and_makes_no_mates(tmp_path):
    """In P 2 (unique b) the mate of (1, 2, 3) would be (-1, 2, -3); the cell of the frames need not have it."""
    path = write_checkpoint(tmp_path / "c.nxs", [[1, 2, 3], [2, 0, 1]], np.ones((2, 2)) + 1j, group="P 1 2 1")
    source = on_itself(path)
    assert sorted(source.reflections.hkl.tolist()) == [[1, 2, 3], [2, 0, 1]]
    assert source.reflections.space_group == "P 1 2 1"


def test_the_cell_is_that_of_the_integers(checkpoint):
    assert on_itself(checkpoint[0], ndiv=(2, 1, 1)).reflections.cell == (3.0, *CELL[1:])


def config(tmp_path, sources):
    text = f'[frames]\nstore = "store"\n[prepare]\nshard_frames = 64\nsample = 10\n{sources}'
    (tmp_path / "config.toml").write_text(text)
    return load_config(tmp_path / "config.toml", [])


def run(tmp_path, sources='[[prepare.source]]\nlunus = "checkpoint.nxs"\n'):
    return prepare.run_prepare(config(tmp_path, sources), Ranks())


def test_prepare_makes_a_store_of_a_checkpoint(tmp_path, checkpoint):
    path, hkl, f_th = checkpoint
    done = run(tmp_path)
    assert (done.computed, done.fft_error) == (FRAMES, None)
    _, found, rows = everything(tmp_path / "store")
    assert rows == [(number, str(path), number) for number in range(FRAMES)]
    reference = open_store(tmp_path / "store").reference
    wanted = expected(f_th, hkl, reference.reflections.hkl)
    # 11 bits of float16, at deviations of up to 8 scales
    assert np.all(np.abs(found - wanted) < 8 * 2.0**-11 * reference.scale)
    assert run(tmp_path).computed == 0


def test_several_checkpoints_and_mtz_files_share_a_store(tmp_path, checkpoint, folder):  # noqa: F811
    hkl = jumbled()[:-4]  # lacks reflections that the others have
    for number in (2, 10):
        write_checkpoint(tmp_path / f"part{number}.nxs", hkl, at_random(hkl, 5, seed=number), weights=[number] * 5)
    lunus = '[[prepare.source]]\nlunus = "part*.nxs"\nlabel = "parts"\n'
    done = run(tmp_path, lunus + '[[prepare.source]]\nmtz = "mtz"\n')
    shards = open_store(tmp_path / "store").shards
    assert [(s.source, s.label, s.frames) for s in shards] == [
        ("part2.nxs", "parts", 5), ("part10.nxs", "parts", 5), ("mtz", "", 5),
    ]  # fmt: skip
    assert done.width < len(hkl) - 1  # the MTZ files lack two more
    assert given_weights(tmp_path) == {str(n): "2.0" for n in range(5)} | {str(n): "10.0" for n in range(5, 10)}


def given_weights(tmp_path):
    with open(tmp_path / "store" / "lunus_weights.csv", newline="") as file:
        return {row["frame"]: row["weight"] for row in csv.DictReader(file)}


def test_weights_become_a_prior(tmp_path):
    hkl, weights = jumbled(), np.random.default_rng(3).random(FRAMES) + 0.1
    write_checkpoint(tmp_path / "checkpoint.nxs", hkl, at_random(hkl), weights=weights)
    run(tmp_path)
    store = open_store(tmp_path / "store")
    prior = open_prior(tmp_path / "store" / "lunus_weights.csv", store, store.blocks())
    # float32 in the file, exact in the text
    np.testing.assert_allclose(np.exp(prior.log_weight), weights / weights.sum(), rtol=3e-7)


def test_weights_of_zero_are_kept_and_said(tmp_path, caplog):
    hkl, weights = jumbled(), np.ones(FRAMES)
    weights[[3, 9]] = 0
    write_checkpoint(tmp_path / "checkpoint.nxs", hkl, at_random(hkl), weights=weights)
    run(tmp_path)
    assert [frame for frame, weight in given_weights(tmp_path).items() if weight == "0.0"] == ["3", "9"]
    assert "2 of 70 weights in" in caplog.text
    store = open_store(tmp_path / "store")
    with pytest.raises(InputError, match=r"the weight of frame 3 is 0\.0"):
        open_prior(tmp_path / "store" / "lunus_weights.csv", store, store.blocks())


def test_frames_without_weights_leave_no_file(tmp_path, checkpoint):
    with h5py.File(checkpoint[0], "a") as file:
        del file["entry/data/weights"]
    run(tmp_path)
    assert not (tmp_path / "store" / "lunus_weights.csv").exists()


def replaced(name, values):
    def change(file):
        del file[name]
        file[name] = values

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda file: file.pop("entry/data/fcalc_list"),
            r"no dataset entry/data/fcalc_list; it has entry/data/weights",
        ),
        (lambda file: file.pop("entry/reflections/hkl"), "no dataset entry/reflections/hkl"),
        (lambda file: file.pop("entry/sample/unit_cell"), "no dataset entry/sample/unit_cell;"),
        (replaced("entry/data/fcalc_list", np.ones((3, 7, 2))), r"shape \(3, 7, 2\), .*hkl has (\d+) .*\[T, \1, 2\]"),
        (replaced("entry/data/fcalc_list", np.ones((3, 7))), r"shape \(3, 7\), .*expected \[T"),
        (replaced("entry/reflections/hkl", np.ones((7, 2))), r"hkl of shape \(7, 2\) are not integers"),
        (replaced("entry/reflections/hkl", np.full((7, 3), 0.5)), "are not integers"),
        (replaced("entry/sample/unit_cell", [6.0, 7, 8]), r"unit_cell = \(6.0, 7.0, 8.0\) are not six positive"),
        (replaced("entry/data/weights", np.ones(69)), r"weights has shape \(69,\), .* has 70 frames"),
        (replaced("entry/data/weights", np.r_[np.ones(69), np.nan]), "the weight of frame 69 is nan"),
        (replaced("entry/data/weights", np.r_[-1, np.ones(69)]), r"the weight of frame 0 is -1\.0"),
    ],
)
def test_a_file_that_is_no_whole_checkpoint_is_refused(checkpoint, change, words):
    with h5py.File(checkpoint[0], "a") as file:
        change(file)
    with pytest.raises(InputError, match=rf"checkpoint\.nxs.*{words}"):
        lunus_source.open_lunus(checkpoint[0], "", slice(None))


def test_a_frame_that_no_rank_wrote_is_refused(tmp_path, checkpoint):
    with h5py.File(checkpoint[0], "a") as file:
        file["entry/data/fcalc_list"][69] = 0
    with pytest.raises(InputError, match=r"checkpoint\.nxs, frame 69: all structure factors are 0"):
        run(tmp_path)


def test_a_truncated_file_and_one_that_is_no_hdf5(tmp_path, checkpoint):
    path = checkpoint[0]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"checkpoint\.nxs cannot be read as HDF5: .*truncated"):
        lunus_source.open_lunus(path, "", slice(None))
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"checkpoint\.nxs cannot be read as HDF5"):
        lunus_source.open_lunus(path, "", slice(None))


def test_a_file_that_changed_after_the_store_was_begun_is_said(checkpoint):
    path, hkl, f_th = checkpoint
    source = on_itself(path)
    write_checkpoint(path, hkl[:-1], f_th[:, :-1])
    n = len(source.reflections)
    with pytest.raises(InputError, match=f"has {n - 1} of the {n} reflections"):
        next(source.frames(0, 1))


@pytest.mark.parametrize(
    ("sources", "words"),
    [
        ('[[prepare.source]]\nlunus = "no*.nxs"\n', r"no LUNUS checkpoint at .*no\*\.nxs"),
        ('[[prepare.source]]\nlunus = "a.nxs"\nmtz = "mtz"\n', r"this one has \['mtz', 'lunus'\]"),
        ('[[prepare.source]]\nlunus = "checkpoint.nxs"\ncolumns = ["a", "b"]\n', "columns of MTZ files"),
    ],
)
def test_impossible_sources(tmp_path, checkpoint, sources, words):
    with pytest.raises(InputError, match=words):
        run(tmp_path, sources)
