"""Damped least squares for losses without noise: few parameters, and the curvature of the residuals known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from hpcfit.fit.gradient import NO_ROWS, Evaluation
from hpcfit.fit.inner import combine
from hpcfit.fit.optimizers import Evaluate
from hpcfit.fit.problem import Params
from hpcfit.fit.rounds import flat, like

FIRST, LEAST, MOST = 1e-3, 1e-12, 1e9  # dampings
FEWER, MORE = 0.1, 10.0  # of the damping, after a step that lowers the loss and after one that does not
FLAT = 1e-15  # of the largest curvature, added to each: that of a parameter without any
ENDED = 1e-15  # predicted decrease relative to the loss, that of its rounding


class MarquardtState(NamedTuple):
    """See ``fit.optimizers.Optimizer``. normal: [P, P], the curvature; damping: of the next step."""

    params: Params
    loss: float
    gradient: Params
    normal: np.ndarray
    damping: float
    stalled: str
    rows: Params = NO_ROWS


@dataclass(frozen=True)
class Marquardt:
    """Steps -(N + damping diag N)^-1 g, N the curvature by Gauss and Newton, the damping raised until the loss falls
    (Marquardt 1963, 10.1137/0111030); see ``fit.optimizers.Optimizer``. normal: N [P, P] of an evaluation; collective.
    """

    normal: Callable[[Evaluation], np.ndarray]
    space: ClassVar = "vectors"
    stops_on: ClassVar = ("small gradient",)

    def start(self, params: Params, evaluate: Evaluate) -> MarquardtState:
        """Evaluate at the start."""
        here = evaluate(params)
        P = len(flat(params))
        of_none = here.sums is None  # of no evaluation: the shape alone is asked for
        normal = np.zeros((P, P)) if of_none else self.normal(here)
        return MarquardtState(params, here.loss, here.gradient, normal, FIRST, "", here.rows)

    def step(self, state: MarquardtState, evaluate: Evaluate) -> MarquardtState:
        """One step that lowers the loss, and as many evaluations as it takes."""
        N, g, damping = state.normal, flat(state.gradient), state.damping
        diagonal = np.diag(N) + FLAT * max(np.max(np.diag(N), initial=0.0), np.finfo(float).tiny)
        while damping <= MOST:
            step = -np.linalg.solve(N + np.diag(damping * diagonal), g)
            if -(g @ step + step @ N @ step / 2) <= ENDED * abs(state.loss):
                return state._replace(stalled="a step lowers the loss by no more than its rounding")
            params = combine([1.0, 1.0], [state.params, like(step, state.params)])
            here = evaluate(params)
            if here.loss < state.loss:
                damping = max(FEWER * damping, LEAST)
                return MarquardtState(params, here.loss, here.gradient, self.normal(here), damping, "", here.rows)
            damping *= MORE
        return state._replace(stalled="no shorter step lowers the loss: this is the precision of the loss")
