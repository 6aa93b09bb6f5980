"""Positions and forces as the content of a store: positions.py, with forces in kJ/mol/A beside them.

A shard (schema 2) has /particles/trajectory/force too, and checksums [blocks, 2 or 3] of positions, forces and box. A
coarse-grained store is the same, of beads; it says what it was ``made_from``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np

from hpcfit.store.catalog import opened_store
from hpcfit.store.frame import NOT_PERIODIC, PBC, PERIODIC, Frame, opened_box
from hpcfit.store.particles import Particles
from hpcfit.store.positions import ParticleStore, PositionContent, PositionShard


class ForceFrames(NamedTuple):
    """Consecutive frames. positions: [k, n, 3] float32, A; forces: [k, n, 3] float32, kJ/mol/A; box: [k, 3, 3] float32,
    A, or None."""

    positions: np.ndarray
    forces: np.ndarray
    box: np.ndarray | None = None


class ForceShard(PositionShard):
    """An open shard of positions and forces. What reads its frames takes every box as one that repeats along all of its
    vectors: see ``opened_box``."""

    format = "hpcfit force shard"
    quantities: ClassVar = ("positions", "forces", "box")
    frames: ClassVar[type] = ForceFrames

    def read(self, block: int) -> ForceFrames:
        """See ``PositionShard``."""
        found = super().read(block)
        if found.box is None or all(self.pbc):
            return found
        return found._replace(box=opened_box(found.box, self.pbc).astype(np.float32))


@dataclass(frozen=True)
class ForceContent(PositionContent):
    """Positions of particles and the forces on them; made_from: what beads were mapped from, empty for others."""

    made_from: dict[str, Any]

    name, shard = "forces", ForceShard
    stored: ClassVar = "positions (A) and forces (kJ/mol/A) in float32, H5MD"

    @classmethod
    def of(
        cls, particles: Particles, periodic: bool, made_from: dict[str, Any] | None = None, pbc: PBC = PERIODIC
    ) -> Self:
        """The content of frames whose box, where they have one, repeats along these of its vectors."""
        return cls(particles, periodic, pbc if periodic else NOT_PERIODIC, made_from or {})

    def in_catalog(self) -> dict[str, Any]:
        """The digest of the particles, whether frames are periodic, and what they were made from."""
        return {
            "content": self.name, "particles": self.particles.digest(), "periodic": self.has_box,
            "made_from": self.made_from,
        } | self._partial  # fmt: skip

    @property
    def _partial(self) -> dict[str, Any]:
        """The vectors along which a box repeats, where it does so along some only."""
        return {"pbc": list(self.pbc)} if self.has_box and not all(self.pbc) else {}

    @staticmethod
    def _from_catalog(catalog: dict[str, Any]) -> tuple:
        periodic = catalog["periodic"]
        pbc = tuple(catalog.get("pbc", PERIODIC)) if periodic else NOT_PERIODIC
        return periodic, pbc, catalog["made_from"]

    def store_digest(self, shards: str) -> str:
        """The digest of particles, the list of shards, and what the frames were made from."""
        parts = [self.particles.digest(), self.has_box, self.made_from, shards, *self._partial.values()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def facts(self) -> dict[str, str]:
        """Particles, box, and what they were made from."""
        made_from = ", ".join(f"{name} = {value}" for name, value in self.made_from.items())
        return super().facts() | ({"made from": made_from} if made_from else {})

    def _step(self, frame: Frame) -> int:
        return frame.row  # as in the stores of before frames had steps


class ForceStore(ParticleStore):
    """An opened store of positions and forces."""

    @property
    def made_from(self) -> dict[str, Any]:
        """The origin of a coarse-grained store by key; empty for others."""
        return self.content.made_from


def open_force_store(folder: Path) -> ForceStore:
    """Open a store of positions and forces; raises InputError or DamagedFile naming the file."""
    return opened_store(folder, ForceContent, ForceStore)
