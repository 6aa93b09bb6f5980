"""Newton's steps for the joint loss, from second moments of the frames: a few tens of them, whatever the data are.

At the minimum the weights are P ~ P_ff exp(-y.g / alpha), y = d(chi2/2)/dX by the averages X of what data see, g. One
step changes weights, corrections and curves together, to the minimum of the parabola that touches the loss: with r the
first and W, V, U the second derivatives of chi2 / 2 by X, XX, Xc, cc, l = ln(P / P_ff), and covariances C under P, C_F
under P_ff,

    y = r + W dX + V dc,     dX = -C_gl - C_gf dphi - C_gg y / alpha
    (alpha C_F + beta K'' + 1 / prior^2 - alpha C_ff) dphi - C_fg y = -g_phi + alpha C_fl
    (U + gamma R'') dc + V^T dX = -g_c

where g_phi, g_c are the derivatives at fixed weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from hpcfit.fit.cells import each
from hpcfit.fit.gradient import NO_ROWS, Evaluation, Gradient
from hpcfit.fit.inner import InnerProduct, combine
from hpcfit.fit.problem import Cell, Params
from hpcfit.kinds.force_field.tabulated.problem import JointFit
from hpcfit.kinds.force_field.tabulated.uncertainty import Moments, fitted_rows, moments, of_chi2
from hpcfit.observables.curves import CIRCLE

ARMIJO, TRIALS = 1e-4, 30
ENDED = 1e-13  # predicted decrease relative to the loss, that of its rounding
Evaluate = Callable[[Params], Evaluation]


class NewtonState(NamedTuple):
    """See ``fit.optimizers.Optimizer``."""

    params: Params
    loss: float
    gradient: Params
    stalled: str
    rows: Params = NO_ROWS


@dataclass(frozen=True)
class Newton:
    """See ``fit.optimizers.Optimizer``; gradient: of the fit, whose frames it passes over for moments."""

    inner: InnerProduct
    gradient: Gradient
    space: ClassVar = "vectors"
    stops_on: ClassVar = ("small gradient",)

    def start(self, params: Params, evaluate: Evaluate) -> NewtonState:
        """Evaluate at the start."""
        here = evaluate(params)
        return NewtonState(params, here.loss, here.gradient, "")

    def step(self, state: NewtonState, evaluate: Evaluate) -> NewtonState:
        """One step of Newton's, shortened until it lowers the loss; where none does, one along the gradient."""
        direction = self._direction(state.params)
        slope = self.inner(state.gradient, direction)
        if 0 <= -slope <= ENDED * max(abs(state.loss), 1e-3):
            return state._replace(stalled="Newton's step lowers the loss by no more than its rounding")
        downhill = combine([-1.0], [state.gradient])
        for way in (direction, downhill):
            found = self._search(state, way, evaluate)
            if found is not None:
                return found
        return state._replace(stalled="no shorter step lowers the loss: this is the precision of the loss")

    def _search(self, state: NewtonState, direction: Params, evaluate: Evaluate) -> NewtonState | None:
        """The state after the longest of the steps 1, 1/2, 1/4 ... that lowers the loss; None if it leads uphill."""
        slope = self.inner(state.gradient, direction)
        for trial in range(TRIALS if slope < 0 else 0):
            length = 0.5**trial
            params = combine([1.0, length], [state.params, direction])
            here = evaluate(params)
            if here.loss <= state.loss + ARMIJO * length * slope:
                return NewtonState(params, here.loss, here.gradient, "")
        return None

    def _direction(self, params: Params) -> Params:
        """The step from the parabola that touches the loss."""
        problem, at = self.gradient.problem, self.gradient.value(params)
        found = moments(self.gradient, at)
        y, dphi, dc = self.gradient.grid.world.on_root(lambda: solved(problem, at, found))
        local = np.zeros_like(params.local)
        rows = self.gradient.frames.rows
        for chunk in self.gradient.frames.chunks():
            of_rows = jax.tree.map(lambda leaf: leaf[chunk.rows], (params.local, rows.ids, rows.more))  # noqa: B023
            cells = Cell(chunk.data[0], *of_rows[1:])
            local[chunk.rows] = _moved(problem, of_rows[0], cells, y, found.means[:, : y.shape[1]])
        chosen = fitted_rows(problem.scales)
        shared = {
            "corrections": np.sqrt(problem.prices.beta) * np.linalg.solve(problem.scales.corrections[chosen], dphi),
            "curves": np.sqrt(problem.prices.gamma) * np.linalg.solve(problem.scales.curves, dc.T).T,
        }
        return Params(shared, local)


