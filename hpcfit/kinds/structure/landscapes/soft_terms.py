"""Terms of an atomistic energy whose pair potentials can be continued linearly at short distances: a soft core.

    start = cap · σ_ij for Lennard-Jones,    cap · max(σ_ij, BARE) for charges, which have no core of their own

The cap is a parameter of the energy, so that a continuation changes it without compiling anew. Terms that are no pair
potentials stay, and so do Ewald sums, whose charges are finite only apart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.energies.columns import entries
from hpcfit.energies.constants import COULOMB
from hpcfit.energies.coulomb import Coulomb, OwnPairs, ScaledPairs
from hpcfit.energies.energy import Energy, Term
from hpcfit.energies.pair_potentials import PairPotential, lennard_jones
from hpcfit.kinds.structure.landscapes.landscape import capped
from hpcfit.pytrees import pytree

CAP = "cap"  # the class of parameters with the one entry that is the cap
BARE = 0.1  # nm, the σ of charges where atoms have none: below any distance of atoms that are not bonded


def soft(energy: Energy, sigma: np.ndarray) -> Energy:
    """The energy with a cap as its further parameter. sigma: [N] nm, 0 of atoms without a core."""
    return replace(energy, terms=tuple(_soft(term, np.asarray(sigma, float)) for term in energy.terms))


def _soft(term: Term, sigma: np.ndarray) -> Term:
    if isinstance(term, PairPotential) and term.potential is lennard_jones:
        return replace(term, potential=capped_lennard_jones, shape=(entries(CAP, [0]),))
    if isinstance(term, Coulomb):
        return SoftCoulomb(term, sigma)
    if isinstance(term, (ScaledPairs, OwnPairs)):
        return SoftExceptions(term)
    return term


def capped_lennard_jones(r: jax.Array, sigma: jax.Array, epsilon: jax.Array, cap: jax.Array) -> jax.Array:
    """4 ε ((σ/r)¹² − (σ/r)⁶), linear below cap · σ."""
    return capped(lambda r: lennard_jones(r, sigma, epsilon), r, cap * sigma)


@pytree
@dataclass(frozen=True)
class SoftCoulomb:
    """Charges of all pairs of a term, linear at short distances. sigma: [N] nm."""

    term: Coulomb
    sigma: np.ndarray

    def energy(self, frame, parameters) -> jax.Array:
        """The energy of all pairs, kJ/mol."""
        pairs, charge = self.term.pairs.pairs(frame), self.term.charge.values(parameters)
        sigma = 0.5 * (pairs.first(jnp.asarray(self.sigma)) + pairs.second(jnp.asarray(self.sigma)))
        start = parameters[CAP][0] * jnp.maximum(sigma, BARE)
        inverse = capped(self.term.inverse, pairs.r, start)
        return COULOMB * pairs.total(pairs.first(charge) * pairs.second(charge) * inverse)


@pytree
@dataclass(frozen=True)
class SoftExceptions:
    """Exceptions of a term, linear at short distances."""

    term: ScaledPairs | OwnPairs

    def energy(self, frame, parameters) -> jax.Array:
        """The energy of all exceptions, kJ/mol."""
        product, sigma, epsilon = self.term.pair_values(parameters)
        cap, r = parameters[CAP][0], self.term.distances(frame)
        charged = capped(lambda r: COULOMB * product / r, r, cap * jnp.maximum(sigma, BARE))
        return jnp.sum(charged + capped_lennard_jones(r, sigma, epsilon, cap))
