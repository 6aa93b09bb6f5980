"""A store made from other stores: other encoding and shards, parts, several in one; the values stay."""

import h5py
import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.store.reference import restored
from hpcfit.store.shard import open_shard
from hpcfit.store.structure_factors import FactorShard, open_store
from tests.prepare.test_prepare import run, runs  # noqa: F401  (a fixture)
from tests.store.test_shard import verified


def everything(folder):
    """Stored pairs [T, H, 2], F [T, H] in electrons, and (id, source file, index) of all frames of a store."""
    store = open_store(folder)
    assert verified(store) == []
    pairs, rows = [], []
    for number, entry in enumerate(store.shards):
        with open_shard(store.path(number), FactorShard) as shard:
            blocks = range(-(-entry.frames // 64))
            pairs += [shard.read(block, slice(0, len(store.reference.mean))) for block in blocks]
            rows += list(zip(*shard.frame_rows()))
    pairs = np.concatenate(pairs)
    return pairs, restored(pairs, store.reference), [(int(i), str(file), int(index)) for i, file, index in rows]


def table(store, more=""):
    return f'[[prepare.source]]\nstore = "{store}"\n{more}'


# `run` writes d_min = 2.0, which is that of the old store, and 64 frames a shard.
@pytest.mark.parametrize(
    "settings",
    [
        ["prepare.shard_frames=128"],
        ["prepare.compression=bitshuffle-lz4"],
        ["prepare.dtype=complex64"],
    ],
)
def test_another_layout_holds_the_same_values(tmp_path, runs, settings):  # noqa: F811
    run(tmp_path, store="old")
    done = run(tmp_path, *settings, sources=table("old"))
    assert (done.computed, done.fft_error) == (200, None)
    old, new = open_store(tmp_path / "old"), open_store(tmp_path / "store")
    assert new.reference.digest() == old.reference.digest()
    assert {(s.source, s.label) for s in new.shards} == {(s.source, s.label) for s in old.shards}
    (old_pairs, _, old_rows), (new_pairs, _, new_rows) = everything(tmp_path / "old"), everything(tmp_path / "store")
    np.testing.assert_array_equal(new_pairs, old_pairs)
    assert new_rows == old_rows


def test_to_a_lower_resolution_and_a_part_of_the_frames(tmp_path, runs):  # noqa: F811
    run(tmp_path, store="old")
    done = run(tmp_path, "prepare.d_min=3.0", sources=table("old", 'start = 60\nstride = 7\nlabel = "some"\n'))
    _, old, old_rows = everything(tmp_path / "old")
    _, new, rows = everything(tmp_path / "store")
    assert new.shape == (done.computed, done.width) == (2 + 10, done.width)
    chosen = [*range(60, 70, 7), *range(70 + 60, 200, 7)]
    assert [row[1:] for row in rows] == [old_rows[number][1:] for number in chosen]
    # Reflections are ordered by resolution, so that the lower resolution is their beginning.
    np.testing.assert_array_equal(new, old[chosen, : done.width])
    assert {shard.label for shard in open_store(tmp_path / "store").shards} == {"some"}


def test_two_stores_of_other_references_become_one(tmp_path, runs):  # noqa: F811
    one, two = (f'[[prepare.source]]\ntrajectory = "{name}/run.extxyz"\n' for name in ("one", "two"))
    same_box = ["prepare.cell=[6, 7, 8, 90, 95, 90]"]
    run(tmp_path, *same_box, store="a", sources=one)
    run(tmp_path, *same_box, store="b", sources=two)
    run(tmp_path, sources=table("a") + table("b"))
    parts = [everything(tmp_path / name)[1] for name in "ab"]
    found, store = everything(tmp_path / "store")[1], open_store(tmp_path / "store")
    assert [shard.source for shard in store.shards] == ["a/run.extxyz"] * 2 + ["b/run.extxyz"] * 3
    # Rounded once more: 11 bits of float16 at values of up to 8 scales.
    assert np.all(np.abs(found - np.concatenate(parts)) < 4e-3 * store.reference.scale)


def test_positions_come_along(tmp_path, runs):  # noqa: F811
    run(tmp_path, "prepare.positions=true", store="old")
    run(tmp_path, "prepare.positions=true", "prepare.shard_frames=128", sources=table("old"))
    old, new = ([h5py.File(path) for path in sorted((tmp_path / name).glob("two*.h5"))] for name in ("old", "store"))
    for name in ("position/value", "position/time", "box/edges/value"):
        before, after = (
            np.concatenate([file["particles/trajectory"][name][:] for file in files]) for files in (old, new)
        )
        np.testing.assert_array_equal(after, before)
    for file in (*old, *new):
        file.close()


TRAJECTORY = '[[prepare.source]]\ntrajectory = "one/run.extxyz"\n'


@pytest.mark.parametrize(
    ("words", "settings", "sources"),
    [
        ("old and .*other hold different reflections", [], table("old") + table("other")),
        ("old is a store, .*run.extxyz is none", [], table("old") + TRAJECTORY),
        ("supercell would have no effect", ["prepare.supercell=[2,1,1]"], table("old")),
        ("holds no positions", ["prepare.positions=true"], table("old")),
        (r"d_min = 50\.0 A leaves no reflection", ["prepare.d_min=50"], table("old")),
        ("70 frames; 70:None:1 selects none", [], table("old", "start = 70\n")),
        ("nowhere is not a complete store", [], table("nowhere")),
        ("one of `trajectory`, `mtz`, `lunus` and `store`", [], table("old", 'mtz = "mtz"\n')),
    ],
)
def test_what_cannot_be_made_of_stores_is_refused(tmp_path, runs, words, settings, sources):  # noqa: F811
    run(tmp_path, store="old")
    if "other" in sources:
        run(tmp_path, "prepare.d_min=2.5", store="other")
    with pytest.raises(InputError, match=words):
        run(tmp_path, *settings, sources=sources)


def test_a_store_cannot_be_made_of_itself(tmp_path, runs):  # noqa: F811
    run(tmp_path, store="old")
    with pytest.raises(InputError, match=r"(?s)old was prepared with .*give .*store another folder"):
        run(tmp_path, store="old", sources=table("old"))
