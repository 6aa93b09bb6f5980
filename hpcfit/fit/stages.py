"""What a case asks of the engine when its result takes several fits: each by name, one after another, on all ranks."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from hpcfit.fit.gradient import Gradient
from hpcfit.fit.grid import Grid
from hpcfit.fit.optimizers import MakeOptimizer
from hpcfit.fit.problem import FrameRows, Params, Problem


class Fitted(NamedTuple):
    """Where a fit ended. metrics: what the problem reports there, with the loss."""

    name: str
    params: Params
    metrics: dict[str, float]
    steps: int
    evaluations: int
    stopped: str


class Result(NamedTuple):
    """What a study has named the result: the fit, and the gradient that it was made with."""

    fitted: Fitted
    evaluate: Gradient


class Until(NamedTuple):
    """Ends a fit when a metric of held-out frames comes no nearer to its ``floor`` (see ``fit.hooks.HeldOut``)."""

    metric: str
    floor: float


class Fits(Protocol):
    """grid: the ranks. evaluate: what ``Case.gradient`` gave, on all frames of this rank."""

    grid: Grid
    evaluate: Gradient | None

    def fit(
        self,
        name: str,
        start: Params,
        problem: Problem | None = None,
        rows: FrameRows | None = None,
        *,
        evaluate: Gradient | None = None,
        optimizer: MakeOptimizer | None = None,
        until: Until | None = None,
        tolerance: float = 0.0,
    ) -> Fitted:
        """Minimise from ``start``; collective. A fit that has ended before an interruption is not run again.

        problem, rows: of this fit, where they differ from those of ``evaluate``, by default that of the run. optimizer:
        makes one for this fit, by default that of the config. until: what else ends it. tolerance: a relative one that
        is enough, where it is larger than that of the config.
        """

    def final(self, fitted: Fitted, problem: Problem) -> None:
        """Say that this is the result, after which no more is fitted but to tell its errors."""
