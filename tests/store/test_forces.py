"""Shards and catalogs of positions and forces: what is written is read, and every damage is named."""

import warnings

import h5py
import numpy as np
import pytest

from hpcfit.errors import DamagedFile, InputError
from hpcfit.store.catalog import verify_shard, write_catalog
from hpcfit.store.forces import ForceContent, ForceFrames, ForceShard, open_force_store
from hpcfit.store.frame import Frame
from hpcfit.store.particles import Particles
from hpcfit.store.positions import each_frame, read_block, write_frames
from hpcfit.store.shard import Origin, ShardPlan, open_shard
from hpcfit.store.structure_factors import open_store
from hpcfit.store.writer import ShardWriter
from tests.store.changed import changed_catalog, changed_shard

T, N = 150, 7


def beads(n=N):
    return Particles(
        tuple(f"B{i}" for i in range(n)), ("",) * n, np.arange(n), ("BEA",) * n, tuple(range(1, n + 1)), ("A",) * n,
        np.ones(n), [(i, i + 1) for i in range(n - 1)],
    )  # fmt: skip


def frames(seed=0, box=True, n=N, t=T):
    rng = np.random.default_rng(seed)
    positions, forces = rng.normal(size=(2, t, n, 3)).astype(np.float32) * [[[[10]]], [[[300]]]]
    edges = np.diag([20.0, 21.0, 22.0]) * rng.uniform(0.9, 1.1, (t, 1, 1)) if box else None
    return ForceFrames(
        positions.astype(np.float32), forces.astype(np.float32), None if edges is None else edges.astype(np.float32)
    )


def origin(t=T, first=0):
    index = np.arange(first, first + t) * 2
    return Origin(np.arange(first, first + t), [f"file{i // 40}" for i in range(t)], index, index * 0.5)


def part(all_frames, rows):
    return ForceFrames(*(None if values is None else values[rows] for values in all_frames))


def plans(store="id"):
    names = [("one", "A", 0, 0, 100), ("two", "B", 100, 0, 50)]
    return [
        ShardPlan(f"{name}.h5", name, label, f"/{name}", *numbers, name * 3, store=store, place=place)
        for place, (name, label, *numbers) in enumerate(names)
    ]


def content(n=N, box=True):
    return ForceContent.of(beads(n), box)


def write_store(folder, box=True, **more):
    everything = frames(box=box)
    content = ForceContent.of(beads(), box, **more)
    store = content.begin(folder, {"content": '"forces"'})
    for plan in plans(store):
        rows = slice(plan.first_id, plan.first_id + plan.n_frames)
        write_frames(folder, plan, content, part(everything, rows), origin(plan.n_frames))
    write_catalog(folder, plans(store), content)
    return open_force_store(folder)


