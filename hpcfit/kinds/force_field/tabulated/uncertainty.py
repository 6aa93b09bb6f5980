"""Errors of corrections and curves at the optimum, and what the data do not determine.

Where the weights of frames are minimised over, the loss is a function of theta = (phi, curves) alone. Its second
derivative is exact here, not that of Gauss and Newton. With X the averages of an ensemble, h = (g, f) what is averaged
beside the terms of the force field, and C_P, C_F their covariances under P and P_ff:

    H = [ gamma R'' + d2(chi2/2)/dc2                    0                    ]     B = [ d2(chi2/2)/dX dc     0    ]
        [            0               alpha C_F(f,f) + beta K'' + 1 / prior^2 ],        [        0         alpha 1  ]

    d2 L / d theta2 = sum over ensembles of  H - B^T C_P (alpha + W C_P)^-1 B,    W = d2(chi2/2)/dX2 in the block of g,

K'' = C_F(f,f) - E_F[f f (phi.f)] of centred f: the second derivative of KL(P_ff || P_0). Laplace's approximation takes
exp(-L) for the probability of theta: the inverse is the covariance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from hpcfit.fit.cells import each
from hpcfit.fit.gradient import Evaluation, Gradient
from hpcfit.fit.problem import Cell, Params
from hpcfit.kinds.force_field.parameters import in_words
from hpcfit.kinds.force_field.tabulated.problem import JointFit, Scales
from hpcfit.observables.curves import CIRCLE, whitening

DETERMINED = 0.1  # share of what is known of a combination, below which it is the prices that say it
SINGULAR = 1e-6  # curvature in units of that of the prices, below which there is no minimum


class Moments(NamedTuple):
    """Moments of each ensemble: means and covariances of (g, f, ln(P / P_ff)) under P, [S, F + K + 1] and squared; of
    the terms under P_ff, [S, K] and [S, K, K], and their third moment with phi.f there, [S, K, K]."""

    means: np.ndarray
    of_p: np.ndarray
    means_q: np.ndarray
    of_q: np.ndarray
    third: np.ndarray


class Combination(NamedTuple):
    """A combination of parameters. words: its name, in units of what their prices leave open. determined: the share of
    what is known of it that the data say, 0 to 1."""

    words: str
    determined: float


class Uncertainty(NamedTuple):
    """covariance: of the fitted corrections, kT, then of A, B, C of the fitted curves, Hz; None where the loss is no
    minimum in them. combinations: the least determined first."""

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


def uncertainty(evaluate: Gradient, at: Evaluation, names: Sequence[str]) -> Uncertainty:
    """Errors and combinations of the fitted parameters at an optimum; names: of them. Collective."""
    if not names:
        return Uncertainty(np.zeros((0, 0)), ())
    found = moments(evaluate, at)
    curvature, priced = curvatures(evaluate.problem, at, found)
    unit = whitening(priced)
    values, vectors = np.linalg.eigh(unit.T @ curvature @ unit)
    directions = unit @ vectors
    covariance = (directions / values) @ directions.T if values[0] > SINGULAR else None
    sizes = np.sqrt(np.diag(priced))
    combinations = [
        Combination(in_words(direction * sizes, names), float(np.clip(1 - 1 / max(value, SINGULAR), 0, 1)))
        for value, direction in zip(values, directions.T)
    ]
    return Uncertainty(covariance, combinations)


def undetermined(found: Uncertainty) -> list[str]:
    """A sentence on the combinations that the data do not determine, if there are any."""
    weak = [one for one in found.combinations if one.determined < DETERMINED]
    if not weak:
        return []
    words = "; ".join(f"{one.words} ({100 * one.determined:.0f} %)" for one in weak)
    return [
        f"the data do not determine {len(weak)} of {len(found.combinations)} combinations of the fitted parameters, of"
        f" which they say less than {100 * DETERMINED:.0f} % of what is known, and the prices say the rest: {words}"
    ]


# ---- moments of the frames -----------------------------------------------------------------------------------------


def moments(evaluate: Gradient, at: Evaluation) -> Moments:
    """Second and third moments over all frames, in one pass; collective."""
    rows, parts = evaluate.frames.rows, []
    for chunk in evaluate.frames.chunks():
        local, ids, more = jax.tree.map(lambda leaf: leaf[chunk.rows], (at.params.local, rows.ids, rows.more))  # noqa: B023
        parts.append(_of_blocks(evaluate.problem, at.params.shared, local, Cell(chunk.data[0], ids, more)))
    p, hp, hhp, q, fq, ffq, fffq = evaluate.add(parts, axis=0, over="frames")
    phi = np.asarray(evaluate.problem.phi(at.params.shared))
    mean, second = fq / q[:, None], ffq / q[:, None, None]
    along, cross = (mean @ phi)[:, None, None], _outer(mean, second @ phi)
    third = fffq / q[:, None, None] - along * second - cross - cross.swapaxes(1, 2) + 2 * along * _outer(mean, mean)
    mean_p = hp / p[:, None]
    of_p, of_q = hhp / p[:, None, None] - _outer(mean_p, mean_p), second - _outer(mean, mean)
    return Moments(mean_p, of_p, mean, of_q, third)


@jax.jit
def _of_blocks(problem: JointFit, shared: dict, local: Any, cells: Cell) -> tuple:
    return each(lambda v, cell: _of_block(problem, Params(shared, v), cell), local, cells)


def _of_block(problem: JointFit, params: Params, cell: Cell) -> tuple:
    """The sums p, p h, p h h, q, q f, q f f and q f f (phi.f) of each ensemble over a block."""
    p, moved, q, tilt = problem.weights(params, cell)
    member, f = problem.member(cell), cell.more.terms
    h = jnp.concatenate([cell.data, f, moved[:, None]], axis=1)
    sums = lambda w, a: ((member * w[:, None]).T @ a, jnp.einsum("ts,ti,tj->sij", member * w[:, None], a, a))  # noqa: E731
    return p @ member, *sums(p, h), q @ member, *sums(q, f), sums(q * tilt, f)[1]


def _outer(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products [S, i, j] of vectors [S, i] and [S, j]."""
    return a[:, :, None] * b[:, None, :]


