"""Vectors of parameters over ranks: linear combinations and inner products.

Shared leaves count once, rows over all ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from hpcfit.fit.reduction import Sum
from hpcfit.problems.base import Params


class InnerProduct:
    """<a, b> of parameter vectors; the same number on every rank, and on any grid of ranks."""

    def __init__(self, add: Sum):
        self._add = add

    def __call__(self, pairs: Sequence[tuple[Params, Params]]) -> np.ndarray:
        """The inner product of each pair, [pairs], in one message."""
        shared = [sum(float(np.vdot(x, y)) for x, y in zip(_leaves(a.shared), _leaves(b.shared))) for a, b in pairs]
        rows = [sum(_block_products(x, y) for x, y in zip(_leaves(a.local), _leaves(b.local))) for a, b in pairs]
        local = self._add.columns(np.stack(rows, axis=1)) if np.ndim(rows[0]) else np.zeros(len(pairs))
        return np.array(shared) + local

    def norm(self, vector: Params) -> float:
        """The Euclidean norm."""
        return float(np.sqrt(self([(vector, vector)])[0]))


def combine(coefficients: Sequence[float], vectors: Sequence[Params]) -> Params:
    """sum_i c_i v_i; every rank adds in the same order."""
    return jax.tree.map(lambda *leaves: sum(c * np.asarray(leaf) for c, leaf in zip(coefficients, leaves)), *vectors)


def _leaves(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def _block_products(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The products of each block, [blocks]: NumPy adds a row of 64 in the same way wherever it lies."""
    product = np.ascontiguousarray(x * y)
    return product.sum(axis=tuple(range(1, product.ndim)))
