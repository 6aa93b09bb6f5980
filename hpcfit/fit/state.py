"""An optimizer's state as plain arrays: what a checkpoint holds, and what ranks must agree on.

The leaves of a state are vectors of parameters (``Params``), whose local rows are spread over ranks, and plain numbers
and arrays that are the same on every rank. Texts are not part of it.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import jax
import numpy as np

from hpcfit.errors import HpcfitError
from hpcfit.fit.grid import Grid
from hpcfit.fit.problem import Params


class Arrays(NamedTuple):
    """shared: the same on all ranks. local: rows [blocks, width, ...]; this rank's, or those of all blocks."""

    shared: dict[str, np.ndarray]
    local: dict[str, np.ndarray]


def to_arrays(state: Any) -> Arrays:
    """The state's leaves by the path that leads to them."""
    shared, local = {}, {}
    for path, leaf in _leaves(state):
        if isinstance(leaf, Params):
            shared |= {f"{path}.shared{name}": np.asarray(value) for name, value in _leaves(leaf.shared)}
            local |= {f"{path}.local{name}": np.asarray(value) for name, value in _leaves(leaf.local)}
        elif not isinstance(leaf, str):
            shared[path] = np.asarray(leaf)
    return Arrays(shared, local)


def from_arrays(template: Any, arrays: Arrays) -> Any:
    """The state that has the structure of ``template`` and these values; raises KeyError where one is missing."""

    def rebuilt(path, leaf):
        path = jax.tree_util.keystr(path)
        if isinstance(leaf, Params):
            shared = jax.tree_util.tree_map_with_path(
                lambda p, x: _like(x, arrays.shared[f"{path}.shared{_name(p)}"]), leaf.shared
            )
            local = jax.tree_util.tree_map_with_path(
                lambda p, x: _like(x, arrays.local[f"{path}.local{_name(p)}"]), leaf.local
            )
            return Params(shared, local)
        return leaf if isinstance(leaf, str) else _like(leaf, arrays.shared[path])

    return jax.tree_util.tree_map_with_path(rebuilt, template, is_leaf=lambda x: isinstance(x, Params))


def gather_rows(local: dict[str, np.ndarray], grid: Grid) -> dict[str, np.ndarray] | None:
    """The rows of all blocks, in order, on the world's root; None elsewhere."""
    parts = grid.frames.gather(local) if grid.slices.rank == 0 else None
    if not grid.world.is_root:
        return None
    return {name: np.concatenate([part[name] for part in parts]) for name in local}


def check_agreement(params: Params, grid: Grid) -> None:
    """Raise unless shared parameters are bitwise equal on all ranks, and the rows of a block on all that hold it."""
    for what, tree, ranks in (("shared", params.shared, grid.world), ("local", params.local, grid.slices)):
        digest = _digest(tree)
        if np.any(ranks.max(digest) != -ranks.max(-digest)):
            raise HpcfitError(
                f"{what} parameters differ between ranks: they took different steps",
                remedy="a defect of hpcfit or of the machine; run with reductions = 'reproducible' and report it",
            )


def _digest(tree: Any) -> np.ndarray:
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in jax.tree.leaves(tree))).digest()
    return np.frombuffer(digest, ">u4").astype(np.int64)


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: isinstance(x, Params))
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in flat]


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path)


def _like(leaf: Any, value: np.ndarray) -> Any:
    """``value`` as the kind of number that the template has there."""
    return type(leaf)(value.item()) if isinstance(leaf, (int, float)) else np.asarray(value, np.asarray(leaf).dtype)
