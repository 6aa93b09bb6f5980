"""Shards and catalogs: what is written is read, and every damage is named with shard, chunk and frames."""

import json
import os

import h5py
import numpy as np
import pytest

from hpcfit.errors import DamagedFile, InputError
from hpcfit.store.catalog import verify_shard
from hpcfit.store.frame import Frame
from hpcfit.store.reference import Encoding, Reference, Reflections, centred_pairs, restored, round_mantissa
from hpcfit.store.shard import ShardPlan, open_shard
from hpcfit.store.stream import ByFrames, ByReflections, FromDisk, InMemory, StructureFactors
from hpcfit.store.structure_factors import FactorContent, FactorShard, open_store
from hpcfit.store.writer import ShardWriter
from hpcfit.testsystems.synthetic import Source, cubic_reflections, gaussian_frames, write_store
from tests.command import apart
from tests.store.changed import resealed

H = 2500
CELL = (30.0, 31.0, 32.0, 90.0, 90.0, 90.0)


@pytest.fixture(scope="module")
def reflections():
    return Reflections(np.random.default_rng(0).integers(-9, 10, (H, 3)).astype(np.int32), (1, 2, 1), CELL, "P 21")


@pytest.fixture(scope="module")
def F_th():
    return gaussian_frames(150, H, seed=0)


@pytest.fixture
def store(tmp_path, reflections, F_th):
    return write_store(
        tmp_path, reflections, [Source("one", F_th[:100], "A"), Source("two", F_th[100:], "B")], shard_frames=64
    )


def verified(store):
    """What is wrong with any shard."""
    return [problem for number in range(len(store.shards)) for problem in verify_shard(store, number)]


