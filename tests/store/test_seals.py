"""Nothing of a store is read outside a digest: whatever is changed is found, and named, before anything follows it."""

import io
import json
import os
import shutil

import h5py
import numpy as np
import pytest

from hpcfit.errors import DamagedFile, InputError
from hpcfit.store.catalog import verify_shard
from hpcfit.store.contents import open_any_store
from hpcfit.store.frame import Frame
from hpcfit.store.piece import read_header
from hpcfit.store.reference import Encoding, Reference
from hpcfit.store.seals import Seal, check_seal, hdf5_opened, hdf5_sealed
from hpcfit.store.shard import ShardPlan
from hpcfit.store.structure_factors import FactorContent, open_store
from hpcfit.store.writer import ShardWriter
from hpcfit.testsystems.harmonic_beads import HarmonicBeads, write_force_store
from hpcfit.testsystems.synthetic import Source, cubic_reflections, gaussian_frames, write_store
from tests.store.changed import changed_catalog, changed_shard, resealed
from tests.store.test_pieces import folder  # noqa: F401  (a fixture)

REFLECTIONS = cubic_reflections(2.0)
CHANGES = 40  # of each file; frames fill their chunks, which have no bytes that nobody reads


def of_factors(path, seed=0):
    """Two sources, without positions."""
    frames = gaussian_frames(128, len(REFLECTIONS), seed=seed)
    write_store(path, REFLECTIONS, [Source("one", frames[:64], "A"), Source("two", frames[64:], "B")])


def with_positions(path):
    """Structure factors with positions, forces and boxes beside them."""
    from hpcfit.store.catalog import write_catalog

    F_th, rng = gaussian_frames(64, len(REFLECTIONS), seed=0), np.random.default_rng(1)
    content = FactorContent(Reference.of_sample(REFLECTIONS, F_th), Encoding("complex64", 12, "bitshuffle-lz4"))
    plan = ShardPlan("one.h5", "one", "", "one", 0, 0, 64, "plan", store=content.begin(path, {}))
    with ShardWriter(path, plan, content) as shard:
        for row, F_h in enumerate(F_th):
            x = rng.random((4, 3))
            shard.append(Frame(row, x, 2 * x, np.diag([9.0, 9, 9]), 0.5 * row, structure_factors=F_h))
    write_catalog(path, [plan], content)


def of_forces(path):
    """Positions and forces."""
    system = HarmonicBeads(4)
    write_force_store(path, system.particles, {"one": (*system.frames(64, 1), None)})


def found_wrong(path):
    """What `hpcfit store verify` finds wrong with a store."""
    try:
        store = open_any_store(path)
        problems = [problem for number in range(len(store.shards)) for problem in verify_shard(store, number)]
        return [*problems, *filter(None, [store.content.view_objection(store.folder, store.id)])]
    except InputError as error:
        return [str(error)]


@pytest.fixture(params=[of_factors, with_positions, of_forces])
def store(request, tmp_path):
    request.param(tmp_path / "store")
    return tmp_path / "store"


def test_no_flipped_bit_of_any_file_goes_unnoticed(store):
    assert found_wrong(store) == []
    rng = np.random.default_rng(7)
    for path in sorted(store.iterdir()):
        content = path.read_bytes()
        for place in rng.integers(len(content), size=CHANGES).tolist():
            changed = bytearray(content)
            changed[place] ^= 1 << place % 8
            path.write_bytes(changed)
            same = path.suffix == ".json" and _is_the_same(changed, content)
            noticed = same or any(path.name in problem for problem in found_wrong(store))
            assert noticed or _unpacks_alike(path, content, place), (path.name, place)
        path.write_bytes(content)
    assert found_wrong(store) == []


def _is_the_same(changed, content):
    """Whether JSON says the same in other letters: white space of another sort."""
    try:
        return json.loads(changed) == json.loads(content)
    except ValueError:
        return False


def _unpacks_alike(path, content, place):
    """Whether a byte lies in a compressed chunk that gives the same values all the same: LZ4 may copy a run of zeros
    from one place as well as from another."""
    values = []
    for raw in (path.read_bytes(), content):
        with h5py.File(io.BytesIO(raw)) as file:
            found = file["hpcfit/structure_factors"]
            chunks = [found.id.get_chunk_info(number) for number in range(found.id.get_num_chunks())]
            inside = any(one.byte_offset <= place < one.byte_offset + one.size for one in chunks)
            values.append(found[()].tobytes())
    return inside and values[0] == values[1]


