"""Tabulated functions of OpenMM's expressions: cubic splines through equally spaced values, or values by whole
numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from hpcfit.energies.columns import Column
from hpcfit.energies.splines import Spline
from hpcfit.pytrees import pytree


@pytree
@dataclass(frozen=True)
class Tabulated:
    """A function by its values, the first argument fast. spline: None for a function of whole numbers."""

    values: Column
    spline: Spline | None
    shape: tuple[int, ...] = field(metadata={"static": True})

    def function(self, parameters) -> Callable:
        """The function of arrays, at some parameters."""
        table = self.values.values(parameters).reshape(self.shape[::-1]).transpose()
        return (lambda *x: self.spline(table, *x)) if self.spline is not None else lambda *x: _entry(table, x)


def functions(tables: Mapping[str, Tabulated], parameters) -> dict[str, Callable]:
    """The functions of an expression's tables at some parameters, by name."""
    return {name: table.function(parameters) for name, table in tables.items()}


def _entry(table, coordinates) -> jax.Array:
    """The entry at rounded coordinates; NaN outside of the table, where OpenMM raises an error."""
    numbers = [jnp.round(jax.lax.stop_gradient(jnp.asarray(x, dtype=float))).astype(int) for x in coordinates]
    inside = True
    for number, size in zip(numbers, table.shape):
        inside = inside & (number >= 0) & (number < size)
    return jnp.where(inside, table[tuple(numbers)], jnp.nan)
