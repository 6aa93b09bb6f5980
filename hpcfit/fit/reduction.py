"""Sums over blocks, tiles and ranks: reproducible (any grid of ranks gives the same bits) or plain.

The reproducible sum is one of integers, which has no order: the parts of a quantity, computed the same way wherever
they are, are brought to one exponent (the largest part anywhere, known from a maximum over ranks), rounded to 64-bit
integers and added. The error is at most half a unit of the last of 62 - log2(parts) bits of the largest part.

A quantity with a part that is not finite has no exponent: its sum is NaN, on every rank. What that means is for the
caller to say: a line search turns back, ``fit.gradient`` finds the frames that it comes from.
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

from hpcfit.fit.grid import Grid

Tree = Any
Axis = Literal["frames", "slices", "world"]


class Sum(Protocol):
    """``chunks`` is a list of trees with the same structure; ``axis`` is which of the leading axes of its leaves is
    added (an int or a pair), ``over`` the ranks whose parts belong to the sum."""

    def __call__(self, chunks: Sequence[Tree], *, axis: int | tuple[int, ...], over: Axis) -> Tree: ...

    def columns(self, parts: np.ndarray) -> np.ndarray:
        """Many small quantities at once: [blocks, n] to [n], summed over blocks and the ranks of the frames axis."""

    def of_fits(self, parts: Tree, *, over: Axis) -> Tree:
        """Leaves [fits, parts, ...] to [fits, ...]: each fit gets the sums that it would get alone, in one message."""


@dataclass(frozen=True)
class ReproducibleSum:
    """A sum of integers, with the same bits on any grid of ranks."""

    grid: Grid

    def __call__(self, chunks: Sequence[Tree], *, axis: int | tuple[int, ...], over: Axis) -> Tree:
        """The sum, float64, on every rank of ``over``."""
        parts, structure = [jax.tree.leaves(chunk) for chunk in chunks], jax.tree.structure(chunks[0])
        if not parts[0]:
            return chunks[0]
        exponents, finite = self._exponents(parts, self.grid.parts(over))
        scales = np.ldexp(1.0, exponents)
        integers = _added(_integer_sums(leaves, axis, scales) for leaves in parts)
        totals = _together(self.grid.ranks(over).sum, integers)
        sums = [np.ldexp(total.astype(np.float64), -k) for total, k in zip(totals, exponents)]
        return jax.tree.unflatten(
            structure, [total if known else np.full_like(total, np.nan) for total, known in zip(sums, finite)]
        )

    def columns(self, parts: np.ndarray) -> np.ndarray:
        """See ``Sum.columns``; each column has its own exponent."""
        k, finite = self._fitting(np.max(np.abs(parts), axis=0, initial=0.0), self.grid.parts("frames"))
        integers = np.rint(np.ldexp(np.where(finite, parts, 0.0), k)).astype(np.int64).sum(axis=0)
        return np.where(finite, np.ldexp(self.grid.frames.sum(integers).astype(np.float64), -k), np.nan)

    def of_fits(self, parts: Tree, *, over: Axis) -> Tree:
        """See ``Sum.of_fits``; each leaf of each fit has its own exponent."""
        leaves, structure = [np.asarray(leaf, float) for leaf in jax.tree.leaves(parts)], jax.tree.structure(parts)
        if not leaves:
            return parts
        largest = np.stack([np.max(np.abs(leaf.reshape(len(leaf), -1)), axis=1, initial=0.0) for leaf in leaves])
        k, finite = (of.reshape(largest.shape) for of in self._fitting(largest.ravel(), self.grid.parts(over)))
        along = lambda numbers, leaf: numbers.reshape(-1, *[1] * (leaf.ndim - 1))  # noqa: E731
        with np.errstate(invalid="ignore"):  # of what is not finite, whose sum is NaN below
            integers = [
                np.rint(leaf * along(np.ldexp(1.0, exponents), leaf)).astype(np.int64).sum(axis=1)
                for leaf, exponents in zip(leaves, k)
            ]
        totals = _together(self.grid.ranks(over).sum, integers)
        return jax.tree.unflatten(structure, [
            np.where(along(known, total), np.ldexp(total.astype(np.float64), -along(exponents, total)), np.nan)
            for total, exponents, known in zip(totals, k, finite)
        ])  # fmt: skip

    def _exponents(self, parts: Sequence[Sequence[Any]], n_parts: int) -> tuple[np.ndarray, np.ndarray]:
        """The exponent of each leaf, and which leaves are finite."""
        return self._fitting(np.max([_largest(leaves) for leaves in parts], axis=0), n_parts)

    def _fitting(self, largest: np.ndarray, n_parts: int) -> tuple[np.ndarray, np.ndarray]:
        """k for each quantity, such that ``n_parts`` numbers of the largest magnitude times 2^k fit into 62 bits, and
        which quantities are finite on all ranks."""
        # NaN would be lost in a maximum: it travels as infinity.
        largest = self.grid.world.max(np.where(np.isnan(largest), np.inf, largest))
        finite = np.isfinite(largest)
        headroom = 62 - math.ceil(math.log2(max(n_parts, 2)))
        k = [min(headroom - math.frexp(value)[1], 1000) if 0 < value < np.inf else 0 for value in largest]
        return np.array(k, int), finite


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
        return jax.tree.unflatten(structure, totals)

    def columns(self, parts: np.ndarray) -> np.ndarray:
        """See ``Sum.columns``."""
        return self.grid.frames.sum(parts.sum(axis=0))

    def of_fits(self, parts: Tree, *, over: Axis) -> Tree:
        """See ``Sum.of_fits``."""
        leaves, structure = jax.tree.leaves(parts), jax.tree.structure(parts)
        if not leaves:
            return parts
        totals = _together(self.grid.ranks(over).sum, [np.asarray(leaf, float).sum(axis=1) for leaf in leaves])
        return jax.tree.unflatten(structure, totals)


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
