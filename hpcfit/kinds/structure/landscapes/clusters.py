"""Lennard-Jones clusters, in units of ε and σ: E = 4 Σ_{i<j} (r⁻¹² − r⁻⁶)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from scipy.spatial.distance import pdist

from hpcfit.errors import InputError
from hpcfit.kinds.structure.landscapes import contact_graph
from hpcfit.kinds.structure.landscapes.all_pairs import pair_sum
from hpcfit.kinds.structure.landscapes.landscape import CONTACT, OVERLAP, Landscape, capped
from hpcfit.pytrees import pytree


@pytree
@dataclass(frozen=True)
class Cluster(Landscape):
    """n Lennard-Jones particles in three dimensions. Made by ``of``."""

    n: int = field(metadata={"static": True})
    d: int = field(default=3, metadata={"static": True})
    unit: str = field(default="epsilon", metadata={"static": True})
    length: str = field(default="sigma", metadata={"static": True})

    @classmethod
    def of(cls, n: int) -> Cluster:
        """A cluster of n particles."""
        if n < 2:
            raise InputError(f"a cluster of {n} particles has no pair", remedy="take 2 or more")
        return cls(n)

    def energy(self, x: jax.Array, cap: Any = 0.0) -> jax.Array:
        """See ``Landscape``."""
        return pair_sum(_capped, x, cap)

    def independent(self, x: np.ndarray) -> float:
        """See ``Landscape``."""
        inverse = pdist(np.asarray(x, np.float64)) ** -6
        return float(4 * np.sum(inverse * (inverse - 1)))

    def contacts(self, x: np.ndarray) -> tuple[int, int]:
        """The pairs in contact, and all pairs, which cannot all be."""
        return len(self._touching(x)), self.n * (self.n - 1) // 2

    def overlaps(self, x: np.ndarray) -> int:
        """See ``Landscape``."""
        return len(contact_graph.pairs_within(x, OVERLAP))

    def pieces(self, x: np.ndarray) -> int:
        """See ``Landscape``."""
        return contact_graph.pieces(self.n, self._touching(x))

    def _touching(self, x: np.ndarray) -> np.ndarray:
        near = contact_graph.pairs_within(x, CONTACT[1])
        return near[contact_graph.in_contact(contact_graph.distances(x, near))]


def _capped(r: jax.Array, cap: Any) -> jax.Array:
    return capped(_lennard_jones, r, cap)


def _lennard_jones(r: jax.Array) -> jax.Array:
    inverse = r**-6
    return 4 * inverse * (inverse - 1)