# ---- second derivatives --------------------------------------------------------------------------------------------


def curvatures(problem: JointFit, at: Evaluation, found: Moments) -> tuple[np.ndarray, np.ndarray]:
    """The second derivative of the loss by the fitted parameters, weights minimised over, and the part of its prices
    alone, [n, n] each."""
    averages = problem.averages(at.sums, at.statistics.common)
    parts = of_chi2(problem, averages, problem.curves(at.params.shared))
    _, _, by_averages, mixed, by_curves = (np.asarray(part) for part in parts)
    alpha, beta, gamma = problem.prices
    chosen = fitted_rows(problem.scales)
    k, F = int(chosen.sum()), averages.shape[1]
    circles = np.kron(np.eye(problem.scales.placed.shape[1]), CIRCLE)
    priors = np.diag(problem.precision[chosen])
    whole = scipy.linalg.block_diag(priors, by_curves + gamma * circles)
    priced = scipy.linalg.block_diag(priors, gamma * circles)
    picked = np.ix_(chosen, chosen)
    of_p = found.of_p[:, :-1, :-1]
    for C_P, C_F, third, W, V in zip(of_p, found.of_q, found.third, by_averages, mixed):
        B = np.zeros((len(C_P), len(whole)))
        B[:F, k:] = V
        B[F:, :k] = alpha * np.eye(len(chosen))[:, chosen]
        coupled = scipy.linalg.block_diag(W, np.zeros((len(chosen),) * 2))
        whole -= B.T @ C_P @ np.linalg.solve(alpha * np.eye(len(C_P)) + coupled @ C_P, B)
        whole[:k, :k] += ((alpha + beta) * C_F - beta * third)[picked]
        priced[:k, :k] += beta * C_F[picked]
    return (whole + whole.T) / 2, priced


def fitted_rows(scales: Scales) -> np.ndarray:
    """True for the corrections that are fitted, [K]."""
    return np.any(scales.corrections != 0, axis=1)


@jax.jit
def of_chi2(problem: JointFit, averages: Any, curves: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Derivatives of chi2 / 2: by the averages of each ensemble [S, F] and by fitted curves [3 n]; second ones by
    averages [S, F, F], by averages and curves [S, F, 3 n], and by curves [3 n, 3 n]."""
    n = problem.scales.placed.shape[1]

    def half(one: Any, number: Any, changes: Any) -> Any:
        moved = curves + problem.scales.placed @ changes.reshape(n, 3)
        return problem.half_chi2(averages.at[number].set(one), moved)

    numbers, still = jnp.arange(len(averages)), jnp.zeros(3 * n)
    W = jax.vmap(jax.hessian(half), (0, 0, None))(averages, numbers, still)
    V = jax.vmap(jax.jacfwd(jax.grad(half), 2), (0, 0, None))(averages, numbers, still)
    first = jax.vmap(jax.grad(half), (0, 0, None))(averages, numbers, still)
    return first, jax.grad(half, 2)(averages[0], 0, still), W, V, jax.hessian(half, 2)(averages[0], 0, still)
