"""Measurements of averages and of their differences."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np


class Measured(NamedTuple):
    """The measurements of one observable, leaves [1, M], of the one tile there is.

    side: 1 counts only beyond an upper bound, -1 beyond a lower one, 0 on both sides. count: how often each counts in
    the fit, 0 if it is held out.
    """

    value: Any
    sigma: Any
    side: Any
    count: Any

    def deviations(self, calculated: Any) -> Any:
        """(calculated - measured) / sigma, 0 within a bound, [M]."""
        off = (calculated - self.value) / self.sigma
        inside = jnp.where(self.side > 0, off < 0, (self.side < 0) & (off > 0))
        return jnp.where(inside, 0.0, off)


class Differences(NamedTuple):
    """Data that are factor (average - other average) + constant, leaves [D]. minuend, subtrahend: places among the
    averages of all ensembles, one after another."""

    minuend: Any
    subtrahend: Any
    factor: Any
    constant: Any

    def behind(self, averages: Any) -> Any:
        """All data: the averages [..., M], and the differences of some of them, [..., M + D]."""
        found = averages[..., self.minuend] - averages[..., self.subtrahend]
        return jnp.concatenate([averages, self.factor * found + self.constant], axis=-1)


NO_DIFFERENCES = Differences(*np.zeros((2, 0), int), *np.zeros((2, 0)))
