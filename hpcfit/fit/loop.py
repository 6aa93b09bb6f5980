"""The loop: step, ask the hooks, until one of them ends the run and says why. There is no other loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hpcfit.errors import NumericalError, together
from hpcfit.fit.optimizers import Evaluate, Optimizer
from hpcfit.fit.problem import Params
from hpcfit.fit.stop import Stop


class Step(NamedTuple):
    """The view that a hook has of each step; the same on every rank but for the local rows in ``state``."""

    number: int
    state: Any
    gradient_norm: float
    losses: Sequence[float]  # after each of the last steps, newest last; kept by checkpoints


class Outcome(NamedTuple):
    """The last step of a fit, and why it was the last."""

    last: Step
    stop: Stop


REMEMBERED_LOSSES = 100

Hook = Callable[[Step], Stop | None]


def fit(
    optimizer: Optimizer,
    evaluate: Evaluate,
    norm: Callable[[Any], float],
    hooks: Sequence[Hook],
    last: Step,
    not_finite_at: Callable[[Params], str] = lambda params: "",
) -> Outcome:
    """Step on from ``last`` until a hook ends the run.

    Every rank calls every hook at every step: hooks may communicate. Raises NumericalError where a step ends at a
    loss that is not finite; not_finite_at: the block and frames that it comes from (``fit.gradient``).
    """
    while True:
        stops = [stop for stop in [hook(last) for hook in hooks] if stop]
        if last.state.stalled:
            stops.append(Stop(last.state.stalled))
        if stops:
            return Outcome(last, next((stop for stop in stops if stop.interrupted), stops[0]))
        state = optimizer.step(last.state, evaluate)
        if not math.isfinite(state.loss):  # the same on all ranks: it was broadcast
            raise together(diverged(state.loss, last.number + 1, not_finite_at(state.params)))
        losses = (*last.losses, state.loss)[-REMEMBERED_LOSSES:]
        last = Step(last.number + 1, state, norm(state.gradient), losses)


def diverged(loss: float, number: int, where: str) -> NumericalError:
    """The error of a step that ends at a loss that is not finite. where: the block and frames that it comes from."""
    return NumericalError(
        f"the loss is {loss} after step {number}" + (f": no finite number from {where}" if where else ""),
        remedy="take shorter steps ([optimizer] options: learning_rate, or first_step of 'lbfgs', which turns back)",
    )