def flip(path, dataset, row):
    """Change one bit of a value on the disk."""
    with h5py.File(path, "r") as file:
        found = file[dataset]
        offset = found.id.get_chunk_info(row // found.chunks[0]).byte_offset
        place = offset + (row % found.chunks[0]) * int(np.prod(found.shape[1:])) * found.dtype.itemsize
    with open(path, "r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("box", [True, False])
def test_blocks_hold_what_was_written(tmp_path, box):
    write_store(tmp_path, box=box)
    store, everything = open_force_store(tmp_path), frames(box=box)
    assert (store.n_frames, store.periodic, len(store.particles)) == (T, box, N)
    assert [block.frames for block in store.blocks()] == [64, 36, 50]
    assert [block.first_id for block in store.blocks(include=["B"])] == [100]
    for block in store.blocks():
        found = read_block(store, block)
        rows = slice(block.first_id, block.first_id + block.frames)
        for values, expected in zip(found, part(everything, rows), strict=True):
            assert (values is None and expected is None) or np.array_equal(values, expected)
        assert found.positions.dtype == found.forces.dtype == np.float32
    assert ForceContent.begun_with(tmp_path)[1] == {"content": '"forces"'}
    assert [verify_shard(store, number) for number in range(2)] == [[], []]


def test_frames_say_where_they_come_from(tmp_path):
    write_store(tmp_path)
    with open_shard(tmp_path / "two.h5", ForceShard) as shard:
        found = shard.origin(0)
        assert (shard.n_frames, shard.n_blocks) == (50, 1)
        assert shard.plan == "twotwotwo"
    expected = origin(50)
    assert found.frame_id.tolist() == list(range(100, 150))
    assert found.file == expected.file
    np.testing.assert_array_equal(found.index, expected.index)
    np.testing.assert_array_equal(found.time, expected.time)


def test_a_block_is_one_chunk_of_the_file(tmp_path):
    write_store(tmp_path)
    with h5py.File(tmp_path / "one.h5") as file:
        data = file["particles/trajectory/force/value"]
        assert data.chunks == (64, N, 3)
        assert data.dtype == np.float32
        assert data.id.get_num_chunks() == 2


def test_large_systems_have_chunks_of_4_mib(tmp_path):
    n = 6000  # 64 x 6000 x 12 bytes are more than 4 MiB
    plan, found = ShardPlan("x.h5", "x", "", "x", 0, 0, 65, ""), frames(n=n, t=65)
    write_frames(tmp_path, plan, content(n), found, origin(65))
    with h5py.File(tmp_path / "x.h5") as file:
        chunks = file["particles/trajectory/force/value"].chunks
    assert chunks == (64, (4 << 20) // (64 * 12), 3)
    with open_shard(tmp_path / "x.h5", ForceShard) as shard:
        np.testing.assert_array_equal(shard.read(0).forces, found.forces[:64])
        np.testing.assert_array_equal(shard.read(1).positions, found.positions[64:])


def test_mdanalysis_opens_a_shard(tmp_path):
    MDAnalysis = pytest.importorskip("MDAnalysis")
    write_store(tmp_path)
    everything = frames()
    universe = MDAnalysis.Universe.empty(N, trajectory=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        universe.load_new(str(tmp_path / "one.h5"), format="H5MD")
    for row in (0, 64, 99):
        step = universe.trajectory[row]
        np.testing.assert_array_equal(step.positions, everything.positions[row])
        np.testing.assert_allclose(step.forces, everything.forces[row], rtol=1e-6)  # a conversion by 1.0
        np.testing.assert_allclose(step.dimensions[:3], np.diag(everything.box[row]), rtol=1e-6)
        assert step.time == row
    universe.trajectory.close()


@pytest.mark.parametrize(("name", "dataset"), [("positions", "position"), ("forces", "force"), ("box", "box/edges")])
def test_every_bit_counts(tmp_path, name, dataset):
    store = write_store(tmp_path)
    flip(tmp_path / "one.h5", f"particles/trajectory/{dataset}/value", 70)
    (problem,) = verify_shard(store, 0)
    assert f"one.h5 is damaged: {name} of block 1, frames 64 to 99: checksum" in problem
    read_block(store, store.blocks()[0])
    with pytest.raises(DamagedFile, match=f"{name} of block 1"):
        read_block(store, store.blocks()[1])


def test_changed_rows_of_frames_are_found(tmp_path):
    store = write_store(tmp_path)
    with h5py.File(tmp_path / "one.h5", "r+") as file:
        file["particles/trajectory/time"][3] += 1
    (problem,) = verify_shard(store, 0)
    assert "differs from its checksum" in problem


def test_a_shard_of_other_particles_is_found(tmp_path):
    write_store(tmp_path)
    changed_shard(tmp_path / "one.h5", lambda file: file["hpcfit"].attrs.modify("particles", "0" * 16))
    (problem,) = verify_shard(open_force_store(tmp_path), 0)
    assert "of other particles" in problem


def test_missing_and_cut_shards(tmp_path):
    store = write_store(tmp_path)
    content = (tmp_path / "two.h5").read_bytes()
    (tmp_path / "two.h5").write_bytes(content[:-1000])
    with pytest.raises(DamagedFile, match=r"two.h5 is damaged: it has \d+ bytes, catalog.json says"):
        open_force_store(tmp_path)
    assert "differs from its checksum" in verify_shard(store, 1)[0]
    (tmp_path / "two.h5").unlink()
    with pytest.raises(InputError, match=r"two\.h5 is in catalog\.json but does not exist"):
        open_force_store(tmp_path)


def test_stores_of_the_other_content_are_refused(tmp_path):
    write_store(tmp_path)
    with pytest.raises(InputError, match="is a store of forces; this needs one of structure-factors"):
        open_store(tmp_path)
    changed_catalog(tmp_path, lambda found: found.update(content="structure-factors"))
    with pytest.raises(InputError, match="is a store of structure-factors; this needs one of forces"):
        open_force_store(tmp_path)


def test_the_digest_is_of_particles_shards_and_origin(tmp_path):
    digests = {write_store(tmp_path / "a").digest(), write_store(tmp_path / "b", made_from={"map": "optimal"}).digest()}
    assert len(digests) == 2
    assert open_force_store(tmp_path / "b").made_from == {"map": "optimal"}
    assert open_force_store(tmp_path / "b").digest() in digests
    assert write_store(tmp_path / "c").digest() in digests


def test_the_same_frames_are_the_same_bytes(tmp_path):
    everything, (plan, _) = frames(), plans()
    for folder in ("a", "b"):
        with ShardWriter(tmp_path / folder, plan, content(), "the command") as shard:
            for row in range(100):  # frame by frame, or in parts that are no blocks
                if folder == "a":
                    box = everything.box[row].astype(float)
                    shard.append(Frame(row, everything.positions[row], everything.forces[row], box, 2.0 * row))
                elif row % 50 == 0:
                    rows = slice(row, row + 50)
                    where = Origin(np.arange(50), [""] * 50, np.arange(row, row + 50), 2.0 * np.arange(row, row + 50))
                    shard.extend(each_frame(part(everything, rows), where))
    assert (tmp_path / "a/one.h5").read_bytes() == (tmp_path / "b/one.h5").read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f._replace(forces=np.full((N, 3), np.nan)), r"/one, frame 70: the force of atom 0 \(B0 of BEA 1, c"),
        (lambda f: f._replace(positions=np.full((N, 3), 1e39)), r"frame 70: the position of atom 0 .* is \[1e\+39"),
        (lambda f: f._replace(box=None), "frame 70 has no box, unlike those before"),
        (lambda f: f._replace(forces=f.forces[1:]), r"frame 70: forces of shape \[6, 3\], where the 7 particles"),
    ],
)
def test_frames_that_cannot_be_used_leave_no_shard(tmp_path, change, words):
    everything, plan = frames(), plans()[0]

    def write():
        with ShardWriter(tmp_path, plan, content()) as shard:
            for row in range(100):
                frame = Frame(row, everything.positions[row], everything.forces[row], everything.box[row])
                shard.append(change(frame) if row == 70 else frame)

    with pytest.raises(InputError, match=words):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("given", "words"), [(99, "gave 99 frames where 100"), (170, "gave more than 100 frames")])
def test_another_number_of_frames_than_announced(tmp_path, given, words):
    with pytest.raises(InputError, match=words):
        write_frames(tmp_path, plans()[0], content(), frames(t=given), origin(given))
    assert list(tmp_path.iterdir()) == []
