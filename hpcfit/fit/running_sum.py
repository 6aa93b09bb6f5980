"""Additions in a stream: of many large arrays that come one after another and are not to be kept.

``fit.reduction`` needs the largest part of a quantity before it adds; of a stream it is known only at the end. Here
each number is cut into two 64-bit integers of fixed exponents, whose additions have no order: the sum has the same bits
for any number of ranks and any order of the parts.

    x = h 2^HIGH + l 2^LOW,    h = rint(x 2^-HIGH),  l = rint((x - h 2^HIGH) 2^-LOW)

Parts may be as large as 2^(HIGH + 62) together; what is rounded off a part is at most 2^(LOW - 1), 3e-14.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from hpcfit.errors import NumericalError
from hpcfit.ranks import Ranks

Reductions = Literal["reproducible", "fast"]

HIGH, LOW = -4, -44
IN_CACHE = 1 << 14  # numbers that go through all steps together
LARGEST = 2.0 ** (HIGH + 61)  # of the magnitudes of all parts together


class RunningSum(Protocol):
    """The sum of arrays of one shape."""

    def add(self, part: np.ndarray) -> None:
        """Add an array of the shape, in any real type. Raises NumericalError for what is not finite."""

    def total(self, ranks: Ranks) -> np.ndarray:
        """The sum over all parts of all ranks, float64; collective."""

    def kept(self) -> dict[str, np.ndarray]:
        """The parts of this rank as they are added: arrays whose sums over ranks go on where this sum is."""

    def take_up(self, kept: Mapping[str, np.ndarray]) -> None:
        """Add what another sum has kept."""


class ReproducibleRunningSum:
    """A sum of integers, with the same bits in any order; 16 bytes a number."""

    def __init__(self, shape: Sequence[int]):
        self._high, self._low = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self._magnitude = 0.0

    def add(self, part: np.ndarray) -> None:
        """See ``RunningSum``. Raises NumericalError for what is not finite, or too large."""
        flat, high, low = (np.asarray(array).reshape(-1) for array in (part, self._high, self._low))
        largest = float(max(np.max(flat, initial=0.0), -np.min(flat, initial=0.0)))
        self._magnitude += largest
        if not self._magnitude < LARGEST:
            raise _not_summable(self._magnitude)
        for first in range(0, len(flat), IN_CACHE):
            own = slice(first, first + IN_CACHE)
            rest = flat[own].astype(np.float64)
            whole = np.rint(rest * 2.0**-HIGH)
            high[own] += whole.astype(np.int64)
            whole *= 2.0**HIGH
            rest -= whole
            rest *= 2.0**-LOW
            np.rint(rest, out=rest)
            low[own] += rest.astype(np.int64)

    def total(self, ranks: Ranks) -> np.ndarray:
        """See ``RunningSum``."""
        magnitude = float(ranks.sum(np.array([self._magnitude]))[0])
        if not magnitude < LARGEST:
            raise _not_summable(magnitude)
        high, low = ranks.sum(self._high), ranks.sum(self._low)
        return high * 2.0**HIGH + low * 2.0**LOW

    def kept(self) -> dict[str, np.ndarray]:
        """See ``RunningSum``."""
        return {"high": self._high, "low": self._low, "magnitude": np.array([self._magnitude])}

    def take_up(self, kept: Mapping[str, np.ndarray]) -> None:
        """See ``RunningSum``."""
        self._high += kept["high"]
        self._low += kept["low"]
        self._magnitude += float(kept["magnitude"][0])


class FastRunningSum:
    """float64 in the order in which the parts come; 8 bytes a number."""

    def __init__(self, shape: Sequence[int]):
        self._sum = np.zeros(shape)

    def add(self, part: np.ndarray) -> None:
        """See ``RunningSum``."""
        largest = float(np.max(np.abs(part), initial=0.0))
        if not np.isfinite(largest):
            raise _not_summable(largest)
        with np.errstate(over="ignore"):
            self._sum += part

    def total(self, ranks: Ranks) -> np.ndarray:
        """See ``RunningSum``."""
        total = ranks.sum(self._sum)
        if not np.all(np.isfinite(total)):
            raise _not_summable(float(np.max(np.abs(total))))
        return total

    def kept(self) -> dict[str, np.ndarray]:
        """See ``RunningSum``."""
        return {"sum": self._sum}

    def take_up(self, kept: Mapping[str, np.ndarray]) -> None:
        """See ``RunningSum``."""
        self._sum += kept["sum"]


def running_sum(name: Reductions, shape: Sequence[int]) -> RunningSum:
    """The running sum that ``[run] reductions`` names."""
    return {"reproducible": ReproducibleRunningSum, "fast": FastRunningSum}[name](shape)


@dataclass
class BlockSums:
    """Sums for each of n parts of a quantity of one shape; a rank keeps only those parts that it adds to."""

    n: int
    shape: tuple[int, ...]
    reductions: Reductions
    _sums: dict[int, RunningSum] = field(default_factory=dict)

    def add(self, part: int, values: np.ndarray) -> None:
        """Add to one part."""
        self._of(part).add(values)

    def absorb(self, other: BlockSums) -> None:
        """Add what another one holds."""
        for part, values in other._sums.items():
            self._of(part).take_up(values.kept())

    def total(self, ranks: Ranks) -> np.ndarray:
        """[n, ...] of all ranks; collective."""
        empty = [self._sums.pop(part, None) or running_sum(self.reductions, self.shape) for part in range(self.n)]
        return np.stack([one.total(ranks) for one in empty]) if self.n else np.zeros((0, *self.shape))

    def kept(self, ranks: Ranks) -> dict[str, np.ndarray]:
        """The state that ``take_up`` goes on from, summed over all ranks: arrays [n, ...]; collective."""
        kept = [self._of(part).kept() for part in range(self.n)]
        return {name: np.stack([ranks.sum(one[name]) for one in kept]) for name in (kept[0] if kept else ())}

    def take_up(self, kept: Mapping[str, np.ndarray]) -> None:
        """Add what was kept."""
        for part in range(self.n):
            self._of(part).take_up({name: values[part] for name, values in kept.items()})

    def _of(self, part: int) -> RunningSum:
        if part not in self._sums:
            self._sums[part] = running_sum(self.reductions, self.shape)
        return self._sums[part]


def _not_summable(magnitude: float) -> NumericalError:
    return NumericalError(
        f"a sum over frames has parts of magnitude {magnitude:.3g}, more than {LARGEST:.3g} or no number",
        remedy="run `hpcfit store verify` on the store, and check the units of its sources",
    )