def everything(store):
    """All structure factors, [T, H], through the shards."""
    rows = []
    for number in range(len(store.shards)):
        with open_shard(store.path(number), FactorShard) as shard:
            for block in range(-(-shard.n_frames // 64)):
                rows.append(restored(shard.read(block, slice(0, H)), store.reference))
    return np.concatenate(rows)


@pytest.mark.parametrize(
    ("encoding", "relative"),
    # half a unit in the last place of the stored mantissa, relative to the deviation from F0
    [
        (Encoding("float16"), 2.0**-11),
        (Encoding("complex64"), 2.0**-24),
        (Encoding("complex64", 10, "bitshuffle-lz4"), 2.0**-11),
        (Encoding("float16", None, "bitshuffle-lz4"), 2.0**-11),
    ],
)
def test_round_trip_within_half_a_unit(tmp_path, reflections, F_th, encoding, relative):
    store = write_store(tmp_path, reflections, [Source("one", F_th)], encoding)
    delta = F_th - store.reference.mean
    error = everything(store) - F_th
    # plus rounding of F itself in float64, at |F| ~ 100, and float16's subnormal step of 6e-8 scales
    floor = 1e-13 + 6e-8 * store.reference.scale
    assert np.all(np.abs(error.real) <= 1.001 * relative * np.abs(delta.real) + floor)
    assert np.all(np.abs(error.imag) <= 1.001 * relative * np.abs(delta.imag) + floor)
    assert verified(open_store(tmp_path)) == []


def test_a_compressed_store_is_read_by_another_process(tmp_path, reflections, F_th):
    """HDF5 finds the filter only if somebody imports it: the process that wrote it always has."""
    write_store(tmp_path, reflections, [Source("one", F_th)], Encoding("complex64", 10, "bitshuffle-lz4"))
    done = apart("store", "verify", tmp_path)
    assert done.returncode == 0, done.stderr


def test_rounded_mantissas_compress(tmp_path, reflections, F_th):
    sizes = []
    for name, encoding in {"raw": Encoding("complex64"), "rounded": Encoding("complex64", 8, "bitshuffle-lz4")}.items():
        sizes.append(write_store(tmp_path / name, reflections, [Source("one", F_th)], encoding).bytes)
    assert sizes[1] < 0.65 * sizes[0]


def test_round_mantissa_keeps_that_many_bits():
    values = np.float32([1 + 2.0**-10, 1 + 2.0**-11, -(1 + 3 * 2.0**-11)])
    assert np.array_equal(round_mantissa(values, 10), np.float32([1 + 2.0**-10, 1 + 2.0**-10, -(1 + 2 * 2.0**-10)]))


def test_blocks_frames_and_reference_survive(store, reflections, F_th):
    again = open_store(store.folder)
    assert again.n_frames == 150
    assert [block.frames for block in again.blocks()] == [64, 36, 50]
    assert again.reference.reflections.ndiv == (1, 2, 1)
    assert again.reference.reflections.space_group == "P 21"
    np.testing.assert_array_equal(again.reference.mean, store.reference.mean)
    assert [block.first_id for block in again.blocks(include=["B"])] == [100]
    assert [block.first_id for block in again.blocks(exclude=["two"])] == [0, 64]


def test_no_matching_source_lists_those_there(store):
    with pytest.raises(InputError, match="one, two"):
        store.blocks(include=["three"])


def test_virtual_view_is_the_whole_store_and_nan_where_a_shard_is_missing(store, F_th):
    with h5py.File(store.folder / "store.h5") as file:
        whole = restored(file["structure_factors"][:], store.reference)
    assert np.abs(whole - F_th).max() < 0.01
    store.path(0).rename(store.folder / "elsewhere")
    with h5py.File(store.folder / "store.h5") as file:
        assert np.isnan(file["structure_factors"][:64]).all()
        assert not np.isnan(file["structure_factors"][64:]).any()
    with pytest.raises(InputError, match="does not exist"):
        open_store(store.folder)


def test_chunks_and_provenance(store):
    with h5py.File(store.path(0)) as file:
        assert file["hpcfit/structure_factors"].chunks == (64, 2048, 2)
        for name in ("schema", "hpcfit_version", "command", "inputs", "plan"):
            assert name in file.attrs


def flip_byte(path, offset=None):
    """One bit of the structure factors on the disk, found through HDF5's own address of the first chunk."""
    with h5py.File(path) as file:
        chunk = file["hpcfit/structure_factors"].id.get_chunk_info(0)
    with open(path, "r+b") as raw:
        raw.seek(chunk.byte_offset + 1000)
        value = raw.read(1)[0]
        raw.seek(chunk.byte_offset + 1000)
        raw.write(bytes([value ^ 4]))


def test_a_flipped_bit_names_shard_chunk_and_frames(store):
    flip_byte(store.path(1))
    (problem,) = verified(open_store(store.folder))
    assert store.shards[1].file in problem
    assert "chunk (0, 0), frames 64 to 99, reflections 0 to 2047" in problem
    with (
        open_shard(store.path(1), FactorShard) as shard,
        pytest.raises(DamagedFile, match="run `hpcfit prepare` again"),
    ):
        shard.read(0, slice(0, H))


def test_a_shard_of_another_place_or_store_is_refused(store):
    os.replace(store.path(0), store.folder / "kept")
    os.link(store.path(1), store.path(0))
    (problem,) = verify_shard(store, 0)
    assert f"shard {store.path(0)} says that it is number 1 of store {store.id}" in problem
    with pytest.raises(InputError, match="put the store's own file back"):
        StructureFactors(store, store.blocks()[:1], COLUMNS).read_all()


def test_a_truncated_shard_is_named_with_both_sizes(store):
    size = store.path(0).stat().st_size
    os.truncate(store.path(0), size // 2)
    with pytest.raises(DamagedFile, match=f"{size // 2} bytes, catalog.json says {size}"):
        open_store(store.folder)
    with pytest.raises(DamagedFile, match="differs from its checksum"), open_shard(store.path(0), FactorShard):
        pass


def test_a_changed_header_is_found(store):
    with h5py.File(store.path(0), "r+") as file:
        file["hpcfit/scale"][3] *= 2
    assert any("differ from their checksum" in problem for problem in verified(open_store(store.folder)))


@pytest.mark.parametrize("schema", [1, 99, "two"])
def test_another_schema_names_both_and_says_to_update(store, schema):
    resealed(store.path(0), schema=schema)
    both = rf"schema {schema} .* reads schema 2 of a hpcfit shard\n.*update hpcfit"
    with pytest.raises(InputError, match=both), open_shard(store.path(0), FactorShard):
        pass


def test_a_failed_writer_leaves_nothing(tmp_path, reflections, F_th):
    reference = Reference.of_sample(reflections, F_th)
    plan = ShardPlan("x.h5", "x", "", "x", 0, 0, 100, "")

    def write_and_fail():
        with ShardWriter(tmp_path, plan, FactorContent(reference, Encoding())) as shard:
            for frame in F_th[:70]:
                shard.append(Frame(0, structure_factors=frame))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert list(tmp_path.iterdir()) == []


def test_too_few_frames_are_an_error_and_no_shard(tmp_path, reflections, F_th):
    reference = Reference.of_sample(reflections, F_th)
    plan = ShardPlan("x.h5", "x", "", "x", 0, 0, 3, "")

    def write_two():
        with ShardWriter(tmp_path, plan, FactorContent(reference, Encoding())) as shard:
            shard.append(Frame(0, structure_factors=F_th[0]))
            shard.append(Frame(1, structure_factors=F_th[1]))

    with pytest.raises(InputError, match="gave 2 frames where 3 were announced"):
        write_two()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [np.nan, 1e12])
def test_nan_and_overflow_name_reflection_and_frames(tmp_path, reflections, F_th, bad):
    reference = Reference.of_sample(reflections, F_th)
    broken = F_th[0].copy()
    broken[7] = bad
    plan = ShardPlan("x.h5", "x", "", "x.dcd", 0, 5, 6, "")
    with (
        pytest.raises(InputError, match=r"x\.dcd, frames 5 to 5: structure factor F\("),
        ShardWriter(tmp_path, plan, FactorContent(reference, Encoding())) as shard,
    ):
        shard.append(Frame(5, structure_factors=broken))


def test_frames_that_do_not_move_get_a_scale(reflections):
    F_h = gaussian_frames(1, H, seed=1)
    reference = Reference.of_sample(reflections, F_h)
    assert np.all(reference.scale > 0)
    assert np.all(centred_pairs(F_h, reference, Encoding()) == 0)


def test_positions_are_h5md_for_mdanalysis(tmp_path, reflections, F_th):
    MDAnalysis = pytest.importorskip("MDAnalysis")
    reference = Reference.of_sample(reflections, F_th)
    xyz = np.random.default_rng(0).random((3, 11, 3)).astype(np.float32) * 20
    plan = ShardPlan("x.h5", "x", "", "x", 0, 0, 3, "")
    with ShardWriter(tmp_path, plan, FactorContent(reference, Encoding())) as shard:
        for t in range(3):
            values = {"positions": xyz[t], "box": np.diag([20.0, 21, 22]), "forces": 2 * xyz[t], "time": 0.5 * t}
            shard.append(Frame(t, structure_factors=F_th[t], **values))
    universe = MDAnalysis.Universe.empty(11, trajectory=True)
    universe.load_new(str(tmp_path / "x.h5"), format="H5MD")
    for t, step in enumerate(universe.trajectory):
        np.testing.assert_allclose(step.positions, xyz[t])
        np.testing.assert_allclose(step.forces, 2 * xyz[t])
        np.testing.assert_allclose(step.dimensions, [20, 21, 22, 90, 90, 90])
        assert step.time == pytest.approx(0.5 * t)


COLUMNS = np.array([[2100, 3, -1, 2047], [2499, 2048, 0, -1]])


def expected_at(store, column):
    """The centred structure factors of all frames at a column; 0 where there is none."""
    if column < 0:
        return 0
    return (everything(store)[:, column] - store.reference.mean[column]) / store.reference.scale[column]


def assert_holds(store, values, columns):
    """values: [tiles, frames with padding, width, 2], of all blocks."""
    held = np.concatenate([block.ids() for block in store.blocks()]) >= 0
    assert np.all(values[:, ~held] == 0)
    for tile, place in np.ndindex(columns.shape):
        found = values[tile, held, place].astype(float).view(complex)[:, 0]
        np.testing.assert_allclose(found, expected_at(store, columns[tile, place]), atol=1e-9)


@pytest.mark.parametrize("reader", [InMemory, FromDisk])
def test_stream_gives_the_columns_asked_for(store, reader, monkeypatch):
    monkeypatch.setattr("hpcfit.store.stream.CHUNK_BYTES", 1)  # a chunk a block
    stream = reader(ByFrames(StructureFactors(store, store.blocks(), COLUMNS)), np.array)
    for _ in range(2):
        chunks = list(stream.chunks())
        assert [chunk.data.shape for chunk in chunks] == [(2, 1, 64, 8)] * 3
        assert [(chunk.rows, chunk.tiles) for chunk in chunks] == [(slice(n, n + 1), slice(0, 2)) for n in range(3)]
        assert_holds(store, np.concatenate([chunk.data.reshape(2, 64, 4, 2) for chunk in chunks], axis=1), COLUMNS)


@pytest.mark.parametrize("reader", [InMemory, FromDisk])
@pytest.mark.parametrize("chunk_bytes", [1, 1 << 20])
def test_stream_gives_tiles_in_strips_with_all_frames(store, reader, chunk_bytes, monkeypatch):
    """Two tiles of two strips of two columns: a chunk a tile where chunks are small, else one chunk."""
    monkeypatch.setattr("hpcfit.store.stream.CHUNK_BYTES", chunk_bytes)
    strips = COLUMNS.reshape(4, 2)
    stream = reader(ByReflections(StructureFactors(store, store.blocks(), strips), 2), np.array)
    for _ in range(2):
        chunks = list(stream.chunks())
        assert [chunk.data.shape for chunk in chunks] == (
            [(1, 2, 192, 4)] * 2 if chunk_bytes == 1 else [(2, 2, 192, 4)]
        )
        assert [chunk.tiles.start for chunk in chunks] == ([0, 1] if chunk_bytes == 1 else [0])
        assert all(chunk.rows == slice(0, 3) for chunk in chunks)
        assert all(chunk.data.flags.c_contiguous for chunk in chunks)
        assert_holds(store, np.concatenate([chunk.data for chunk in chunks]).reshape(4, 192, 2, 2), strips)


def test_a_catalog_of_a_newer_schema(store):
    path = store.folder / "catalog.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 7}))
    with pytest.raises(InputError, match="schema 7"):
        open_store(store.folder)


def test_a_folder_that_is_no_store(tmp_path):
    with pytest.raises(InputError, match="not a complete store"):
        open_store(tmp_path)


def test_cubic_reflections_are_the_hemisphere():
    hkl = cubic_reflections(2.0).hkl
    # half the lattice points in a sphere of radius 5, without the origin: 515 points in all (OEIS A000605)
    assert len(hkl) == (515 - 1) // 2
