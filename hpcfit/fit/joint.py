"""Two losses of the same shared parameters as one: of frames that are drawn, say, and of stored ones beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import numpy as np

from hpcfit.fit.gradient import Evaluation, Frames, Gradient
from hpcfit.fit.grid import Grid
from hpcfit.fit.problem import Params, Problem
from hpcfit.fit.reduction import Sum


@dataclass(frozen=True)
class Joint:
    """See ``fit.gradient.Gradient``: the sum of two losses.

    Frames, local parameters and rows are those of ``main``; ``beside`` has shared parameters alone, and its evaluation
    is ``Evaluation.beside``. Metrics of both have the values of ``main``.
    """

    main: Gradient
    beside: Gradient

    @property
    def problem(self) -> Problem:
        """That of ``main``."""
        return self.main.problem

    @property
    def frames(self) -> Frames:
        """Those of ``main``."""
        return self.main.frames

    @property
    def grid(self) -> Grid:
        """That of ``main``."""
        return self.main.grid

    @property
    def add(self) -> Sum:
        """That of ``main``."""
        return self.main.add

    @property
    def passes(self) -> int:
        """Those of ``main``."""
        return self.main.passes

    def __call__(self, params: Params) -> Evaluation:
        """Loss and gradient at ``params``; collective."""
        here, beside = self.main(params), self.beside(Params(params.shared, ()))
        loss = here.loss + beside.loss
        if not math.isfinite(loss):
            return here._replace(loss=math.nan, gradient=jax.tree.map(np.zeros_like, here.gradient), beside=beside)
        shared = jax.tree.map(np.add, here.gradient.shared, beside.gradient.shared)
        return here._replace(loss=loss, gradient=here.gradient._replace(shared=shared), beside=beside)

    def value(self, params: Params) -> Evaluation:
        """Loss without gradient; collective."""
        here, beside = self.main.value(params), self.beside.value(Params(params.shared, ()))
        return here._replace(loss=here.loss + beside.loss, beside=beside)

    def not_finite_at(self, params: Params) -> str:
        """See ``fit.gradient.Halves``; collective."""
        return self.main.not_finite_at(params) or self.beside.not_finite_at(Params(params.shared, ()))

    def metrics(self, evaluation: Evaluation) -> dict[str, float]:
        """The numbers that both problems report."""
        return self.beside.metrics(evaluation.beside) | self.main.metrics(evaluation)
