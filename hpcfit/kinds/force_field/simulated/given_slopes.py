"""Derivatives of averages of frames that were given, by the fluctuation formula, with errors over windows.

A weighed average is a ratio of sums over windows, S(u) / w(u). Their derivatives are summed window by window, so that
the whole derivative is known without each of them too.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from hpcfit.fit.cells import over_blocks
from hpcfit.fit.problem import Block, FrameRows, Params
from hpcfit.kinds.force_field.simulated.reweighting import Drawn, Given
from hpcfit.statistics.blocks import jackknife_error, parts_of

Array = np.ndarray


@jax.jit
def window_slopes(problem: Given, u: Any, rows: FrameRows) -> tuple[dict[str, Any], ...]:
    """What each window of a rank adds to averages: of each ensemble ``sums`` [blocks, width, R], the last of which is
    its weight, and ``slopes`` [blocks, width, R, P], their derivatives by u."""
    flat, structure = ravel_pytree(u)

    def of_window(number: int, frames: Drawn) -> dict[str, Any]:
        sums = lambda v: ravel_pytree(problem.of_window(number, structure(v), frames))[0]  # noqa: E731
        return {"sums": sums(flat), "slopes": jax.jacfwd(sums)(flat)}

    def of_block(params: Params, block: Block) -> tuple[dict[str, Any], ...]:
        pairs = enumerate(block.more)
        return tuple(jax.lax.map(lambda window, n=n: of_window(n, window), frames) for n, frames in pairs)

    return over_blocks(of_block, Params(u, ()), Block(rows.ids, rows.more))


def fluctuation(problem: Given, number: int, slopes: Array, sums: Array, tangents: Array) -> tuple[Array, Array]:
    """(values, errors) [M, P]: derivatives of the averages of an ensemble by the parameters.

    slopes: [P], of each parameter by its u; sums, tangents: of all windows, see ``window_slopes``.
    """
    ensemble = problem.ensembles[number]
    one = problem.no_rows(FrameRows(np.zeros((1, 1), int), 1))[number]
    _, structure = ravel_pytree(jax.tree.map(lambda leaf: leaf[0, 0], one))

    @jax.jit
    def of_sums(total: Any, tangent: Any) -> Any:
        def averages(step: Any) -> Any:
            parts = structure(total + tangent @ step)
            return jnp.concatenate([jnp.ravel(value) for value in ensemble.averages(parts["observed"], parts["weight"])])

        return jax.jacfwd(averages)(jnp.zeros(len(slopes)))

    kept = [np.ones(len(sums), bool)] + [~np.isin(np.arange(len(sums)), part) for part in parts_of(len(sums))]
    every = np.stack([np.asarray(of_sums(sums[one].sum(axis=0), tangents[one].sum(axis=0))) for one in kept]) / slopes
    return every[0], jackknife_error(every[1:])
