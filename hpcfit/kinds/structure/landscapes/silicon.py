"""Silicon with a vacancy in a periodic cell, by Stillinger and Weber (1985, 10.1103/PhysRevB.31.5262).

    E = Σ_{i<j} ε f₂(r_ij/σ) + Σ_i Σ_{j<k} ε λ e^{γ/(r_ij/σ − a) + γ/(r_ik/σ − a)} (cos θ_jik + 1/3)²
    f₂(s) = A (B s⁻⁴ − 1) e^{1/(s − a)},   both 0 from s = a on

Atoms may leave their places by as much as the slack of a fixed list of neighbours allows: two atoms that the list does
not hold must stay a σ apart, and the energy is NaN where they may not. Coordinates are positions, A; a uniform shift
changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from hpcfit.errors import InputError
from hpcfit.kinds.structure.landscapes import contact_graph
from hpcfit.kinds.structure.landscapes.landscape import Landscape
from hpcfit.physics.internal_coordinates import length, safe_sqrt
from hpcfit.pytrees import pytree

# Of the paper; a crystal has the energy −2 ε an atom, −4.3363 eV.
A, B, LAMBDA, GAMMA, REACH = 7.049556277, 0.6022245584, 21.0, 1.2, 1.80
SIGMA, EPSILON = 2.0951, 2.16815  # A, eV
LATTICE = 5.431  # A
SLACK = 1.6  # A, that a pair may come nearer than it lies in the list
CUBE = np.array(
    [(0, 0, 0), (0, 2, 2), (2, 0, 2), (2, 2, 0), (1, 1, 1), (1, 3, 3), (3, 1, 3), (3, 3, 1)]
) / 4  # the atoms of a cubic cell of diamond  # fmt: skip


@pytree
@dataclass(frozen=True)
class Silicon(Landscape):
    """Atoms in a cubic box. Made by ``of``. neighbours: [n, M], in the order of atoms, n in empty slots; box: A;
    native: [n, 3] A, the lattice without the atom that is missing; bonds: [b, 2], nearest neighbours there."""

    neighbours: np.ndarray
    bonds: np.ndarray
    native: np.ndarray
    box: float
    n: int = field(metadata={"static": True})
    d: int = field(default=3, metadata={"static": True})
    unit: str = field(default="eV", metadata={"static": True})
    length: str = field(default="A", metadata={"static": True})

    @classmethod
    def of(cls, cells: int, *, vacancies: int = 1, lattice: float = LATTICE) -> Silicon:
        """cells³ cubic cells of 8 atoms, without the first atom of each of ``vacancies`` cells along the diagonal."""
        reach = REACH * SIGMA + SLACK
        if cells * lattice < 2 * reach:
            raise InputError(
                f"{cells} cells of {lattice:g} A are narrower than twice {reach:.3g} A, the reach of the potential",
                remedy=f"take {int(np.ceil(2 * reach / lattice))} or more",
            )
        if not 0 <= vacancies <= cells:
            raise InputError(f"{vacancies} vacancies in {cells} cells along the diagonal", remedy=f"take 0 to {cells}")
        corners = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
        missing = [8 * k * (cells**2 + cells + 1) for k in range(vacancies)]
        sites = lattice * np.delete((corners + CUBE).reshape(-1, 3), missing, axis=0)
        box = cells * lattice
        tree = cKDTree(sites % box, boxsize=box)
        near = [sorted(set(found) - {atom}) for atom, found in enumerate(tree.query_ball_point(sites % box, reach))]
        neighbours = np.full((len(sites), max(map(len, near))), len(sites), np.int32)
        for atom, found in enumerate(near):
            neighbours[atom, : len(found)] = found
        bonds = tree.query_pairs(0.5 * lattice, output_type="ndarray")
        return cls(neighbours, bonds, sites, box, len(sites))

    def elements(self) -> list[str]:
        """See ``Landscape``."""
        return ["Si"] * self.n

    def energy(self, x: jax.Array, cap: Any = 0.0) -> jax.Array:
        """See ``Landscape``; the potential is finite but at r = 0, where atoms give no force on each other: no cap."""
        padded = jnp.concatenate([x, jnp.zeros((1, 3))])
        apart = padded[self.neighbours] - x[:, None]
        apart = apart - self.box * jax.lax.stop_gradient(jnp.round(apart / self.box))
        there = self.neighbours < self.n
        s = jnp.where(there, length(apart), 1.0) / SIGMA
        near = there & (s < REACH) & (s > 0)
        s = jnp.where(near, s, 1.0)
        inverse = 1 / (s - REACH)
        pairs = 0.5 * jnp.sum(jnp.where(near, A * (B * s**-4 - 1) * jnp.exp(inverse), 0.0))
        weight = jnp.where(near, jnp.exp(GAMMA * inverse), 0.0)
        unit = jnp.where(near[..., None], apart, 0.0) / (SIGMA * s)[..., None]
        cosine = jnp.einsum("iax,ibx->iab", unit, unit)
        several = 1 - jnp.eye(self.neighbours.shape[1])
        bent = jnp.sum(weight[:, :, None] * weight[:, None, :] * (cosine + 1 / 3) ** 2 * several)
        return self._or_nan(x) * EPSILON * (pairs + 0.5 * LAMBDA * bent)

    def _or_nan(self, x: jax.Array) -> jax.Array:
        """1, or NaN where atoms have moved, beside a uniform shift, so far that pairs may be missing in the list."""
        moved = x - self.native - jnp.mean(x - self.native, axis=0)
        most = safe_sqrt(jnp.max(jnp.sum(jax.lax.stop_gradient(moved) ** 2, axis=1)))
        return jnp.where(most <= 0.5 * SLACK, 1.0, jnp.nan)

    def independent(self, x: np.ndarray) -> float:
        """See ``Landscape``: a loop over atoms, pairs and triplets, by minimum images of all atoms."""
        x, found = np.asarray(x, np.float64), 0.0
        for i in range(self.n):
            apart = x - x[i]
            apart -= self.box * np.round(apart / self.box)
            r = np.sqrt((apart**2).sum(axis=1)) / SIGMA
            close = [j for j in range(self.n) if j != i and r[j] < REACH]
            for j in close:
                found += 0.5 * EPSILON * A * (B / r[j] ** 4 - 1) * np.exp(1 / (r[j] - REACH))
            for j, k in combinations(close, 2):
                cosine = apart[j] @ apart[k] / (SIGMA**2 * r[j] * r[k])
                decay = np.exp(GAMMA / (r[j] - REACH) + GAMMA / (r[k] - REACH))
                found += EPSILON * LAMBDA * decay * (cosine + 1 / 3) ** 2
        return float(found)

    def couplings(self) -> csr_array:
        """See ``Landscape``: 1 of nearest neighbours in the lattice."""
        return contact_graph.joined(self.n, self.bonds)

    def contacts(self, x: np.ndarray) -> tuple[int, int]:
        """The bonds of the lattice within the limits of a contact, σ being their length there, and all of them."""
        return int(self._intact(x).sum()), len(self.bonds)

    def pieces(self, x: np.ndarray) -> int:
        """See ``Landscape``."""
        return contact_graph.pieces(self.n, self.bonds[self._intact(x)])

    def _intact(self, x: np.ndarray) -> np.ndarray:
        apart = x[self.bonds[:, 0]] - x[self.bonds[:, 1]]
        apart = apart - self.box * np.round(apart / self.box)
        return contact_graph.in_contact(np.linalg.norm(apart, axis=1), np.sqrt(3) / 4 * LATTICE)
