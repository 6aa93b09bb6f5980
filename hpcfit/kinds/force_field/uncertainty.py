"""Errors of corrections and curves at the optimum, and what the data do not determine.

Where the weights of frames are minimised over, the loss is a function of theta = (phi, curves) alone. Its second
derivative is exact here, not that of Gauss and Newton. With X the averages of an ensemble, h = (g, f) what is averaged
beside the terms of the force field, and C_P, C_F their covariances under P and P_ff:

    H = [ gamma R'' + d2(chi2/2)/dc2              0             ]     B = [ d2(chi2/2)/dX dc     0      ]
        [            0               alpha C_F(f,f) + beta K'' ],        [        0         alpha 1    ]

    d2 L / d theta2 = sum over ensembles of  H - B^T C_P (alpha + W C_P)^-1 B,    W = d2(chi2/2)/dX2 in the block of g,

K'' = C_F(f,f) - E_F[f f (phi.f)] of centred f: the second derivative of KL(P_ff || P_0). Laplace's approximation takes
exp(-L) for the probability of theta: the inverse is the covariance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
import scipy.linalg

from hpcfit.fit.gradient import Evaluation, Gradient
from hpcfit.kinds.force_field.problem import CIRCLE, JointFit

DETERMINED = 0.5  # share of what is known of a combination, below which it is the prices that say it
SHOWN = 0.1  # least share of a parameter in a combination that is named, of the largest


class Moments(NamedTuple):
    """Of each ensemble: covariance of h under P [S, F + K, F + K]; of the terms under P_ff, [S, K, K], and their third
    moment with phi.f, [S, K, K]."""

    of_p: np.ndarray
    of_q: np.ndarray
    third: np.ndarray


class Combination(NamedTuple):
    """A combination of parameters, in units of what their prices leave open. determined: the share of what is known
    of it that the data say, 0 to 1."""

    coefficients: np.ndarray
    determined: float


class Uncertainty(NamedTuple):
    """covariance: of the fitted corrections, then the coefficients of the fitted curves, or None where the loss is no
    minimum in them; combinations: least determined first."""

    covariance: np.ndarray | None
    combinations: Sequence[Combination]

    @property
    def errors(self) -> np.ndarray | None:
        """Standard deviations."""
        return None if self.covariance is None else np.sqrt(np.diag(self.covariance))

    @property
    def correlations(self) -> np.ndarray | None:
        """The correlation matrix."""
        return None if self.covariance is None else self.covariance / np.outer(self.errors, self.errors)


def moments(evaluate: Gradient, at: Evaluation) -> Moments:
    """Second and third moments over all frames, in one pass; collective."""
    problem, rows = evaluate.problem, evaluate.frames.rows
    parts, of_block = [], jax.jit(jax.vmap(_moments, in_axes=(None, None, 0)))
    local = lambda tree, where: jax.tree.map(lambda leaf: leaf[where], tree)  # noqa: E731
    for chunk in evaluate.frames.chunks():
        frames = (chunk.data[0], at.params.local[chunk.rows], rows.ids[chunk.rows], local(rows.more, chunk.rows))
        parts.append(of_block(problem, at.params.shared, frames))
    p, hp, hhp, q, fq, ffq, fffq = evaluate.add(parts, axis=0, over="frames")
    mean_p, mean_q = hp / p[:, None], fq / q[:, None]
    outer = lambda a, b: a[:, :, None] * b[:, None, :]  # noqa: E731
    of_p = hhp / p[:, None, None] - outer(mean_p, mean_p)
    second, phi = ffq / q[:, None, None], np.asarray(problem.phi(at.params.shared))
    of_q = second - outer(mean_q, mean_q)
    # The third moment of centred f, from plain ones.
    raw, along = fffq / q[:, None, None], second @ phi
    m = mean_q @ phi
    cross = outer(mean_q, along)
    third = raw - m[:, None, None] * second - cross - cross.swapaxes(1, 2) + 2 * m[:, None, None] * outer(mean_q, mean_q)
    return Moments(of_p, of_q, third)


class _Frames(NamedTuple):
    data: jax.Array
    local: jax.Array
    ids: jax.Array
    more: jax.Array


def _moments(problem: JointFit, shared: dict, frames: tuple) -> tuple:
    """The sums of one block: p, p h, p h h, q, q f, q f f, q f f (phi.f)."""
    from hpcfit.fit.problem import Cell, Params

    data, local, ids, more = frames
    cell = Cell(data, ids, more)
    p, _, q, tilt = problem.weights(Params(shared, local), cell)
    member, f = problem._member(cell), more.terms
    h = jax.numpy.concatenate([data, f], axis=1)
    second = lambda w, a: jax.numpy.einsum("ts,ti,tj->sij", member * w[:, None], a, a)  # noqa: E731
    first = lambda w, a: (member * w[:, None]).T @ a  # noqa: E731
    return p @ member, first(p, h), second(p, h), q @ member, first(q, f), second(q, f), second(q * tilt, f)
