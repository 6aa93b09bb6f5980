"""Basin hopping (Wales and Doye 1997, 10.1021/jp970984n) of many replicas at once: the strong search for global minima.

    x <- minimum of (x + random steps), accepted with probability min(1, exp(-(E_new - E) / T))

Replicas of a block share their evaluations. Each begins its next quench as soon as its last one has ended, so that none
waits for others; what it does is the same, bit for bit, whatever they do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple

import numpy as np

from hpcfit.errors import together
from hpcfit.fit.inner import OfRows
from hpcfit.fit.lbfgs import GOING, MAX_STEPS, NOT_FINITE, Lbfgs
from hpcfit.fit.problem import Params
from hpcfit.kinds.structure.minimisations import (
    BUDGET,
    Block,
    Minimisations,
    OfBlock,
    Replicas,
    no_energy,
)
from hpcfit.kinds.structure.parametrisations import Direct
from hpcfit.ranks import Ranks

Array = np.ndarray
TEMPERATURE, STEP = 0.8, 0.4  # in units of energy, and of length
WINDOW = 50  # quenches between two changes of the step
FACTOR = 0.9


class Hops(NamedTuple):
    """The numbers of basin hopping. quenches: of a replica at most; temperature: in units of energy; step: of each
    coordinate at most, at first; it grows and shrinks until half of the moves are accepted."""

    quenches: int
    temperature: float
    step: float


class Walk(NamedTuple):
    """The walks of a block, [W]: the minima they are at, the best ones, and what has been done."""

    x: Array
    energy: Array
    best_x: Array
    best: Array
    step: Array
    quenches: Array
    accepted: Array  # of the present window


class Hopping(Minimisations):
    """Basin hopping of all replicas, with cores capped; see ``fit.stages.Work``.

    The product is that of ``Minimisations``, of the best minima, with the number of quenches [R].
    """

    def __init__(
        self, landscape: Any, starts: Callable[[Array], Array], make: Callable[[OfRows, Array], Lbfgs], hops: Hops,
        cap: float, replicas: Replicas, ranks: Ranks,
    ):  # fmt: skip
        super().__init__(landscape, starts, (), replicas, ranks)
        self._make, self._hops, self._cap = make, hops, cap

    def run(self, units: Sequence[int]) -> Generator[int | None]:
        """See ``Work``."""
        for unit in units:
            begun, numbers = time.process_time(), self._numbers(unit)
            block, walk = yield from self._walked(numbers, self._begun(numbers))
            self._keep(unit, block, time.process_time() - begun)
            self._done[f"quenches {unit}"] = walk.quenches
            yield unit

    def _walked(self, numbers: Array, block: Block) -> Generator[None, None, tuple[Block, Walk]]:
        """Block and walks at their ends; yields after each evaluation."""
        W, shape = self._width, block.x.shape[1:]
        chart, optimizer = Direct(shape), self._make(OfRows((1, W)), self._seeds(numbers))
        evaluate = OfBlock(self._landscape, chart, self._cap)
        params = _params(block.x)
        state = optimizer.begun(params, evaluate(params))
        if np.any(state.status == NOT_FINITE):
            bad = int(np.flatnonzero(state.status[0] == NOT_FINITE)[0])
            raise together(no_energy(self._landscape, int(numbers[bad]), block.x[bad]))
        infinite, zeros = np.full(W, np.inf), np.zeros(W, int)
        walk = Walk(block.x, infinite, block.x, infinite, np.full(W, self._hops.step), zeros, zeros)
        alive = np.ones(W, bool)
        block = self._told(block, walk, state.loss[0], alive)
        while np.any(alive):
            ended = alive & ~state.going[0]
            walk = self._hopped(numbers, walk, ended, chart.positions(state.params.local["z"][0]), state.loss[0])
            status = np.where(walk.quenches >= self._hops.quenches, MAX_STEPS, GOING)
            status = np.where(block.spent >= self._budget, BUDGET, status)
            alive = alive & (status == GOING)
            block = block._replace(status=np.where(alive, GOING, np.where(block.status == GOING, status, block.status)))
            if not np.any(alive):
                break
            again = ended & alive
            trial = optimizer.trial(state)
            moved = _params(self._moved(numbers, walk)) if np.any(again) else trial
            trial = optimizer.inner.chosen(again[None], moved, trial)
            here = evaluate(trial)
            state = optimizer.told(state, here)
            if np.any(again):
                state = optimizer.anew(state, again[None], trial, here)
            # A walk that has ended keeps its place.
            state = state._replace(status=np.where(alive[None], state.status, BUDGET))
            block = self._told(block, walk, state.loss[0], alive)
            yield None
        return block._replace(x=walk.best_x, energy=walk.best), walk

    def _told(self, block: Block, walk: Walk, loss: Array, evaluated: Array) -> Block:
        """The block after an evaluation: what is spent, and the least energy so far."""
        spent = block.spent + evaluated
        least = np.where(np.isfinite(walk.best), walk.best, loss)
        reached = (self._marks > block.spent[:, None]) & (self._marks <= spent[:, None])
        return block._replace(
            x=walk.best_x, energy=least, spent=spent, trace=np.where(reached, least[:, None], block.trace)
        )

    def _hopped(self, numbers: Array, walk: Walk, ended: Array, x: Array, energy: Array) -> Walk:
        """The walks after the quenches of some have ended."""
        if not np.any(ended):
            return walk
        drawn = np.array([self._random(n, q, "accept").random() for n, q in zip(numbers, walk.quenches)])
        with np.errstate(over="ignore", invalid="ignore"):
            likely = np.exp(np.minimum(-(energy - walk.energy) / self._hops.temperature, 0.0))
        taken = ended & np.isfinite(energy) & ((energy <= walk.energy) | (drawn < likely))
        better = taken & (energy < walk.best)
        quenches, accepted = walk.quenches + ended, walk.accepted + taken
        full = ended & (quenches % WINDOW == 0)
        factor = np.where(full, np.where(2 * accepted > WINDOW, 1 / FACTOR, FACTOR), 1.0)
        return Walk(
            np.where(taken[:, None, None], x, walk.x), np.where(taken, energy, walk.energy),
            np.where(better[:, None, None], x, walk.best_x), np.where(better, energy, walk.best),
            walk.step * factor, quenches, np.where(full, 0, accepted),
        )  # fmt: skip

    def _moved(self, numbers: Array, walk: Walk) -> Array:
        """Every walk's minimum with random steps."""
        moves = [self._random(n, q, "move").uniform(-1, 1, walk.x.shape[1:]) for n, q in zip(numbers, walk.quenches)]
        return walk.x + walk.step[:, None, None] * np.array(moves)

    def _random(self, number: int, quench: int, what: str) -> np.random.Generator:
        return np.random.default_rng([self._seed, int(number), int(quench), len(what)])


def _params(x: Array) -> Params:
    return Params((), {"z": x.reshape(1, len(x), -1)})
