"""Structures of predicted clusters relaxed in a simple energy: Lennard-Jones and charges in a continuum.

    E = Σ_ij [4 ε_ij ((σ_ij/r)¹² − (σ_ij/r)⁶) + q_i q_j/(4π ε₀ ε_r r)] + ½ k Σ (r − r₀)² within molecules

σ_ij and ε_ij by Lorentz and Berthelot. Molecules keep their shape by springs between all of their atoms, which have no
other energy among each other. It is not the energy of the simulation: a structure that was relaxed is one guess for
another, and what is in several pieces at the end stays as it was grown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from hpcfit.energies.constants import COULOMB
from hpcfit.energies.pair_potentials import lennard_jones, lorentz_berthelot
from hpcfit.errors import InputError
from hpcfit.kinds.clusters.composition import Structure
from hpcfit.kinds.clusters.geometry import BOND_REACH, Cutoffs, cutoffs_between

STIFFNESS = 2000.0  # kJ/mol/A^2, of the springs of molecules: those of covalent bonds
GRADIENT = 1e-4  # kJ/mol/A, at which a minimum is reached


class SimpleEnergy(NamedTuple):
    """sigma: A, epsilon: kJ/mol, charges: e, by element; permittivity: relative, of the continuum."""

    sigma: Mapping[str, float]
    epsilon: Mapping[str, float]
    charges: Mapping[str, float]
    permittivity: float = 1.0


class Relaxed(NamedTuple):
    """structure: relaxed, or as it was where it came apart; before, after: energies, kJ/mol; moved: root mean square
    over atoms, A, after superposition of centres; whole: the end is one piece; converged: at a minimum."""

    structure: Structure
    before: float
    after: float
    moved: float
    whole: bool
    converged: bool


def check_elements(energy: SimpleEnergy, elements: Sequence[str]) -> None:
    """Raise InputError for an element without sigma or epsilon."""
    for name in ("sigma", "epsilon"):
        given = getattr(energy, name)
        if missing := sorted(set(elements) - set(given)):
            there = ", ".join(sorted(set(elements)))
            raise InputError(
                f"placement.relax.{name} is given of {', '.join(sorted(given))}, the structures have {there}",
                remedy=f"add {missing[0]} = ... to it",
            )


def molecule_of(species: Sequence[str], sizes: Mapping[str, int]) -> np.ndarray:
    """The number of the molecule of each atom [n], of structures whose molecules stand one after another. sizes: atoms
    of a species, of those that have several."""
    found: list[int] = []
    while len(found) < len(species):
        found += [found[-1] + 1 if found else 0] * sizes.get(species[len(found)], 1)
    return np.array(found)


def relax(structure: Structure, molecule: np.ndarray, energy: SimpleEnergy, cutoffs: Cutoffs) -> Relaxed:
    """The nearest minimum of the energy, by L-BFGS. molecule: [n], the number of the molecule of each atom; cutoffs: A,
    by pair of species, within 1.15 of which atoms hold together."""
    x, n = np.asarray(structure.positions, float), len(structure.elements)
    terms = _terms(structure, molecule, energy)
    of = jax.jit(jax.value_and_grad(lambda flat: _energy(flat.reshape(n, 3), terms)))

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = of(flat)
        return float(value), np.asarray(gradient, float)

    before = value_and_gradient(x.ravel())[0]
    options = {"maxiter": 5000, "maxfun": 20000, "gtol": GRADIENT, "ftol": 0.0}
    found = minimize(value_and_gradient, x.ravel(), jac=True, method="L-BFGS-B", options=options)
    end = found.x.reshape(n, 3)
    end = end - end.mean(axis=0) + x.mean(axis=0)
    whole = _pieces(structure.species, end, molecule, cutoffs) == 1
    moved = float(np.sqrt(np.mean(np.sum((end - x) ** 2, axis=1))))
    gradient = value_and_gradient(end.ravel())[1]
    kept = structure._replace(positions=end) if whole else structure
    return Relaxed(kept, before, float(found.fun), moved, whole, bool(np.abs(gradient).max() <= 10 * GRADIENT))


class _Terms(NamedTuple):
    """Pairs between molecules [p] with their numbers, and springs within [s]."""

    pairs: np.ndarray
    sigma: np.ndarray
    epsilon: np.ndarray
    charge: np.ndarray  # kJ A/mol
    springs: np.ndarray
    rest: np.ndarray


def _terms(structure: Structure, molecule: np.ndarray, energy: SimpleEnergy) -> _Terms:
    i, j = np.triu_indices(len(structure.elements), 1)
    apart = molecule[i] != molecule[j]
    sigma, epsilon = (np.array([table[one] for one in structure.elements]) for table in (energy.sigma, energy.epsilon))
    q = np.array([energy.charges.get(one, 0.0) for one in structure.elements])
    pairs, springs = np.stack([i, j], axis=1)[apart], np.stack([i, j], axis=1)[~apart]
    a, b = pairs.T
    of_pairs = (np.asarray(one) for one in lorentz_berthelot(sigma[a], epsilon[a], sigma[b], epsilon[b]))
    charge = 10 * COULOMB / energy.permittivity * q[a] * q[b]
    rest = np.linalg.norm(structure.positions[springs[:, 0]] - structure.positions[springs[:, 1]], axis=1)
    return _Terms(pairs, *of_pairs, charge, springs, rest)


def _energy(x: jax.Array, terms: _Terms) -> jax.Array:
    r, length = (
        jnp.sqrt(jnp.sum((x[among[:, 0]] - x[among[:, 1]]) ** 2, axis=1)) for among in (terms.pairs, terms.springs)
    )
    between = lennard_jones(r, terms.sigma, terms.epsilon) + terms.charge / r
    return jnp.sum(between) + 0.5 * STIFFNESS * jnp.sum((length - terms.rest) ** 2)


def _pieces(species: Sequence[str], x: np.ndarray, molecule: np.ndarray, cutoffs: Cutoffs) -> int:
    """How many pieces atoms make by contacts and molecules."""
    near = cdist(x, x) <= BOND_REACH * cutoffs_between(species, cutoffs)
    return int(connected_components(near | (molecule[:, None] == molecule))[0])
