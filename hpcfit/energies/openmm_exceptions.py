"""Exceptions of OpenMM's NonbondedForce, in and out.

Exceptions that are what their atoms' parameters give, times a scale a class of pairs (1-4), stay so: a fitted charge
changes them too. Others have parameters of their own. Exceptions without charge and ε are exclusions and have none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hpcfit.energies.columns import Column, Types
from hpcfit.energies.coulomb import OwnPairs, ScaledPairs
from hpcfit.energies.openmm_reading import Read, numbers, table

MOST_SCALES = 4  # different ratios of exceptions to what their atoms give, up to which these are scales
SAME_RATIO = 1e-9


def read_exceptions(
    force: Any, types: Types, columns: dict[str, Column], own: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> tuple[np.ndarray, Read]:
    """The pairs [X, 2] of all exceptions, and the term of those that are no mere exclusions.

    columns, own: charge, sigma and epsilon of the atoms, as columns and as values [N].
    """
    count = force.getNumExceptions()
    if not count:
        return np.zeros((0, 2), dtype=np.int32), NONE
    atoms, (product, sigma, epsilon) = table(count, force.getExceptionParameters, 2)
    rows = np.flatnonzero((product != 0) | (epsilon != 0))
    if not len(rows):
        return atoms, NONE
    pairs, given = atoms[rows], (product[rows], sigma[rows], epsilon[rows])
    scales = _scales(pairs, given, own)
    if scales is None:
        kind, parts = OwnPairs, _own_columns(types, pairs, given)
    else:
        kind, parts = ScaledPairs, columns | _scale_columns(types, pairs, scales)
    term = kind(atoms=pairs, periodic=force.getExceptionsUsePeriodicBoundaryConditions(), **parts)

    def write(force, parameters):
        for row, *found in zip(rows, *term.pair_values(parameters)):
            force.setExceptionParameters(int(row), *numbers(atoms[row]), *map(float, found))

    return atoms, Read((term,), write)


NONE = Read((), lambda force, parameters: None)


def _scale_columns(types: Types, pairs, scales) -> dict[str, Column]:
    prefix = types.prefix("scale14")
    return {
        f"{name}_scale": types.columns(prefix, {name: scale}, pairs, constant={name: scale == 0})[name]
        for name, scale in zip(("charge", "epsilon"), scales)
    }


def _own_columns(types: Types, pairs, given) -> dict[str, Column]:
    product, sigma, epsilon = given
    named = {"charge_product": product, "sigma": sigma, "epsilon": epsilon}
    none = {"charge_product": product == 0, "sigma": epsilon == 0, "epsilon": epsilon == 0}
    return types.columns(types.prefix("pair"), named, pairs, constant=none)


def _scales(pairs, given, own) -> tuple[np.ndarray, np.ndarray] | None:
    """The scales [T] of charge and ε of exceptions that follow from their atoms' parameters; None if they do not."""
    (product, sigma, epsilon), (charge, sigmas, epsilons) = given, own
    i, j = pairs.T
    by_charge = _ratios(product, charge[i] * charge[j])
    by_epsilon = _ratios(epsilon, np.sqrt(epsilons[i] * epsilons[j]))
    mean = np.where(epsilon == 0, sigma, 0.5 * (sigmas[i] + sigmas[j]))
    if by_charge is None or by_epsilon is None or not np.allclose(sigma, mean, rtol=SAME_RATIO, atol=0):
        return None
    return by_charge, by_epsilon


def _ratios(found, expected) -> np.ndarray | None:
    """found/expected, near values made equal, 0 where both are 0; None for many values, or none at all."""
    if np.any((expected == 0) & (found != 0)):
        return None
    ratio = np.divide(found, expected, out=np.zeros_like(found), where=expected != 0)
    distinct = np.sort(ratio[expected != 0])
    distinct = distinct[np.diff(distinct, prepend=-np.inf) > SAME_RATIO]
    if len(distinct) > MOST_SCALES:
        return None
    return distinct[np.argmin(np.abs(ratio[:, None] - distinct), axis=1)] if len(distinct) else ratio
