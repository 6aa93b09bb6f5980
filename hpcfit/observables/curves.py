"""Karplus curves A cos^2 + B cos + C, Hz, whose coefficients move, and the size of their change over the circle."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.pytrees import pytree

# The mean over the circle of (dA cos^2 + dB cos + dC)^2 is (dA, dB, dC) CIRCLE (dA, dB, dC) / 2.
CIRCLE = np.array([[3 / 4, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 2.0]])
LEAST = 1e-9  # of the largest curvature: that of a direction which has hardly any


def whitening(curvature: np.ndarray) -> np.ndarray:
    """A matrix W with W^T curvature W = 1, but for directions that have hardly any curvature."""
    if not len(curvature):
        return np.zeros((0, 0))
    values, vectors = np.linalg.eigh(curvature)
    return vectors / np.sqrt(np.maximum(values, LEAST * values[-1]))


def mean_square_change(changes: Any) -> Any:
    """The mean over the circle of the squared change of curves by changes [n, 3] of A, B and C, summed, Hz^2."""
    return jnp.sum(changes @ CIRCLE * changes) / 2


@pytree
@dataclass(frozen=True)
class Curve:
    """A curve that moves: its coefficients are start + change @ u, and |u|^2 is the mean over the circle of its squared
    change in units of its prior. start: [3], A, B, C, Hz; change: [3, 3]."""

    start: np.ndarray
    change: np.ndarray
    name: str = field(metadata={"static": True})
    unit, count, free = "Hz", 3, None

    def values(self, u: Any) -> jax.Array:
        """A, B and C."""
        return self.start + self.change @ u

    def numbers(self, values: np.ndarray) -> np.ndarray:
        """The numbers u of A, B and C."""
        return np.linalg.solve(self.change, values - self.start)

    def slopes(self, u: Any) -> np.ndarray:
        """The derivatives of A, B and C by u, [3, 3]."""
        return self.change

    def deviations(self, u: Any) -> Any:
        """The change in units of the prior, [3]."""
        return u


def curve_of(config: Any) -> Curve:
    """The curve of a table with ``coefficients`` and a ``prior``: the change that is expected, Hz, its root mean square
    over the circle."""
    return Curve(np.array(config.coefficients), np.sqrt(2) * config.prior * whitening(CIRCLE), config.name)
