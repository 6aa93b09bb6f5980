"""A rough fit by an optimizer of its own, and the fit by that of the config."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

from hpcfit.fit.gradient import Evaluation, Gradient
from hpcfit.fit.inner import InnerProduct, combine
from hpcfit.fit.problem import Params
from hpcfit.fit.stages import Fits
from toykind.case import ToyCase


class DescentState(NamedTuple):
    params: Params
    loss: float
    gradient: Params
    steps: int
    stalled: str


@dataclass(frozen=True)
class Descent:
    """So many steps downhill, however small the gradient gets."""

    rounds: int
    length: float = 0.5
    space: ClassVar = "vectors"
    stops_on: ClassVar = ()

    def start(self, params: Params, evaluate: Callable[[Params], Evaluation]) -> DescentState:
        here = evaluate(params)
        return DescentState(params, here.loss, here.gradient, 0, "")

    def step(self, state: DescentState, evaluate: Callable[[Params], Evaluation]) -> DescentState:
        params = combine([1.0, -self.length], [state.params, state.gradient])
        here, steps = evaluate(params), state.steps + 1
        return DescentState(params, here.loss, here.gradient, steps, "all rounds done" if steps == self.rounds else "")


def descent(rounds: int, inner: InnerProduct, gradient: Gradient) -> Descent:
    return Descent(rounds)


def study(case: ToyCase, fits: Fits) -> dict[str, Any]:
    """Both fits; what is worth telling beside the result."""
    problem = fits.evaluate.problem
    start = problem.init(case.config.run.seed, fits.evaluate.frames.rows)
    rough = fits.fit("rough", start, optimizer=partial(descent, case.config.problem.rounds))
    fine = fits.fit("fine", rough.params)
    fits.final(fine, problem)
    return {"rough": {"stopped": rough.stopped, **rough.metrics}}
