"""The energy of a config opened, and where replicas begin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcfit.errors import InputError
from hpcfit.kinds.structure.config import StartConfig
from hpcfit.kinds.structure.landscapes.clusters import Cluster
from hpcfit.kinds.structure.landscapes.landscape import Landscape
from hpcfit.kinds.structure.landscapes.loops import Loops
from hpcfit.kinds.structure.landscapes.thomson import Thomson
from hpcfit.readers.boundary import reading

BALL = 0.5  # of n^(1/3): the width of a ball in which each particle has a unit of volume, about


def _loops(table: Any) -> Landscape:
    return Loops.of(table.n, bonded=table.bonded, seed=table.permuted)


def _cluster(table: Any) -> Landscape:
    return Cluster.of(table.n)


def _thomson(table: Any) -> Landscape:
    return Thomson.of(table.n)


FORMS: dict[str, Callable[[Any], Landscape]] = {"loops": _loops, "lennard-jones": _cluster, "thomson": _thomson}


def open_landscape(table: Any) -> Landscape:
    """The energy of [problem.energy]."""
    return FORMS[table.form](table)


@dataclass(frozen=True)
class Starts:
    """The positions that replicas begin at, a function of seed and number alone.

    draw: of a random generator, one replica [n, d]; given: [starts, n, d], of which replicas take one after another.
    """

    seed: int
    draw: Callable[[np.random.Generator], np.ndarray] | None = None
    given: np.ndarray | None = None
    noise: float = 0.0

    @classmethod
    def of(cls, choice: StartConfig, landscape: Landscape, seed: int) -> Starts:
        """Raises InputError for a file that is not of this energy, or a chain without couplings."""
        shape = (landscape.n, landscape.d)
        if choice.kind == "file":
            return cls(seed, given=_positions(choice, shape), noise=choice.noise)
        if choice.kind == "random":
            scale = choice.scale or BALL * landscape.n ** (1 / landscape.d)
            return cls(seed, draw=lambda random: scale * random.standard_normal(shape))
        from hpcfit.kinds.structure.starts import GaussianChain

        if landscape.couplings() is None:
            raise InputError(
                "[problem.start] kind = 'chain' needs a graph of couplings, and all particles of this energy are alike",
                remedy="use kind = 'random'",
            )
        chain = GaussianChain.of(
            landscape.couplings(), landscape.d, **({"scale": choice.scale} if choice.scale else {})
        )
        return cls(seed, draw=chain)

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """The starts of some replicas, [W, n, d]."""
        return np.stack([self._of(int(number)) for number in numbers])

    def _of(self, number: int) -> np.ndarray:
        random = np.random.default_rng([self.seed, number])
        if self.draw is not None:
            return np.asarray(self.draw(random))
        x = self.given[number % len(self.given)]
        return x + self.noise * random.standard_normal(x.shape)


def _positions(choice: StartConfig, shape: tuple[int, int]) -> np.ndarray:
    if not choice.file.is_file():
        raise InputError(f"starts {choice.file} do not exist", remedy="correct the path")
    with reading(f"starts {choice.file} cannot be read by NumPy", "save them by numpy.save"):
        found = np.load(choice.file, allow_pickle=False)
    found = found[None] if found.ndim == 2 else found
    if found.shape[1:] != shape or found.dtype.kind not in "fiu" or not np.all(np.isfinite(found)):
        raise InputError(
            f"starts {choice.file} have shape {list(found.shape)} and type {found.dtype}, or are not all finite;"
            f" the energy takes [{shape[0]}, {shape[1]}]",
            remedy="give finite numbers [n, d] or [starts, n, d]",
        )
    return found.astype(float)
