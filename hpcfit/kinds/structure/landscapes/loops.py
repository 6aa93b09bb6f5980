"""Synthetic loops: a chain whose particles also attract those ten steps along it, so that its ground state is a coil.

    V(r) = 1/(r¹² + ε) − 1/(r⁶ + 6 ε),    ε = 0.01, σ = 1
    pure        E = mean_{edges} A_ij V(r_ij) + R,    A = 1 for i, i+1 and 0.1 for i, i+10; 2n − 11 edges
    bonded      E = mean_{i, i+1} (r − 1)² + mean_{i, i+10} 0.1 V(r) + R
    R = 0.0025 mean_{other pairs} 1/(r + ε)

The form is that of Hessian reparametrisation (openreview lmIz3KvrUS), whose authors train with some of the repelled
pairs, drawn anew: here all of them are repelled, each once, and no pair that is joined.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_array

from hpcfit.errors import InputError
from hpcfit.kinds.structure.landscapes import contact_graph
from hpcfit.kinds.structure.landscapes.all_pairs import near_pair_sum, pair_sum
from hpcfit.kinds.structure.landscapes.landscape import OVERLAP, Landscape, capped
from hpcfit.physics.internal_coordinates import length
from hpcfit.pytrees import pytree

SPAN = 10  # steps along the chain between particles that attract each other
ATTRACTION = 0.1  # of such a pair, in units of that of neighbours
SOFTENING = 1e-2
REPULSION = 2.5e-3


@pytree
@dataclass(frozen=True)
class Loops(Landscape):
    """A chain of n particles in three dimensions. Made by ``of``.

    steps, spans: [n − 1, 2] and [n − 10, 2], the pairs of neighbours and of those that are SPAN apart. bonded: springs
    hold neighbours, in place of the softened Lennard-Jones potential. cutoff: of the repulsion while the energy is
    minimised, by lists of neighbours, with a potential and a force that end at 0 there; None: of all pairs.
    """

    steps: np.ndarray
    spans: np.ndarray
    n: int = field(metadata={"static": True})
    bonded: bool = field(metadata={"static": True})
    cutoff: float | None = field(default=None, metadata={"static": True})
    d: int = field(default=3, metadata={"static": True})
    unit: str = field(default="", metadata={"static": True})
    length: str = field(default="sigma", metadata={"static": True})

    @classmethod
    def of(cls, n: int, *, bonded: bool = False, seed: int | None = 0, cutoff: float | None = None) -> Loops:
        """A chain of n particles whose labels are permuted at random, so that no method profits from their order; in
        the order of the chain where the seed is None."""
        if n <= SPAN:
            raise InputError(f"a loop of {n} particles has no pair {SPAN} apart", remedy=f"take {SPAN + 1} or more")
        number = np.arange(n) if seed is None else np.random.default_rng(seed).permutation(n)
        steps = np.stack([number[:-1], number[1:]], axis=1)
        spans = np.stack([number[:-SPAN], number[SPAN:]], axis=1)
        return cls(steps, spans, n, bonded, cutoff)

    def energy(self, x: jax.Array, cap: Any = 0.0) -> jax.Array:
        """See ``Landscape``; the repulsion is bounded as it is, and has no cap."""
        return self._joined_energy(x, cap, None) + REPULSION * pair_sum(_repulsion, x) / self._n_repelled

    def evaluated(self, x: np.ndarray, cap: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """See ``Landscape``: with the repulsion within the cut-off alone, if there is one."""
        if self.cutoff is None:
            return super().evaluated(x, cap)
        energy, slope = (np.array(part) for part in _joined_and_slopes(self, x, float(cap)))
        for number, one in enumerate(x):
            repelled, along = near_pair_sum(partial(_ended, end=self.cutoff), one, self.cutoff)
            energy[number] += REPULSION * repelled / self._n_repelled
            slope[number] += REPULSION * along / self._n_repelled
        return energy, slope

    def _joined_energy(self, x: jax.Array, cap: Any, cutoff: float | None) -> jax.Array:
        """The energy of joined pairs, less the repulsion that a sum over all pairs has of them."""
        steps, spans = _lengths(x, self.steps), _lengths(x, self.spans)
        attraction = ATTRACTION * jnp.sum(capped(_softened, spans, cap))
        if self.bonded:
            core = jnp.mean((steps - 1) ** 2) + attraction / len(spans)
        else:
            core = (jnp.sum(capped(_softened, steps, cap)) + attraction) / self._n_edges
        repulsion = _repulsion if cutoff is None else lambda r: _ended(r, cutoff)[0]
        return core - REPULSION * (jnp.sum(repulsion(steps)) + jnp.sum(repulsion(spans))) / self._n_repelled

    @property
    def order(self) -> np.ndarray:
        """The particles [n] in their order along the chain."""
        return np.concatenate([self.steps[:, 0], self.steps[-1:, 1]])

    @property
    def _n_edges(self) -> int:
        return len(self.steps) + len(self.spans)

    @property
    def _n_repelled(self) -> int:
        """The pairs that are not joined; of one, where there are none."""
        return max(self.n * (self.n - 1) // 2 - self._n_edges, 1)

    def independent(self, x: np.ndarray) -> float:
        """See ``Landscape``."""
        x = np.asarray(x, np.float64)
        weights = self.couplings()
        core, repelled = 0.0, []
        for i in range(self.n - 1):
            r = np.sqrt(((x[i + 1 :] - x[i]) ** 2).sum(axis=1))
            weight = weights[[i]].toarray()[0, i + 1 :]
            well = 1 / (r**12 + SOFTENING) - 1 / (r**6 + 6 * SOFTENING)
            if self.bonded:
                core += (((r - 1) ** 2)[weight == 1] / len(self.steps)).sum()
                core += (ATTRACTION * well[weight == ATTRACTION] / len(self.spans)).sum()
            else:
                core += (weight * well).sum() / self._n_edges
            repelled.append((1 / (r + SOFTENING))[weight == 0].sum())
        return float(core + REPULSION * np.sum(repelled) / self._n_repelled)

    def couplings(self) -> csr_array:
        """See ``Landscape``: 1 of neighbours, ATTRACTION of those that are SPAN apart."""
        pairs = np.concatenate([self.steps, self.spans])
        weight = np.repeat([1.0, ATTRACTION], [len(self.steps), len(self.spans)])
        half = csr_array((weight, (pairs[:, 0], pairs[:, 1])), (self.n, self.n))
        return (half + half.T).tocsr()

    def contacts(self, x: np.ndarray) -> tuple[int, int]:
        """See ``Landscape``."""
        return int(contact_graph.in_contact(self._joined(x)).sum()), self._n_edges

    def loop_contacts(self, x: np.ndarray) -> tuple[int, int]:
        """The pairs SPAN apart that are in contact, and all of them."""
        found = contact_graph.in_contact(contact_graph.distances(x, self.spans))
        return int(found.sum()), len(self.spans)

    def overlaps(self, x: np.ndarray) -> int:
        """See ``Landscape``; pairs that are not joined have no core."""
        return int((self._joined(x) < OVERLAP).sum())

    def pieces(self, x: np.ndarray) -> int:
        """See ``Landscape``."""
        pairs = np.concatenate([self.steps, self.spans])
        return contact_graph.pieces(self.n, pairs[contact_graph.in_contact(self._joined(x))])

    def _joined(self, x: np.ndarray) -> np.ndarray:
        return contact_graph.distances(x, np.concatenate([self.steps, self.spans]))

    def distinguishable(self) -> bool:
        """See ``Landscape``: each has its place in the chain."""
        return True

    def reference(self) -> float:
        """The energy of a chain in which every joined pair is at its best distance, without repulsion; all
        configurations are above it."""
        lowest = float(minimize_scalar(_softened, bounds=(1.0, 1.3), method="bounded").fun)
        if self.bonded:
            return ATTRACTION * lowest
        return (len(self.steps) + ATTRACTION * len(self.spans)) * lowest / self._n_edges


@jax.jit
def _joined_and_slopes(loops: Loops, x: jax.Array, cap: Any) -> tuple[jax.Array, jax.Array]:
    return jax.vmap(jax.value_and_grad(lambda x: loops._joined_energy(x, cap, loops.cutoff)))(x)


def _lengths(x: jax.Array, pairs: np.ndarray) -> jax.Array:
    return length(x[pairs[:, 0]] - x[pairs[:, 1]])


def _softened(r):
    sixth = r**6
    return 1 / (sixth * sixth + SOFTENING) - 1 / (sixth + 6 * SOFTENING)


def _repulsion(r):
    return 1 / (r + SOFTENING)


def _ended(r, end: float):
    """The repulsion and its derivative, less the line that makes both 0 at the end; 0 beyond it."""
    slope = lambda r: -1 / (r + SOFTENING) ** 2  # noqa: E731
    inside = r < end
    value = _repulsion(r) - _repulsion(end) - slope(end) * (r - end)
    return inside * value, inside * (slope(r) - slope(end))
