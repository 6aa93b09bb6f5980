"""Loops over cells, tiles and blocks of frames on a device.

Every cell and every tile is computed by the same loop body on the same shapes, so that its bits do not depend on how
many a rank holds. On a CPU the loop also keeps a cell in the cache; on a GPU cells are computed side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hpcfit.fit.problem import Block, Cell, Params

Tree = Any


def each(function: Callable, *trees: Tree) -> Tree:
    """``function`` of each slice of the trees along their first axis, its results stacked."""
    return _loop(function, len(jax.tree.leaves(trees)[0]), *((tree, lambda i: i) for tree in trees))


def _loop(function: Callable, count: int, *arguments: tuple[Tree, Callable[[Any], Any]]) -> Tree:
    """``function`` of the slices ``tree[index(i)]`` of each (tree, index) for i below ``count``, its results stacked.

    On a CPU the compiler must not see that a loop has one turn: it would do without the loop, and might then add in
    another order than in the loops of other ranks. So it is not told how many turns there are, and no axis that is
    indexed has a single place.
    """
    if jax.default_backend() != "cpu":
        slices = lambda i: [_slices(tree, index(i)) for tree, index in arguments]  # noqa: E731
        return jax.lax.map(lambda i: function(*slices(i)), jnp.arange(count), batch_size=64)
    of_slice = lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf)[1:], jnp.result_type(leaf))  # noqa: E731
    shapes = jax.eval_shape(function, *(jax.tree.map(of_slice, tree) for tree, _ in arguments))
    if count == 0:
        return jax.tree.map(lambda leaf: jnp.zeros((0, *leaf.shape), leaf.dtype), shapes)
    nothing = jax.tree.map(lambda leaf: jnp.zeros((max(count, 2), *leaf.shape), leaf.dtype), shapes)
    places = [(jax.tree.map(_two_places, tree), index) for tree, index in arguments]

    def turn(i: Any, found: Tree) -> Tree:
        put = lambda whole, one: jax.lax.dynamic_update_index_in_dim(whole, one, i, 0)  # noqa: E731
        return jax.tree.map(put, found, function(*(_slices(tree, index(i)) for tree, index in places)))

    found = jax.lax.fori_loop(0, _hidden(count), turn, nothing)
    return jax.tree.map(lambda leaf: leaf[:count], found)


def _hidden(number: int) -> jax.Array:
    """A number that the compiler cannot see."""
    return jax.lax.optimization_barrier(jnp.int32(number))


def _two_places(leaf: Any) -> jax.Array:
    """An axis of one place with a second one, which nothing reads."""
    leaf = jnp.asarray(leaf)
    return jnp.concatenate([leaf, leaf]) if leaf.shape[0] == 1 else leaf


def _slices(tree: Tree, i: Any) -> Tree:
    return jax.tree.map(lambda leaf: jax.lax.dynamic_index_in_dim(jnp.asarray(leaf), i, keepdims=False), tree)


def over_cells(function: Callable, params: Params, cells: Cell, tiles: Tree) -> Tree:
    """``function(params of block, cell, slice of tiles)`` of each tile and block; leaves [tiles, blocks, ...]."""
    n_tiles, n_blocks = jax.tree.leaves(cells.data)[0].shape[:2]
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), cells.data)

    def of_cell(data, local, about, constants):
        return function(Params(params.shared, local), Cell(data, *about), constants)

    blocks = _hidden(max(n_blocks, 1))
    of_block, of_tile = (lambda i: i % blocks), (lambda i: i // blocks)
    found = _loop(
        of_cell, n_tiles * n_blocks, (flat, lambda i: i), (params.local, of_block),
        ((cells.ids, cells.more), of_block), (tiles, of_tile),
    )  # fmt: skip
    return jax.tree.map(lambda leaf: leaf.reshape(n_tiles, n_blocks, *leaf.shape[1:]), found)


def over_blocks(function: Callable, params: Params, blocks: Block, *more: Tree) -> Tree:
    """``function(params of block, block, ...)`` for each block; the leaves are [blocks, ...]."""
    return each(
        lambda local, block, *rest: function(Params(params.shared, local), block, *rest), params.local, blocks, *more
    )
