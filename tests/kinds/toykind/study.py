"""A stage, a rough fit by an optimizer of its own, one of the slope alone, and the fit by that of the config."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from hpcfit.fit.by_blocks import Forward
from hpcfit.fit.gradient import Evaluation, Gradient
from hpcfit.fit.grid import Grid
from hpcfit.fit.inner import InnerProduct, combine
from hpcfit.fit.problem import Params
from hpcfit.fit.running_sum import ReproducibleRunningSum
from hpcfit.fit.stages import Fits
from toykind.case import WIDTH, ToyCase


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


class Moments:
    """sum x^2 and sum x y of all points, as a stage (``hpcfit.fit.stages.Work``); a unit is a block."""

    def __init__(self, case: ToyCase, grid: Grid):
        self.n_units, self.ranks = case.n_blocks, grid.frames
        self._x, self._y = case.points["x"], case.points["y"]
        self._sum = ReproducibleRunningSum((2,))

    def run(self, units: Sequence[int]) -> Generator[int]:
        for unit in units:
            block = slice(unit * WIDTH, (unit + 1) * WIDTH)
            x, y = self._x[block], self._y[block]
            self._sum.add(np.array([x @ x, x @ y]))
            yield unit

    def kept(self) -> dict[str, np.ndarray]:
        return {name: self.ranks.sum(values) for name, values in self._sum.kept().items()}

    def take_up(self, kept: Mapping[str, np.ndarray]) -> None:
        if self.ranks.is_root:
            self._sum.take_up(kept)

    def product(self) -> dict[str, np.ndarray]:
        return {"moments": self._sum.total(self.ranks)}

    def files(self) -> Sequence[Path]:
        return ()


def study(case: ToyCase, fits: Fits) -> dict[str, Any]:
    """The stage and all fits; what is worth telling beside the result."""
    fits.announce(["moments", "rough", "slope", "fine"])
    moments = fits.stage("moments", Moments(case, fits.grid), {})
    problem = fits.evaluate.problem
    start = problem.init(case.config.run.seed, fits.evaluate.frames.rows)
    rough = fits.fit("rough", start, optimizer=partial(descent, case.config.problem.rounds))
    pair = fits.evaluate
    slope = fits.fit("slope", start, Forward(pair.problem, pair.frames, pair.grid, pair.add))
    fine = fits.fit("fine", rough.params)
    fits.final(fine)
    fits.warn(["this is a toy"])
    xx, xy = fits.grid.world.bcast(moments.get("moments"))
    slopes = {"regression": float(xy / xx), "forward": float(slope.params.shared["slope"])}
    return {"rough": {"stopped": rough.stopped, **rough.metrics}, "slopes": slopes}
