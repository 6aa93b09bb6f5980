"""The minimisation of all replicas by one method, as a stage: a unit is a block of replicas that advance together.

An evaluation serves all replicas of a block. What a replica does is the same, bit for bit, whatever others of its block
do and whatever rank holds it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from hpcfit.errors import InputError, together
from hpcfit.fit.downhill import Descent
from hpcfit.fit.gradient import Evaluation
from hpcfit.fit.inner import OfRows
from hpcfit.fit.lbfgs import GOING, NOT_FINITE, REASONS
from hpcfit.fit.problem import Params
from hpcfit.fit.stages import ArraysOfUnits
from hpcfit.kinds.structure.landscapes.landscape import Landscape
from hpcfit.kinds.structure.parametrisations import Chart, Parametrisation
from hpcfit.ranks import Ranks

Array = np.ndarray
BUDGET, GAVE_UP = 10, 11
STOPPED = REASONS | {
    BUDGET: "the budget is spent (problem.budget)",
    GAVE_UP: "the minimiser of another library ended with an error",
}
MARKS_A_DECADE = 20
REPLICAS_AT_ONCE = 16  # that are evaluated together, at most


class Phase(NamedTuple):
    """A part of a method: in these coordinates, by this optimizer, with the cores of pairs capped (0: as they are).

    make: the optimizer of rows with an inner product; it is given a seed for each row, for what it draws. landscape:
    the energy of this part, where it is not the one that is asked for. renewed: after so many evaluations coordinates
    are made anew, at the present positions; 0: never.
    """

    parametrisation: Parametrisation
    make: Callable[[OfRows, Array], Descent]
    cap: float = 0.0
    landscape: Any = None
    renewed: int = 0


class Replicas(NamedTuple):
    """The replicas of a method: how many, the width of a block of them, the gradients of each, and the seed of what is
    drawn."""

    number: int
    width: int
    budget: int
    seed: int


class Block(NamedTuple):
    """The replicas of a block where they are: positions [W, n, d], energies [W] of the phase, evaluations spent [W],
    why each has ended, and the traces so far [W, marks]."""

    x: Array
    energy: Array
    spent: Array
    status: Array
    trace: Array


def energies_and_slopes(landscape: Landscape, x: Array, cap: float = 0.0) -> tuple[Array, Array]:
    """Energies [replicas] and their derivatives by positions [replicas, n, d], of some replicas at a time.

    Groups have one width, so that the bits of a replica do not depend on how many there are.
    """
    width = max(min(landscape.at_once // landscape.n, REPLICAS_AT_ONCE), 1)
    energy, slope = np.empty(len(x)), np.empty(x.shape)
    for first in range(0, len(x), width):
        group = x[first : first + width]
        there = len(group)
        if there < width:
            group = np.concatenate([group, np.repeat(group[:1], width - there, axis=0)])
        found = landscape.evaluated(group, cap)
        energy[first : first + there], slope[first : first + there] = (part[:there] for part in found)
    return energy, slope


def energies(landscape: Landscape, x: Array) -> Array:
    """The energies [replicas] at positions [replicas, n, d], without any cap and of all pairs."""
    return np.array([float(_energy(landscape, one)) for one in x])


@jax.jit
def _energy(landscape: Landscape, x: Any) -> Any:
    return landscape.energy(x)


def marks(budget: int) -> Array:
    """The numbers of evaluations that energies are kept at, of any replica."""
    number = int(MARKS_A_DECADE * np.log10(max(budget, 2))) + 2
    return np.unique(np.rint(np.geomspace(1, budget, number)).astype(int))


class OfBlock:
    """The evaluation of a block of replicas in some coordinates, as optimizers of rows want it.

    A replica that has not moved since the evaluation before, as one that has ended, is not evaluated again.
    """

    def __init__(self, landscape: Landscape, chart: Chart, cap: float):
        self.chart, self._landscape, self._cap = chart, landscape, cap
        self._before: tuple[Array, Array, Array] | None = None

    def __call__(self, params: Params) -> Evaluation:
        """Energies and gradients at z [1, W, size]."""
        z = params.local["z"][0]
        x = self.chart.positions(z)
        energy, slope = np.empty(len(x)), np.zeros(x.shape)
        moved = np.ones(len(x), bool)
        if self._before is not None:
            before, energy, slope = (np.array(part) for part in self._before)
            moved = np.any(before != x, axis=(1, 2))
        energy[moved], slope[moved] = energies_and_slopes(self._landscape, x[moved], self._cap)
        self._before = x, energy, slope
        finite = np.isfinite(energy) & np.all(np.isfinite(slope), axis=(1, 2))
        gradient = self.chart.pulled_back(z, np.where(finite[:, None, None], slope, 0.0))
        energy = np.where(finite, energy, np.nan)
        return Evaluation(energy[None], Params((), {"z": gradient[None]}), params, None, None, {})


class Minimisations(ArraysOfUnits):
    """All replicas from their starts by the phases of one method; see ``fit.stages.Work``.

    starts: a function of the numbers of replicas [W] that gives positions [W, n, d]. The product: positions [R, n, d],
    energy [R] without any cap, evaluations [R], status [R] (``STOPPED``), trace [R, marks] of the least energy that
    was accepted so far, and seconds [R] of CPU.
    """

    def __init__(
        self, landscape: Any, starts: Callable[[Array], Array], phases: Sequence[Phase], replicas: Replicas,
        ranks: Ranks,
    ):  # fmt: skip
        super().__init__(ranks)
        self.n_units = -(-replicas.number // replicas.width)
        self._landscape, self._starts, self._phases = landscape, starts, phases
        self._replicas, self._width, self._budget, self._seed = replicas
        self._marks = marks(replicas.budget)

    def run(self, units: Sequence[int]) -> Generator[int | None]:
        """See ``Work``."""
        for unit in units:
            begun, numbers = time.process_time(), self._numbers(unit)
            block = self._begun(numbers)
            for phase in self._phases:
                if np.any(block.spent < self._budget):
                    block = yield from self._phase(phase, numbers, block)
            self._keep(unit, block, time.process_time() - begun)
            yield unit

    def _numbers(self, unit: int) -> Array:
        """The numbers of the replicas of a block; the end of the last one is padded by its first."""
        numbers = unit * self._width + np.arange(self._width)
        return np.where(numbers < self._replicas, numbers, numbers[0])

    def _begun(self, numbers: Array) -> Block:
        W = self._width
        x = np.asarray(self._starts(numbers), float)
        trace = np.full((W, len(self._marks)), np.nan)
        return Block(x, energies(self._landscape, x), np.zeros(W, int), np.full(W, GOING), trace)

    def _phase(self, phase: Phase, numbers: Array, block: Block) -> Generator[None, None, Block]:
        """The block after a phase; yields after each evaluation. Replicas whose budget is spent stay as they are."""
        inside, seeds = block.spent < self._budget, self._seeds(numbers)
        optimizer = phase.make(OfRows((1, self._width)), seeds)
        evaluate, params = self._opened(phase, block.x, seeds)
        state = optimizer.begun(params, evaluate(params))
        bad = np.flatnonzero(inside & (state.status[0] == NOT_FINITE))
        if len(bad):
            raise together(no_energy(self._landscape, int(numbers[bad[0]]), block.x[bad[0]]))
        state, block = self._after(block, state, evaluate.chart, inside)
        since = 1
        while np.any(state.going):
            yield None
            going = state.going[0]
            if since == phase.renewed:
                evaluate, params = self._opened(phase, block.x, seeds)
                fresh = optimizer.begun(params, evaluate(params))
                state, since = fresh._replace(status=np.where(going[None], fresh.status, state.status)), 0
            else:
                state = optimizer.told(state, evaluate(optimizer.trial(state)))
            state, block = self._after(block, state, evaluate.chart, going)
            since += 1
        return block

    def _opened(self, phase: Phase, x: Array, seeds: Array) -> tuple[OfBlock, Params]:
        """The evaluation in the coordinates of a phase, made at positions x, and the point there."""
        z, chart = phase.parametrisation.begun(x, seeds)
        landscape = self._landscape if phase.landscape is None else phase.landscape
        return OfBlock(landscape, chart, phase.cap), Params((), {"z": z[None]})

    def _seeds(self, numbers: Array) -> Array:
        """A seed for each replica, [W], whatever block it is in."""
        return np.array([np.random.SeedSequence([self._seed, int(n)]).generate_state(1)[0] for n in numbers])

    def _after(self, block: Block, state: Any, chart: Chart, evaluated: Array) -> tuple[Any, Block]:
        """State and block after an evaluation of some replicas; those whose budget is spent by it go no further."""
        spent, energy = block.spent + evaluated, np.where(evaluated, state.loss[0], block.energy)
        reached = (self._marks > block.spent[:, None]) & (self._marks <= spent[:, None])
        trace = np.where(reached, energy[:, None], block.trace)
        out = state.going[0] & (spent >= self._budget)
        state = state._replace(status=np.where(out[None], BUDGET, state.status))
        x = np.where(evaluated[:, None, None], chart.positions(state.params.local["z"][0]), block.x)
        return state, Block(x, energy, spent, np.where(evaluated, state.status[0], block.status), trace)

    def _keep(self, unit: int, block: Block, seconds: float) -> None:
        energy = energies(self._landscape, block.x)
        later = self._marks[None] > block.spent[:, None]
        found = {
            "positions": block.x, "energy": energy, "evaluations": block.spent, "status": block.status,
            "trace": np.where(later, block.energy[:, None], block.trace),
            "seconds": np.full(self._width, seconds / self._width),
        }  # fmt: skip
        self._done |= {f"{name} {unit}": values for name, values in found.items()}

    def product(self) -> dict[str, Array]:
        """See ``Work``: arrays over all replicas, on the root of all."""
        return {name: values[: self._replicas] for name, values in joined(self.kept(), self.n_units).items()}


def joined(kept: Mapping[str, Array], n_units: int) -> dict[str, Array]:
    """The arrays of all units, kept as `NAME UNIT`, one after another by name."""
    names = sorted({key.partition(" ")[0] for key in kept})
    return {name: np.concatenate([kept[f"{name} {unit}"] for unit in range(n_units)]) for name in names}


def no_energy(landscape: Any, number: int, x: Array) -> InputError:
    """Why a replica has no energy where it starts: the two particles that are nearest to each other."""
    from scipy.spatial import cKDTree

    finite = np.all(np.isfinite(x), axis=1)
    if not np.all(finite):
        where = f"{landscape.label(int(np.flatnonzero(~finite)[0]))} is nowhere"
    else:
        distance, near = cKDTree(x).query(x, k=2)
        first = int(np.argmin(distance[:, 1]))
        other = next(int(one) for one in near[first] if one != first)
        where = f"{landscape.label(first)} and {landscape.label(other)} are {distance[first, 1]:.2g} apart"
    return InputError(
        f"the energy of replica {number} is not finite where it starts: {where}",
        remedy="give a method with a cap of the cores (cap = 0.9), or other starts",
    )
