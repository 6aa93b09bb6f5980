"""Sums over blocks, tiles and ranks: reproducible (any grid of ranks gives the same bits) or plain.

The reproducible sum is one of integers, which has no order: the parts of a quantity, computed the same way wherever
they are, are brought to one exponent (the largest part anywhere, known from a maximum over ranks), rounded to 64-bit
integers and added. The error is at most half a unit of the last of 62 - log2(parts) bits of the largest part.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.errors import NumericalError, together
from hpcfit.fit.grid import Grid

Tree = Any
Axis = Literal["frames", "slices", "world"]


class Sum(Protocol):
    """``chunks`` is a list of trees with the same structure; ``axis`` is which of the leading axes of its leaves is
    added (an int or a pair), ``over`` the ranks whose parts belong to the sum."""

    def __call__(self, chunks: Sequence[Tree], *, axis: int | tuple[int, ...], over: Axis) -> Tree: ...

    def columns(self, parts: np.ndarray) -> np.ndarray:
        """Many small quantities at once: [blocks, n] to [n], summed over blocks and the ranks of the frames axis."""


@dataclass(frozen=True)
class ReproducibleSum:
    """The same bits on any grid of ranks."""

    grid: Grid

    def __call__(self, chunks: Sequence[Tree], *, axis: int | tuple[int, ...], over: Axis) -> Tree:
        """The sum, float64, on every rank of ``over``."""
        parts, structure = [jax.tree.leaves(chunk) for chunk in chunks], jax.tree.structure(chunks[0])
        if not parts[0]:
            return chunks[0]
        exponents = self._exponents(parts, self.grid.parts(over))
        scales = np.ldexp(1.0, exponents)
        integers = _added(_integer_sums(leaves, axis, scales) for leaves in parts)
        totals = _together(self.grid.ranks(over).sum, integers)
        return jax.tree.unflatten(
            structure, [np.ldexp(total.astype(np.float64), -k) for total, k in zip(totals, exponents)]
        )

    def columns(self, parts: np.ndarray) -> np.ndarray:
        """See ``Sum.columns``; each column has its own exponent."""
        k = np.array(self._fitting(np.max(np.abs(parts), axis=0, initial=0.0), self.grid.parts("frames")))
        integers = np.rint(np.ldexp(parts, k)).astype(np.int64).sum(axis=0)
        return np.ldexp(self.grid.frames.sum(integers).astype(np.float64), -k)

    def _exponents(self, parts: Sequence[Sequence[Any]], n_parts: int) -> list[int]:
        """The exponent of each leaf."""
        return self._fitting(np.max([_largest(leaves) for leaves in parts], axis=0), n_parts)

    def _fitting(self, largest: np.ndarray, n_parts: int) -> list[int]:
        """k for each quantity, such that ``n_parts`` numbers of the largest magnitude times 2^k fit into 62 bits."""
        # NaN would be lost in a maximum: it travels as infinity.
        largest = self.grid.world.max(np.where(np.isnan(largest), np.inf, largest))
        _check_finite(largest, everywhere=True)
        headroom = 62 - math.ceil(math.log2(max(n_parts, 2)))
        return [min(headroom - math.frexp(value)[1], 1000) if value > 0 else 0 for value in largest]


@dataclass(frozen=True)
class FastSum:
    """float64 in whatever order the ranks have: agrees with the reproducible sum to rounding, a little faster."""

    grid: Grid

    def __call__(self, chunks: Sequence[Tree], *, axis: int | tuple[int, ...], over: Axis) -> Tree:
        """The sum, float64, on every rank of ``over``."""
        parts, structure = [jax.tree.leaves(chunk) for chunk in chunks], jax.tree.structure(chunks[0])
        if not parts[0]:
            return chunks[0]
        totals = _together(self.grid.ranks(over).sum, _added(_float_sums(leaves, axis) for leaves in parts))
        _check_finite(np.array([np.sum(total) for total in totals]))
        return jax.tree.unflatten(structure, totals)

    def columns(self, parts: np.ndarray) -> np.ndarray:
        """See ``Sum.columns``."""
        totals = self.grid.frames.sum(parts.sum(axis=0))
        _check_finite(totals)
        return totals


def choose_sum(name: Literal["reproducible", "fast"], grid: Grid) -> Sum:
    """The sum that the config names."""
    return {"reproducible": ReproducibleSum, "fast": FastSum}[name](grid)


@jax.jit
def _largest(leaves: Sequence[jax.Array]) -> jax.Array:
    """The largest magnitude in each leaf, [leaves]; 0 in an empty one, NaN where there is a NaN."""
    return jnp.stack([jnp.max(jnp.abs(leaf), initial=0.0).astype(jnp.float64) for leaf in leaves])


@partial(jax.jit, static_argnames="axis")
def _float_sums(leaves: Sequence[jax.Array], axis: int | tuple[int, ...]) -> list[jax.Array]:
    return [jnp.sum(leaf.astype(jnp.float64), axis=axis) for leaf in leaves]


@partial(jax.jit, static_argnames="axis")
def _integer_sums(leaves: Sequence[jax.Array], axis: int | tuple[int, ...], scales: np.ndarray) -> list[jax.Array]:
    """rint(x 2^k) as int64, added."""
    return [
        jnp.sum(jnp.rint(leaf.astype(jnp.float64) * scale).astype(jnp.int64), axis=axis)
        for leaf, scale in zip(leaves, scales)
    ]


def _added(chunks: Iterable[Sequence[jax.Array]]) -> list[np.ndarray]:
    """Chunk after chunk, each leaf on its own."""
    return [sum(np.asarray(part) for part in parts) for parts in zip(*chunks)]


def _together(reduce, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Reduce several arrays in one message."""
    arrays = [np.asarray(array) for array in arrays]
    total = reduce(np.concatenate([array.ravel() for array in arrays]))
    ends = np.cumsum([array.size for array in arrays])
    return [piece.reshape(array.shape) for piece, array in zip(np.split(total, ends[:-1]), arrays)]


def _check_finite(values: np.ndarray, *, everywhere: bool = False) -> None:
    """Raise NumericalError; ``everywhere``: every rank has the same values here."""
    if np.all(np.isfinite(values)):
        return
    error = NumericalError(
        "a sum over frames is not a finite number (NaN or overflow in the frames or the parameters)",
        remedy="run `hpcfit store verify` on the store; if it is sound, use a smaller step or precision = 'float64'",
    )
    raise together(error) if everywhere else error
