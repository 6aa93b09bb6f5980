"""Vectors of parameters over ranks: linear combinations and inner products. Shared leaves count once, rows over all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.fit.reduction import Sum
from hpcfit.problems.base import Params


class InnerProduct:
    """<a, b> of parameter vectors; the same number on every rank, and on any grid of ranks."""

    def __init__(self, add: Sum):
        self._add = add

    def __call__(self, pairs: Sequence[tuple[Params, Params]]) -> np.ndarray:
        """The inner product of each pair, [pairs], in one message."""
        shared = [sum((float(np.vdot(x, y)) for x, y in zip(*map(_shared, pair), strict=True)), 0.0) for pair in pairs]
        rows = [tuple(_row_products(x, y) for x, y in zip(*map(_local, pair), strict=True)) for pair in pairs]
        local = self._add([rows], axis=0, over="frames")
        return np.array([s + sum(map(float, leaves)) for s, leaves in zip(shared, local, strict=True)])

    def norm(self, vector: Params) -> float:
        """The Euclidean norm."""
        return float(np.sqrt(self([(vector, vector)])[0]))


def combine(coefficients: Sequence[float], vectors: Sequence[Params]) -> Params:
    """sum_i c_i v_i; every rank adds in the same order."""
    return jax.tree.map(lambda *leaves: sum(c * np.asarray(leaf) for c, leaf in zip(coefficients, leaves, strict=True)), *vectors)


def _shared(params: Params) -> list[Any]:
    return jax.tree.leaves(params.shared)


def _local(params: Params) -> list[Any]:
    return jax.tree.leaves(params.local)


def _row_products(x: np.ndarray, y: np.ndarray) -> jax.Array:
    """The products of each block, [blocks]: NumPy adds a row of 64 in the same way wherever it lies."""
    product = np.ascontiguousarray(np.asarray(x) * np.asarray(y))
    return jnp.asarray(product.reshape(len(product), -1).sum(axis=1))
