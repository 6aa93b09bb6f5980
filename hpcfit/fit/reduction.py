"""Sums over blocks, tiles and ranks: reproducible (any grid of ranks gives the same bits) or plain.

The reproducible sum is one of integers, which has no order: the parts of a quantity, computed the same way wherever
they are, are brought to one exponent (the largest part anywhere, known from a maximum over ranks), rounded to 64-bit
integers and added. The error is at most half a unit of the last of 62 - log2(parts) bits of the largest part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.errors import NumericalError
from hpcfit.fit.grid import Grid

Tree = Any
Axis = Literal["frames", "slices", "world"]


class Sum(Protocol):
    """``chunks`` is a list of trees with the same structure; ``axis`` is which of the leading axes of its leaves is
    added (an int or a pair), ``over`` the ranks whose parts belong to the sum."""

    def __call__(self, chunks: Sequence[Tree], *, axis: int | tuple[int, ...], over: Axis) -> Tree: ...


@dataclass(frozen=True)
class ReproducibleSum:
    """The same bits on any grid of ranks."""

    grid: Grid

    def __call__(self, chunks: Sequence[Tree], *, axis: int | tuple[int, ...], over: Axis) -> Tree:
        """The sum, float64, on every rank of ``over``."""
        leaves, structure = _leaves(chunks)
        if not leaves:
            return chunks[0]
        exponents = self._exponents(leaves, self.grid.parts(over))
        integers = [_fixed_point(parts, axis, k) for parts, k in zip(leaves, exponents, strict=True)]
        totals = _together(self.grid.ranks(over).sum, integers)
        values = [np.ldexp(total.astype(np.float64), -k) for total, k in zip(totals, exponents, strict=True)]
        return jax.tree.unflatten(structure, values)

    def _exponents(self, leaves: Sequence[Sequence[Any]], parts: int) -> list[int]:
        """k for each quantity, such that ``parts`` numbers of the largest magnitude times 2^k fit into 62 bits."""
        largest = np.array([max((float(_largest(part)) for part in leaf if part.size), default=0.0) for leaf in leaves])
        # NaN would be lost in a maximum: it travels as infinity.
        largest = self.grid.world.max(np.where(np.isnan(largest), np.inf, largest))
        _check_finite(largest)
        headroom = 62 - math.ceil(math.log2(max(parts, 2)))
        return [min(headroom - math.frexp(value)[1], 1000) if value > 0 else 0 for value in largest]


@dataclass(frozen=True)
class FastSum:
    """float64 in whatever order the ranks have: agrees with the reproducible sum to rounding, a little faster."""

    grid: Grid

    def __call__(self, chunks: Sequence[Tree], *, axis: int | tuple[int, ...], over: Axis) -> Tree:
        """The sum, float64, on every rank of ``over``."""
        leaves, structure = _leaves(chunks)
        if not leaves:
            return chunks[0]
        locals_ = [sum(np.asarray(_float_sum(part, axis)) for part in parts) for parts in leaves]
        totals = _together(self.grid.ranks(over).sum, locals_)
        _check_finite(np.array([np.sum(total) for total in totals]))
        return jax.tree.unflatten(structure, totals)


def choose_sum(name: Literal["reproducible", "fast"], grid: Grid) -> Sum:
    """The sum that the config names."""
    return {"reproducible": ReproducibleSum, "fast": FastSum}[name](grid)


def _leaves(chunks: Sequence[Tree]) -> tuple[list[list[Any]], Any]:
    """For each leaf its parts, one of each chunk."""
    flat = [jax.tree.flatten(chunk) for chunk in chunks]
    return [list(parts) for parts in zip(*(leaves for leaves, _ in flat), strict=True)], flat[0][1]


@jax.jit
def _largest(part: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(part)).astype(jnp.float64)


@partial(jax.jit, static_argnames="axis")
def _float_sum(part: jax.Array, axis: int | tuple[int, ...]) -> jax.Array:
    return jnp.sum(part.astype(jnp.float64), axis=axis)


@partial(jax.jit, static_argnames="axis")
def _integer_sum(part: jax.Array, axis: int | tuple[int, ...], scale: jax.Array) -> jax.Array:
    return jnp.sum(jnp.rint(part.astype(jnp.float64) * scale).astype(jnp.int64), axis=axis)


def _fixed_point(parts: Sequence[jax.Array], axis: int | tuple[int, ...], k: int) -> np.ndarray:
    return sum(np.asarray(_integer_sum(part, axis, math.ldexp(1.0, k))) for part in parts)


def _together(reduce, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Reduce several arrays in one message."""
    arrays = [np.asarray(array) for array in arrays]
    total = reduce(np.concatenate([array.ravel() for array in arrays]))
    ends = np.cumsum([array.size for array in arrays])
    return [piece.reshape(array.shape) for piece, array in zip(np.split(total, ends[:-1]), arrays, strict=True)]


def _check_finite(values: np.ndarray) -> None:
    if not np.all(np.isfinite(values)):
        raise NumericalError(
            "a sum over frames is not a finite number (NaN or overflow in the frames or the parameters)",
            remedy="run `hpcfit store verify` on the store; if it is sound, use a smaller step or precision = 'float64'",
        )
