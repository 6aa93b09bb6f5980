"""Selecting frames instead of weighing them: weights 0 or equal, searched by removal or by a genetic algorithm.

Both searches ask for the loss of many selections at once, which costs a pass over the frames, not one each: the
statistics are linear in the weights (``fit.problem.SelectableProblem``), so that leaving out a frame subtracts what
it alone contributes, and a population of selections is one matrix product.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.fit.by_blocks import Reverse
from hpcfit.fit.gradient import Evaluation
from hpcfit.fit.problem import Params, SelectableProblem, Statistics

Evaluate = Callable[[Params], Evaluation]
ABSENT = 1e-300  # a weight that is 0 beside any other, and has a logarithm


@dataclass(frozen=True)
class Selections:
    """Losses of selections of frames, on all ranks of a grid. A selection has a number a frame of this rank, [blocks,
    64]: 1 where it takes part, else 0."""

    evaluate: Reverse

    def params(self, chosen: np.ndarray, start: Params) -> Params:
        """The parameters at equal weights of the chosen frames."""
        count = self.count(chosen)
        w = np.where(chosen > 0, 1 / count, ABSENT)
        return self.evaluate.problem.at_weights(w, self.evaluate.frames.rows)._replace(shared=start.shared)

    def count(self, chosen: np.ndarray) -> int:
        """Frames of a selection, on all ranks."""
        return int(self.evaluate.grid.frames.sum(np.array([np.count_nonzero(chosen > 0)]))[0])

    def everything(self) -> np.ndarray:
        """The selection of all frames."""
        return (self.evaluate.frames.rows.ids >= 0).astype(float)

    def losses(self, population: np.ndarray, shared: Any) -> np.ndarray:
        """The loss of each of n selections [n, blocks, 64], [n], NaN of none; the same on every rank. One pass."""
        add, problem = self.evaluate.add, self.evaluate.problem
        pieces = [
            _population_sums(problem, population[:, chunk.rows], chunk.data) for chunk in self.evaluate.frames.chunks()
        ]
        sliced = add(pieces, axis=1, over="frames")
        # The map of no frames is 0, not 0 / 0: its CC is undefined, but its sums are finite.
        counts = np.array([max(self.count(chosen), 1) for chosen in population], float)
        parts = _population_summaries(problem, sliced, counts, shared)
        return np.asarray(_losses(problem, add([parts], axis=0, over="slices"), shared))

    def without_each(self, chosen: np.ndarray, shared: Any) -> np.ndarray:
        """The loss without each of the chosen frames in turn, [blocks, 64]; inf for the others. Two passes."""
        add, problem = self.evaluate.add, self.evaluate.problem
        pieces = [
            _population_sums(problem, chosen[None, chunk.rows], chunk.data) for chunk in self.evaluate.frames.chunks()
        ]
        whole = jax.tree.map(lambda leaf: leaf[:, 0], add(pieces, axis=1, over="frames"))
        left = float(self.count(chosen) - 1)
        found = []
        for chunk in self.evaluate.frames.chunks():
            parts = _summaries_without(problem, whole, left, chunk.data, shared)
            sums = add([parts], axis=0, over="slices")
            blocks, frames = chosen[chunk.rows].shape
            flat = jax.tree.map(lambda leaf, n=blocks * frames: leaf.reshape(n, *leaf.shape[2:]), sums)
            found.append(np.asarray(_losses(problem, flat, shared)).reshape(blocks, frames))
        return np.where(chosen > 0, np.concatenate(found), np.inf)


class SelectionState(NamedTuple):
    """population: of the genetic algorithm, [n, 64 x blocks of the data set]; empty for greedy removal. generation:
    of it, or frames removed. improved: the last generation that found a better selection."""

    params: Params
    loss: float
    gradient: Params
    population: np.ndarray
    generation: int
    improved: int
    stalled: str


@dataclass(frozen=True)
class Greedy:
    """Remove the frame without which the agreement is best, as long as it improves (the rule of LUNUS's ``xtraj.py``,
    Wall 2009, 10.1007/978-1-59745-483-4_17)."""

    selections: Selections
    space: ClassVar = "selections"
    stops_on: ClassVar = ()  # it says itself when it ends

    def start(self, params: Params, evaluate: Evaluate) -> SelectionState:
        """Equal weights of all frames."""
        params = self.selections.params(self.selections.everything(), params)
        here = evaluate(params)
        return SelectionState(params, here.loss, here.gradient, np.zeros(0), 0, 0, "")

    def step(self, state: SelectionState, evaluate: Evaluate) -> SelectionState:
        """Remove one frame."""
        problem, rows = self.selections.evaluate.problem, self.selections.evaluate.frames.rows
        chosen = (problem.weights_of(state.params, rows) > ABSENT * 2).astype(float)
        losses = self.selections.without_each(chosen, state.params.shared)
        best, frame = self._best(losses, rows.ids)
        if not best < state.loss:
            return state._replace(stalled="no removal of a frame lowers the misfit")
        params = self.selections.params(np.where(rows.ids == frame, 0.0, chosen), state.params)
        here = evaluate(params)
        if not here.loss < state.loss:
            return state._replace(stalled="no removal of a frame lowers the misfit by more than its rounding")
        removed = state.generation + 1
        return SelectionState(params, here.loss, here.gradient, state.population, removed, removed, "")

    def _best(self, losses: np.ndarray, ids: np.ndarray) -> tuple[float, int]:
        """The lowest loss on any rank and the lowest id of the frames that have it."""
        world = self.selections.evaluate.grid.world
        best = -float(world.max(np.array([-np.min(losses, initial=np.inf)]))[0])
        mine = np.min(np.where(losses == best, ids, np.iinfo(np.int64).max), initial=np.iinfo(np.int64).max)
        return best, -int(world.max(np.array([-mine]))[0])


@dataclass(frozen=True)
class Genetic:
    """A genetic algorithm over selections (DEAP; Fortin et al. 2012, JMLR 13, 2171): tournaments, crossover at two
    points, flips of single frames, and the best of a generation kept. Every rank runs it alike.

    Successive frames of a trajectory are alike, so that what a selection is worth lies in its stretches: it begins with
    some, and two points hand them on whole, where a uniform crossover would mix them.

    population: selections; crossover, mutation: probabilities of a pair and of a selection; flips: frames that a
    mutation flips on average; tournament: selections of which the best is taken; patience: generations without a
    better selection that end the search.
    """

    selections: Selections
    population: int = 64
    crossover: float = 0.6
    mutation: float = 0.5
    flips: float = 2.0
    tournament: int = 3
    patience: int = 50
    seed: int = 0
    space: ClassVar = "selections"
    stops_on: ClassVar = ()

    def __post_init__(self):
        whole = all(isinstance(n, int) for n in (self.population, self.tournament, self.patience, self.seed))
        if not (whole and self.population >= 4 and self.tournament >= 2 and self.patience >= 1):
            raise ValueError("population >= 4, tournament >= 2 and patience >= 1 must be whole numbers")
        if not (0 <= self.crossover <= 1 and 0 <= self.mutation <= 1 and self.flips > 0):
            raise ValueError("crossover and mutation are probabilities, and flips must be positive")

    def start(self, params: Params, evaluate: Evaluate) -> SelectionState:
        """All frames, and others by ``_drawn``."""
        held = self._held()
        population = np.zeros((self.population, len(held)), bool)
        population[:, held] = self._drawn(np.count_nonzero(held))
        here = evaluate(self._params(population[0], params))
        return SelectionState(here.params, here.loss, here.gradient, population.astype(np.uint8), 0, 0, "")

    def step(self, state: SelectionState, evaluate: Evaluate) -> SelectionState:
        """One generation."""
        from deap import tools

        random.seed(1_000_003 * self.seed + state.generation)  # DEAP draws from the module: the same on every rank
        people = self._judged(state.population, state.params)
        elite = tools.selBest(people, 1)
        parents = tools.selTournament(people, len(people) - 1, self.tournament)
        children = [_Selection(person) for person in parents]
        for one, other in zip(children[::2], children[1::2]):
            if random.random() < self.crossover:
                tools.cxTwoPoint(one, other)
        for child in children:
            if random.random() < self.mutation:
                tools.mutFlipBit(child, self.flips / len(child))
        return self._next(state, np.array([list(elite[0]), *children], np.uint8), evaluate)

    def _drawn(self, n_frames: int) -> np.ndarray:
        """Selections of n frames, [population, n] bool: all frames; stretches of them, and single frames from all over.

        From 2 % of the frames to all, evenly in the logarithm: how many belong together is not known.
        """
        rng = np.random.default_rng(self.seed)
        chosen = np.ones((self.population, n_frames), bool)
        sizes = np.ceil(np.geomspace(0.02, 1.0, self.population - 1) * n_frames).clip(min(2, n_frames)).astype(int)
        for number, size in enumerate(sizes, 1):
            chosen[number] = np.arange(n_frames) < size
            if number % 2:
                chosen[number] = np.roll(chosen[number], rng.integers(n_frames - size + 1))
            else:
                rng.shuffle(chosen[number])
        return chosen

    def _next(self, state: SelectionState, held_only: np.ndarray, evaluate: Evaluate) -> SelectionState:
        """The state of the new generation, moved to its best selection so far."""
        held = self._held()
        population = np.zeros((len(held_only), len(held)), np.uint8)
        population[:, held] = held_only
        generation = state.generation + 1
        best = self._params(population[0].astype(bool), state.params)
        here = evaluate(best)
        if here.loss < state.loss:
            return SelectionState(here.params, here.loss, here.gradient, population, generation, generation, "")
        idle = generation - state.improved
        stalled = f"{idle} generations found no better selection" if idle >= self.patience else ""
        return state._replace(population=population, generation=generation, stalled=stalled)

    def _judged(self, population: np.ndarray, params: Params) -> list[_Selection]:
        """The selections over the frames that there are, with their losses."""
        held, rows = self._held(), self.selections.evaluate.frames.rows.ids.shape
        blocks = self.selections.evaluate.grid.blocks
        mine = population.reshape(len(population), -1, rows[1])[:, blocks.start : blocks.stop].astype(float)
        losses = self.selections.losses(mine, params.shared)
        people = [_Selection(bits[held].tolist()) for bits in population]
        for person, loss in zip(people, losses.tolist()):
            person.fitness.values = (loss if np.isfinite(loss) else np.inf,)
        return people

    def _params(self, chosen: np.ndarray, start: Params) -> Params:
        rows, blocks = self.selections.evaluate.frames.rows.ids.shape, self.selections.evaluate.grid.blocks
        return self.selections.params(chosen.reshape(-1, rows[1])[blocks.start : blocks.stop].astype(float), start)

    def _held(self) -> np.ndarray:
        """Which rows of the whole data set are frames, [all blocks * 64] bool."""
        grid, ids = self.selections.evaluate.grid, self.selections.evaluate.frames.rows.ids
        whole = np.zeros((grid.n_blocks, ids.shape[1]))
        whole[grid.blocks.start : grid.blocks.stop] = ids >= 0
        return grid.frames.sum(whole).ravel() > 0


class _Selection(list):
    """One bit a frame, as DEAP wants it, with a loss that is to be small."""

    def __init__(self, bits: Any):
        from deap.base import Fitness

        super().__init__(bits)
        self.fitness = type("Loss", (Fitness,), {"weights": (-1.0,)})()


def _tiles(function: Callable, *trees: Any) -> Any:
    return jax.lax.map(lambda slices: function(*slices), trees)


@jax.jit
def _population_sums(problem: SelectableProblem, population: jax.Array, data: jax.Array) -> Any:
    """The sliced sums of each selection, leaves [tiles, blocks, n, ...]."""

    def cell(chosen, rows):
        return problem.weighted_sums(chosen, rows)

    return _tiles(lambda blocks: _tiles(cell, jnp.moveaxis(population, 0, 1), blocks), data)


@jax.jit
def _population_summaries(problem: SelectableProblem, sliced: Any, counts: jax.Array, shared: Any) -> Any:
    """What the misfit of each selection is made of, leaves [tiles, n, ...]."""

    def one(moments, count, tile):
        statistics = Statistics(problem.equal_weights(count), moments)
        return problem.misfit_sums(statistics, shared, tile)

    return _tiles(lambda moments, tile: jax.vmap(lambda m, n: one(m, n, tile))(moments, counts), sliced, problem.tiles)


@jax.jit
def _summaries_without(problem: SelectableProblem, whole: Any, left: float, data: jax.Array, shared: Any) -> Any:
    """The same without each frame of a chunk, leaves [tiles, blocks, 64, ...]."""

    def without(moments, row, tile):
        alone = problem.weighted_sums(jnp.ones((1, 1)), row[None])
        rest = jax.tree.map(lambda a, b: a - b[0], moments, alone)
        return problem.misfit_sums(Statistics(problem.equal_weights(left), rest), shared, tile)

    def tile_of(moments, blocks, tile):
        return _tiles(lambda rows: jax.vmap(lambda row: without(moments, row, tile))(rows), blocks)

    return _tiles(tile_of, whole, data, problem.tiles)


@jax.jit
def _losses(problem: SelectableProblem, sums: Any, shared: Any) -> jax.Array:
    """The misfit of each of many selections."""
    return jax.vmap(lambda one: problem.misfit_of(one, shared))(sums)
