"""Trajectories that the frames of a fit follow each other in, and the groups that shares of weight are told of.

What is statistical about them is here: which frames are drawn together, how many independent ones there are, and what
explains their weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from hpcfit.kinds.frame_weights.conclusions import few_independent, memory
from hpcfit.kinds.frame_weights.explained import WeighedFrames, explain
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.statistics.resampling import BLOCKS, blocks_per_source, resampled_frames


class Trajectories(NamedTuple):
    """sources: names. source: [T], the number of each frame's source, whose frames are in the order of time; -1 where
    there is no frame. label: [sources], the state that each source samples. groups: names of one or more; group: [T],
    -1 where there is no frame. Weights w of frames are [T] or of any shape with so many elements."""

    sources: Sequence[str]
    source: np.ndarray
    label: np.ndarray
    groups: Sequence[str]
    group: np.ndarray

    @property
    def held(self) -> np.ndarray:
        """True for a frame that takes part, [T]."""
        return self.source >= 0

    def of_groups(self, w: np.ndarray) -> np.ndarray:
        """Summed weight of each group."""
        return np.bincount(self.group[self.held], w.ravel()[self.held], minlength=len(self.groups))

    def of_sources(self, w: np.ndarray) -> np.ndarray:
        """Summed weight of each source."""
        return np.bincount(self.source[self.held], w.ravel()[self.held], minlength=len(self.sources))

    def resampled(self, w: np.ndarray, resamples: int, most: int = BLOCKS) -> Iterator[np.ndarray]:
        """Number of times that each frame is drawn, [T], in so many resamples of sources within their labels and of
        blocks within sources, at most so many of each; none where nothing can be drawn in another way. Blocks are as
        long as the weights w ask for."""
        source = self.source[self.held]
        n_blocks = blocks_per_source(source, memory(w.ravel()[self.held], source), most)
        for drawn in resampled_frames(source, self.label, n_blocks, resamples):
            counts = np.zeros(len(self.source))
            counts[self.held] = drawn
            yield counts

    def warnings(self, w: np.ndarray) -> list[str]:
        """A warning where sources are worth few independent frames by the weights w."""
        return few_independent(w.ravel()[self.held], self.source[self.held], self.sources)

    def memory_of_groups(self, w: np.ndarray) -> np.ndarray:
        """The mean over the frames of each group of the memory of their sources by the weights w, [G]."""
        source, group = self.source[self.held], self.group[self.held]
        of_frame = memory(w.ravel()[self.held], source)[source]
        return np.bincount(group, of_frame, minlength=len(self.groups)) / np.bincount(group, minlength=len(self.groups))

    def explained(self, w: np.ndarray, w0: np.ndarray, case: Any) -> dict[str, Any]:
        """-kT ln(w / w0) regressed on the ``numbers`` of a case, of the frames that take part, see ``explained``."""
        kT = GAS_CONSTANT * case.config.problem.temperature  # kJ/mol
        w, w0 = w.ravel()[self.held], w0.ravel()[self.held]
        return explain(case.numbers, WeighedFrames(w, w0, self.source[self.held], self.label, kT))
