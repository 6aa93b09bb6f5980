"""Structure factors as the content of a store: (F - F0) / s as real pairs, with positions beside them where asked for.

A shard (schema 2) has, beside what all shards have (shard.py):

    /hpcfit/structure_factors  [frames, H, 2]   (F - F0) / s as real pairs, chunks of 64 frames x 2048 reflections
    /hpcfit/F0 [H, 2]  /hpcfit/scale [H]  /hpcfit/hkl [H, 3] (attributes ndiv, cell, space_group)
    /hpcfit  attribute reference                                    digest of F0, scale and hkl
    /hpcfit/checksums  [row chunks, column chunks]                  CRC-32 of each chunk's values
    /hpcfit/carried  [row chunks, quantities]                       CRC-32 of what is carried beside them, in order
    /particles/trajectory/{position,force,box/edges}/{value,step,time}, /h5md     H5MD 1.1, where asked for

``reference.h5`` holds reflections, F0 and s; ``store.h5`` is a virtual view [frames, reflections, 2] for h5py and
HDFView, in which a shard that went missing reads as NaN.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import h5py
import numpy as np

from hpcfit import __version__
from hpcfit.config import BLOCK_FRAMES
from hpcfit.errors import DamagedFile, InputError
from hpcfit.store.catalog import CATALOG, Store, opened_store
from hpcfit.store.content import Content, SharedFile
from hpcfit.store.files import set_units, write_rows
from hpcfit.store.frame import Frame
from hpcfit.store.h5md import ELEMENTS, Rows, TrajectoryWriter, read_rows, rows_of
from hpcfit.store.reference import (
    AMPLITUDE_UNITS,
    Encoding,
    Reference,
    centred_pairs,
    read_datasets,
    write_datasets,
)
from hpcfit.store.seals import Seal, check_seal, hdf5_sealed
from hpcfit.store.shard import Shard, ShardPlan, crc32_of, create_checksums, damaged, rows_of_block

CHUNK_REFLECTIONS = 2048
VIEW = "store.h5"


class FactorShard(Shard):
    """An open shard of structure factors."""

    format, schema = "hpcfit shard", 2
    values: ClassVar = (
        *(f"hpcfit/{name}" for name in ("structure_factors", "hkl", "F0", "scale")),
        *(f"{element.path}/value" for element in ELEMENTS.values()),
    )

    def __init__(self, path: Path, file: h5py.File, seal: str):
        import hdf5plugin  # noqa: F401  (its import is what lets HDF5 read compressed chunks)

        super().__init__(path, file, seal)
        self._data = self._group["structure_factors"]

    def reference(self) -> Reference:
        """The reflections, F0 and s; raises DamagedFile where they differ from their checksum."""
        found = read_datasets(self._group)
        if found.digest() != self._group.attrs["reference"]:
            raise damaged(self.path, "its reflections, F0 or scale differ from their checksum")
        return found

    def trajectory(self) -> Rows | None:
        """Positions and what else of H5MD the shard holds, of all frames; None without. Raises DamagedFile."""
        if "h5md" not in self._file:
            return None
        rows = read_rows(self._file)
        for block, column in np.argwhere(self._group["carried"][:] != _carried_checksums(rows)).tolist():
            (first_id, last_id), name = self._ids(block), list(rows.values)[column]
            raise damaged(self.path, f"{name} of frames {first_id} to {last_id} differ from their checksum")
        return rows

    def read(self, block: int, columns: slice) -> np.ndarray:
        """One block of at most 64 frames, ``columns`` aligned to chunks: [frames, columns, 2] in the stored type."""
        rows = rows_of_block(block)
        try:
            pairs = self._data[rows, columns]
        except OSError as error:
            raise damaged(
                self.path, f"frames {rows.start} to {rows.stop - 1} cannot be read ({str(error).splitlines()[0]})"
            ) from None
        first = columns.start // CHUNK_REFLECTIONS
        for offset, tile in enumerate(_column_tiles(pairs)):
            self._check(tile, block, first + offset)
        return pairs

    def verify(self) -> list[str]:
        """Compare every checksum; a sentence for each chunk that is damaged, naming chunk and frames."""
        problems = []
        for block, chunk in np.ndindex(*self._checksums.shape):
            start = chunk * CHUNK_REFLECTIONS
            try:
                self.read(block, slice(start, min(start + CHUNK_REFLECTIONS, self._data.shape[1])))
            except DamagedFile as error:
                problems.append(str(error).splitlines()[0])
        try:
            self.trajectory()
        except DamagedFile as error:
            problems.append(str(error).splitlines()[0])
        return problems

    def _check(self, tile: np.ndarray, block: int, chunk: int) -> None:
        expected, found = int(self._checksums[block, chunk]), zlib.crc32(tile.tobytes())
        if expected == found:
            return
        first_id, last_id = self._ids(block)
        first = chunk * CHUNK_REFLECTIONS
        raise damaged(
            self.path,
            f"chunk ({block}, {chunk}), frames {first_id} to {last_id},"
            f" reflections {first} to {first + tile.shape[1] - 1}: checksum {found:08x}, written as {expected:08x}",
        )


@dataclass(frozen=True)
class FactorContent(Content):
    """Structure factors on the reflections of a reference, centred on it, in an encoding."""

    reference: Reference
    encoding: Encoding

    name, shard, columns = "structure-factors", FactorShard, "reflections"
    shared: ClassVar = SharedFile("reference.h5", "hpcfit reference")

    @property
    def width(self) -> int:
        """Reflections of a frame."""
        return len(self.reference.reflections)

    @property
    def frame_bytes(self) -> int:
        """Bytes of a frame."""
        return 2 * self.width * self.encoding.storage.itemsize

    def shared_digest(self) -> str:
        """The digest of the reference."""
        return self.reference.digest()

    def write_shared(self, file: h5py.File) -> None:
        """Write the reference."""
        write_datasets(file, self.reference)

    def in_catalog(self) -> dict[str, Any]:
        """The digest of the reference, and the encoding."""
        return {"reference": self.reference.digest(), "encoding": self.encoding._asdict()}

    @classmethod
    def opened(cls, folder: Path, catalog: dict[str, Any]) -> Self:
        """The content of a store; raises DamagedFile unless its reference is the one that the catalog names."""
        reference = read_reference(folder)
        if reference.digest() != catalog["reference"]:
            raise DamagedFile(
                f"{folder / cls.shared.name} differs from its checksum in {CATALOG}", remedy="prepare the store again"
            )
        return cls(reference, Encoding(**catalog["encoding"]))

    def store_digest(self, shards: str) -> str:
        """The digest of reference and list of shards."""
        return hashlib.sha256(f"{self.reference.digest()} {shards}".encode()).hexdigest()[:16]

    def facts(self) -> dict[str, str]:
        """Reflections, cell and encoding."""
        from hpcfit.physics.reciprocal import inverse_d2

        reflections, encoding = self.reference.reflections, self.encoding
        inverse_d = np.sqrt(inverse_d2(reflections.hkl, reflections.ndiv, reflections.cell))
        rounded = "" if encoding.mantissa_bits is None else f", mantissas rounded to {encoding.mantissa_bits} bits"
        return {
            "reflections": f"{len(reflections)}, to {1 / inverse_d.max():.3f} A",
            "cell": " ".join(f"{value:.3f}" for value in reflections.cell) + f", {reflections.space_group}",
            "ndiv": " ".join(map(str, reflections.ndiv)),
            "stored as": f"(F - F0) / s in {encoding.dtype}{rounded}, compression {encoding.compression}",
        }

    def create(self, file: h5py.File, plan: ShardPlan) -> None:
        """Create the datasets of a shard."""
        n, H, group = plan.n_frames, self.width, file["hpcfit"]
        write_datasets(group, self.reference)
        group.attrs["reference"] = self.reference.digest()
        create_checksums(file, plan, -(-H // CHUNK_REFLECTIONS))
        chunks = (min(n, BLOCK_FRAMES), min(H, CHUNK_REFLECTIONS), 2)
        data = group.create_dataset(
            "structure_factors", (n, H, 2), self.encoding.storage, chunks=chunks, **_filters(self.encoding)
        )
        data.attrs["mantissa_bits"] = self.encoding.mantissa_bits or -1
        set_units(data, "(F - F0) / scale")

    def write(self, file: h5py.File, plan: ShardPlan, start: int, frames: Sequence[Frame]) -> np.ndarray:
        """Write a block of frames from row `start` on and return its checksums, one a chunk."""
        F_th = np.stack([frame.structure_factors for frame in frames])
        try:
            pairs = centred_pairs(F_th, self.reference, self.encoding)
        except InputError as error:
            which = f"frames {frames[0].row} to {frames[-1].row}"
            raise InputError(f"{plan.source_path}, {which}: {error}") from None
        write_rows(file["hpcfit/structure_factors"], slice(start, start + len(frames)), pairs)
        rows = rows_of(frames)
        if rows is not None:
            TrajectoryWriter(file, plan.n_frames).write(start, rows)
            self._note_carried(file["hpcfit"], plan, start, rows)
        return np.array([zlib.crc32(tile.tobytes()) for tile in _column_tiles(pairs)], "<u4")

    def _note_carried(self, group: h5py.Group, plan: ShardPlan, start: int, rows: Rows) -> None:
        """Write the checksums of what frames from row `start` on carry beside structure factors."""
        checksums = _carried_checksums(rows)
        if "carried" not in group:
            group.create_dataset("carried", (-(-plan.n_frames // BLOCK_FRAMES), checksums.shape[1]), "<u4")
        group["carried"][start // BLOCK_FRAMES] = checksums[0]

    def objection(self, shard: FactorShard) -> str:
        """Say so where a shard was written with another reference."""
        same = shard.reference().digest() == self.reference.digest()
        return "" if same else f"shard {shard.path} was written with another reference than {self.shared.name} holds"

    def write_view(self, folder: Path, plans: Sequence[ShardPlan]) -> None:
        """Write one virtual array over all shards; what is missing reads as NaN, never as zeros."""
        dtype, ends = self.encoding.storage, np.cumsum([plan.n_frames for plan in plans]).tolist()
        layout = h5py.VirtualLayout((ends[-1], self.width, 2), dtype)
        for plan, end in zip(plans, ends):
            layout[end - plan.n_frames : end] = h5py.VirtualSource(
                plan.file, "hpcfit/structure_factors", (plan.n_frames, self.width, 2), dtype
            )
        with hdf5_sealed(folder / VIEW, self._view_seal(plans[0].store)) as file:
            file.attrs.update(format="hpcfit view", schema=self.shard.schema, hpcfit_version=__version__)
            file.create_virtual_dataset("structure_factors", layout, fillvalue=dtype.type(np.nan))
            file["hkl"] = self.reference.reflections.hkl

    def view_objection(self, folder: Path, store: str) -> str:
        """Say what is wrong with the virtual array."""
        try:
            check_seal(folder / VIEW, self._view_seal(store))
        except FileNotFoundError:
            return f"{folder / VIEW} does not exist"
        except InputError as error:
            return error.what
        return ""

    def _view_seal(self, store: str) -> Seal:
        return Seal("hpcfit view", self.shard.schema, f"of store {store}")


def _carried_checksums(rows: Rows) -> np.ndarray:
    """CRC-32 of the values of rows, [blocks, quantities], as they are stored."""
    starts = range(0, len(rows.step), BLOCK_FRAMES)
    stored = {name: np.asarray(values, ELEMENTS[name].dtype) for name, values in rows.values.items()}
    parts = [[crc32_of(values[start : start + BLOCK_FRAMES]) for values in stored.values()] for start in starts]
    return np.array(parts, "<u4").reshape(len(starts), len(stored))


def _filters(encoding: Encoding) -> dict:
    if encoding.compression == "none":
        return {}
    import hdf5plugin

    return dict(hdf5plugin.Bitshuffle(cname="lz4"))


def _column_tiles(pairs: np.ndarray) -> Iterator[np.ndarray]:
    for column in range(0, pairs.shape[1], CHUNK_REFLECTIONS):
        yield np.ascontiguousarray(pairs[:, column : column + CHUNK_REFLECTIONS])


def read_reference(folder: Path) -> Reference:
    """The reference of a store."""
    return FactorContent.read_shared(folder, read_datasets)


class FactorStore(Store[FactorContent]):
    """An opened store of structure factors."""

    @property
    def reference(self) -> Reference:
        """The reflections, F0 and s."""
        return self.content.reference

    @property
    def encoding(self) -> Encoding:
        """The encoding of structure factors in the shards."""
        return self.content.encoding


def open_store(folder: Path) -> FactorStore:
    """Open a store of structure factors; raises InputError or DamagedFile naming the file."""
    return opened_store(folder, FactorContent, FactorStore)


def amplitude_unit(store: FactorStore) -> str:
    """The unit of a store's structure factors, by the radiation that it was prepared for."""
    radiation = FactorContent.begun_with(store.folder)[1].get("radiation", '"xray"')
    return AMPLITUDE_UNITS[json.loads(radiation)]
