"""Thomson's problem: unit charges on the unit sphere, E = Σ_{i<j} 1/r_ij of x/|x|."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import pdist

from hpcfit.errors import InputError
from hpcfit.kinds.structure.landscapes import contact_graph
from hpcfit.kinds.structure.landscapes.all_pairs import pair_sum
from hpcfit.kinds.structure.landscapes.landscape import OVERLAP, Landscape, capped
from hpcfit.physics.internal_coordinates import length
from hpcfit.pytrees import pytree


@pytree
@dataclass(frozen=True)
class Thomson(Landscape):
    """n charges in three dimensions; how far they are from the centre makes no difference. Made by ``of``.

    sigma: the mean distance of nearest charges, in which a cap and overlaps are measured: each of n charges has a cap
    of the sphere of area 4π/n.
    """

    n: int = field(metadata={"static": True})
    d: int = field(default=3, metadata={"static": True})
    unit: str = field(default="", metadata={"static": True})
    length: str = field(default="R", metadata={"static": True})

    @classmethod
    def of(cls, n: int) -> Thomson:
        """n charges."""
        if n < 2:
            raise InputError(f"{n} charges have no pair", remedy="take 2 or more")
        return cls(n)

    @property
    def sigma(self) -> float:
        """The distance of neighbours in a hexagonal lattice as dense as the charges: √(8π/(√3 n))."""
        return float(np.sqrt(8 * np.pi / (np.sqrt(3) * self.n)))

    def energy(self, x: jax.Array, cap: Any = 0.0) -> jax.Array:
        """See ``Landscape``; a charge in the centre, which has no direction, stays there."""
        return pair_sum(_capped, on_sphere(x), jnp.asarray(cap) * self.sigma)

    def independent(self, x: np.ndarray) -> float:
        """See ``Landscape``."""
        x = np.asarray(x, np.float64)
        return float(np.sum(1 / pdist(x / np.sqrt(np.sum(x**2, axis=1, keepdims=True)))))

    def overlaps(self, x: np.ndarray) -> int:
        """See ``Landscape``."""
        return len(contact_graph.pairs_within(np.asarray(on_sphere(x)), OVERLAP * self.sigma))


def on_sphere(x: jax.Array) -> jax.Array:
    """x/|x| of each row [n, d]; 0 of 0."""
    size = length(jnp.asarray(x))[:, None]
    return x / jnp.where(size > 0, size, 1.0)


def _capped(r: jax.Array, start: Any) -> jax.Array:
    return capped(lambda r: 1 / r, r, start)
