"""A content that the program does not know goes through shards, catalog, stream and verify as the known ones do."""

import hashlib
from dataclasses import dataclass

import h5py
import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.store.catalog import frame_rows, opened_store, verify_shard, write_catalog
from hpcfit.store.content import Content, SharedFile
from hpcfit.store.frame import Frame
from hpcfit.store.shard import Shard, ShardPlan, crc32_of, create_checksums, rows_of_block
from hpcfit.store.writer import ShardWriter, has_shard
from tests.store.changed import changed_shard

T = 100


class TimeShard(Shard):
    """A shard of nothing but the times of frames."""

    format, schema, values = "test shard of times", 3, ("times",)

    def read(self, block):
        return self._file["times"][rows_of_block(block)]

    def verify(self):
        wrong = [n for n in range(self.n_blocks) if crc32_of(self.read(n)) != self._checksums[n, 0]]
        return [f"block {block}" for block in wrong]


@dataclass(frozen=True)
class TimeContent(Content):
    """Times in a unit."""

    unit: str

    name, shard, shared, columns = "times", TimeShard, SharedFile("unit.h5", "test unit"), "times"
    width, frame_bytes = 1, 8

    def shared_digest(self):
        return hashlib.sha256(self.unit.encode()).hexdigest()

    def write_shared(self, file):
        file.attrs["unit"] = self.unit

    def in_catalog(self):
        return {"content": self.name}

    @classmethod
    def opened(cls, folder, catalog):
        return cls.read_shared(folder, lambda file: cls(file.attrs["unit"]))

    def store_digest(self, shards):
        return hashlib.sha256(f"{self.unit}{shards}".encode()).hexdigest()[:16]

    def facts(self):
        return {"unit": self.unit}

    def create(self, file, plan):
        create_checksums(file, plan, 1)
        file.create_dataset("times", (plan.n_frames,), "<f8")

    def write(self, file, plan, start, frames):
        values = np.array([frame.time for frame in frames])
        file["times"][start : start + len(frames)] = values
        return np.array([crc32_of(values)])

    def objection(self, shard):
        return ""

    def write_view(self, folder, plans):
        (folder / "view").write_text(f"{sum(plan.n_frames for plan in plans)} frames")

    def view_objection(self, folder, store):
        return ""


@pytest.fixture
def store(tmp_path):
    content = TimeContent("ps")
    identity = content.begin(tmp_path, {"of": "a test"})
    plans = []
    for place, (start, stop) in enumerate([(0, 64), (64, T)]):
        plan = ShardPlan(f"{place}.h5", "one", "A", "/one", start, start, stop, f"plan {place}", {}, identity, place)
        with ShardWriter(tmp_path, plan, content) as shard:
            shard.extend(Frame(row, time=0.5 * row) for row in range(start, stop))
        assert has_shard(content, tmp_path, plan)
        plans.append(plan)
    write_catalog(tmp_path, plans, content)
    return opened_store(tmp_path, TimeContent)


def test_what_is_written_is_read(store):
    assert (store.n_frames, store.content, len(store.id)) == (T, TimeContent("ps"), 16)
    found = []
    for block in store.blocks():
        with store.shard(block.shard) as shard:
            found += shard.read(block.index).tolist()
    assert found == [0.5 * row for row in range(T)]
    assert frame_rows(store, store.blocks()).index.tolist() == list(range(T))
    assert (store.folder / "view").read_text() == "100 frames"
    assert TimeContent.begun_with(store.folder) == (store.id, {"of": "a test"})


def test_damage_and_foreign_shards_are_found(store):
    assert [verify_shard(store, number) for number in range(2)] == [[], []]
    with h5py.File(store.path(1), "r+") as file:
        file["times"][3] += 1
    assert verify_shard(store, 1) == ["block 0"]
    changed_shard(store.path(0), lambda file: file.attrs.modify("store", "of another"))
    store = opened_store(store.folder, TimeContent)
    with pytest.raises(InputError, match="number 0 of store of another, plan plan 0"), store.shard(0):
        pass


def test_the_id_follows_from_settings_and_what_frames_share(store, tmp_path):
    ids = [
        TimeContent(unit).begin(tmp_path / unit / of, {"of": of}) for unit in ("ps", "fs") for of in ("a test", "more")
    ]
    assert len(set(ids)) == 4
    assert store.id == ids[0]
