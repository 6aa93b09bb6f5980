"""Cubic splines through tables of one, two or three dimensions, linear in the values of the table.

A natural or periodic spline through y has slopes s = D y with a fixed matrix D; between two knots it is Hermite's
cubic of values and slopes. Along several axes values and slopes of all axes are multiplied: bicubic, tricubic, as
OpenMM's tables and CMAP are. Since D is a matrix, derivatives by the values of the table are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.pytrees import pytree


def slope_matrix(knots: np.ndarray, *, periodic: bool) -> np.ndarray:
    """D of the slopes D y at the knots [n] of the cubic spline through y; periodic: y[0] = y[−1]."""
    from scipy.interpolate import CubicSpline

    values = np.eye(len(knots))
    if periodic:
        values[-1] = values[0]  # the last value is not looked at
    return CubicSpline(knots, values, bc_type="periodic" if periodic else "natural")(knots, 1)


@pytree
@dataclass(frozen=True)
class Spline:
    """slopes: a matrix [n, n] an axis. low, high: the range of each axis. periodic: the last knot is the first
    again."""

    slopes: tuple[np.ndarray, ...]
    low: tuple[float, ...] = field(metadata={"static": True})
    high: tuple[float, ...] = field(metadata={"static": True})
    periodic: bool = field(metadata={"static": True})

    def __call__(self, table: jax.Array, *coordinates: jax.Array, which: tuple[jax.Array, ...] = ()) -> jax.Array:
        """The spline through a table, at coordinates; outside of its range 0, as in OpenMM, where it is not periodic.

        which: indices of further axes that stand before those of the spline, so that each item has a table of its own.
        """
        coordinates = jnp.broadcast_arrays(*coordinates)
        cells, weights, inside = zip(*(self._place(axis, x) for axis, x in enumerate(coordinates)))
        sides = np.array(list(product(range(2), repeat=len(coordinates)))).T  # [axes, 2^axes], of corners and orders
        weight = 1.0  # [orders, corners, items]
        for axis, side in enumerate(sides):
            weight = weight * weights[axis][side[None, :], side[:, None]]
        corners = [jnp.stack([cell + corner for corner in side]) for cell, side in zip(cells, sides)]
        total = jnp.sum(weight * self._derivatives(table, len(which))[(slice(None), *which, *corners)], axis=(0, 1))
        return total if self.periodic else jnp.where(jnp.stack(inside).all(0), total, 0.0)

    def _derivatives(self, table, lead: int) -> jax.Array:
        """The table and its derivatives along the axes after `lead` others, [2^axes, ...]; the last axis turns fast."""
        found = [jnp.asarray(table)]
        for axis, slopes in enumerate(self.slopes, lead):
            along = [jnp.moveaxis(jnp.tensordot(slopes, y, (1, axis)), 0, axis) for y in found]
            found = [y for both in zip(found, along) for y in both]
        return jnp.stack(found)

    def _place(self, axis: int, x: jax.Array):
        """The cell of x, Hermite's weights [end, value or slope, ...], and x being in the range."""
        low, high, cells = self.low[axis], self.high[axis], len(self.slopes[axis]) - 1
        width = (high - low) / cells
        place = (x - low) / width
        if self.periodic:
            place = place - cells * jax.lax.stop_gradient(jnp.floor(place / cells))
        cell = jnp.clip(jax.lax.stop_gradient(jnp.floor(place)).astype(int), 0, cells - 1)
        t = place - cell
        left = jnp.stack([(1 + 2 * t) * (1 - t) ** 2, width * t * (1 - t) ** 2])
        right = jnp.stack([t**2 * (3 - 2 * t), width * t**2 * (t - 1)])
        return cell, jnp.stack([left, right]), (x >= low) & (x <= high)


def spline(ranges: Sequence[tuple[float, float]], sizes: Sequence[int], *, periodic: bool) -> Spline:
    """The spline of tables with equally spaced knots, by the range and number of knots of each axis."""
    knots = [np.linspace(low, high, size) for (low, high), size in zip(ranges, sizes)]
    slopes = tuple(slope_matrix(axis, periodic=periodic) for axis in knots)
    return Spline(slopes, tuple(low for low, _ in ranges), tuple(high for _, high in ranges), periodic)
