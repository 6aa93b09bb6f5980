"""The evaluations of a run: counted, timed, and written, a row of the history each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jax
import numpy as np

from hpcfit.fit.gradient import Evaluation, Gradient
from hpcfit.fit.inner import InnerProduct
from hpcfit.fit.loop import Step
from hpcfit.fit.problem import Params
from hpcfit.ranks import Ranks
from hpcfit.runs.directory import RunDirectory

SHOWN = 10  # numbers of an evaluation in a line of the log


@dataclass
class Recorder:
    """``evaluate`` for optimizers: counts, and writes one row of history for each evaluation on root.

    evaluate: of the present fit. fit: the number of the fit that evaluations belong to; step: that the next one belongs
    to, over all fits.
    """

    evaluate: Gradient | None
    world: Ranks
    directory: RunDirectory | None = None
    count: int = 0
    fit: int = -1
    step: int = 0
    params: Params | None = None  # of the last evaluation, gauged
    newest: tuple[Params, Evaluation] | None = None  # of this fit: the last evaluation, and where it was asked for
    passed: int = 0  # passes over the frames so far, on root
    timed: dict[str, float] = field(default_factory=lambda: {"passes": 0.0, "seconds": 0.0})  # of single fits
    timed_many: dict[str, float] = field(default_factory=lambda: {"passes": 0.0, "seconds": 0.0})
    started: float = field(default_factory=time.perf_counter)
    beat: Callable[[], None] = lambda: None  # told of each evaluation
    last: dict[str, float] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    _before: int = 0  # steps of earlier fits

    @property
    def inner(self) -> InnerProduct:
        """The inner product of parameters of the present fit."""
        return InnerProduct(self.evaluate.add)

    def begin(self, directory: RunDirectory, count: int) -> None:
        """Write to ``directory`` from evaluation ``count`` on."""
        self.directory, self.count, self.started = directory, count, time.perf_counter()

    def next_fit(self, evaluate: Gradient) -> None:
        """Begin another fit, to which evaluations belong from now on."""
        self.evaluate, self.fit, self.newest = evaluate, self.fit + 1, None

    def next_fits(self, number: int) -> range:
        """The numbers of so many fits that begin together."""
        first, self.fit = self.fit + 1, self.fit + number
        return range(first, self.fit + 1)

    def fit_ended(self, steps: int) -> None:
        """Its steps count before those of the next one."""
        self._before += steps
        self.step = self._before

    def __call__(self, params: Params) -> Evaluation:
        """Evaluate and record; collective."""
        evaluation = self.evaluate(params)
        self.newest = params, evaluation
        self.count += 1
        norm = self.inner.norm(evaluation.gradient)
        metrics = self.evaluate.metrics(evaluation)
        self.last = {"evaluation": self.count, "loss": evaluation.loss, **metrics, "gradient_norm": norm}
        self.params = evaluation.params
        self._add_times(evaluation.seconds, self.timed)
        self.beat()
        if self.world.is_root:
            self._pass()
            self.directory.add_evaluation(self._row(evaluation))
        return evaluation

    def at(self, params: Params) -> Evaluation:
        """The evaluation of this fit at ``params``, made now only if it is not the last one; collective."""
        if self.newest is not None:
            asked, newest = self.newest
            same = any(_equal(params, point) for point in (asked, newest.params))
            if not self.world.max(np.array([float(not same)]))[0]:
                return newest
        return self.evaluate.value(params)

    def of_many(
        self, evaluation: Evaluation, numbers: Mapping[int, int], steps: np.ndarray, norms: np.ndarray,
        metrics: Mapping[int, dict[str, float]],
    ) -> None:  # fmt: skip
        """Record one evaluation of several fits (``fit.many``): their numbers by their place in it, the step of each
        that it belongs to, the norms of their gradients, and what is reported of some of them."""
        self._add_times(evaluation.seconds, self.timed_many)
        self.beat()
        self.params = evaluation.statistics.params[0]
        self.step = self._before + int(np.max(steps)) + 1
        if self.world.is_root:
            self._pass()
        of_each = {f"{name}_seconds": value / len(numbers) for name, value in evaluation.seconds.items()}
        times = {"seconds": time.perf_counter() - self.started, **of_each}
        for place, number in numbers.items():
            self.count += 1
            row = {"evaluation": self.count, "loss": float(evaluation.loss[place]), **metrics.get(place, {})}
            row["gradient_norm"] = float(norms[place])
            self.last = row if place in metrics else self.last
            about = {"fit": number, "step": self._before + int(steps[place]), "passes": self.passed}
            if self.world.is_root:
                self.directory.add_evaluation({**about, **row, **times})

    def of_this_fit(self, metric: str) -> list[float]:
        """A metric after each of its steps so far, those before an interruption too; on root."""
        rows = [row for row in self.directory.rows if row["fit"] == self.fit]
        return list({row["step"]: row[metric] for row in rows}.values())

    def after(self, step: Step) -> None:
        """As a hook: what is evaluated from now on belongs to the next step."""
        self.step = self._before + step.number + 1

    def _add_times(self, seconds: dict[str, float], timed: dict[str, float]) -> None:
        """From the second evaluation of its sort on: the first one compiles."""
        timed["passes"] += self.evaluate.passes
        if timed["passes"] > self.evaluate.passes:
            timed["seconds"] += seconds.get("compute", 0.0) + seconds.get("read", 0.0)
            for name, value in seconds.items():
                self.spent[name] = self.spent.get(name, 0.0) + value

    def rate(self, bytes_held: int) -> float:
        """Bytes a second that this rank's frames were passed over with, by single fits where there are any."""
        timed = self.timed if self.timed["seconds"] else self.timed_many
        passes = timed["passes"] - self.evaluate.passes
        return passes * bytes_held / timed["seconds"] if timed["seconds"] else 0.0

    def _pass(self) -> None:
        """Count the passes of one evaluation after those of the history, of a run that was continued too."""
        rows = self.directory.rows
        self.passed = (rows[-1]["passes"] if rows else 0) + self.evaluate.passes

    def _row(self, evaluation: Evaluation) -> dict[str, float]:
        seconds = {f"{name}_seconds": value for name, value in evaluation.seconds.items()}
        about = {"fit": self.fit, "step": self.step, "passes": self.passed}
        return {**about, **self.last, "seconds": time.perf_counter() - self.started, **seconds}

    def describe(self) -> str:
        """The last evaluation in a line."""
        words = [f"{name} {value:.6g}" for name, value in self.last.items() if name not in ("loss", "gradient_norm")]
        return "  ".join(words[:SHOWN]) + (" ..." if len(words) > SHOWN else "")


def _equal(a: Params, b: Params) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))