@jax.jit
def _moved(problem: JointFit, local: Any, cells: Cell, y: Any, means: Any) -> Any:
    """The change of the local parameters that makes ln(P / P_ff) = -y.(g - <g>) / alpha, [blocks, width]."""
    alpha = problem.prices.alpha

    def of_block(v: Any, cell: Cell) -> Any:
        member = problem.member(cell)
        target = -jnp.sum((cell.data - member @ means) * (member @ y), axis=1) / alpha
        unit = jnp.where(cell.ids >= 0, cell.more.spread, 1.0) / jnp.sqrt(alpha)
        return jnp.where(cell.ids >= 0, target / unit - v, 0.0)

    return each(of_block, local, cells)


def solved(problem: JointFit, at: Evaluation, found: Moments) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y [S, F], dphi of the fitted corrections [k] and dc of the fitted curves [n, 3]."""
    averages, shared = problem.averages(at.sums, at.statistics.common), at.params.shared
    parts = of_chi2(problem, averages, problem.curves(shared))
    r, g_c, W, V, U = (np.asarray(part) for part in parts)
    alpha, beta, gamma = problem.prices
    chosen, phi = fitted_rows(problem.scales), np.asarray(problem.phi(shared))
    (S, F), k, m = averages.shape, int(chosen.sum()), len(g_c)
    n = S * F
    A, b = np.zeros((n + k + m,) * 2), np.zeros(n + k + m)
    changes = (problem.scales.placed.T @ (np.asarray(problem.curves(shared)) - problem.coefficients)).ravel()
    circles = gamma * np.kron(np.eye(m // 3), CIRCLE)
    A[n + k :, n + k :] = U + circles
    b[n + k :] = -(g_c + circles @ changes)
    precision = problem.precision[chosen]
    A[n : n + k, n : n + k] = np.diag(precision)
    b[n : n + k] = -precision * phi[chosen]
    for s in range(S):
        mine, fitted = slice(s * F, (s + 1) * F), slice(n, n + k)
        C, C_F, third = found.of_p[s], found.of_q[s], found.third[s]
        gg, gf, gl = C[:F, :F], C[:F, F:-1][:, chosen], C[:F, -1]
        ff, fl = C[F:-1, F:-1][np.ix_(chosen, chosen)], C[F:-1, -1][chosen]
        A[mine, mine] = np.eye(F) + W[s] @ gg / alpha
        A[mine, fitted], A[mine, n + k :] = W[s] @ gf, -V[s]
        b[mine] = r[s] - W[s] @ gl
        A[fitted, mine] = -gf.T
        A[fitted, fitted] += ((alpha + beta) * C_F - beta * third)[np.ix_(chosen, chosen)] - alpha * ff
        at_fixed_weights = alpha * (found.means[s, F:-1] - found.means_q[s]) + beta * C_F @ phi
        b[fitted] += alpha * fl - at_fixed_weights[chosen]
        A[n + k :, mine] = -V[s].T @ gg / alpha
        A[n + k :, fitted] += -V[s].T @ gf
        b[n + k :] += V[s].T @ gl
    x = scipy.linalg.lstsq(A, b, lapack_driver="gelsy")[0]
    return x[:n].reshape(S, F), x[n : n + k], x[n + k :].reshape(-1, 3)
