"""Contacts of a configuration, in NumPy: who touches whom, how many pieces there are, and who overlaps."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from hpcfit.kinds.structure.landscapes.landscape import CONTACT


def pairs_of(weights: csr_array) -> np.ndarray:
    """The coupled pairs i < j of symmetric weights [n, n], [p, 2]."""
    first, second = weights.nonzero()
    return np.stack([first, second], axis=1)[first < second]


def joined(n: int, pairs: np.ndarray) -> csr_array:
    """Symmetric weights [n, n] that are 1 for pairs [p, 2]."""
    half = csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), (n, n))
    return (half + half.T).tocsr()


def distances(x: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The distances [p] of pairs [p, 2] at coordinates [n, d]."""
    x = np.asarray(x, float)
    return np.linalg.norm(x[pairs[:, 0]] - x[pairs[:, 1]], axis=1)


def in_contact(r: np.ndarray, sigma: float | np.ndarray = 1.0) -> np.ndarray:
    """True for each distance [p] within the limits of a contact."""
    return (r > CONTACT[0] * sigma) & (r < CONTACT[1] * sigma)


def pieces(n: int, pairs: np.ndarray) -> int:
    """The connected components of n particles that are joined by pairs [p, 2]."""
    graph = csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), (n, n))
    return int(connected_components(graph, directed=False)[0])


def pairs_within(x: np.ndarray, r: float) -> np.ndarray:
    """All pairs of particles nearer than r, [p, 2]."""
    return cKDTree(np.asarray(x, float)).query_pairs(r, output_type="ndarray").reshape(-1, 2)
