"""Steps on averages that carry noise: each round draws anew, and its optimizer sees the shared parameters alone.

Local parameters of such a problem are where its simulations begin, and the number of the draw. They are no numbers to
be optimized: the problem says from the rows of an accepted evaluation where the next draw begins (``DrawnProblem``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from hpcfit.fit import derivatives
from hpcfit.fit.gradient import NO_ROWS, Evaluation, Gradient
from hpcfit.fit.inner import combine
from hpcfit.fit.optimizers import Evaluate, Optimizer
from hpcfit.fit.problem import DrawnProblem, Params

More = Callable[[Evaluation], np.ndarray]  # the curvature [P, P] of a second loss
LEAST = 1e-12  # of the largest curvature: a direction with less is not moved along
HALVINGS = 20  # of a step, before it is given up


class RoundsState(NamedTuple):
    """See ``fit.optimizers.Optimizer``. inner: the state of the optimizer; starts: local parameters of the draw at
    hand; number: steps so far; left: rounds that are still to come."""

    inner: Any
    starts: Params
    number: int
    left: int

    @property
    def params(self) -> Params:
        """Shared parameters with the draw at hand."""
        return Params(self.inner.params.shared, self.starts.local)

    @property
    def loss(self) -> float:
        """At the parameters, of the draw at hand."""
        return self.inner.loss

    @property
    def gradient(self) -> Params:
        """By the shared parameters."""
        return self.inner.gradient

    @property
    def rows(self) -> Params:
        """The rows of the accepted evaluation."""
        return self.inner.rows

    @property
    def stalled(self) -> str:
        """That all rounds are done; an optimizer that finds no step gets a new draw, where there are any."""
        return "" if self.left else self.inner.stalled or f"all {self.number} rounds done"


@dataclass(frozen=True)
class Rounds:
    """See ``fit.optimizers.Optimizer``: so many ``rounds`` of one step each of an optimizer ``inner``.

    every: steps to a draw. 1: the trials of a step are of a new draw, and losses of different draws are not compared.
    More: an optimizer that compares losses begins anew, with one more evaluation, at each draw, also where it has found
    no further step. 0: there is one draw alone, and it ends where its optimizer does.
    """

    problem: DrawnProblem
    inner: Optimizer
    rounds: int
    every: int = 1
    space: ClassVar = "vectors"

    @property
    def stops_on(self) -> tuple[str, ...]:
        """See ``fit.optimizers.Optimizer``: losses of different draws are not compared."""
        return () if self.every else ("small gradient", "small change")

    def start(self, params: Params, evaluate: Evaluate) -> RoundsState:
        """Evaluate the first draw."""
        shared, starts = Params(params.shared, ()), Params((), params.local)
        return RoundsState(self.inner.start(shared, _seen(evaluate, starts)), starts, 0, self.rounds)

    def step(self, state: RoundsState, evaluate: Evaluate) -> RoundsState:
        """One step of the optimizer, of a new draw where it is time."""
        inner, starts = state.inner, state.starts
        due = self.every == 1 or (self.every and ((state.number and state.number % self.every == 0) or inner.stalled))
        if due:
            starts = Params((), self.problem.redrawn(starts.local, state.rows.local, inner.params.shared))
        seen = _seen(evaluate, starts)
        if due and self.every > 1:
            inner = self.inner.start(inner.params, seen)
        inner = self.inner.step(inner, seen)
        left = 0 if inner.stalled and not self.every else state.left - 1
        return RoundsState(inner, starts, state.number + 1, left)


def _seen(evaluate: Evaluate, starts: Params) -> Evaluate:
    """The evaluation as the optimizer sees it: of shared parameters, at these starts."""

    def seen(params: Params) -> Evaluation:
        here = evaluate(Params(params.shared, starts.local))
        return here._replace(gradient=Params(here.gradient.shared, ()))

    return seen


class GaussNewtonState(NamedTuple):
    """See ``fit.optimizers.Optimizer``. residuals: [R]; slopes: their derivatives, [R, P], and before: those that the
    step here was taken with; beside: [P, P], the curvature of what the loss has beside residuals; number: steps so far;
    turned: those up to the last that were turned back one after another."""

    params: Params
    loss: float
    gradient: Params
    residuals: np.ndarray
    slopes: np.ndarray
    beside: np.ndarray
    before: np.ndarray
    number: int
    stalled: str
    rows: Params = NO_ROWS
    turned: int = 0


@dataclass(frozen=True)
class GaussNewton:
    """Steps -(J^T J)^-1 J^T r of residuals r with noise; see ``fit.optimizers.Optimizer``.

    The first ``full`` steps are whole ones. From then on step n is a share 1 / (n + 1) of one, so that the parameters
    are the mean of what the rounds since then would each have found, and their noise falls with the number of rounds
    (Robbins and Monro 1951, 10.1214/aoms/1177729586). J is then the mean of earlier rounds: that of the same noise as r
    would draw the parameters to where the two go together. largest: by how much one parameter may change in a step. A
    step that leads to no finite loss is halved; so is, where losses are of the same draw and can be ``compared``, one
    to a larger loss. There, it ends where two steps in turn lead to no finite loss: the draw knows no more. more: the
    curvature [P, P] of what the loss has beside these residuals (``fit.joint``); collective.
    """

    gradient: Gradient
    full: int
    largest: float
    compared: bool = False
    more: More | None = None
    space: ClassVar = "vectors"
    stops_on: ClassVar = ()

    def start(self, params: Params, evaluate: Evaluate) -> GaussNewtonState:
        """Evaluate at the start."""
        here = evaluate(params)
        linear = self._linear(here)
        return GaussNewtonState(params, here.loss, here.gradient, *linear, linear[1], 0, "", here.rows)

    def step(self, state: GaussNewtonState, evaluate: Evaluate) -> GaussNewtonState:
        """One step, and one evaluation where it ends."""
        settled = max(state.number - self.full + 1, 0)
        J = state.before if settled else state.slopes
        gradient = flat(state.gradient) + (J - state.slopes).T @ state.residuals
        step = direction(J.T @ J + state.beside, gradient)
        length = min(1.0, self.largest / max(np.max(np.abs(step), initial=0.0), 1e-300)) / (settled + 1)
        turned = 0
        for _ in range(HALVINGS):
            params = combine([1.0, length], [state.params, like(step, state.params)])
            here = evaluate(params)
            if np.isfinite(here.loss) and not (self.compared and here.loss > state.loss):
                break
            if not np.isfinite(here.loss):
                turned = state.turned + 1
            length /= 2
        else:
            if self.compared:
                return state._replace(stalled="no shorter step lowers the loss")
        before = J + (state.slopes - J) / (settled + 1)
        stalled = "two steps in turn were too long for the draw" if self.compared and turned == 2 else ""
        at = params, here.loss, here.gradient, *self._linear(here), before
        return GaussNewtonState(*at, state.number + 1, stalled, here.rows, turned)

    def _linear(self, here: Evaluation) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(residuals, their derivatives, the curvature beside them)"""
        P = len(flat(here.params))
        nothing = np.zeros((P, P))
        if here.tangents is None:  # of no evaluation: the kind of array alone is asked for
            return np.zeros(0), np.zeros((0, P)), nothing
        return *jacobian(self.gradient, here), nothing if self.more is None else self.more(here)