def test_no_cut_or_grown_file_goes_unnoticed(store):
    for path in sorted(store.iterdir()):
        content = path.read_bytes()
        for changed in (content[:-1], content[: len(content) // 2], b"", content + b"\0", content[::-1]):
            path.write_bytes(changed)
            assert any(path.name in problem for problem in found_wrong(store))
        path.write_bytes(content)


def test_a_file_that_is_none_is_named_and_nobody_waits_for_a_pipe(store):
    for path in sorted(store.iterdir()):
        kept = path.rename(store.parent / "kept")
        for make in (os.mkfifo, os.mkdir, lambda name: os.symlink(name, name)):
            make(path)
            assert any(path.name in problem for problem in found_wrong(store)), (path.name, make)
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        assert any(path.name in problem for problem in found_wrong(store))
        kept.rename(path)


CATALOGS = {
    "another type": lambda c: c["encoding"].update(dtype="complex64"),
    "a lost row": lambda c: c["shards"].pop(),
    "a repeated row": lambda c: c["shards"].append(c["shards"][0]),
    "rows exchanged": lambda c: c["shards"].reverse(),
    "no rows": lambda c: c["shards"].clear(),
    "frames -1": lambda c: c["shards"][0].update(frames=-1),
    "frames of a text": lambda c: c["shards"][0].update(frames="64"),
    "an id": lambda c: c["shards"][1].update(first_id=3),
    "a label": lambda c: c["shards"][0].update(label="B"),
    "a source": lambda c: c["shards"][0].update(source="two"),
    "a path": lambda c: c["shards"][0].update(file="../one.h5"),
    "a key": lambda c: c["shards"][0].update(bytez=c["shards"][0].pop("bytes")),
    "the content": lambda c: c.update(content="forces"),
    "an id of the store": lambda c: c.update(store="0" * 16),
    "no checksum": lambda c: c.pop("sha256"),
}


@pytest.mark.parametrize("change", CATALOGS.values(), ids=CATALOGS)
def test_a_changed_catalog_is_no_catalog(tmp_path, change):
    of_factors(tmp_path)
    catalog = tmp_path / "catalog.json"
    found = json.loads(catalog.read_text())
    change(found)
    catalog.write_text(json.dumps(found, indent=1))
    with pytest.raises(DamagedFile, match=r"catalog\.json is damaged: it differs from its checksum"):
        open_store(tmp_path)


@pytest.mark.parametrize("text", ["[]", "null", "3", '"text"', "", "{", "[" * 100_000, "\udcff", '{"schema": 2}'])
def test_what_is_no_catalog_is_named(tmp_path, text):
    of_factors(tmp_path)
    (tmp_path / "catalog.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DamagedFile, match=r"catalog\.json is "):
        open_any_store(tmp_path)


@pytest.mark.parametrize("schema", [0, 1, 3, -1, "2", None, [2], 2.5])
def test_a_catalog_of_another_schema_names_both(tmp_path, schema):
    of_factors(tmp_path)
    changed_catalog(tmp_path, lambda found: found.update(schema=schema))
    with pytest.raises(InputError, match=r"catalog\.json has schema .* reads schema 2\n.*prepare the store again") as e:
        open_any_store(tmp_path)
    assert repr(schema) in str(e.value)


@pytest.mark.parametrize("name", ["reference.h5", "store.h5"])
@pytest.mark.parametrize("schema", [1, 3, "new"])
def test_other_files_of_another_schema_name_both(tmp_path, name, schema):
    of_factors(tmp_path)
    resealed(tmp_path / name, schema=schema)
    (problem,) = found_wrong(tmp_path)
    assert f"{name} has schema {schema} " in problem
    assert "reads schema 2" in problem


def test_files_of_another_store_are_named(tmp_path):
    of_factors(tmp_path / "mine")
    of_factors(tmp_path / "other", seed=5)
    for path in sorted((tmp_path / "mine").iterdir()):
        kept = path.rename(tmp_path / "kept")
        shutil.copy(tmp_path / "other" / path.name, path)
        assert any(path.name in problem for problem in found_wrong(tmp_path / "mine")), path.name
        shutil.copy(kept, path)


def test_a_shard_made_again_from_something_else_is_not_the_one_of_the_catalog(tmp_path):
    """Of this store and place, by the same plan, and whole: only the catalog knows the one that it was written over."""
    of_factors(tmp_path)
    path = tmp_path / "one.000000.h5"
    with h5py.File(path, "r+") as file:
        file["hpcfit/source_index"][:2] = file["hpcfit/source_index"][:2][::-1]
    resealed(path)
    (problem,) = found_wrong(tmp_path)
    assert f"shard {path} says that it is number 0 of store" in problem
    assert "seal" in problem


def itself(file, name):
    """A virtual dataset of itself, which HDF5 follows without an end."""
    shape, dtype = file[name].shape, file[name].dtype
    layout = h5py.VirtualLayout(shape, dtype)
    layout[:] = h5py.VirtualSource(".", name, shape, dtype)
    del file[name]
    file.create_virtual_dataset(name, layout)


def itself_without_end(file, name):
    """The same, as long as itself."""
    shape, dtype = file[name].shape, file[name].dtype
    layout = h5py.VirtualLayout(shape, dtype, maxshape=(None, *shape[1:]))
    source = h5py.VirtualSource(".", name, shape, dtype, maxshape=(None, *shape[1:]))
    layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
    del file[name]
    file.create_virtual_dataset(name, layout)


def elsewhere(file, name):
    """A link into another file."""
    del file[name]
    file[name] = h5py.ExternalLink("other.h5", name)


def a_soft_link(file, name):
    """A link to itself."""
    del file[name]
    file[name] = h5py.SoftLink(f"/{name}")


def raw_bytes_elsewhere(file, name):
    """Values in a file that is no HDF5."""
    shape, dtype = file[name].shape, file[name].dtype
    del file[name]
    file.create_dataset(name, shape, dtype, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


REFERENCES = [itself, itself_without_end, elsewhere, a_soft_link, raw_bytes_elsewhere]


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("dataset", ["hpcfit/structure_factors", "hpcfit/checksums", "hpcfit/F0"])
def test_what_lies_elsewhere_is_refused_before_it_is_followed(tmp_path, reference, dataset):
    """By verify and by what reads frames, although every seal fits."""
    of_factors(tmp_path)
    path = tmp_path / "one.000000.h5"
    changed_shard(path, lambda file: reference(file, dataset))
    (problem,) = found_wrong(tmp_path)
    assert f"{path} is damaged: {dataset} " in problem
    with pytest.raises(DamagedFile, match=dataset), open_store(tmp_path).shard(0):
        pass


def test_a_group_elsewhere_and_one_within_itself(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x/y"] = 1.0
        file["x/again"] = file["x"]
    with hdf5_opened(tmp_path / "a.h5") as file:
        assert file["x/y"][()] == 1
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["x/z"] = h5py.ExternalLink("b.h5", "/")
    with pytest.raises(DamagedFile, match=r"a\.h5 is damaged: x/z is a link"), hdf5_opened(tmp_path / "a.h5"):
        pass


def test_a_piece_of_another_schema_or_with_values_elsewhere(folder):  # noqa: F811
    path = folder / "piece_00000.h5"
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = 0
    with pytest.raises(InputError, match=r"has schema 0 .* reads schema 1"):
        read_header(path)
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = 1
        itself(file, "particles/trajectory/position/value")
    with pytest.raises(DamagedFile, match="virtual dataset"):
        read_header(path)


def test_values_apart_are_left_out_of_a_seal_as_far_as_it_has_room(tmp_path):
    """Stretches that are too many for it are covered by it, the smallest of them."""
    path, seal = tmp_path / "x.h5", Seal("table", 1, "x")
    names = [f"v{number}" for number in range(40)]
    with hdf5_sealed(path, seal, names) as file:
        for number, name in enumerate(names):
            file.create_dataset(name, data=np.full(100 * (number + 1), float(number)), track_times=False)
            file.create_dataset(f"between {name}", data=np.zeros(3))
    check_seal(path, seal)
    with h5py.File(path) as file:
        places = {name: file[name].id.get_offset() for name in names}
    content = path.read_bytes()
    stretches = json.loads(content[:512])["apart"]
    assert 3 < len(stretches) < 40
    for name, place in places.items():
        apart = any(start <= place < stop for start, stop in stretches)
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        if apart:
            check_seal(path, seal)
        else:
            with pytest.raises(DamagedFile):
                check_seal(path, seal)
        assert apart or name != names[-1]
