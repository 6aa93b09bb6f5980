"""Atoms that constraints join: a force map gives all atoms of a rigid group one coefficient.

The gradient of a distance constraint between atoms i and j is along r_ij with opposite signs, so that a map W constant
in the configuration is orthogonal to it only with W_Ii = W_Ij (Ciccotti, Kapral and Vanden-Eijnden,
10.1002/cphc.200400669; Kramer and others, 10.1021/acs.jpclett.3c00444). Atoms joined through any chain of constraints
share one coefficient.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import connected_components

from hpcfit.errors import InputError


def rigid_groups(n_atoms: int, constraints: np.ndarray, left_out: Sequence[int] = ()) -> np.ndarray:
    """The number of the rigid group of each atom, [n_atoms], counted in the order of their first atoms.

    constraints: pairs of atoms, [c, 2]. left_out: atoms that carry no force of their own, as virtual sites; theirs is
    -1. Raises InputError for a constraint that names an atom there is not, or one that is left out.
    """
    pairs = np.asarray(constraints, int).reshape(-1, 2)
    left_out = np.asarray(left_out, int).reshape(-1)
    _check(pairs, n_atoms, left_out)
    graph = scipy.sparse.coo_array((np.ones(len(pairs)), tuple(pairs.T)), (n_atoms, n_atoms))
    _, label = connected_components(graph, directed=False)
    kept = np.setdiff1d(np.arange(n_atoms), left_out)
    _, first, of_kept = np.unique(label[kept], return_index=True, return_inverse=True)
    group = np.full(n_atoms, -1)
    group[kept] = np.argsort(np.argsort(first))[of_kept]
    return group


def _check(pairs: np.ndarray, n_atoms: int, left_out: np.ndarray) -> None:
    missing = pairs[np.any((pairs < 0) | (pairs >= n_atoms), axis=1)]
    if len(missing):
        raise InputError(
            f"a constraint joins atoms {missing[0, 0]} and {missing[0, 1]}, but there are {n_atoms} atoms (from 0)",
            remedy="take constraints and trajectory from the same system",
        )
    virtual = pairs[np.any(np.isin(pairs, left_out), axis=1)]
    if len(virtual):
        raise InputError(
            f"a constraint joins atoms {virtual[0, 0]} and {virtual[0, 1]}, one of which is a virtual site",
            remedy="constrain the atoms that the site is made of",
        )
