"""Structure factors S(q) of a solution of spheres, in JAX: hard spheres, and spheres that repel by a screened charge.

Both are differentiable by their parameters. R: radius, A; eta: volume fraction; the number density is
rho = eta / (4 pi R^3 / 3). q in 1/A.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

BJERRUM = {"water": 7.13, "DMF": 15.2, "DMSO": 12.0}  # A at 298 K, e^2 / (4 pi eps0 eps kT); eps = 78.5, 36.7, 46.7
AVOGADRO = 6.02214076e-4  # particles / A^3 in a solution of 1 mol/L
SMALL = 1.0  # below it the closed form cancels, and a quadrature is exact
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_S, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2


def hard_spheres(q: Any, radius: Any, fraction: Any) -> Any:
    """S(q) of hard spheres in the Percus-Yevick approximation, which has a closed form (Wertheim 1963,
    10.1103/PhysRevLett.10.321; Ashcroft and Lekner 1966, 10.1103/PhysRev.145.83). It holds to some 0.45 of eta.

    With x = 2 q R and c(s) = -(alpha + beta s + gamma s^3) inside of a diameter,  1 / S = 1 - rho c(q)
    """
    return 1 / (1 + _correlation(jnp.asarray(q), radius, fraction))


def charged_spheres(q: Any, radius: Any, fraction: Any, charge: Any, debye_length: Any, bjerrum: Any) -> Any:
    """S(q) of hard spheres that repel by a screened Coulomb potential, in the random-phase approximation:

        1 / S = 1 / S_hs + rho beta u(q),   beta u(r) = z^2 l_B / (1 + R / L)^2 exp(-(r - 2 R) / L) / r   for r > 2 R

    charge: z, in e; debye_length: L, A; bjerrum: l_B, A. (Narayanan and Liu, Biophys. J. 2003, "Protein interactions
    in undersaturated and supersaturated solutions", describe proteins so; the potential is that of Hayter and Penfold
    1981, 10.1080/00268978100100091, whose mean spherical approximation, rescaled, is the better one where beta u
    exceeds some kT at contact.)
    """
    q, kappa = jnp.asarray(q), 1 / debye_length
    diameter, density = 2 * radius, fraction / (4 * np.pi / 3 * radius**3)
    height = charge**2 * bjerrum / (1 + kappa * radius) ** 2
    # 4 pi / q times the integral of exp(-kappa (r - D)) sin(q r) from D to infinity
    wave = kappa * diameter * jnp.sinc(q * diameter / np.pi) + jnp.cos(q * diameter)
    potential = 4 * np.pi * height * wave / (kappa**2 + q**2)
    return 1 / (1 + _correlation(q, radius, fraction) + density * potential)


def debye_length(salt: float, bjerrum: float, counterions: float = 0.0) -> float:
    """The Debye length, A, of a 1:1 salt of so many mol/L and of counterions of charge 1, mol/L."""
    return float((4 * np.pi * bjerrum * AVOGADRO * (2 * salt + counterions)) ** -0.5)


def _correlation(q: Any, radius: Any, fraction: Any) -> Any:
    """-rho c(q) of Percus and Yevick."""
    eta, x = fraction, 2 * q * radius
    alpha = (1 + 2 * eta) ** 2 / (1 - eta) ** 4
    beta, gamma = -6 * eta * (1 + eta / 2) ** 2 / (1 - eta) ** 4, eta * alpha / 2
    near, far = jnp.minimum(x, SMALL), jnp.maximum(x, SMALL)
    c = alpha + beta * _S + gamma * _S**3
    small = jnp.sinc(near[..., None] * _S / np.pi) @ (_WEIGHTS * _S**2 * c)
    sine, cosine = jnp.sin(far), jnp.cos(far)
    large = (
        alpha * (sine - far * cosine) / far**3
        + beta * (2 * far * sine + (2 - far**2) * cosine - 2) / far**4
        + gamma * (-(far**4) * cosine + 4 * ((3 * far**2 - 6) * cosine + (far**3 - 6 * far) * sine + 6)) / far**6
    )
    return 24 * eta * jnp.where(x < SMALL, small, large)
