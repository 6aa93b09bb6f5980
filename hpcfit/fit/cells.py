"""Loops over cells, tiles and blocks of frames on a device.

Every cell and every tile is computed by the same loop body on the same shapes, so that its bits do not depend on how
many a rank holds. On a CPU the loop also keeps a cell in the cache; on a GPU cells are computed side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.fit.problem import Block, Cell, Params
from hpcfit.pytrees import pytree

Tree = Any


def each(function: Callable, *trees: Tree) -> Tree:
    """``function`` of each slice of the trees along their first axis, its results stacked."""
    return _loop(function, len(jax.tree.leaves(trees)[0]), *((tree, lambda i: i) for tree in trees))


def _loop(function: Callable, count: int, *arguments: tuple[Tree, Callable[[Any], Any]], turns: Any = None) -> Tree:
    """``function`` of the slices ``tree[index(i)]`` of each (tree, index) for i below ``count``, its results stacked.

    turns: a number that is known when it runs, so many of the ``count`` are wanted; the others may be anything.

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

    found = jax.lax.fori_loop(0, _hidden(count) if turns is None else turns, turn, nothing)
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


# ---- of many fits ------------------------------------------------------------------------------------------------


@pytree
@dataclass(frozen=True)
class Alike:
    """Trees of one structure, one a fit: leaves that are those of a tree ``like`` them are held once, others stacked,
    [room, ...] with room for so many fits."""

    leaves: tuple
    stacked: tuple[bool, ...] = field(metadata={"static": True})
    structure: Any = field(metadata={"static": True})

    @classmethod
    def of(cls, trees: Sequence[Tree], like: Tree, room: int) -> Self:
        """Stack the trees of all fits. Raises ValueError where their structures differ."""
        structure = jax.tree.structure(trees[0])
        if any(jax.tree.structure(tree) != structure for tree in trees):
            raise ValueError("the problems of fits that share their evaluations differ in more than numbers")
        by_leaf, filled = list(zip(*map(jax.tree.leaves, trees))), np.minimum(np.arange(room), len(trees) - 1)
        stacked = tuple(any(leaf is not of for leaf in leaves) for leaves, of in zip(by_leaf, _leaves(like)))
        kept = tuple(_stack([leaves[n] for n in filled]) if own else leaves[0] for leaves, own in zip(by_leaf, stacked))
        return cls(kept, stacked, structure)

    @property
    def own(self) -> list[Any]:
        """The leaves that each fit has for itself, [fits, ...]."""
        return [leaf for leaf, own in zip(self.leaves, self.stacked) if own]

    @property
    def common(self) -> list[Any]:
        """The leaves that are the same in all fits."""
        return [leaf for leaf, own in zip(self.leaves, self.stacked) if not own]

    def tree(self, own: Sequence[Any], common: Sequence[Any]) -> Tree:
        """The tree of one fit, from its own leaves and the common ones."""
        own, common = iter(own), iter(common)
        return self.structure.unflatten([next(own if stacked else common) for stacked in self.stacked])


def _leaves(tree: Tree) -> list[Any]:
    return jax.tree.leaves(tree, is_leaf=lambda leaf: leaf is None)


def _stack(leaves: Sequence[Any]) -> Any:
    return (jnp if isinstance(leaves[0], jax.Array) else np).stack(leaves)


class Places(NamedTuple):
    """The fits that are evaluated: of some places the first ``used``, each with the number ``of`` [places] of a fit.

    The shapes of all that is computed depend on the places alone, and its bits not even on these.
    """

    of: Any
    used: Any


def over_fits(
    function: Callable, places: Places, problems: Alike, slices: Alike, n: int, of_fit: Tree, of_both: Tree
) -> Tree:
    """``function(problem, slice, of fit, of both)`` for each place and each of n slices, leaves [places, n, ...].

    slices: trees with leaves [n, ...]: the tiles or the blocks of frames of a fit. of_fit: leaves [places, ...];
    of_both: leaves [places, n, ...].
    """
    count, number = len(places.of), _hidden(max(n, 1))
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (slices.own, of_both))
    fit, place = (lambda i: places.of[i // number]), (lambda i: i // number)

    def of_slice(problem, own, common, mine, both):
        return function(problems.tree(problem, problems.common), slices.tree(own, common), mine, both)

    found = _loop(
        of_slice, count * n, (problems.own, fit), (flat[0], lambda i: fit(i) * number + i % number),
        (slices.common, lambda i: i % number), (of_fit, place), (flat[1], lambda i: i), turns=places.used * n,
    )  # fmt: skip
    return jax.tree.map(lambda leaf: leaf.reshape(count, n, *leaf.shape[1:]), found)


def each_fit(function: Callable, places: Places, problems: Alike, of_fit: Tree) -> Tree:
    """``function(problem, of fit)`` for each place, leaves [places, ...]."""
    of_place = lambda problem, mine: function(problems.tree(problem, problems.common), mine)  # noqa: E731
    of = (problems.own, lambda i: places.of[i])
    return _loop(of_place, len(places.of), of, (of_fit, lambda i: i), turns=places.used)
