"""The functions of a problem on the device, over all cells, blocks or tiles of a rank, and their derivatives: the only
module that differentiates a fit. Nothing here communicates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.fit.cells import Alike, Places, each, each_fit, over_blocks, over_cells, over_fits
from hpcfit.fit.problem import Block, Cell, Params, Problem, RowsProblem, Statistics

Tree = Any


def _of_cell(problem: Problem, params: Params, cell: Cell) -> tuple[Tree, Tree]:
    """The sums of a cell, and what belongs to each of its frames; nothing for most problems."""
    if isinstance(problem, RowsProblem):
        return problem.partial_and_rows(params, cell)
    return problem.partial(params, cell), ()


@jax.jit
def sums_and_rows(problem: Problem, params: Params, cells: Cell) -> tuple[Tree, Tree]:
    """The sums of cells and what belongs to their frames, leaves [tiles, blocks, ...]."""
    return over_cells(lambda p, cell, _: _of_cell(problem, p, cell), params, cells, None)


@partial(jax.jit, static_argnames="pulled")
def sums_rows_and_tangents(problem: Problem, params: Params, cells: Cell, pulled: bool) -> tuple[Tree, Tree, Tree]:
    """Sums, rows, and the derivatives of the sums by every shared parameter: each leaf of the sums a tree of leaves
    [tiles, blocks, shape of the sum, shape of the parameter]. pulled: by pull-backs of each number of the sums, which
    are fewer than the parameters; else tangents of each parameter are carried along."""

    def of_cell(p, cell, _):
        def sums_of(shared):
            sums, rows = _of_cell(problem, Params(shared, p.local), cell)
            return sums, (sums, rows)

        tangents, (sums, rows) = (jacrev if pulled else jax.jacfwd)(sums_of, has_aux=True)(p.shared)
        return sums, rows, tangents

    return over_cells(of_cell, params, cells, None)


def jacrev(function: Callable, has_aux: bool = False) -> Callable[[Tree], Tree]:
    """As ``jax.jacrev``, with the numbers of a leaf of the results pulled back side by side, but each leaf by itself.

    A leaf so costs what it is made of: nothing where it depends on no parameter, and one simulation of several.
    """

    def rows(at: Tree) -> Tree:
        found, along, *aux = jax.linearize(function, at, has_aux=has_aux)
        leaves, structure = jax.tree.flatten(found)

        def of_leaf(number: int, leaf: jax.Array) -> Tree:
            pull = jax.linear_transpose(lambda change: jax.tree.leaves(along(change))[number], at)
            [of_numbers] = jax.vmap(pull)(jnp.eye(leaf.size, dtype=leaf.dtype).reshape(leaf.size, *leaf.shape))
            return jax.tree.map(lambda row: row.reshape(*leaf.shape, *row.shape[1:]), of_numbers)

        tangents = structure.unflatten([of_leaf(number, leaf) for number, leaf in enumerate(leaves)])
        return (tangents, *aux) if has_aux else tangents

    return rows


@jax.jit
def contracted(sliced_bar: Tree, tangents: Sequence[jax.Array], shared: Tree) -> Tree:
    """Cotangents times tangents, summed over the sums of each tile; as the shared parameters, leaves [tiles, ...].

    tangents: of each sum by each parameter, in this order.
    """
    bars, structure = jax.tree.leaves(sliced_bar), jax.tree.structure(shared)
    n = structure.num_leaves
    product = jax.vmap(lambda bar, tangent: jnp.tensordot(bar, tangent, bar.ndim))
    terms = [product(bar, tangents[i * n + k]) for i, bar in enumerate(bars) for k in range(n)]
    return jax.tree.unflatten(structure, [sum(terms[k::n]) for k in range(n)])


@jax.jit
def pulled_back(problem: Problem, params: Params, cells: Cell, sliced_bar: Tree) -> Params:
    """The cotangents of the parameters from those of the sums of cells, leaves [tiles, blocks, ...]."""

    def cell_vjp(p, cell, bar):
        value, vjp = jax.vjp(lambda q: problem.partial(q, cell), p)
        return vjp(jax.tree.map(lambda leaf, like: jnp.asarray(leaf, like.dtype), bar, value))[0]

    return over_cells(cell_vjp, params, cells, sliced_bar)


@jax.jit
def residuals_and_jacobian(
    problem: Problem, statistics: Statistics, tangents: Sequence[jax.Array], shared: Tree
) -> tuple[jax.Array, jax.Array]:
    """The residuals [R] of a ``LeastSquaresProblem``, and their derivatives [R, P] by the shared parameters, leaf after
    leaf. tangents: of each sum by each parameter, in this order; the statistics are those of all tiles."""
    leaves, structure = jax.tree.flatten(shared)
    sums, of_sums = jax.tree.flatten(statistics.sliced)
    n, ends = len(leaves), np.cumsum([np.size(leaf) for leaf in leaves])

    def residuals(by: jax.Array) -> jax.Array:
        changes = [part.reshape(jnp.shape(leaf)) for part, leaf in zip(jnp.split(by, ends[:-1]), leaves)]
        moved = [
            total + sum(jnp.tensordot(tangents[i * n + k], change, change.ndim) for k, change in enumerate(changes))
            for i, total in enumerate(sums)
        ]
        at = jax.tree.unflatten(structure, [leaf + change for leaf, change in zip(leaves, changes)])
        found = Statistics(statistics.common, jax.tree.unflatten(of_sums, moved))
        of_tile = lambda sliced, tile: problem.summary(Statistics(found.common, sliced), at, tile)  # noqa: E731
        of_tiles = each(of_tile, found.sliced, problem.tiles)
        return problem.residuals(jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), of_tiles), at)

    nothing = jnp.zeros(ends[-1])
    return residuals(nothing), jax.jacfwd(residuals)(nothing)


@jax.jit
def of_frames(problem: Problem, params: Params, blocks: Block) -> Tree:
    """The sums over blocks that need no data, leaves [blocks, ...]."""
    return over_blocks(problem.of_frames, params, blocks)


@jax.jit
def of_frames_vjp(problem: Problem, params: Params, blocks: Block, common_bar: Tree) -> Params:
    """The cotangents of the parameters from those of ``of_frames``."""
    return over_blocks(lambda p, b: jax.vjp(lambda q: problem.of_frames(q, b), p)[1](common_bar)[0], params, blocks)


@jax.jit
def weights(problem: Problem, params: Params, blocks: Block) -> jax.Array:
    """The weights of the frames of blocks, [blocks, width]."""
    return over_blocks(problem.weights, params, blocks)


@jax.jit
def weights_vjp(problem: Problem, params: Params, blocks: Block, w_bar: jax.Array) -> Params:
    """The cotangents of the parameters from those of ``weights``."""
    return over_blocks(lambda p, b, bar: jax.vjp(lambda q: problem.weights(q, b), p)[1](bar)[0], params, blocks, w_bar)


@jax.jit
def combined(problem: Problem, rows: jax.Array, sums_bar: Tree) -> jax.Array:
    """The derivatives of the loss by the weights, by way of each tile, [tiles, T]."""

    return each(lambda rows_kt, tile: _combined(problem, rows_kt, sums_bar, tile), rows, problem.tiles)


def _combined(problem: Problem, rows_kt: jax.Array, sums_bar: Tree, tile: Tree) -> jax.Array:
    coefficients = problem.coefficients(sums_bar, tile)
    return sum(c * row.astype(c.dtype) for c, row in zip(coefficients, rows_kt))


@jax.jit
def summaries(problem: Problem, statistics: Statistics, shared: Tree) -> Tree:
    """The sums of each tile that the loss is made of, leaves [tiles, ...]."""

    def one(sliced, tile):
        return problem.summary(Statistics(statistics.common, sliced), shared, tile)

    return each(one, statistics.sliced, problem.tiles)


@jax.jit
def summaries_vjp(problem: Problem, statistics: Statistics, shared: Tree, sums_bar: Tree) -> tuple[Statistics, Tree]:
    """The cotangents of statistics and shared parameters from those of ``summaries``, leaves [tiles, ...]."""

    def one(sliced, tile):
        _, vjp = jax.vjp(lambda s, q: problem.summary(s, q, tile), Statistics(statistics.common, sliced), shared)
        return vjp(sums_bar)

    return each(one, statistics.sliced, problem.tiles)


@jax.jit
def summaries_vjp_to_common(
    problem: Problem, statistics: Statistics, shared: Tree, sums_bar: Tree
) -> tuple[Statistics, Tree]:
    """As ``summaries_vjp`` without what belongs to the tiles: one pass over the frames pulls it back by other means."""

    def one(sliced, tile):
        of_common = lambda common, q: problem.summary(Statistics(common, sliced), q, tile)  # noqa: E731
        common_bar, shared_bar = jax.vjp(of_common, statistics.common, shared)[1](sums_bar)
        return Statistics(common_bar, None), shared_bar

    return each(one, statistics.sliced, problem.tiles)


@jax.jit
def metrics(problem: Problem, sums: Tree, common: Tree, shared: Tree) -> dict[str, jax.Array]:
    """The numbers that the problem reports, by name."""
    return problem.metrics(sums, common, shared)


@jax.jit
def loss_and_cotangents(problem: Problem, sums: Tree, common: Tree, shared: Tree) -> tuple[jax.Array, tuple]:
    """The loss, and its derivatives by sums, common and shared parameters."""
    return jax.value_and_grad(lambda *args: problem.loss(*args), argnums=(0, 1, 2))(sums, common, shared)


# ---- of many fits in one pass ------------------------------------------------------------------------------------
#
# Leaves of what belongs to a fit are [places, ...]; see ``fit.cells.Places``.


@jax.jit
def weights_and_sums_of_fits(
    problems: Alike, places: Places, blocks: Alike, shared: Tree, local: Tree
) -> tuple[jax.Array, Tree]:
    """The weights [places, blocks, width], and the sums over blocks that need no data, leaves [places, blocks].

    local: the local parameters, and what blocks say to their neighbours.
    """

    def of_block(problem, rows, of_shared, mine):
        params, block = Params(of_shared, mine[0]), Block(*rows, *mine[1])
        return problem.weights(params, block), problem.of_frames(params, block)

    return over_fits(of_block, places, problems, blocks, _length(local), shared, local)


@partial(jax.jit, static_argnames="reported")
def summaries_of_fits(
    problems: Alike, places: Places, tiles: Alike, common: Tree, shared: Tree, sliced: Tree, reported: bool
) -> Tree:
    """The sums of each tile, leaves [places, tiles, ...]; without those that are only reported, or with them."""

    def of_tile(problem, tile, mine, sums):
        found = problem.summary(Statistics(mine[0], sums), mine[1], tile)
        return found if reported else problem.of_loss(found)

    return over_fits(of_tile, places, problems, tiles, _length(sliced), (common, shared), sliced)


@jax.jit
def metrics_of_fits(problems: Alike, places: Places, sums: Tree, common: Tree, shared: Tree) -> dict[str, jax.Array]:
    """The numbers that the problems report, [places], by name."""
    return each_fit(lambda problem, at: problem.metrics(*at), places, problems, (sums, common, shared))


@jax.jit
def losses_and_cotangents(
    problems: Alike, places: Places, sums: Tree, common: Tree, shared: Tree
) -> tuple[jax.Array, tuple]:
    """The losses [places], and their derivatives by sums, common and shared parameters."""
    of_fit = lambda problem, at: jax.value_and_grad(problem.loss, argnums=(0, 1, 2))(*at)  # noqa: E731
    return each_fit(of_fit, places, problems, (sums, common, shared))


@jax.jit
def tile_cotangents_of_fits(
    problems: Alike, places: Places, tiles: Alike, at: tuple[Tree, Tree, Tree], sliced: Tree, rows: jax.Array
) -> tuple[Tree, Tree, jax.Array]:
    """The cotangents of common and of shared parameters by way of each tile, and those of the weights [places, tiles,
    T] from ``rows`` [places, tiles, K, T]. at: common, shared parameters, and the cotangents of the sums."""

    def of_tile(problem, tile, mine, both):
        common, shared, sums_bar = mine
        of_common = lambda c, q: problem.of_loss(problem.summary(Statistics(c, both[0]), q, tile))  # noqa: E731
        common_bar, shared_bar = jax.vjp(of_common, common, shared)[1](sums_bar)
        return common_bar, shared_bar, _combined(problem, both[1], sums_bar, tile)

    return over_fits(of_tile, places, problems, tiles, _length(sliced), at, (sliced, rows))


@jax.jit
def block_cotangents_of_fits(
    problems: Alike, places: Places, blocks: Alike, at: tuple[Tree, Tree], local: Tree, w_bar: jax.Array
) -> tuple[Params, Params]:
    """The cotangents of the parameters by way of the sums without data and by way of the weights, leaves [places, ...].

    at: shared parameters and the cotangents of those sums; local: as for the weights; w_bar: [places, blocks, width].
    """

    def of_block(problem, rows, mine, both):
        (of_local, beside), bar = both
        params, block = Params(mine[0], of_local), Block(*rows, *beside)
        [of_frames] = jax.vjp(lambda q: problem.of_frames(q, block), params)[1](mine[1])
        [of_data] = jax.vjp(lambda q: problem.weights(q, block), params)[1](bar)
        return of_frames, of_data

    return over_fits(of_block, places, problems, blocks, _length(local), at, (local, w_bar))


def _length(tree: Tree) -> int:
    """Tiles or blocks of leaves [places, n, ...]."""
    return jax.tree.leaves(tree)[0].shape[1]
