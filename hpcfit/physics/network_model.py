"""Elastic network of a molecule or a crystal: which way its sites move together, without a force field.

Sites closer than a cut-off are joined by equal springs at rest (Tirion, 10.1103/PhysRevLett.77.1905; with one site a
residue the anisotropic network model of Atilgan and others, 10.1016/S0006-3495(01)76033-X). Displacements are Gaussian,
their covariance the pseudo-inverse of the Hessian times a temperature that a mean B factor sets.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse
from scipy.sparse.linalg import eigsh
from scipy.spatial import cKDTree

from hpcfit.errors import InputError

# Of the stiffest mode. Rigid motions come out of the eigensolver at 1e-15 of it, the softest real ones above 1e-6.
ZERO = 1e-9


class Modes(NamedTuple):
    """Normal modes, softest first: vector [K, N, 3], of length 1 over all sites; variance [K] of each amplitude."""

    vector: np.ndarray
    variance: np.ndarray

    def mean_square(self) -> np.ndarray:
        """<|u|^2> of each site, [N]."""
        return np.einsum("k,knx->n", self.variance, self.vector**2)

    def scaled_to_b_factor(self, mean_b: float) -> Modes:
        """These modes at the temperature where B = 8 pi^2 <|u|^2> / 3 is mean_b (A^2) on the average over sites."""
        present = 8 * np.pi**2 / 3 * self.mean_square().mean()
        return self._replace(variance=self.variance * (mean_b / present))

    def sample(self, n_frames: int, seed: int) -> np.ndarray:
        """Independent displacements, [T, N, 3]."""
        amplitude = np.random.default_rng(seed).standard_normal((n_frames, len(self.variance)))
        return np.tensordot(amplitude * np.sqrt(self.variance), self.vector, axes=1)


def hessian(sites: np.ndarray, cutoff: float, box: np.ndarray | None = None) -> scipy.sparse.csr_array:
    """Second derivatives of the energy, springs of constant 1: sparse [3 N, 3 N], A^0.

    sites: [N, 3], A; box: lengths [3] of an orthogonal periodic cell, A, or None. Raises InputError for a cut-off of
    half the box or more, where a site would meet its own image, and for sites without a neighbour.
    """
    first, second, bond = _bonds(np.asarray(sites, float), cutoff, box)
    missing = np.setdiff1d(np.arange(len(sites)), [first, second])
    if len(missing):
        raise InputError(
            f"site {missing[0]} and {len(missing) - 1} others have no neighbour within {cutoff} A",
            remedy="raise the cut-off",
        )
    direction = bond / np.linalg.norm(bond, axis=1, keepdims=True)
    # energy sum_ij ((u_i - u_j) . n_ij)^2 / 2: a block n n^T on the diagonal of both, -n n^T between them
    spread = np.concatenate([direction, -direction], axis=1)
    springs = np.arange(len(first))[:, None]
    columns = np.concatenate([3 * first[:, None] + np.arange(3), 3 * second[:, None] + np.arange(3)], axis=1)
    rows = np.broadcast_to(springs, columns.shape)
    shape = (len(first), 3 * len(sites))
    compatibility = scipy.sparse.csr_array((spread.ravel(), (rows.ravel(), columns.ravel())), shape)
    return (compatibility.T @ compatibility).tocsr()


def _bonds(sites: np.ndarray, cutoff: float, box: np.ndarray | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs within the cut-off, each once, and the vector between them, across the faces of the box."""
    if box is None:
        pairs = cKDTree(sites).query_pairs(cutoff, output_type="ndarray")
        return *pairs.T, sites[pairs[:, 0]] - sites[pairs[:, 1]]
    box = np.asarray(box, float)
    if cutoff >= box.min() / 2:
        raise InputError(f"cut-off {cutoff} A in a box of {box.tolist()} A", remedy="use less than half the shortest")
    pairs = cKDTree(sites % box, boxsize=box).query_pairs(cutoff, output_type="ndarray")
    bond = sites[pairs[:, 0]] - sites[pairs[:, 1]]
    return *pairs.T, bond - box * np.round(bond / box)


def normal_modes(hessian: scipy.sparse.csr_array, n_modes: int) -> Modes:
    """The n_modes softest modes that are no rigid motion, at kT = 1: variance 1 / eigenvalue.

    Rigid motions are all that cost nothing: three shifts, and three rotations where nothing is periodic. More of them
    than six raise InputError: the network falls into parts, or has hinges.
    """
    size = hessian.shape[0]
    # The solver would start from a random vector of its own, and signs and last digits would change from run to run.
    start = np.random.default_rng(0).standard_normal(size)
    stiffest = eigsh(hessian, 1, v0=start, return_eigenvectors=False)[0]
    # Around a small negative number the matrix can be inverted although it has eigenvalues 0.
    value, vector = eigsh(hessian, min(n_modes + 6, size - 1), sigma=-1e-6 * stiffest, v0=start)
    order = np.argsort(value)
    value, vector = value[order], vector.T[order]
    rigid = int(np.sum(value < ZERO * stiffest))
    if rigid > 6:
        raise InputError(f"{rigid} modes of the network cost nothing", remedy="raise the cut-off")
    chosen = slice(rigid, rigid + n_modes)
    return Modes(vector[chosen].reshape(-1, size // 3, 3), 1 / value[chosen])
