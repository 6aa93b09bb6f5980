"""Minimisers of other libraries, on the same energy, from the same starts, with the same budget of gradients.

    scipy   L-BFGS-B of SciPy
    ase     the preconditioned L-BFGS of ASE (Packwood and others 2016, 10.1063/1.4947024)

A unit is a replica. One gradient beyond the budget ends the minimiser; the least energy that it has seen is the result.
"""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from hpcfit.errors import together
from hpcfit.fit.lbfgs import SMALL_CHANGE
from hpcfit.fit.stages import ArraysOfUnits
from hpcfit.kinds.structure.minimisations import BUDGET, GAVE_UP, joined, marks, no_energy
from hpcfit.log import logger
from hpcfit.ranks import Ranks

Array = np.ndarray
Counted = Callable[[Array], tuple[float, Array]]
PAIR = 2 ** (1 / 6)  # of sigma: the distance of neighbours that ASE's preconditioner is made for
TIGHT = 1e-9  # relative, of the energy, or of its gradient in units of length


class Spent(Exception):
    """The budget is spent."""


class Counter:
    """The energy and gradient of one replica [n, d], each call of which is counted."""

    def __init__(self, landscape: Any, budget: int):
        self._landscape, self._budget, self._marks = landscape, budget, marks(budget)
        self.spent, self.least, self.x = 0, np.inf, None
        self.trace = np.full(len(self._marks), np.nan)

    def __call__(self, x: Array) -> tuple[float, Array]:
        """Raises ``Spent`` instead of an evaluation beyond the budget."""
        if self.spent >= self._budget:
            raise Spent
        [energy], [slope] = self._landscape.evaluated(np.asarray(x, float)[None])
        self.spent += 1
        if energy < self.least:
            self.least, self.x = float(energy), np.array(x, float)
        self.trace[self._marks == self.spent] = self.least
        return float(energy), slope


class Baseline(ArraysOfUnits):
    """All replicas by a minimiser of another library; see ``fit.stages.Work`` and ``minimisations.Minimisations``."""

    def __init__(
        self, name: str, landscape: Any, starts: Callable[[Array], Array], replicas: int, budget: int, ranks: Ranks
    ):
        super().__init__(ranks)
        self.n_units = replicas
        self._name, self._minimise = name, MINIMISERS[name]
        self._landscape, self._starts, self._budget = landscape, starts, budget

    def run(self, units: Sequence[int]) -> Generator[int | None]:
        """See ``Work``."""
        for unit in units:
            begun, counter = time.process_time(), Counter(self._landscape, self._budget)
            [x] = self._starts(np.array([unit]))
            status = SMALL_CHANGE
            try:
                with _unheard():
                    self._minimise(counter, x)
            except Spent:
                status = BUDGET
            except (RuntimeError, ValueError, ArithmeticError) as error:  # of a start that the library cannot take
                logger.info("%s, replica %d: %s", self._name, unit, error)
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


def _scipy(counter: Counter, x: Array) -> None:
    from scipy.optimize import minimize

    def flat(z: Array) -> tuple[float, Array]:
        energy, slope = counter(z.reshape(x.shape))
        return energy, slope.ravel()

    options = {"maxiter": 10**9, "maxfun": 10**9, "ftol": TIGHT, "gtol": 0.0, "maxcor": 10}
    minimize(flat, x.ravel(), jac=True, method="L-BFGS-B", options=options)


def _ase(counter: Counter, x: Array) -> None:
    from ase import Atoms
    from ase.calculators.calculator import Calculator, all_changes
    from ase.optimize.precon import Exp, PreconLBFGS

    class OfLandscape(Calculator):
        implemented_properties: ClassVar = ["energy", "forces"]

        def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            energy, slope = counter(self.atoms.positions[:, : x.shape[1]])
            forces = np.zeros((len(x), 3))
            forces[:, : x.shape[1]] = -slope
            self.results = {"energy": energy, "forces": forces}

    flat = np.zeros((len(x), 3))
    flat[:, : x.shape[1]] = x
    atoms = Atoms("H" * len(x), positions=flat, calculator=OfLandscape())
    PreconLBFGS(atoms, precon=Exp(r_NN=PAIR, r_cut=2 * PAIR), logfile=None, use_armijo=True).run(
        fmax=TIGHT, steps=10**9
    )


MINIMISERS: dict[str, Callable[[Counter, Array], None]] = {"scipy": _scipy, "ase": _ase}
