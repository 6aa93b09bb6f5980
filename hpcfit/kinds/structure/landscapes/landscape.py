"""The contract of an energy landscape: a function of coordinates [n, d], and what can be told of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import csr_array

from hpcfit.store.particles import Particles

CONTACT = (0.8, 1.5)  # distances of a pair that is in contact, in units of its sigma
OVERLAP = 0.6  # of sigma, below which a pair overlaps: there the softened core is nearly flat, and holds who is inside


class Stiff(NamedTuple):
    """Internal coordinates of a kind: atoms [t, k], k = 2 of distances, 3 of angles, 4 of dihedrals, with the second
    derivative of the energy by each at rest, [t] energy/length² or energy/rad²."""

    atoms: np.ndarray
    stiffness: np.ndarray


class Stiffnesses(NamedTuple):
    """The stiff internal coordinates of an energy, and the stiffness of an atom in all other forces, energy/length²."""

    kinds: tuple[Stiff, ...]
    background: float


class Landscape(Protocol):
    """An energy of n particles with d coordinates each; an immutable pytree, so that compiled functions take it.

    unit: of energies, empty where they are reduced. length: the unit of coordinates. at_once: particles whose energies
    are computed together, of several replicas: more fill no core better, and leave its cache.
    """

    at_once: ClassVar[int] = 1000

    n: int
    d: int
    unit: str
    length: str

    def energy(self, x: jax.Array, cap: Any = 0.0) -> jax.Array:
        """The energy of coordinates [n, d], a scalar.

        cap: distance, in units of the sigma of each pair, below which pair potentials continue linearly, with the same
        minima outside; 0 for none. With a cap energy and gradient are finite for coincident particles too.
        """
        ...

    def evaluated(self, x: np.ndarray, cap: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Energies [R] and their derivatives [R, n, d] at coordinates [R, n, d], as methods minimise them: those of
        ``energy``, where a landscape has no faster way that is nearly the same."""
        found = _energies_and_slopes(self._held, x, float(cap))
        return np.asarray(found[0]), np.asarray(found[1])

    @cached_property
    def _held(self) -> Landscape:
        """The same with its arrays where JAX has them, so that they are not copied at each call."""
        return jax.tree.map(jnp.asarray, self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_held"}

    def independent(self, x: np.ndarray) -> float:
        """The energy of coordinates [n, d] by a sum in NumPy that shares no code with ``energy``, float64."""
        ...

    def couplings(self) -> csr_array | None:
        """Symmetric weights [n, n], not negative, that say how strongly particles are tied to each other; None where
        there is no graph."""
        return None

    def stiffnesses(self) -> Stiffnesses | None:
        """The bonds, angles and dihedrals that hold particles; None where there are none."""
        return None

    def contacts(self, x: np.ndarray) -> tuple[int, int]:
        """The pairs in contact, and those that can be: coupled pairs. (0, 0) where there are none."""
        return 0, 0

    def overlaps(self, x: np.ndarray) -> int:
        """The pairs with a core that are closer than OVERLAP of their sigma."""
        return 0

    def pieces(self, x: np.ndarray) -> int:
        """The connected components of the graph of contacts; 1 where there is no such graph."""
        return 1

    def reference(self) -> float | None:
        """An energy that no configuration is below, or that of a known ground state; None where none is known."""
        return None

    def particles(self) -> Particles | None:
        """The atoms with their names and residues; None where particles have none."""
        return None

    def elements(self) -> Sequence[str]:
        """The element of each particle, [n], as files name it; "X" where it has none."""
        return ["X"] * self.n

    def distinguishable(self) -> bool:
        """True where no two particles can be exchanged, and coordinates are positions in space: then structures can be
        superposed, particle by particle."""
        return False

    def label(self, particle: int) -> str:
        """The name of a particle, for errors."""
        return f"particle {particle}"


@jax.jit
def _energies_and_slopes(landscape: Landscape, x: jax.Array, cap: Any) -> tuple[jax.Array, jax.Array]:
    both = jax.value_and_grad(landscape.energy)
    if len(x) == 1:  # a batch of one is slower than none
        energy, slope = both(x[0], cap)
        return energy[None], slope[None]
    return jax.vmap(both, (0, None))(x, cap)


def capped(potential: Callable[[jax.Array], jax.Array], r: jax.Array, start: Any) -> jax.Array:
    """A potential of distances r, continued linearly below ``start``, which is 0 for none; for any shapes that
    broadcast.

        V(r) = V(s) + V'(s) (r − s)  for r < s
    """
    r = jnp.asarray(r)
    start = jnp.asarray(start, r.dtype)
    edge = jnp.where(start > 0, start, 1.0)
    slope = jax.jvp(potential, (edge,), (jnp.ones_like(edge),))[1]
    return potential(jnp.maximum(r, start)) + slope * jnp.minimum(r - start, 0.0)
