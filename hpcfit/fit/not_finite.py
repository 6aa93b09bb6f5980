"""Sums that are not finite numbers: whether there are any, and where they come from, in words."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np

from hpcfit.errors import NumericalError
from hpcfit.fit.grid import Grid

Tree = Any


def not_a_number(where: str) -> NumericalError:
    """The error of a sum that is not finite. where: block and frames (``Gradient.not_finite_at``)."""
    return NumericalError(
        f"a sum over frames is not a finite number (NaN or overflow in the frames or the parameters): {where}",
        remedy="run `hpcfit store verify` on the store; if it is sound, use a smaller step or precision = 'float64'",
    )


def is_finite(tree: Tree) -> bool:
    """True where all numbers are finite; a sum is one pass, and keeps what is not."""
    with np.errstate(over="ignore", invalid="ignore"):
        return all(np.isfinite(np.sum(leaf)) for leaf in jax.tree.leaves(tree))


def largest(tree: Tree) -> float:
    """The largest magnitude, infinity for what is not a number."""
    found = max((float(np.max(np.abs(leaf), initial=0.0)) for leaf in jax.tree.leaves(tree)), default=0.0)
    return math.inf if math.isnan(found) else found


def not_finite_along(tree: Tree, axis: int) -> np.ndarray:
    """[n] bool: the slices along an axis of the leaves that have a number that is not finite."""
    leaves = [np.moveaxis(np.asarray(leaf), axis, 0) for leaf in jax.tree.leaves(tree)]
    return np.any([~np.isfinite(leaf.reshape(len(leaf), -1)).all(axis=1) for leaf in leaves], axis=0)


def frames_in_words(rows: np.ndarray, ids: np.ndarray, grid: Grid) -> str:
    """The block and frames of the first of some rows, which are counted over all blocks of a rank; "" without any.

    ids: of the rank's frames, [blocks, width].
    """
    flat, width = ids.reshape(-1), ids.shape[1]
    rows = rows[flat[rows] >= 0]
    if not len(rows):
        return ""
    block = rows[0] // width
    inside = flat[rows[rows // width == block]]
    frames = f"frame {inside[0]}" if len(inside) == 1 else f"frames {inside[0]} to {inside[-1]}"
    return f"block {grid.blocks.start + block} of {grid.n_blocks}, {frames}"


def tile_in_words(tiles: np.ndarray, grid: Grid) -> str:
    """The first of some tiles of a rank, where no frame is at fault; "" without any."""
    if not len(tiles):
        return ""
    return f"tile {grid.tiles.start + tiles[0]} of {grid.n_tiles}, from parameters that all frames share"
