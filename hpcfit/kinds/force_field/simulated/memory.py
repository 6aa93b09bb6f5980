"""The memory of windows from round to round, and the larger errors of parameters that it brings.

A window goes on where it ended in the round before. If it is short beside the relaxation of its system, its averages
still lag behind the parameters: the steps then answer in part to earlier parameters, whose noise comes back. The spread
of windows does not show that, because all of them lag alike. It is computed here: the steps of the rounds are repeated
for averages with an exponential memory, as long as the one that the windows show.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

LONGEST = 0.99  # of what windows may remember: the share that a round leaves of a deviation
HALVINGS = 40  # of the interval in which that share is searched
TOLD = 1.25  # times an error, from which on there is a warning
CHANCE = 3.0  # standard deviations of a measured correlation that may be chance
FEW = 3  # blocks that say nothing of the error of a correlation


@dataclass(frozen=True)
class Course:
    """The steps of a fit: so many ``rounds``, the first ``full`` - 1 of whole steps, and the mean of the others.

    frames: of a window, the first of them ``skipped`` in averages.
    """

    rounds: int
    full: int
    frames: int
    skipped: int

    @property
    def of_the_mean(self) -> int:
        """The number of rounds that the parameters are the mean of."""
        return self.rounds - self.full + 1

    def lengthened(self, correlation: float, share: float = 1.0) -> float:
        """The error of a parameter over that of the mean of rounds; at least 1.

        correlation: of what the averages of two successive rounds say of the parameter. share: how far a step follows
        the averages, less than 1 where priors hold the parameter.
        """
        if correlation <= 0 or self.of_the_mean < 2:
            return 1.0
        memory = self.memory(correlation)
        last = memory.last(self.full, self.rounds, share)
        mean = np.where(np.arange(self.rounds) < self.full - 1, 0.0, 1 / self.of_the_mean)
        correlations = memory.correlations(self.rounds)
        return max(1.0, float(np.sqrt((last @ correlations @ last) / (mean @ correlations @ mean))))

    def memory(self, correlation: float) -> Memory:
        """The exponential memory for which the averages of successive rounds are correlated so."""
        low, high = 0.0, LONGEST
        for _ in range(HALVINGS):
            left = (low + high) / 2
            short = Memory(left, self.frames, self.skipped).successive < correlation
            low, high = (left, high) if short else (low, left)
        return Memory((low + high) / 2, self.frames, self.skipped)


@dataclass(frozen=True)
class Memory:
    """Windows whose deviations decay exponentially. left: the share that a window leaves of a deviation; frames and
    skipped: see ``Course``."""

    left: float
    frames: int
    skipped: int

    @cached_property
    def _counted(self) -> np.ndarray:
        """The times of the frames that count, in windows."""
        return np.arange(self.skipped + 1, self.frames + 1) / self.frames

    @property
    def lag(self) -> float:
        """The share of a change of the parameters that the averages of the next window do not show."""
        return float(np.mean(self.left**self._counted))

    @property
    def successive(self) -> float:
        """The correlation of the averages of two successive windows."""
        apart = self._counted[:, None] - self._counted
        return float(np.mean(self.left ** (1 + apart)) / np.mean(self.left ** np.abs(apart)))

    def correlations(self, rounds: int) -> np.ndarray:
        """The correlations of the averages of all rounds, [rounds, rounds]."""
        apart = np.abs(np.subtract.outer(np.arange(rounds), np.arange(rounds)))
        return np.where(apart == 0, 1.0, self.successive * self.left ** np.maximum(apart - 1, 0))

    def last(self, full: int, rounds: int, share: float) -> np.ndarray:
        """The change of the parameter in the end by noise of 1 in each round, [rounds], for steps as ``GaussNewton``
        takes them."""
        lag, parameter, behind = self.lag, np.zeros(rounds), np.zeros(rounds)
        for n in range(rounds):
            length = 1 / (max(n - full + 1, 0) + 1)
            moved = parameter - length * (parameter + share * lag * behind)
            moved[n] -= length
            behind = self.left * behind + parameter - moved
            parameter = moved
        return parameter


def correlations_of(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The correlations [P] of two draws over their blocks, [B, P]; 0 where nothing varies."""
    first, second = (part - part.mean(axis=0) for part in (first, second))
    size = np.sqrt(np.sum(first**2, axis=0) * np.sum(second**2, axis=0))
    return np.divide(np.sum(first * second, axis=0), size, out=np.zeros_like(size), where=size > 0)


def certain(correlation: float, blocks: int) -> bool:
    """True where a correlation over so many blocks is more than chance (Fisher 1915, 10.1093/biomet/10.4.507)."""
    return blocks > FEW and np.arctanh(min(correlation, LONGEST)) * np.sqrt(blocks - FEW) > CHANCE
