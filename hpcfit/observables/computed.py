"""Numbers of frames that are computed from their positions: distances, torsions, scattering, as tables of data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hpcfit.config.observables.averages import AveragedConfig
from hpcfit.errors import InputError
from hpcfit.observables.geometry import Distances, Torsions
from hpcfit.observables.nmr import NoeDistances
from hpcfit.observables.observable import over_frames
from hpcfit.observables.scattering import DebyeIntensity, form_factors
from hpcfit.readers.tables import number
from hpcfit.store.catalog import Store
from hpcfit.store.contents import open_any_store
from hpcfit.store.positions import PositionContent, read_block


class PositionTable:
    """As ``readers.tables.NumberTable``: the numbers of an observable of the frames of a store of positions, A.

    Each rank computes those of the frames that it asks for; every frame is computed by itself.
    """

    def __init__(self, config: AveragedConfig, names: Sequence[str], power: int):
        self.path, self.names = config.positions, tuple(names)
        store = _opened(config.positions)
        self.n_rows = store.n_frames
        self._observable = _observable(config, self.names, power, store)

    @cached_property
    def _store(self) -> Store:
        return _opened(self.path)

    def __getstate__(self) -> dict[str, Any]:
        """Without the open store: each rank opens it itself."""
        return {key: value for key, value in vars(self).items() if key != "_store"}

    def digest(self) -> str:
        """Identifies the frames."""
        return self._store.digest()

    def sources_and_labels(self) -> tuple[list[str], list[str]]:
        """The name of each frame's source, and the label of that, "" without one."""
        frames = [(self._store.shards[block.shard], block.frames) for block in self._store.blocks()]
        return [s.source for s, n in frames for _ in range(n)], [s.label for s, n in frames for _ in range(n)]

    def rows(self, chosen: slice) -> np.ndarray:
        """The numbers of some frames, [n, columns] float64."""
        start, stop, _ = chosen.indices(self.n_rows)
        found = np.zeros((stop - start, len(self.names)))
        for block in self._store.blocks():
            first, last = max(block.first_id, start), min(block.first_id + block.frames, stop)
            if first < last:
                frames = read_block(self._store, block)
                values = np.asarray(_of_frames(self._observable, *_padded(frames)))
                found[first - start : last - start] = values[first - block.first_id : last - block.first_id]
        return found


def _opened(folder: Path) -> Store:
    store = open_any_store(folder)
    if not isinstance(store.content, PositionContent):
        raise InputError(
            f"positions = {folder} is a store of {store.content.name}",
            remedy='prepare one of the same frames with [prepare] content = "positions"',
        )
    return store


def _padded(frames: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Positions [64, n, 3] and boxes of a block, the last frame repeated where it has fewer: one shape, one program."""
    rows = np.minimum(np.arange(64), len(frames.positions) - 1)
    box = None if frames.box is None else np.asarray(frames.box, float)[rows]
    return np.asarray(frames.positions, float)[rows], box


@jax.jit
def _of_frames(observable: Any, positions: Any, boxes: Any) -> Any:
    return over_frames(lambda x, box: observable.of_average(observable.of_frame(x, box)))(positions, boxes)


def _observable(config: AveragedConfig, names: tuple[str, ...], power: int, store: Store) -> Any:
    if config.observable == "scattering":
        return _scattering(config, names, store)
    rows = config.atoms or []
    if len(rows) != len(names):
        raise InputError(
            f"data '{config.name}': atoms has {len(rows)} rows, {config.measured} has {len(names)} data",
            remedy="give the atoms of each datum",
        )
    width, what = (4, "torsion") if config.observable == "torsions" else (2, "distance")
    sides = [[side if isinstance(side, list) else [side] for side in row] for row in rows]
    n = len(store.content.particles)
    for row, given in zip(sides, rows):
        atoms = [atom for side in row for atom in side]
        if len(row) != width or len(set(atoms)) < len(atoms) or not all(0 <= atom < n for atom in atoms):
            raise InputError(
                f"data '{config.name}': atoms has {given} for a {what}, and {store.folder} has {n} atoms",
                remedy=f"give {width} different atoms, or groups of them for distances, counted from 0",
            )
    single = all(len(side) == 1 for row in sides for side in row)
    if config.observable == "torsions" and single:
        return Torsions(tuple(tuple(side[0] for side in row) for row in sides))
    if power:  # of each frame (sum over pairs of r^-p / n)^(-1/p), whose mean of r^-p is that of all pairs
        return NoeDistances(tuple((tuple(left), tuple(right)) for left, right in sides), power, divided=True)
    if not single:
        raise InputError(
            f"data '{config.name}': groups of atoms need single atoms for torsions, and a power for distances",
            remedy="give power = 6 or 3, or single atoms",
        )
    return Distances(tuple((left[0], right[0]) for left, right in sides))


def _scattering(config: AveragedConfig, names: tuple[str, ...], store: Store) -> DebyeIntensity:
    q = [number(name) for name in names]
    if any(one is None or not 0 <= one < 50 for one in q):
        raise InputError(
            f"data '{config.name}': {config.measured} names its data '{names[0]}' ...", remedy="give q, 1/A, as names"
        )
    if not all(store.content.particles.elements):
        raise InputError(f"{store.folder} has particles without an element", remedy="prepare it from a topology")
    return DebyeIntensity(np.array(q), form_factors(store.content.particles.elements, np.array(q)))