def jacobian(gradient: Gradient, here: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """The residuals [R] of an evaluation that carried tangents, and their derivatives [R, P] by the shared parameters,
    leaf after leaf; the same on every rank."""
    at = here.statistics, here.tangents, here.params.shared
    found = derivatives.residuals_and_jacobian(gradient.problem, *at)
    return tuple(np.asarray(part) for part in gradient.grid.world.bcast(found))


def direction(normal: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """-(normal)^-1 gradient, without a part along directions of no curvature."""
    values, vectors = np.linalg.eigh(normal)
    known = values > LEAST * max(values[-1], 0.0) if len(values) else values > 0
    along = vectors.T @ gradient
    return -vectors[:, known] @ (along[known] / values[known])


def flat(params: Params) -> np.ndarray:
    """The shared parameters as a vector [P], leaf after leaf."""
    leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(params.shared)]
    return np.concatenate(leaves) if leaves else np.zeros(0)


def like(vector: np.ndarray, params: Params) -> Params:
    """A vector [P] as shared parameters with the leaves of ``params``."""
    leaves, structure = jax.tree.flatten(params.shared)
    ends = np.cumsum([np.size(leaf) for leaf in leaves])
    parts = [part.reshape(np.shape(leaf)) for part, leaf in zip(np.split(vector, ends[:-1]), leaves)]
    return Params(jax.tree.unflatten(structure, parts), ())
