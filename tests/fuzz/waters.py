"""Frames of a few waters, which files of most formats hold, and trajectories read as `hpcfit prepare` reads them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from hpcfit.config import SourceConfig
from hpcfit.physics.scattering import orthogonalization
from hpcfit.prepare.particles import agreed_content, open_source
from hpcfit.prepare.sources import Entry
from hpcfit.store.shard import ShardPlan
from hpcfit.testsystems.water_dimer import write_topology
from tests.fuzz.plain_readers import Found

ELEMENTS = ("O", "H", "H") * 2
MANY = ("O", "H", "H") * 5
CELL = (12.0, 13.0, 14.0, 90.0, 80.0, 90.0)
WATER = np.array([[0.0, 0, 0], [0.9572, 0, 0], [-0.24, 0.9266, 0]])


class Frames(NamedTuple):
    """positions [T, n, 3] A, forces [T, n, 3] kJ/mol/A, box [3, 3] A."""

    positions: np.ndarray
    forces: np.ndarray
    box: np.ndarray


def frames(elements=ELEMENTS, count=3) -> Frames:
    """Waters that move."""
    rng, n = np.random.default_rng(5), len(elements)
    places = np.array([[1.0, 2, 3], [5, 6, 7], [9, 2, 10], [3, 9, 2], [7, 10, 12]])[: n // 3]
    still = (places[:, None] + WATER).reshape(n, 3)
    positions = np.round(still + 0.05 * rng.normal(size=(count, n, 3)), 3)
    return Frames(positions, np.round(200 * rng.normal(size=(count, n, 3)), 4), np.round(orthogonalization(CELL).T, 6))


def prepared(file: str, forces: bool = False, waters: int = 0, **keys: Any) -> Callable[[Path], Found]:
    """A reader of all frames, as `hpcfit prepare` reads and stores them. waters: of its topology, where it needs one;
    keys: of its source beside these."""

    def read(folder: Path) -> Found:
        named = {"arrays" if file.endswith(".npz") else "trajectory": [str(folder / file)]} | keys
        if waters:
            named["topology"] = folder / "topology.pdb"
            if not named["topology"].exists():
                write_topology(named["topology"], waters, frames(MANY).positions[0])
        source = open_source(forces, None, Entry(SourceConfig(**named), folder / file))
        found = list(source.frames(0, source.n_frames))
        content = agreed_content("forces" if forces else "positions", [source], lambda _: None)
        plan = ShardPlan(file, file, "", str(source.path), 0, 0, len(found), "")
        with h5py.File("shard", "w", driver="core", backing_store=False) as shard:
            content.write(shard, plan, 0, found)  # which refuses what no frame can be
        none = np.full((3, 3), np.nan)
        arrays = {"positions": [frame.positions for frame in found],
                  "box": [none if frame.box is None else frame.box for frame in found]}  # fmt: skip
        for name in ("forces", "time", "step"):
            values = [getattr(frame, name) for frame in found]
            if any(value is not None for value in values):
                arrays[name] = [np.nan if value is None else value for value in values]
        if not waters:
            arrays["elements"] = source.reader.topology.elements
        arrays["pbc"] = [frame.pbc for frame in found]
        return {name: np.array(values) for name, values in arrays.items()}

    return read
