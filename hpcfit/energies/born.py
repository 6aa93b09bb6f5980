"""Generalised Born solvation with the Born radii of Onufriev, Bashford and Case (2004, 10.1002/prot.20033).

    E = −C (1/ε_in − 1/ε_out) [Σ_{i<j} q_i q_j/f_ij + ½ Σ_i q_i²/B_i] + Σ_i 4π γ (R_i + R_p)² (R_i/B_i)⁶
    f² = r² + B_i B_j exp(−r²/(4 B_i B_j))
    1/B = 1/ρ − tanh(a ψ − b ψ² + c ψ³)/R,   ρ = R − 0.009 nm,   ψ = ρ I
    I_i = ½ Σ_j [1/L − 1/U + (r − s²/r)(1/U² − 1/L²)/4 + ln(L/U)/(2r) + 2 (1/ρ − 1/L) where ρ < s − r]
    U = r + s_j,   L = max(ρ_i, |r − s_j|),   s_j = scale_j ρ_j;   a pair with U ≤ ρ_i gives nothing

GBn2, whose radii have a correction for necks from tables, is a CustomGBForce in OpenMM and is computed as one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from hpcfit.energies.columns import Column
from hpcfit.energies.constants import COULOMB
from hpcfit.energies.lists import Pairs, PairSource
from hpcfit.pytrees import pytree

OBC1 = (0.8, 0.0, 2.909125)  # a, b, c
OBC2 = (1.0, 0.8, 4.85)
OFFSET = 0.009  # nm
PROBE = 0.14  # nm
SURFACE = 2.25936  # γ, kJ/mol/nm², OpenMM's standard


@pytree
@dataclass(frozen=True, kw_only=True)
class BornSolvation:
    """charge: [N] e. radius: [N], R nm. scale: [N]. solute, solvent: dielectric constants. surface: γ, kJ/mol/nm².

    tanh: a, b, c, those of OBC1 or OBC2. With a cut-off, pairs are shifted by −q_i q_j/r_c as in OpenMM.
    """

    pairs: PairSource
    charge: Column
    radius: Column
    scale: Column
    solute: float = field(default=1.0, metadata={"static": True})
    solvent: float = field(default=78.5, metadata={"static": True})
    surface: float = field(default=SURFACE, metadata={"static": True})
    tanh: tuple[float, float, float] = field(default=OBC2, metadata={"static": True})

    def energy(self, frame, parameters) -> jax.Array:
        """The free energy of solvation, kJ/mol."""
        pairs, charge = self.pairs.pairs(frame), self.charge.values(parameters)
        radius = self.radius.values(parameters)
        born = self.born_radii(pairs, radius, self.scale.values(parameters))
        both = pairs.first(born) * pairs.second(born)
        f = jnp.sqrt(pairs.r**2 + both * jnp.exp(-(pairs.r**2) / (4 * both)))
        shift = 0.0 if self.pairs.cutoff is None else 1 / self.pairs.cutoff
        polar = pairs.total(pairs.first(charge) * pairs.second(charge) * (1 / f - shift))
        polar = polar + 0.5 * jnp.sum(charge**2 / born)
        apolar = jnp.sum(4 * jnp.pi * self.surface * (radius + PROBE) ** 2 * (radius / born) ** 6)
        return apolar - COULOMB * (1 / self.solute - 1 / self.solvent) * polar

    def born_radii(self, pairs: Pairs, radius: jax.Array, scale: jax.Array) -> jax.Array:
        """The Born radii, [N] nm."""
        rho = radius - OFFSET
        screened = scale * rho
        of_first = _descreening(pairs.r, pairs.first(rho), pairs.second(screened))
        of_second = _descreening(pairs.r, pairs.second(rho), pairs.first(screened))
        a, b, c = self.tanh
        psi = rho * pairs.by_atom(of_first, of_second)
        return 1 / (1 / rho - jnp.tanh(psi * (a + psi * (-b + c * psi))) / radius)


def _descreening(r, rho, screened) -> jax.Array:
    upper, lower = r + screened, jnp.maximum(rho, jnp.abs(r - screened))
    integral = 1 / lower - 1 / upper + 0.25 * (r - screened**2 / r) * (1 / upper**2 - 1 / lower**2)
    integral = integral + 0.5 * jnp.log(lower / upper) / r
    inside = jnp.where(rho < screened - r, 2 * (1 / rho - 1 / lower), 0.0)
    return 0.5 * jnp.where(upper > rho, integral + inside, 0.0)
