"""Value and gradient of many fits of the same frames at once, in one pass over them.

The fits differ in numbers of their problems (regularisers, which part of the data is fitted) and of their rows (prior
weights, which frames take part). Each gets, bit for bit, what it would get in any other company: its sums have
exponents of their own, and one fit after another runs through the same loops.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np

from hpcfit.fit import derivatives
from hpcfit.fit.adjoint import Adjoint
from hpcfit.fit.cells import Alike, Places
from hpcfit.fit.gradient import LARGEST_GRADIENT, Evaluation, Gradient, OverFrames
from hpcfit.fit.not_finite import is_finite, largest
from hpcfit.fit.problem import Params
from hpcfit.fit.stopwatch import Stopwatch

Tree = Any
AT_ONCE = 16  # fits at most, for which arrays have room: one shape is compiled; more would save little more


def share_frames(gradients: Sequence[Gradient]) -> bool:
    """True where these fits can be evaluated at once."""
    first = gradients[0]
    return all(isinstance(one, Adjoint) and one.frames.chunks == first.frames.chunks for one in gradients)


def batches(number: int) -> list[slice]:
    """So many fits in parts of AT_ONCE."""
    return [slice(first, first + AT_ONCE) for first in range(0, number, AT_ONCE)]


def metrics_at(gradients: Sequence[Gradient], params: Sequence[Params]) -> list[dict[str, float]]:
    """The numbers that the problems report at parameters of each, in one pass where they can share it; collective."""
    if not share_frames(gradients):
        return [one.metrics(one.value(at)) for one, at in zip(gradients, params)]
    return [metrics for part in batches(len(params)) for metrics in _metrics_at(gradients[part], params[part])]


def _metrics_at(gradients: Sequence[Adjoint], params: Sequence[Params]) -> list[dict[str, float]]:
    together, every = Many(gradients), np.ones(len(gradients), bool)
    found = together.metrics(together(side_by_side(params), every), every)
    return [found[n] for n in range(len(gradients))]


class At(NamedTuple):
    """The sums of the fits that were evaluated, leaves [places, ...], for what is asked of them later."""

    places: Places
    params: Sequence[Params]  # gauged, one a fit
    common: Tree
    shared: Tree
    sliced: Tree


@dataclass(frozen=True)
class Many:
    """Value and gradient of fits by their own ``gradients``: at most AT_ONCE, for which ``share_frames`` is true.

    Vectors of parameters have the fits on the last axis of each leaf (``fit.inner.OfMany``).
    """

    gradients: Sequence[Adjoint]
    _reported: dict[int, Sequence[str]] = field(default_factory=dict)

    def __call__(self, params: Params, which: np.ndarray) -> Evaluation:
        """Losses [fits], and gradients with the fits last, of those that ``which`` [fits] says; NaN and 0 for others.
        Collective. Where a sum or a gradient of a fit is not finite, its loss is not either, and its gradient is 0."""
        clock, numbers = Stopwatch(), np.flatnonzero(which)
        at, pull = self._sums_at([one_of(params, n) for n in numbers], numbers, clock)
        with clock("compute"):
            parts = derivatives.summaries_of_fits(
                self._problems, at.places, self._tiles, at.common, at.shared, at.sliced, reported=False
            )
            parts = _used(parts, len(numbers))
        with clock("reduce"):
            sums = self._first.add.of_fits(parts, over="slices")
        with clock("compute"):
            found = derivatives.losses_and_cotangents(
                self._problems, at.places, self._placed(sums), at.common, at.shared
            )
            losses, bars = _used(found, len(numbers))
        found = (sums, _used(at.sliced, len(numbers)))
        losses = self._agreed(losses, [_row(found, place) for place in range(len(numbers))])
        gradients = self._pulled(at, pull, bars, clock)
        too_large = [float(largest(one) > LARGEST_GRADIENT) for one in gradients]
        losses = np.where(self._world.max(np.array(too_large)) > 0, np.nan, losses)
        whole, of_all = np.full(len(which), np.nan), jax.tree.map(np.zeros_like, params)
        whole[numbers] = losses
        for n, loss, one in zip(numbers, losses, gradients):
            if math.isfinite(loss):
                jax.tree.map(lambda leaf, mine, n=n: leaf.__setitem__((..., n), mine), of_all, one)
        return Evaluation(whole, of_all, params, at, None, clock.seconds)

    def gauged(self, params: Params, n: int) -> Params:
        """The parameters of fit n, equivalent ones at which sums are well scaled; collective."""
        return self._gauged(n, one_of(params, n))

    def metrics(self, evaluation: Evaluation, which: np.ndarray) -> dict[int, dict[str, float]]:
        """The numbers that the problems report, of the fits of an evaluation that ``which`` [fits] says; collective."""
        at = self._of(evaluation.statistics, which)
        used = int(at.places.used)
        if not used:
            return {}
        parts = derivatives.summaries_of_fits(
            self._problems, at.places, self._tiles, at.common, at.shared, at.sliced, reported=True
        )
        sums = self._placed(self._first.add.of_fits(_used(parts, used), over="slices"))
        columns = derivatives.metrics_of_fits(self._problems, at.places, sums, at.common, at.shared)
        columns, found = {name: column.tolist() for name, column in _used(columns, used).items()}, {}
        for place, number in enumerate(at.places.of[:used].tolist()):
            names = self._names(number, *(_row(tree, place) for tree in (sums, at.common, at.shared)))
            found[number] = {name: columns[name][place] for name in names}
        return found

    def _of(self, at: At, which: np.ndarray) -> At:
        """Of the fits that were evaluated, those that ``which`` [fits] says."""
        numbers = at.places.of[: at.places.used]
        if np.all(which[numbers]):
            return at
        places = np.flatnonzero(which[numbers])
        taken = lambda tree: self._placed(jax.tree.map(lambda leaf: np.asarray(leaf)[places], tree))  # noqa: E731
        params = [at.params[place] for place in places]
        return At(self._places(numbers[places]), params, taken(at.common), taken(at.shared), taken(at.sliced))

    def _names(self, number: int, *at: Tree) -> Sequence[str]:
        """The numbers that a fit reports: with those of the batch there may be some of parts that it has not."""
        if number not in self._reported:
            self._reported[number] = tuple(jax.eval_shape(self.gradients[number].problem.metrics, *at))
        return self._reported[number]

    # ---- what is the same in every evaluation ----------------------------------------------------------------------

    @property
    def _first(self) -> Adjoint:
        return self.gradients[0]

    @property
    def _world(self) -> Any:
        return self._first.grid.world

    @cached_property
    def _of_batch(self) -> list[Any]:
        return [one.problem.in_a_batch() for one in self.gradients]

    @cached_property
    def _problems(self) -> Alike:
        without = [replace(problem, tiles=()) for problem in self._of_batch]
        return Alike.of(without, replace(self._first.problem, tiles=()), AT_ONCE)

    @cached_property
    def _tiles(self) -> Alike:
        return Alike.of([problem.tiles for problem in self._of_batch], self._first.problem.tiles, AT_ONCE)

    @cached_property
    def _blocks(self) -> Alike:
        rows = [(one.frames.rows.ids, one.frames.rows.more) for one in self.gradients]
        return Alike.of(rows, (None, self._first.problem.of_all_fits(rows[0][1])), AT_ONCE)

    @cached_property
    def _prepared(self) -> Tree:
        return self._of_batch[0].prepare(self._of_batch, [one.frames.rows for one in self.gradients])

    def _places(self, numbers: np.ndarray) -> Places:
        places = np.zeros(AT_ONCE, np.int32)
        places[: len(numbers)] = numbers
        return Places(places, np.int32(len(numbers)))

    def _placed(self, tree: Tree) -> Tree:
        """Leaves [fits that are evaluated, ...] with room for the other places."""

        def placed(leaf: np.ndarray) -> np.ndarray:
            leaf = np.asarray(leaf)
            whole = np.zeros((AT_ONCE, *leaf.shape[1:]), leaf.dtype)
            whole[: len(leaf)] = leaf
            return whole

        return jax.tree.map(placed, tree)

    # ---- one evaluation --------------------------------------------------------------------------------------------

    def _gauged(self, n: int, params: Params) -> Params:
        one = self.gradients[n]
        return one.problem.gauge(params, one.frames.rows, OverFrames(one.grid, one.add))

    def _sums_at(self, params: Sequence[Params], numbers: np.ndarray, clock: Stopwatch) -> tuple[At, tuple]:
        """The sums at gauged parameters, and what their pull-back needs: what the blocks were given, and the rows."""
        params = [self._gauged(n, one) for n, one in zip(numbers, params)]
        places, n = self._places(numbers), len(numbers)
        beside = [self.gradients[number]._blocks(one)[2:] for number, one in zip(numbers, params)]
        local = self._placed(_stacked([(one.local, of) for one, of in zip(params, beside)]))
        shared = self._placed(_stacked([one.shared for one in params]))
        with clock("compute"):
            found = derivatives.weights_and_sums_of_fits(self._problems, places, self._blocks, shared, local)
            weights, parts = _used(found, n)
        with clock("reduce"):
            common = self._first.add.of_fits(parts, over="frames")
        sliced, rows = self._first._read(self._prepared, weights.reshape(n, -1), common, numbers, clock)
        with clock("compute"):
            sliced, rows = jax.device_put(self._placed((sliced, rows)))
        return At(places, params, self._placed(common), shared, sliced), (local, rows)

    def _agreed(self, losses: np.ndarray, sums: Sequence[Tree]) -> np.ndarray:
        """As ``Halves._agreed``, of each fit."""
        bad = np.array([not (math.isfinite(loss) and is_finite(tree)) for loss, tree in zip(losses, sums)])
        here = np.concatenate([bad.astype(float), np.where(bad, -np.inf, losses)])
        any_bad, most = np.split(self._world.max(here), 2)
        return np.where(any_bad > 0, np.nan, most)

    def _pulled(self, at: At, pull: tuple, bars: tuple, clock: Stopwatch) -> list[Params]:
        """The gradient of each fit that was evaluated."""
        (local, rows), used, add = pull, int(at.places.used), self._first.add
        with clock("compute"):
            of_fits = (at.common, at.shared, self._placed(bars[0]))
            parts = derivatives.tile_cotangents_of_fits(
                self._problems, at.places, self._tiles, of_fits, at.sliced, rows
            )
            parts = _used(parts, used)
        with clock("reduce"):
            common_more, shared_more, w_bar = add.of_fits(parts, over="slices")
        plus = lambda a, b: jax.tree.map(np.add, a, b)  # noqa: E731
        common_bar, direct = plus(bars[1], common_more), plus(bars[2], shared_more)
        with clock("compute"):
            shape = (used, *jax.tree.leaves(local[0])[0].shape[1:3])
            of_blocks = self._placed((common_bar, w_bar.reshape(shape)))
            found = derivatives.block_cotangents_of_fits(
                self._problems, at.places, self._blocks, (at.shared, of_blocks[0]), local, of_blocks[1]
            )
            of_frames, of_data = _used(found, used)
        with clock("reduce"):
            shared_bars = add.of_fits((of_frames.shared, of_data.shared), over="frames")
        with np.errstate(over="ignore", invalid="ignore"):
            shared = plus(direct, plus(*shared_bars))
            of_rows = plus(of_frames.local, of_data.local)
        return [Params(_row(shared, n), _row(of_rows, n)) for n in range(used)]


def one_of(params: Params, n: int) -> Params:
    """The vector of parameters of fit n, of several side by side."""
    return jax.tree.map(lambda leaf: np.ascontiguousarray(leaf[..., n]), params)


def side_by_side(params: Sequence[Params]) -> Params:
    """Vectors of parameters, one a fit, with the fits on the last axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves, axis=-1), *params)


def _stacked(trees: Sequence[Tree]) -> Tree:
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def _used(tree: Tree, n: int) -> Tree:
    """The first n places, as arrays of NumPy."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:n], tree)


def _row(tree: Tree, n: int) -> Tree:
    return jax.tree.map(lambda leaf: leaf[n], tree)
