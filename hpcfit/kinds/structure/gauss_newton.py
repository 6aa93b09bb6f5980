"""All positions in the metric of stiff internal coordinates, made anew at each replica's present positions.

    P = J^T K J / mu + 1,    C C^T = P,    Y = C^T X

J are the derivatives of bonds, angles and dihedrals by positions, K their stiffnesses, and mu that of an atom in all
other forces: P is the Gauss-Newton approximation of the Hessian, in units of mu. In Y the stiff coordinates are as soft
as the others, so that L-BFGS has only those to learn. An energy of pairs and a metric of internal coordinates are
combined so by ASE's ``FF`` preconditioner too (Mones, Ortner and Csanyi 2018, 10.1038/s41598-018-32105-x).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import scipy.sparse

from hpcfit.kinds.structure.banded_cholesky import BandedCholesky, order_of
from hpcfit.kinds.structure.landscapes.landscape import Stiffnesses
from hpcfit.kinds.structure.parametrisations import Chart
from hpcfit.physics import internal_coordinates

Array = np.ndarray
GRADIENTS = {
    2: internal_coordinates.distances,
    3: internal_coordinates.angles,
    4: internal_coordinates.dihedrals,
}
RENEWED = 50  # evaluations, after which the metric is made anew
SHARPEST = 3.0  # of the median of its kind: a larger gradient is that of a dihedral of nearly straight angles


@dataclass(frozen=True)
class GaussNewton:
    """The metrics of positions [n, 3], one of each replica; see the module. Made by ``of``.

    order: of atoms, [n]; width: of the band, the diagonals of P below the first; places: of each kind of term, the
    places in the band of the products of its gradients, and which of them are in the lower half.
    """

    terms: Stiffnesses
    order: Array
    width: int
    places: tuple[tuple[Array, Array], ...]

    @classmethod
    def of(cls, terms: Stiffnesses, n: int) -> GaussNewton:
        """For n atoms."""
        pairs = np.concatenate([_pairs(term.atoms) for term in terms.kinds])
        graph = scipy.sparse.coo_array((np.ones(len(pairs)), pairs.T), (n, n))
        order = order_of(graph)
        place = np.argsort(order)
        width = 3 * int(np.max(np.abs(place[pairs[:, 0]] - place[pairs[:, 1]]))) + 2
        return cls(terms, order, width, tuple(_places(place[term.atoms], 3 * n) for term in terms.kinds))

    def begun(self, x: Array, seeds: Array) -> tuple[Array, Chart]:
        """See ``Parametrisation``."""
        factors = [BandedCholesky.of(self.matrix(one)) for one in x]
        columns = x[:, self.order].reshape(len(x), -1, 1)
        z = np.stack([factor.transposed_times(column)[:, 0] for factor, column in zip(factors, columns)])
        return z, OfMetrics(self.order, factors)

    def matrix(self, x: Array) -> Array:
        """P at positions [n, 3], the lower half as a band [width + 1, 3 n]."""
        size = x.size
        found = np.zeros((self.width + 1) * size)
        for term, (place, lower) in zip(self.terms.kinds, self.places):
            slopes = np.asarray(_slopes(term.atoms.shape[1], x, term.atoms)).reshape(len(term.atoms), -1)
            norm = np.sqrt(np.sum(slopes**2, axis=1, keepdims=True))
            slopes = slopes * np.minimum(1.0, SHARPEST * np.median(norm) / np.maximum(norm, 1e-300))
            products = term.stiffness[:, None, None] * slopes[:, :, None] * slopes[:, None, :]
            found += np.bincount(place, products.ravel()[lower], len(found))
        found = found.reshape(self.width + 1, size) / self.terms.background
        found[0] += 1.0
        return found


@dataclass(frozen=True)
class OfMetrics:
    """The positions C^-T y of replicas, each with a factor of its own."""

    order: Array
    factors: Sequence[BandedCholesky]

    def positions(self, z: Array) -> Array:
        """See ``Chart``."""
        found = np.empty((len(z), len(self.order), 3))
        for one, factor, y in zip(found, self.factors, z):
            one[self.order] = factor.solved(y[:, None], "T").reshape(-1, 3)
        return found

    def pulled_back(self, z: Array, slope: Array) -> Array:
        """See ``Chart``: C^-1 dE/dx."""
        columns = slope[:, self.order].reshape(len(slope), -1, 1)
        return np.stack([factor.solved(column, "N")[:, 0] for factor, column in zip(self.factors, columns)])


def _pairs(atoms: Array) -> Array:
    """All ordered pairs of the atoms [t, k] of a term, [p, 2]."""
    first, second = np.meshgrid(*2 * [np.arange(atoms.shape[1])], indexing="ij")
    return np.stack([atoms[:, first.ravel()].ravel(), atoms[:, second.ravel()].ravel()], axis=1)


def _places(atoms: Array, size: int) -> tuple[Array, Array]:
    """Where the products of the derivatives by the coordinates of atoms [t, k] lie in a flat band of rows of ``size``,
    and which of all of them these are: those in the lower half."""
    coordinates = (3 * atoms[:, :, None] + np.arange(3)).reshape(len(atoms), -1)
    row, column = np.broadcast_arrays(coordinates[:, :, None], coordinates[:, None, :])
    row, column = row.ravel(), column.ravel()
    lower = np.flatnonzero(row >= column)
    return (row - column)[lower] * size + column[lower], lower


@partial(jax.jit, static_argnums=0)
def _slopes(number: int, x: Array, atoms: Array) -> jax.Array:
    """The gradients [t, k, 3] of internal coordinates of k atoms."""
    return GRADIENTS[number](x, atoms, None)[1]
