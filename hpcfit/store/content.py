"""Contents of stores: each says its datasets and checks, and keeps what all frames share in one file.

Shards, catalog, dealing, verify and stream know nothing of a content but this contract.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import h5py
import numpy as np

from hpcfit import __version__
from hpcfit.errors import DamagedFile, HpcfitError, InputError
from hpcfit.store.files import NONSENSE
from hpcfit.store.frame import Frame
from hpcfit.store.seals import Seal, check_seal, hdf5_opened, hdf5_sealed
from hpcfit.store.shard import Shard, ShardPlan


class SharedFile(NamedTuple):
    """The file of a store that holds what all frames share: its name, and the format that it says it has."""

    name: str
    format: str


class Content(ABC):
    """A content is what the shards of a store hold, with what all its frames share.

    name: in config and catalog. shard: the class that reads a shard. columns: what a frame has `width` of.
    """

    name: ClassVar[str]
    shard: ClassVar[type[Shard]]
    shared: ClassVar[SharedFile]
    columns: ClassVar[str]

    # ---- what all frames share

    @property
    @abstractmethod
    def width(self) -> int:
        """The number of reflections or particles of a frame."""

    @property
    @abstractmethod
    def frame_bytes(self) -> int:
        """Bytes of a frame in a shard, before compression."""

    @abstractmethod
    def shared_digest(self) -> str:
        """The digest of what all frames share."""

    @abstractmethod
    def write_shared(self, file: h5py.File) -> None:
        """Write what all frames share as datasets of the shared file."""

    @abstractmethod
    def in_catalog(self) -> dict[str, Any]:
        """The entries of the catalog that the content reads back, by key."""

    @classmethod
    @abstractmethod
    def opened(cls, folder: Path, catalog: dict[str, Any]) -> Self:
        """The content of a store, from its catalog and its shared file; raises DamagedFile where they disagree."""

    @abstractmethod
    def store_digest(self, shards: str) -> str:
        """Identify a store for a checkpoint: by the content and by the digest of its list of shards."""

    @abstractmethod
    def facts(self) -> dict[str, str]:
        """The lines that `hpcfit store info` prints of the content, by key."""

    # ---- its shards

    @abstractmethod
    def create(self, file: h5py.File, plan: ShardPlan) -> None:
        """Create the datasets of a shard, its checksums among them."""

    @abstractmethod
    def write(self, file: h5py.File, plan: ShardPlan, start: int, frames: Sequence[Frame]) -> np.ndarray:
        """Write a block of at most 64 frames from row `start` on and return its checksums.

        Raises InputError, naming file and frame, for a frame that cannot be stored.
        """

    @abstractmethod
    def objection(self, shard: Shard) -> str:
        """Say why a sound shard is not of this content; empty if it is."""

    @abstractmethod
    def write_view(self, folder: Path, plans: Sequence[ShardPlan]) -> None:
        """Write what else a complete store has beside the shards of these plans."""

    @abstractmethod
    def view_objection(self, folder: Path, store: str) -> str:
        """Say what is wrong with that in the folder of a store of this id; empty if nothing is."""

    # ---- the file of what all frames share

    def store_id(self, settings: dict[str, str]) -> str:
        """The id of a store with these settings, 16 digits.

        It is a digest of them and of what all frames share, and so the same whoever makes the store.
        """
        decided = json.dumps([self.name, self.shared_digest(), settings], sort_keys=True)
        return hashlib.sha256(decided.encode()).hexdigest()[:16]

    def begin(self, folder: Path, settings: dict[str, str]) -> str:
        """Write the shared file before any shard; return the id of the store.

        settings: what decided the store, which a later `prepare` must have the same.
        """
        store = self.store_id(settings)
        with hdf5_sealed(folder / self.shared.name, self._shared_seal()) as file:
            file.attrs.update(
                format=self.shared.format, schema=self.shard.schema, hpcfit_version=__version__,
                settings=json.dumps(settings), store=store,
            )  # fmt: skip
            self.write_shared(file)
        return store

    @classmethod
    def is_begun(cls, folder: Path) -> bool:
        """Return True if a store of this content was begun in a folder."""
        return (folder / cls.shared.name).exists()

    @classmethod
    def begun_with(cls, folder: Path) -> tuple[str, dict[str, str]]:
        """The id of a store and its settings."""
        return cls.read_shared(folder, lambda file: (file.attrs["store"], json.loads(file.attrs["settings"])))

    @classmethod
    def read_shared(cls, folder: Path, read) -> Any:
        """Return read(file) of the shared file; raises InputError or DamagedFile that names it."""
        path = folder / cls.shared.name
        try:
            check_seal(path, cls._shared_seal(), "update hpcfit, or prepare the store anew, into another folder")
            with hdf5_opened(path) as file:
                return read(file)
        except DamagedFile as error:
            raise DamagedFile(error.what, remedy="prepare the store anew, into another folder") from None
        except HpcfitError:
            raise
        except FileNotFoundError:
            raise InputError(
                f"{folder} is not a store of {cls.name}: {path} does not exist", remedy="run `hpcfit prepare`"
            ) from None
        except NONSENSE as error:
            why = (str(error) or repr(error)).splitlines()[0]
            raise DamagedFile(f"{path} is damaged: {why}", remedy="prepare the store again") from None

    @classmethod
    def _shared_seal(cls) -> Seal:
        return Seal(cls.shared.format, cls.shard.schema, cls.shared.name)
