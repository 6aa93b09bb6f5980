"""An energy of one's own: argon as Lennard-Jones atoms. `hpcfit init force-field --demo` writes this file beside its
config, which names it as "lennard_jones.py:energy".

hpcfit differentiates the function by positions, parameters and box: it must be written with jax.numpy.
"""

import jax.numpy as jnp

CUTOFF, SWITCH = 0.70, 0.60  # nm


def energy(positions, parameters, box):
    """The energy in kJ/mol. positions: [N, 3] nm; parameters: "sigma" [1] nm, "epsilon" [1] kJ/mol; box: [3, 3] nm."""
    sigma, epsilon = parameters["sigma"][0], parameters["epsilon"][0]
    i, j = jnp.triu_indices(len(positions), 1)
    apart = positions[i] - positions[j]
    widths = jnp.diagonal(box)
    apart = apart - widths * jnp.round(apart / widths)
    r = jnp.sqrt(jnp.sum(apart**2, axis=-1))
    near = jnp.where(r < CUTOFF, r, CUTOFF)
    pairs = jnp.sum(jnp.where(r < CUTOFF, lennard_jones(near, sigma, epsilon) * switch(near), 0.0))
    return pairs + tail(sigma, epsilon, len(positions), jnp.prod(widths))


def lennard_jones(r, sigma, epsilon):
    """4 epsilon ((sigma / r)^12 - (sigma / r)^6)."""
    sixth = (sigma / r) ** 6
    return 4 * epsilon * (sixth**2 - sixth)


def switch(r):
    """1 below SWITCH, 0 at CUTOFF, with continuous second derivatives."""
    x = jnp.clip((r - SWITCH) / (CUTOFF - SWITCH), 0.0, 1.0)
    return 1 - x**3 * (10 - 15 * x + 6 * x**2)


def tail(sigma, epsilon, n, volume):
    """The pairs beyond SWITCH as if their density were even, less what the switch leaves of them."""
    x, weight = _nodes()
    r = SWITCH + (CUTOFF - SWITCH) * x
    left_out = (CUTOFF - SWITCH) * jnp.sum(weight * (1 - switch(r)) * lennard_jones(r, sigma, epsilon) * r**2)
    beyond = 4 * epsilon * (sigma**12 / (9 * CUTOFF**9) - sigma**6 / (3 * CUTOFF**3))
    return 2 * jnp.pi * n**2 / volume * (left_out + beyond)


def _nodes():
    """Gauss-Legendre nodes and weights on [0, 1]."""
    import numpy as np

    x, weight = np.polynomial.legendre.leggauss(16)
    return 0.5 * (x + 1), 0.5 * weight
