"""Lennard-Jones and the double exponential between pairs of atoms: combination rules, switch, long-range correction.

    Lennard-Jones         4 ε ((σ/r)¹² − (σ/r)⁶)
    double exponential    ε (β e^α/(α − β) e^(−α r/r_m) − α e^β/(α − β) e^(−β r/r_m)),   r_m = 2^(1/6) σ
                          (Man and others 2021, 10.1021/acs.jctc.1c00426)
    switch                S(x) = 1 − 10 x³ + 15 x⁴ − 6 x⁵,   x = (r − r_s)/(r_c − r_s)
    correction            (2π N²/V) ⟨∫_{r_s}^∞ (1 − S) u r² dr⟩,   S = 0 beyond r_c, the mean over all pairs i ≤ j

Pairs have σ_ij and ε_ij by a combination rule. The correction is differentiated with all the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.energies.columns import Column
from hpcfit.energies.geometry import volume
from hpcfit.energies.lists import PairSource
from hpcfit.physics.internal_coordinates import safe_sqrt
from hpcfit.pytrees import pytree

NODES = 48  # of the Gauss-Legendre rule for the correction: both integrands are smooth


def lorentz_berthelot(sigma_1, epsilon_1, sigma_2, epsilon_2) -> tuple[jax.Array, jax.Array]:
    """σ = (σ1 + σ2)/2, ε = √(ε1 ε2)."""
    return 0.5 * (sigma_1 + sigma_2), safe_sqrt(epsilon_1 * epsilon_2)


def geometric(sigma_1, epsilon_1, sigma_2, epsilon_2) -> tuple[jax.Array, jax.Array]:
    """σ = √(σ1 σ2), ε = √(ε1 ε2), as in OPLS."""
    return safe_sqrt(sigma_1 * sigma_2), safe_sqrt(epsilon_1 * epsilon_2)


def waldman_hagler(sigma_1, epsilon_1, sigma_2, epsilon_2) -> tuple[jax.Array, jax.Array]:
    """σ⁶ = (σ1⁶ + σ2⁶)/2, ε = √(ε1 ε2) σ1³ σ2³/σ⁶ (10.1002/jcc.540140909)."""
    sixth = 0.5 * (sigma_1**6 + sigma_2**6)
    return sixth ** (1 / 6), safe_sqrt(epsilon_1 * epsilon_2) * (sigma_1 * sigma_2) ** 3 / sixth


def lennard_jones(r, sigma, epsilon) -> jax.Array:
    """4 ε ((σ/r)¹² − (σ/r)⁶)."""
    sixth = (sigma / r) ** 6
    return 4 * epsilon * (sixth * sixth - sixth)


def double_exponential(r, sigma, epsilon, alpha, beta) -> jax.Array:
    """Double exponential with its minimum −ε at 2^(1/6) σ."""
    x = r / (2 ** (1 / 6) * sigma)
    return epsilon / (alpha - beta) * (beta * jnp.exp(alpha * (1 - x)) - alpha * jnp.exp(beta * (1 - x)))


def switch(r, start: float, cutoff: float) -> jax.Array:
    """The switching function, from 1 at `start` to 0 at the cut-off."""
    x = jnp.clip((r - start) / (cutoff - start), 0.0, 1.0)
    return 1 + x**3 * (-10 + x * (15 - 6 * x))


@pytree
@dataclass(frozen=True)
class KindPairs:
    """The pairs of kinds of atoms, each by two atoms of these kinds. count: [P], pairs i ≤ j of atoms, i = j
    included."""

    first: np.ndarray
    second: np.ndarray
    count: np.ndarray
    atoms: int = field(metadata={"static": True})

    def mean(self, integrals: jax.Array) -> jax.Array:
        """2π N² times the mean of the integrals [P] over pairs of atoms."""
        return 2 * np.pi * self.atoms**2 / (0.5 * self.atoms * (self.atoms + 1)) * jnp.dot(self.count, integrals)


def kind_pairs(columns: Sequence[Column], atoms: int) -> KindPairs:
    """The pairs of kinds: items with equal entries and constants in all columns. atoms: of the system, with those that
    do not interact."""
    rows = np.column_stack([part for column in columns for part in (column.index, column.constant)])
    _, first, count = np.unique(rows, axis=0, return_index=True, return_counts=True)
    one, two = np.triu_indices(len(first))
    pairs = np.where(one == two, count[one] * (count[one] + 1) / 2, count[one] * count[two])
    return KindPairs(first[one], first[two], pairs.astype(float), atoms)


@pytree
@dataclass(frozen=True, kw_only=True)
class PairPotential:
    """A potential of σ and ε between all pairs of a source.

    sigma: [n] nm, epsilon: [n] kJ/mol, of the source's members. shape: further parameters of the potential, such as α
    and β, one item each. switch_from: nm, None for a plain cut-off. tail: the pairs of kinds over which the long-range
    correction is a mean, or None for no correction.
    """

    pairs: PairSource
    sigma: Column
    epsilon: Column
    shape: tuple[Column, ...] = ()
    potential: Callable = field(default=lennard_jones, metadata={"static": True})
    combine: Callable = field(default=lorentz_berthelot, metadata={"static": True})
    switch_from: float | None = field(default=None, metadata={"static": True})
    tail: KindPairs | None = None

    def energy(self, frame, parameters) -> jax.Array:
        """The energy of all pairs with their correction, kJ/mol."""
        pairs = self.pairs.pairs(frame)
        sigma, epsilon = self.sigma.values(parameters), self.epsilon.values(parameters)
        shape = [column.values(parameters)[0] for column in self.shape]
        both = self.combine(pairs.first(sigma), pairs.first(epsilon), pairs.second(sigma), pairs.second(epsilon))
        u = self.potential(pairs.r, *both, *shape)
        if self.switch_from is not None:
            u = u * switch(pairs.r, self.switch_from, self.pairs.cutoff)
        total = pairs.total(u)
        return total + self._correction(sigma, epsilon, shape) / volume(frame.box) if self.tail is not None else total

    def _correction(self, sigma, epsilon, shape) -> jax.Array:
        """The correction times the volume, kJ/mol nm³."""

        def integral(sigma_1, epsilon_1, sigma_2, epsilon_2):
            both = self.combine(sigma_1, epsilon_1, sigma_2, epsilon_2)
            return tail_integral(lambda r: self.potential(r, *both, *shape), self.pairs.cutoff, self.switch_from)

        one, two = self.tail.first, self.tail.second
        return self.tail.mean(jax.vmap(integral)(sigma[one], epsilon[one], sigma[two], epsilon[two]))


def tail_integral(u: Callable, cutoff: float, switch_from: float | None) -> jax.Array:
    """∫ (1 − S) u r² dr from the switch to infinity; beyond the cut-off by y = r_c/r."""
    y, weight = _gauss(NODES)
    r = cutoff / y
    found = jnp.dot(weight, u(r) * r**2 * cutoff / y**2)
    if switch_from is None:
        return found
    r = switch_from + (cutoff - switch_from) * y
    return found + (cutoff - switch_from) * jnp.dot(weight, (1 - switch(r, switch_from, cutoff)) * u(r) * r**2)


@lru_cache
def _gauss(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    x, weight = np.polynomial.legendre.leggauss(nodes)
    return 0.5 * (x + 1), 0.5 * weight
