"""Vectors of parameters over ranks: linear combinations and inner products.

Shared leaves count once, rows over all ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from hpcfit.fit.problem import Params
from hpcfit.fit.reduction import Sum


class InnerProduct:
    """<a, b> of parameter vectors; the same number on every rank, and on any grid of ranks."""

    def __init__(self, add: Sum):
        self._add = add

    def __call__(self, a: Params, b: Params) -> float:
        """One inner product; collective."""
        return float(self.gram([a, b])[0, 1])

    def norm(self, vector: Params) -> float:
        """The Euclidean norm; collective."""
        return float(np.sqrt(self.gram([vector])[0, 0]))

    def gram(self, vectors: Sequence[Params]) -> np.ndarray:
        """All inner products of n vectors, [n, n], in one message."""
        n = len(vectors)
        shared = [_gram_of_blocks([v[None] for v in leaf])[0] for leaf in _by_leaf([v.shared for v in vectors])]
        blocks = [_gram_of_blocks(leaf) for leaf in _by_leaf([v.local for v in vectors])]
        local = self._add.columns(sum(blocks).reshape(-1, n * n)).reshape(n, n) if blocks else 0.0
        return sum(shared, np.zeros((n, n))) + local


def combine(coefficients: Sequence[float], vectors: Sequence[Params]) -> Params:
    """sum_i c_i v_i; every rank adds in the same order."""
    return jax.tree.map(lambda *leaves: sum(c * np.asarray(leaf) for c, leaf in zip(coefficients, leaves)), *vectors)


def _by_leaf(trees: Sequence[Any]) -> list[list[np.ndarray]]:
    """For each leaf its value in every tree."""
    return [[np.asarray(leaf) for leaf in leaves] for leaves in zip(*(jax.tree.leaves(tree) for tree in trees))]


def _gram_of_blocks(leaf: Sequence[np.ndarray]) -> np.ndarray:
    """The Gram matrix of n arrays [blocks, ...] block by block, [blocks, n, n].

    Every block is a matrix product of its own, so that its bits do not depend on which blocks a rank holds.
    """
    rows = np.stack([array.reshape(len(array), int(np.prod(array.shape[1:]))) for array in leaf], axis=1)
    return np.stack([block @ block.T for block in rows]) if len(rows) else np.zeros((0, len(leaf), len(leaf)))
