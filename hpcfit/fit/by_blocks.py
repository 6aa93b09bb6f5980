"""Two ways to pull back that take blocks of frames with all tiles, chunk by chunk: ``Reverse`` and ``Forward``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.fit import derivatives
from hpcfit.fit.gradient import Halves, SumsAt
from hpcfit.fit.not_finite import not_finite_along
from hpcfit.fit.problem import Block, Cell, Params, Statistics
from hpcfit.fit.stopwatch import Stopwatch

Tree = Any


@dataclass(frozen=True)
class _ByBlocks(Halves):
    """What the ways share that take blocks of frames with all tiles, chunk by chunk."""

    def _summary_bars(self, at: SumsAt, sums_bar: Tree) -> tuple[Statistics, Tree]:
        return derivatives.summaries_vjp(self.problem, at.statistics, at.params.shared, sums_bar)

    def _over_chunks(self, function: Callable, params: Params, clock: Stopwatch) -> list[tuple]:
        """What ``function(problem, params, cells)`` gives of each chunk."""
        pieces = []
        for chunk in self._timed_chunks(clock):
            with clock("compute"):
                pieces.append(jax.block_until_ready(function(self.problem, *self._on(params, chunk))))
        return pieces

    def _not_finite_data(self, at: SumsAt) -> np.ndarray:
        """The rows of the first block whose cells are not finite, or those among them whose data are not."""
        for chunk in self.frames.chunks():
            sums, _ = derivatives.sums_and_rows(self.problem, *self._on(at.params, chunk))
            bad = np.flatnonzero(not_finite_along(sums, axis=1))
            if len(bad):
                data = jax.tree.map(lambda leaf, bad=bad: np.asarray(leaf)[:, bad[0]], chunk.data)
                rows, culprits = self._rows_of(chunk.rows.start + bad[:1]), not_finite_along(data, axis=1)
                return rows[culprits] if np.any(culprits) else rows
        return np.zeros(0, int)

    def _on(self, params: Params, chunk: Any) -> tuple[Params, Cell]:
        """The parameters and the cells of a chunk."""
        rows = self.frames.rows
        local, more = jax.tree.map(lambda leaf: leaf[chunk.rows], (params.local, rows.more))
        return Params(params.shared, local), Cell(chunk.data, rows.ids[chunk.rows], more)


@dataclass(frozen=True)
class Reverse(_ByBlocks):
    """Two passes over the frames: one adds the statistics, one pulls their cotangents back to the parameters."""

    passes = 2

    def _pass(self, params: Params, blocks: Block, common: Tree, clock: Stopwatch) -> tuple[Tree, Params, None]:
        pieces = self._over_chunks(derivatives.sums_and_rows, params, clock)
        with clock("reduce"):
            return self.add([sums for sums, _ in pieces], axis=1, over="frames"), _joined(pieces), None

    def _pull_data(self, at: SumsAt, sliced_bar: Tree, sums_bar: Tree, clock: Stopwatch) -> Params:
        pull = lambda problem, params, cells: derivatives.pulled_back(problem, params, cells, sliced_bar)  # noqa: E731
        bars = self._over_chunks(pull, at.params, clock)
        with clock("reduce"):
            shared_sum = self.add([bar.shared for bar in bars], axis=(0, 1), over="world")
            rows = jax.tree.map(lambda *parts: jnp.concatenate(parts, axis=1), *(bar.local for bar in bars))
            return Params(shared_sum, self.add([rows], axis=0, over="slices"))


@dataclass(frozen=True)
class Forward(_ByBlocks):
    """One pass that carries the derivatives by the shared parameters along: for few of them, and for frames that take
    long to compute, such as windows of a simulation. Local parameters are constants of its data.

    pulled: each number of the sums is pulled back instead, in the same pass: for fewer numbers than parameters.
    """

    pulled: bool = False
    passes = 1

    def _pass(self, params: Params, blocks: Block, common: Tree, clock: Stopwatch) -> tuple[Tree, Params, Tree]:
        pieces = self._over_chunks(partial(derivatives.sums_rows_and_tangents, pulled=self.pulled), params, clock)
        with clock("reduce"):
            both = [(sums, jax.tree.leaves(tangents)) for sums, _, tangents in pieces]
            sliced, tangents = self.add(both, axis=1, over="frames")
        return sliced, _joined(pieces), tangents

    def _tangents(self, at: SumsAt) -> Tree:
        return at.kept

    def _pull_data(self, at: SumsAt, sliced_bar: Tree, sums_bar: Tree, clock: Stopwatch) -> Params:
        with clock("compute"):
            parts = jax.block_until_ready(derivatives.contracted(sliced_bar, at.kept, at.params.shared))
        with clock("reduce"):
            shared = self.add([parts], axis=0, over="slices")
        return Params(shared, jax.tree.map(np.zeros_like, at.params.local))


def _joined(pieces: Sequence[tuple]) -> Params:
    """The rows of all chunks as local leaves [blocks, ...]; they are those of the first tile, which has every frame."""
    rows = jax.tree.map(lambda *parts: np.concatenate([np.asarray(part[0]) for part in parts]), *(p[1] for p in pieces))
    return Params((), rows)
