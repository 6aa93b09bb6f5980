"""The way to pull back that reads the frames once, where a rank holds all frames of its tiles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from hpcfit.fit import derivatives
from hpcfit.fit.gradient import NO_ROWS, Halves, SumsAt
from hpcfit.fit.not_finite import is_finite, not_finite_along
from hpcfit.fit.problem import Block, Params, Statistics
from hpcfit.fit.stopwatch import Stopwatch

Tree = Any


@dataclass(frozen=True)
class Adjoint(Halves):
    """One pass over the frames, where a rank holds all frames of its tiles. threads: of the pass, on a CPU."""

    threads: int = 1
    passes = 1

    def _summary_bars(self, at: SumsAt, sums_bar: Tree) -> tuple[Statistics, Tree]:
        return derivatives.summaries_vjp_to_common(self.problem, at.statistics, at.params.shared, sums_bar)

    @cached_property
    def _prepared(self) -> Tree:
        return self.problem.prepare([self.problem], [self.frames.rows])

    def _pass(self, params: Params, blocks: Block, common: Tree, clock: Stopwatch) -> tuple[Tree, Params, Any]:
        w_t = np.asarray(derivatives.weights(self.problem, params, blocks)).ravel()
        alone = jax.tree.map(lambda leaf: np.asarray(leaf)[None], common)
        sliced, rows = self._read(self._prepared, w_t[None], alone, np.zeros(1, int), clock)
        return jax.tree.map(lambda leaf: leaf[0], sliced), NO_ROWS, rows[0]

    def _read(self, prepared: Tree, w_rt: np.ndarray, common: Tree, of: np.ndarray, clock: Stopwatch) -> tuple:
        """``OnePassProblem.one_pass`` over all frames."""
        pieces = []
        for chunk in self._timed_chunks(clock):
            with clock("compute"):
                made = self.problem.one_pass(w_rt, common, chunk, prepared, of, self.threads)
                pieces.append(jax.block_until_ready(made))
        return jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *pieces)

    def _not_finite_data(self, at: SumsAt) -> np.ndarray:
        """The rows whose data are not finite, else the one of the largest weight, if sums of tiles are not."""
        bad = [np.flatnonzero(not_finite_along(chunk.data, axis=2)) for chunk in self.frames.chunks()]
        rows = np.unique(np.concatenate([np.zeros(0, int), *bad]))
        if self._any_rank(len(rows) > 0) or not self._any_rank(not is_finite(at.statistics)):
            return rows
        w = np.abs(np.asarray(derivatives.weights(self.problem, at.params, at.blocks))).ravel()
        return np.flatnonzero(w == np.max(w, initial=0.0))[:1]

    def _pull_data(self, at: SumsAt, sliced_bar: Tree, sums_bar: Tree, clock: Stopwatch) -> Params:
        with clock("compute"):
            parts = jax.block_until_ready(derivatives.combined(self.problem, at.kept, sums_bar))
        with clock("reduce"):
            w_bar = self.add([parts], axis=0, over="slices")
        with clock("compute"):
            bar = derivatives.weights_vjp(self.problem, at.params, at.blocks, w_bar.reshape(at.blocks.ids.shape))
        with clock("reduce"):
            return Params(self.add([bar.shared], axis=0, over="frames"), bar.local)
