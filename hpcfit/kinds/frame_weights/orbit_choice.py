"""The orbits that a fit sees, those that it is judged by, and the number of times that each counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hpcfit.kinds.frame_weights.orbits import OrbitMap
from hpcfit.statistics.folds import folds_of, held_out_orbits
from hpcfit.statistics.resampling import resampled_orbits

if TYPE_CHECKING:
    from hpcfit.kinds.frame_weights.config import FrameWeightsConfig


class OrbitChoice(NamedTuple):
    """part: [n], 0 fitted, 1 held out. drawn: [n], how often an orbit counts; 0 where it is left out of both."""

    part: np.ndarray
    drawn: np.ndarray

    @property
    def fitted(self) -> np.ndarray:
        """True for the orbits that are fitted, [n] bool."""
        return (self.part == 0) & (self.drawn > 0)

    def without(self, fold: np.ndarray) -> OrbitChoice:
        """One fold [n] bool of the fitted orbits held out instead; what was held out is left out altogether."""
        return OrbitChoice((fold & self.fitted).astype(int), np.where(self.part == 1, 0, self.drawn))

    def resampled(self, seed: int) -> OrbitChoice:
        """A bootstrap resample of the fitted orbits."""
        return OrbitChoice(
            self.part, np.where(self.part == 0, self.drawn * resampled_orbits(self.fitted, seed), self.drawn)
        )


def choose_orbits(orbits: OrbitMap, choice: FrameWeightsConfig) -> OrbitChoice:
    """The orbits as the config has them: a test set, one fold, or a resample."""
    n = len(orbits.observed)
    chosen = OrbitChoice(np.zeros(n, int), np.ones(n))
    if choice.hold_out:
        test = held_out_orbits(
            _representatives(orbits), by=choice.hold_out_by, fraction=choice.hold_out, seed=choice.hold_out_seed,
            block=choice.hold_out_block,
        )  # fmt: skip
        chosen = OrbitChoice(test[orbits.mates].astype(int), chosen.drawn)
    if choice.fold is not None:
        chosen = chosen.without(folds(orbits, choice, choice.folds) == choice.fold)
    return chosen.resampled(choice.bootstrap) if choice.bootstrap else chosen


def folds(orbits: OrbitMap, choice: FrameWeightsConfig, number: int) -> np.ndarray:
    """The fold of each orbit, [n]: mates are in one, so that what is held out has no copy in the fit."""
    fold = folds_of(
        _representatives(orbits), by=choice.hold_out_by, folds=number, block=choice.hold_out_block,
        seed=choice.hold_out_seed,
    )  # fmt: skip
    return fold[orbits.mates]


def _representatives(orbits: OrbitMap) -> np.ndarray:
    """One reflection of each set of mates, by ascending resolution."""
    return orbits.hkl[np.unique(orbits.mates, return_index=True)[1]]
