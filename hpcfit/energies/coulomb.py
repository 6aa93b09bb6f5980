"""Coulomb interactions: all pairs, reaction field, Ewald and smooth particle-mesh sums, and exceptions of bonded pairs.

all pairs         C q_i q_j/r,   C = 1/(4π ε0)
reaction field    C q_i q_j (1/r + k_rf r² − c_rf),   k_rf = (ε − 1)/((2ε + 1) r_c³),   c_rf = 3ε/((2ε + 1) r_c)
                  (Tironi and others 1995, 10.1063/1.469273)
Ewald, direct     C q_i q_j erfc(α r)/r;   excluded pairs − C q_i q_j erf(α r)/r;   self − C α/√π Σ q²;
                  background of a net charge Q: − C π Q²/(2 V α²)
exceptions        C s q_i q_j/r + 4 s' ε_ij ((σ_ij/r)¹² − (σ_ij/r)⁶), without cut-off
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf, erfc

from hpcfit.energies.bonded import Bonded
from hpcfit.energies.columns import Column
from hpcfit.energies.constants import COULOMB
from hpcfit.energies.geometry import volume
from hpcfit.energies.lists import PairSource
from hpcfit.energies.pair_potentials import lennard_jones, lorentz_berthelot
from hpcfit.energies.reciprocal import Mesh, Waves
from hpcfit.pytrees import pytree


@pytree
@dataclass(frozen=True, kw_only=True)
class Coulomb:
    """Charges of all pairs of a source. charge: [N] e. dielectric: of the reaction field, None without one."""

    pairs: PairSource
    charge: Column
    dielectric: float | None = field(default=None, metadata={"static": True})

    def energy(self, frame, parameters) -> jax.Array:
        """The energy of all pairs, kJ/mol."""
        pairs, charge = self.pairs.pairs(frame), self.charge.values(parameters)
        return COULOMB * pairs.total(pairs.first(charge) * pairs.second(charge) * self.inverse(pairs.r))

    def inverse(self, r) -> jax.Array:
        """The factor of the charges of a pair, 1/nm: 1/r, with its reaction field."""
        if self.dielectric is None:
            return 1 / r
        cutoff, double = self.pairs.cutoff, 2 * self.dielectric + 1
        return 1 / r + (self.dielectric - 1) / (double * cutoff**3) * r**2 - 3 * self.dielectric / (double * cutoff)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _screened(r: jax.Array, alpha: float) -> jax.Array:
    """erfc(α r)/r."""
    return erfc(alpha * r) / r


@_screened.defjvp
def _(alpha: float, r, along) -> tuple[jax.Array, jax.Array]:
    """The derivative by its value, of which XLA would compute each part again: −(u + 2α/√π e^(−α² r²))/r."""
    (r,), (tangent,), u = r, along, _screened(*r, alpha)
    return u, -(u + 2 * alpha / np.sqrt(np.pi) * jnp.exp(-((alpha * r) ** 2))) / r * tangent


@pytree
@dataclass(frozen=True, kw_only=True)
class EwaldCoulomb:
    """Charges in a periodic box. charge: [N] e. excluded: [X, 2], pairs without interaction. alpha: 1/nm."""

    pairs: PairSource
    charge: Column
    excluded: np.ndarray
    reciprocal: Mesh | Waves
    alpha: float = field(metadata={"static": True})
    excluded_periodic: bool = field(default=False, metadata={"static": True})

    def energy(self, frame, parameters) -> jax.Array:
        """The energy of all charges and their images, kJ/mol."""
        charge, alpha = self.charge.values(parameters), self.alpha
        pairs = self.pairs.pairs(frame)
        direct = pairs.total(pairs.first(charge) * pairs.second(charge) * _screened(pairs.r, alpha))
        background = np.pi * jnp.sum(charge) ** 2 / (2 * volume(frame.box) * alpha**2)
        own = alpha / np.sqrt(np.pi) * jnp.sum(charge**2)
        waves = self.reciprocal.energy(frame.positions, charge, frame.box, alpha)
        return COULOMB * (direct - self._excluded(frame, charge) - own - background + waves)

    def _excluded(self, frame, charge):
        bond = Bonded(atoms=self.excluded, periodic=self.excluded_periodic)
        r = bond.distances(frame)
        apart = r > 1e-6 / self.alpha
        inverse = jnp.where(apart, erf(self.alpha * r) / jnp.where(apart, r, 1.0), 2 * self.alpha / np.sqrt(np.pi))
        first, second = charge[self.excluded].T
        return jnp.sum(first * second * inverse)


class _Exceptions(Bonded):
    """Pairs that interact otherwise than their atoms say; ``pair_values`` gives by what."""

    def energy(self, frame, parameters) -> jax.Array:
        """The energy of all exceptions, kJ/mol."""
        product, sigma, epsilon = self.pair_values(parameters)
        r = self.distances(frame)
        return jnp.sum(COULOMB * product / r + lennard_jones(r, sigma, epsilon))


@pytree
@dataclass(frozen=True, kw_only=True)
class ScaledPairs(_Exceptions):
    """Exceptions whose parameters follow from those of their atoms: [N] charge, sigma, epsilon; [T] the scales of
    each."""

    charge: Column
    sigma: Column
    epsilon: Column
    charge_scale: Column
    epsilon_scale: Column

    def pair_values(self, parameters) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The product of charges e², σ nm and ε kJ/mol of each exception, [T]."""
        (q_1, q_2), (s_1, s_2), (e_1, e_2) = (
            column.values(parameters)[self.atoms].T for column in (self.charge, self.sigma, self.epsilon)
        )
        sigma, epsilon = lorentz_berthelot(s_1, e_1, s_2, e_2)
        scaled = self.epsilon_scale.values(parameters) * epsilon
        return self.charge_scale.values(parameters) * q_1 * q_2, sigma, scaled


@pytree
@dataclass(frozen=True, kw_only=True)
class OwnPairs(_Exceptions):
    """Exceptions with parameters of their own, [T]: product of charges e², sigma nm, epsilon kJ/mol."""

    charge_product: Column
    sigma: Column
    epsilon: Column

    def pair_values(self, parameters) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The product of charges e², σ nm and ε kJ/mol of each exception, [T]."""
        return tuple(column.values(parameters) for column in (self.charge_product, self.sigma, self.epsilon))
