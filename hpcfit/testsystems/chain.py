"""A chain of seven charged sites with bonds, angles, torsions and Lennard-Jones pairs, whose forces are a JAX function
of nine parameters: small enough to differentiate trajectories of it by every way there is."""

from __future__ import annotations

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np

SITES = 7
MASSES = np.array([12.0, 1.0, 14.0, 16.0, 12.0, 1.0, 12.0])  # amu
CHARGES = np.array([0.2, 0.1, -0.4, -0.3, 0.3, 0.1, 0.0])  # e
COULOMB = 138.935458  # kJ/mol nm/e^2
PARAMETERS = {
    "bond k": 2e4, "bond length": 0.15,  # kJ/mol/nm^2, nm
    "angle k": 200.0, "angle": 1.9,  # kJ/mol/rad^2, rad
    "torsion k": 3.0, "torsion phase": 0.4,  # kJ/mol, rad
    "sigma": 0.25, "epsilon": 0.5, "scale": 1.0,  # nm, kJ/mol, of the charges
}  # fmt: skip
PAIRS = np.array([(i, j) for i, j in combinations(range(SITES), 2) if j - i > 2])


def start() -> np.ndarray:
    """A crooked helix, [7, 3] nm."""
    t = np.arange(SITES)
    return np.stack([0.09 * np.cos(1.75 * t), 0.09 * np.sin(1.75 * t), 0.06 * t], axis=1)


def parameters() -> dict[str, jax.Array]:
    """The parameters by name, each a scalar of the precision that JAX has been told."""
    return {name: jnp.asarray(value) for name, value in PARAMETERS.items()}


def energy(x: jax.Array, parameters: dict[str, jax.Array]) -> jax.Array:
    """kJ/mol, of positions [7, 3] in nm."""
    p, step = parameters, x[1:] - x[:-1]
    length = jnp.linalg.norm(step, axis=1)
    unit = step / length[:, None]
    bonds = 0.5 * p["bond k"] * jnp.sum((length - p["bond length"]) ** 2)
    angle = jnp.arccos(-jnp.sum(unit[1:] * unit[:-1], axis=1))
    angles = 0.5 * p["angle k"] * jnp.sum((angle - p["angle"]) ** 2)
    normal = jnp.cross(step[:-1], step[1:])
    sine = jnp.sum(jnp.cross(normal[:-1], normal[1:]) * unit[1:-1], axis=1)
    torsion = jnp.arctan2(sine, jnp.sum(normal[:-1] * normal[1:], axis=1))
    torsions = p["torsion k"] * jnp.sum(1 + jnp.cos(3 * torsion - p["torsion phase"]))
    r = jnp.linalg.norm(x[PAIRS[:, 0]] - x[PAIRS[:, 1]], axis=1)
    s6 = (p["sigma"] / r) ** 6
    charges = p["scale"] * CHARGES
    coulomb = COULOMB * jnp.sum(charges[PAIRS[:, 0]] * charges[PAIRS[:, 1]] / r)
    return bonds + angles + torsions + 4 * p["epsilon"] * jnp.sum(s6 * s6 - s6) + coulomb


def forces(x: jax.Array, parameters: dict[str, jax.Array]) -> jax.Array:
    """kJ/mol/nm, [7, 3]."""
    return -jax.grad(energy)(x, parameters)
