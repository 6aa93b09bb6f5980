"""Vectors of parameters over ranks: linear combinations and inner products, of one minimisation or of many at once.

Numbers that each minimisation has for itself are arrays [*each]: scalars of one, [R] of R of them.

    InnerProduct   one vector: shared leaves count once, rows over all ranks
    OfMany         R vectors side by side on the last axis of every leaf, each over all ranks
    OfRows         a vector in each row of the local leaves, [blocks, width, ...], which no other rank knows of
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from hpcfit.fit.problem import Params
from hpcfit.fit.reduction import Sum


class InnerProduct:
    """<a, b> of parameter vectors; the same number on every rank, and on any grid of ranks."""

    each: tuple[int, ...] = ()

    def __init__(self, add: Sum):
        self._add = add

    def __call__(self, a: Params, b: Params) -> np.ndarray:
        """One inner product, [*each]; collective."""
        return self.gram([a, b])[..., 0, 1]

    def norm(self, vector: Params) -> np.ndarray:
        """The Euclidean norm, [*each]; collective."""
        return np.sqrt(self.gram([vector])[..., 0, 0])

    def gram(self, vectors: Sequence[Params]) -> np.ndarray:
        """All inner products of n vectors, [*each, n, n], in one message."""
        n = len(vectors)
        shared = [self._of_blocks([v[None] for v in leaf])[0] for leaf in _by_leaf([v.shared for v in vectors])]
        blocks = [self._of_blocks(leaf) for leaf in _by_leaf([v.local for v in vectors])]
        shape = (*self.each, n, n)
        local = self._add.columns(sum(blocks).reshape(-1, int(np.prod(shape)))).reshape(shape) if blocks else 0.0
        return sum(shared, np.zeros(shape)) + local

    def _of_blocks(self, leaf: Sequence[np.ndarray]) -> np.ndarray:
        """The Gram matrices of n arrays [blocks, ..., *each], block by block, [blocks, *each, n, n].

        Every block is a matrix product of its own, and so is every minimisation, so that the bits do not depend on
        which blocks a rank holds, or what else is minimised.
        """
        if not len(leaf[0]):
            return np.zeros((0, *self.each, len(leaf), len(leaf)))
        return np.stack([self._of_block([array[block] for array in leaf]) for block in range(len(leaf[0]))])

    def _of_block(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        rows = np.stack([array.ravel() for array in arrays])
        return rows @ rows.T

    def along(self, numbers: np.ndarray, leaf: np.ndarray) -> np.ndarray:
        """Numbers [*each] in a shape that multiplies a leaf, or chooses from it."""
        return np.asarray(numbers)

    def combine(self, coefficients: Sequence[Any], vectors: Sequence[Params]) -> Params:
        """sum_i c_i v_i, c_i [*each]; every rank adds in the same order."""
        return combine(coefficients, vectors, self.along)

    def chosen(self, which: np.ndarray, these: Any, others: Any) -> Any:
        """A tree of these leaves where ``which`` [*each] is true, else of the others."""
        if np.all(which):
            return these
        if not np.any(which):
            return others
        return jax.tree.map(lambda a, b: np.where(self.along(which, a), a, b), these, others)


class OfMany(InnerProduct):
    """Inner products of ``many`` minimisations at once, in one message."""

    def __init__(self, add: Sum, many: int):
        super().__init__(add)
        self.each = (many,)

    def _of_block(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        rows = np.stack([array.reshape(-1, *self.each).T for array in arrays], axis=1)  # [many, n, numbers]
        return np.stack([mine @ mine.T for mine in np.ascontiguousarray(rows)])


class OfRows(InnerProduct):
    """Inner products of the minimisations that a rank holds, one in each row; nothing is communicated."""

    def __init__(self, shape: tuple[int, int]):
        """shape: blocks and width of the rows of this rank."""
        self.each = shape

    def gram(self, vectors: Sequence[Params]) -> np.ndarray:
        """All inner products of n vectors in each row, [blocks, width, n, n]."""
        n = len(vectors)
        flat = lambda leaf: leaf.reshape(int(np.prod(self.each)), int(np.prod(leaf.shape[2:])))  # noqa: E731
        leaves = _by_leaf([v.local for v in vectors])
        rows = np.concatenate([np.stack([flat(v) for v in leaf], axis=1) for leaf in leaves], axis=-1)
        return np.reshape([row @ row.T for row in rows], (*self.each, n, n))

    def along(self, numbers: np.ndarray, leaf: np.ndarray) -> np.ndarray:
        """See ``InnerProduct``."""
        numbers = np.asarray(numbers)
        return numbers.reshape(*numbers.shape, *[1] * (np.ndim(leaf) - 2)) if numbers.ndim else numbers


def combine(
    coefficients: Sequence[Any], vectors: Sequence[Params], along: Callable[[Any, Any], Any] = lambda c, leaf: c
) -> Params:
    """sum_i c_i v_i, of plain numbers or what ``along`` makes of them for a leaf; every rank adds in the same order."""
    of_leaf = lambda *leaves: sum(along(c, leaf) * np.asarray(leaf) for c, leaf in zip(coefficients, leaves))  # noqa: E731
    return jax.tree.map(of_leaf, *vectors)


def _by_leaf(trees: Sequence[Any]) -> list[list[np.ndarray]]:
    """For each leaf its value in every tree."""
    return [[np.asarray(leaf) for leaf in leaves] for leaves in zip(*(jax.tree.leaves(tree) for tree in trees))]
