"""Quadratic programs with linear equalities, many right-hand sides at once, by elimination.

    min_x  x^T P x + pull (x - t)^T D (x - t)   subject to   A x = e

A pivoted QR of A gives as many of the unknowns as there are independent equalities in terms of the others, whose system
is then scaled and factored by Cholesky. Nothing inverts P, which is singular wherever the forces add up to zero. Where
the objective leaves x undetermined, the answer is the limit of a vanishing pull: of the best x, the one nearest to t.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg

# Reciprocal condition number below which rounding may have made a singular matrix look regular.
DOUBTFUL = 1e-10


class Equalities(NamedTuple):
    """A x = e solved for some unknowns: x[pivots] = start - slope x[free]."""

    pivots: np.ndarray  # [r]
    free: np.ndarray  # [f]
    slope: np.ndarray  # [r, f]
    start: np.ndarray  # [r, n]
    violation: np.ndarray  # [n], the largest equality that no x satisfies

    def complete(self, y: np.ndarray) -> np.ndarray:
        """x [r + f, n] of the free unknowns y [f, n]."""
        x = np.empty((len(self.pivots) + len(self.free), y.shape[1]))
        x[self.free], x[self.pivots] = y, self.start - self.slope @ y
        return x

    def spread(self, y: np.ndarray) -> np.ndarray:
        """Z y [r + f, n]: the change of x with the free unknowns; A Z = 0."""
        return self._replace(start=np.zeros((len(self.pivots), y.shape[1]))).complete(y)

    def gather(self, x: np.ndarray) -> np.ndarray:
        """Z^T x, [f, n]."""
        return x[self.free] - self.slope.T @ x[self.pivots]

    def project(self, P: np.ndarray) -> np.ndarray:
        """Z^T P Z, [f, f], of a symmetric P."""
        inner = P[np.ix_(self.free, self.free)]
        active = np.flatnonzero(self.slope.any(axis=0))  # none where each bead is one atom
        if len(active):
            K = self.slope[:, active]
            across = P[np.ix_(self.free, self.pivots)] @ K
            inner[:, active] -= across
            inner[active] -= across.T
            inner[np.ix_(active, active)] += K.T @ P[np.ix_(self.pivots, self.pivots)] @ K
        return inner


def solve_equalities(A: np.ndarray, e: np.ndarray) -> Equalities:
    """A [c, k] x [k, n] = e [c, n] for as many unknowns as A has independent rows."""
    Q, R, order = scipy.linalg.qr(A, mode="economic", pivoting=True)
    diagonal = np.abs(np.diagonal(R))
    rank = int(np.sum(diagonal > max(A.shape) * np.finfo(float).eps * diagonal.max(initial=0)))
    Q, head, tail = Q[:, :rank], R[:rank, :rank], R[:rank, rank:]
    within = Q.T @ e
    start, slope = (scipy.linalg.solve_triangular(head, side) for side in (within, tail))
    violation = np.abs(e - Q @ within).max(axis=0, initial=0)
    return Equalities(order[:rank], order[rank:], slope, start, violation)


def minimise(P: np.ndarray, D: np.ndarray, equalities: Equalities, pull: float, target: np.ndarray) -> np.ndarray:
    """The x [k, n] that minimises the objective. P: [k, k], symmetric, no negative eigenvalue beyond rounding; D: [k],
    positive; target: t, [k, n]."""
    regular = np.array(P, float)
    np.einsum("ii->i", regular)[:] += pull * D
    wanted = (pull * D)[:, None] * target

    def downhill(x):
        return equalities.gather(wanted - regular @ x)

    at_zero = np.zeros((len(equalities.free), equalities.start.shape[1]))
    if not len(equalities.free):
        return equalities.complete(at_zero)
    inner = equalities.project(regular)
    scale = 1 / np.sqrt(np.where(np.diagonal(inner) > 0, np.diagonal(inner), 1))
    inner *= scale[:, None] * scale
    factor = _cholesky(inner)
    if factor is None:
        return _nearest(inner, scale, D, equalities, downhill, target)
    y = at_zero
    for _ in range(2):  # the second is a refinement
        step = scipy.linalg.cho_solve((factor, True), scale[:, None] * downhill(equalities.complete(y)))
        y = y + scale[:, None] * step
    return equalities.complete(y)


def _cholesky(matrix: np.ndarray) -> np.ndarray | None:
    """The lower factor, or None for a matrix that is singular or nearly so."""
    try:
        factor = scipy.linalg.cholesky(matrix, lower=True)
    except scipy.linalg.LinAlgError:
        return None
    rcond, _ = scipy.linalg.lapack.dpocon(factor, np.abs(matrix).sum(axis=0).max(), uplo="L")
    return factor if rcond > DOUBTFUL else None


def _nearest(inner, scale, D, equalities, downhill, target) -> np.ndarray:
    """Of all x with the least objective, the one that is nearest to the target in the metric D.

    Eigenvalues count as zero within the rounding of the solver, and of P itself, of which negative ones tell.
    """
    value, vector = scipy.linalg.eigh(inner)
    kept = value > max(len(value) * np.finfo(float).eps * value[-1], -2 * value[0])
    along, across = scale[:, None] * vector[:, kept], scale[:, None] * vector[:, ~kept]
    y = np.zeros((len(value), equalities.start.shape[1]))
    for _ in range(2):
        y = y + along @ ((along.T @ downhill(equalities.complete(y))) / value[kept][:, None])
    if not across.size:
        return equalities.complete(y)
    free = equalities.spread(across)
    towards = free.T @ (D[:, None] * (target - equalities.complete(y)))
    return equalities.complete(y + across @ scipy.linalg.solve(free.T @ (D[:, None] * free), towards, assume_a="pos"))
