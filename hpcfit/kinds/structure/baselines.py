"""Replicas by minimisers of other libraries (``minimisers``): the same energy, starts and budget of gradients.

A unit is a replica. One gradient beyond the budget ends the minimiser; the least energy that it has seen is the result.
"""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np

from hpcfit.errors import together
from hpcfit.fit.lbfgs import SMALL_CHANGE
from hpcfit.fit.stages import ArraysOfUnits
from hpcfit.kinds.structure.minimisations import BUDGET, GAVE_UP, joined, marks, no_energy
from hpcfit.log import logger
from hpcfit.ranks import Ranks

Array = np.ndarray


class Spent(Exception):
    """The budget is spent."""


class Counter:
    """The energy and gradient of one replica [n, d], each call of which is counted. number: of the replica; marks: the
    numbers of evaluations that traces are kept at."""

    def __init__(self, landscape: Any, budget: int, number: int = 0):
        self._landscape, self.budget, self.marks, self.number = landscape, budget, marks(budget), number
        self.spent, self.least, self.x = 0, np.inf, None
        self.trace = np.full(len(self.marks), np.nan)

    def __call__(self, x: Array) -> tuple[float, Array]:
        """Raises ``Spent`` instead of an evaluation beyond the budget."""
        if self.spent >= self.budget:
            raise Spent
        energy, slope = self._seen(x)
        self.spent += 1
        self.trace[self.marks == self.spent] = self.least
        return energy, slope

    def spend(self, gradients: int, x: Array | None) -> None:
        """Count gradients of another program, which have led to x. Its energy there, which costs no gradient of the
        method, is for the trace and the result; x is None where nobody asks."""
        self.spent += gradients
        if x is not None:
            self._seen(x)
            self.trace[self.marks == self.spent] = self.least

    def _seen(self, x: Array) -> tuple[float, Array]:
        [energy], [slope] = self._landscape.evaluated(np.asarray(x, float)[None])
        if energy < self.least:
            self.least, self.x = float(energy), np.array(x, float)
        return float(energy), slope


class Baseline(ArraysOfUnits):
    """All replicas by a minimiser of another library; see ``fit.stages.Work`` and ``minimisations.Minimisations``."""

    def __init__(
        self, minimise: Callable[[Counter, Array], None], landscape: Any, starts: Callable[[Array], Array],
        replicas: int, budget: int, ranks: Ranks,
    ):  # fmt: skip
        super().__init__(ranks)
        self.n_units, self._minimise = replicas, minimise
        self._landscape, self._starts, self._budget = landscape, starts, budget

    def run(self, units: Sequence[int]) -> Generator[int | None]:
        """See ``Work``."""
        for unit in units:
            begun, counter = time.process_time(), Counter(self._landscape, self._budget, unit)
            [x] = self._starts(np.array([unit]))
            status = SMALL_CHANGE
            try:
                with _unheard():
                    self._minimise(counter, x)
            except Spent:
                status = BUDGET
            except (RuntimeError, ValueError, ArithmeticError) as error:  # of a start that the library cannot take
                logger.info("replica %d: %s", unit, error)
                status = GAVE_UP
            if counter.x is None:
                raise together(no_energy(self._landscape, unit, x))
            seconds = time.process_time() - begun
            trace = np.where(np.isnan(counter.trace), counter.least, counter.trace)
            values = (counter.x, counter.least, counter.spent, status, trace, seconds)
            for name, value in zip(("positions", "energy", "evaluations", "status", "trace", "seconds"), values):
                self._done[f"{name} {unit}"] = np.asarray(value)[None]
            yield unit

    def product(self) -> dict[str, Array]:
        """See ``Work``: as that of ``Minimisations``."""
        return joined(self.kept(), self.n_units)


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """What libraries print of their line searches is not heard."""
    nowhere = io.StringIO()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
