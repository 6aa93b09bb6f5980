"""The weights of a fit that is still running, summed up for its monitor: by label, and as a histogram."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcfit.fit.problem import FrameRows, Params
from hpcfit.kinds.frame_weights.problem import FrameWeights

MAX_GROUPS = 40  # by frames; further labels or sources are summed as one
BIN, BEYOND = 0.05, 20.0  # of a histogram of ln(T w): the width of a bin, and the largest value of either sign


@dataclass(frozen=True)
class LiveWeights:
    """A function of gauged parameters. names: of the groups; group: of each of this rank's blocks, index of a name."""

    problem: FrameWeights
    frames: FrameRows
    names: Sequence[str]
    group: np.ndarray

    @classmethod
    def of(cls, problem: FrameWeights, frames: FrameRows, labels: Sequence[str], blocks: range) -> LiveWeights:
        """For the blocks of a rank. labels: of all blocks of the data set, so that all ranks form the same groups."""
        common = [name for name, _ in Counter(labels).most_common(MAX_GROUPS)]
        names = sorted(common, key=labels.index)
        if len(set(labels)) > len(names):
            names = [*names, "all others"]
        index = {name: number for number, name in enumerate(names)}
        group = [index.get(labels[block], len(names) - 1) for block in blocks]
        return cls(problem, frames, names, np.array(group, int))

    def __call__(self, params: Params) -> dict[str, Any]:
        """groups: name -> (summed weights, summed weights before the fit); frames: a histogram of ln(T w), whose bin k
        begins at (first + k) width."""
        held = self.frames.ids >= 0
        w, prior = self.problem.weights_of(params, self.frames), np.where(held, np.exp(self.frames.more.log_prior), 0.0)
        groups = {
            name: (float(now), float(before))
            for name, now, before in zip(self.names, self._by_group(w), self._by_group(prior))
        }
        smallest = np.exp(-BEYOND) / self.frames.total
        shown = np.clip(np.log(np.maximum(w[held], smallest) * self.frames.total), -BEYOND, BEYOND)
        bins = np.floor(shown / BIN).astype(int)
        first = int(bins.min(initial=0))
        return {"groups": groups, "width": BIN, "first": first, "frames": np.bincount(bins - first).tolist()}

    def _by_group(self, w: np.ndarray) -> np.ndarray:
        return np.bincount(self.group, weights=w.sum(axis=1), minlength=len(self.names))
