"""Averages over frames that are given, weighed for other parameters than those that they were drawn at.

A weighed average is a ratio of sums over windows, S(u) / w(u). The derivatives of both are known of each window, and so
is the whole derivative, the fluctuation formula, without each of them too: its error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from hpcfit.fit.cells import over_blocks
from hpcfit.fit.problem import Block, Cell, FrameRows, Params
from hpcfit.kinds.force_field.simulated.ensemble import Ensemble
from hpcfit.kinds.force_field.simulated.reweighting import Reweighted, weighed_sums
from hpcfit.pytrees import pytree
from hpcfit.simulation.langevin import PhasePoint
from hpcfit.statistics.blocks import left_out_of

Tree = Any


class Drawn(NamedTuple):
    """Frames [...]. x: [..., N, 3] nm; box: [..., 3, 3] nm, or None; energy: [...] kJ/mol, at the parameters that they
    were drawn at."""

    x: Any
    box: Any
    energy: Any


def still(x: Any, box: Any) -> PhasePoint:
    """A frame whose velocities nobody asks for."""
    return PhasePoint(x, jnp.zeros_like(x), box)


@pytree
@dataclass(frozen=True)
class Given(Reweighted):
    """See ``Reweighted``: the frames of all windows are given, and no draw changes them; there are no local parameters.

    They come with the rows of the grid, a ``Drawn`` an ensemble. Rows are ``observed`` and ``weight``, what each window
    adds to the averages.
    """

    def begun(self, params: Params) -> Params:
        """The parameters as they are."""
        return params

    def redrawn(self, local: Tree, rows: Tree, shared: Tree) -> Tree:
        """See ``fit.problem.DrawnProblem``: the same frames."""
        return local

    def partial_and_rows(self, params: Params, cell: Cell) -> tuple[Tree, Tree]:
        """(sums by ensemble, rows by ensemble), see the class."""
        found = []
        for number, frames in enumerate(cell.more):
            seen, weight = jax.lax.map(partial(self._weighed_frames, number, params.shared), frames)
            found.append(weighed_sums(self.ensembles[number], seen, weight, cell.ids, -1.0))
        return tuple(sums for sums, _ in found), jax.lax.stop_gradient(tuple(rows for _, rows in found))

    def of_window(self, number: int, u: Tree, frames: Drawn) -> Tree:
        """The row of one window of an ensemble, from its frames."""
        observed, weight = self.ensembles[number].of_window(*self._weighed_frames(number, u, frames))
        return {"observed": observed, "weight": weight}

    def _weighed_frames(self, number: int, u: Tree, frames: Drawn) -> tuple[Tree, Any]:
        """The numbers and the weights of the frames of a window, leaves [frames, ...]."""
        ensemble = self.ensembles[number]
        return jax.lax.map(partial(_weigh, ensemble, self.moving.at(u, ensemble.parameters)), frames)

    def no_rows(self, frames: FrameRows) -> Tree:
        """Zeros like the rows of all windows of a rank."""
        rows = super().no_rows(frames)
        return tuple({"observed": one["observed"], "weight": np.zeros(frames.ids.shape)} for one in rows)


def _weigh(ensemble: Ensemble, theta: Tree, frame: Drawn) -> tuple[tuple, Any]:
    """The numbers of a frame and its weight."""
    point = ensemble.begun(theta, still(frame.x, frame.box))
    weight = jnp.exp(-(ensemble.energy(theta, point) - frame.energy) / ensemble.kT)
    return ensemble.observed(theta, point), weight


@jax.jit
def drawn(ensemble: Ensemble, theta: Tree, x: Any, box: Any) -> Drawn:
    """The frames [F, N, 3] of a window, on their constraints, with their energies at these parameters."""

    def begun(frame: tuple) -> Drawn:
        point = ensemble.begun(theta, still(*frame))
        return Drawn(point.x, point.box, ensemble.energy(theta, point))

    return jax.lax.map(begun, (x, box))


@jax.jit
def window_slopes(problem: Given, u: Any, rows: FrameRows) -> tuple[dict[str, Any], ...]:
    """Each ensemble's sums of the windows of a rank, ``sums`` [blocks, width, R], the last of which is the weight of a
    window, and their derivatives by u, ``slopes`` [blocks, width, R, P]."""
    flat, structure = ravel_pytree(u)

    def of_window(number: int, frames: Drawn) -> dict[str, Any]:
        sums = lambda v: ravel_pytree(problem.of_window(number, structure(v), frames))[0]  # noqa: E731
        return {"sums": sums(flat), "slopes": jax.jacfwd(sums)(flat)}

    def of_block(params: Params, block: Block) -> tuple[dict[str, Any], ...]:
        pairs = enumerate(block.more)
        return tuple(jax.lax.map(lambda window, n=n: of_window(n, window), frames) for n, frames in pairs)

    return over_blocks(of_block, Params(u, ()), Block(rows.ids, rows.more))


def slopes_by_parts(problem: Given, number: int, u: Any, slopes: Any, sums: Any, tangents: Any) -> Any:
    """The derivatives of the averages of an ensemble by the parameters, by all windows and without each of B parts of
    them, [1 + B, M, P].

    slopes: [P], of each parameter by its u; sums, tangents: of all windows, see ``window_slopes``.
    """
    ensemble, structure = problem.along(u)[number], _structure(problem, number)

    @jax.jit
    def of_sums(total: Any, tangent: Any) -> Any:
        def averages(step: Any) -> Any:
            parts = structure(total + tangent @ step)
            return jnp.concatenate(
                [jnp.ravel(value) for value in ensemble.averages(parts["observed"], parts["weight"])]
            )

        return jax.jacfwd(averages)(jnp.zeros(len(slopes)))

    kept = left_out_of(len(sums))
    return np.stack([np.asarray(of_sums(sums[one].sum(axis=0), tangents[one].sum(axis=0))) for one in kept]) / slopes


def totals_by_parts(problem: Given, number: int, sums: Any) -> Tree:
    """The sums of an ensemble, ``observed`` and ``weight``, by all windows and without each part of them, leaves
    [1 + B, ...]."""
    totals = np.stack([sums[one].sum(axis=0) for one in left_out_of(len(sums))])
    return jax.vmap(_structure(problem, number))(totals)


def _structure(problem: Given, number: int) -> Callable[[Any], Tree]:
    """Makes the row of a window of an ensemble from its numbers [R]."""
    one = problem.no_rows(FrameRows(np.zeros((1, 1), int), 1))[number]
    return ravel_pytree(jax.tree.map(lambda leaf: leaf[0, 0], one))[1]
