"""Averages over a sample whose frames are weighed anew, until too few of them carry the averages.

A draw simulates at the parameters that it begins with and keeps its frames. At others each frame counts as
exp(-(U - U_drawn) / kT), so that several steps of an optimizer are taken before frames are drawn again (Thaler and
Zavadlav 2021, 10.1038/s41467-021-27241-4; Zwanzig 1954, 10.1063/1.1740409).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.fit.cells import over_blocks
from hpcfit.fit.problem import Block, Cell, FrameRows, Params, Statistics
from hpcfit.kinds.force_field.simulated.averages import Ensemble, Windows
from hpcfit.pytrees import pytree
from hpcfit.simulation.langevin import PhasePoint

Tree = Any


@pytree
@dataclass(frozen=True)
class Reweighted(Windows):
    """See ``Windows``. Local are also ``frames``, the points of each ensemble's windows, and ``drawn``, the numbers u
    that they were drawn at.

    floor: the share of the frames that must carry the averages (Kish's effective number); below it the loss is
    infinite, which turns an optimizer back.
    """

    floor: Any = 0.0

    def begun(self, params: Params) -> Params:
        """The parameters with the frames of the first draw."""
        return Params(params.shared, self._drawn(params.local, params.shared))

    def redrawn(self, local: Tree, rows: Tree, shared: Tree) -> Tree:
        """See ``fit.problem.DrawnProblem``: frames of trajectories that go on, at the parameters at hand."""
        return self._drawn(super().redrawn(local, rows, shared), shared)

    def _drawn(self, local: Tree, u: Tree) -> Tree:
        kept = {name: local[name] for name in ("starts", "draw", "window")}
        found = jax.tree.map(np.asarray, _sampled(self, u, kept))
        lead = np.shape(local["draw"])
        drawn = {name: np.broadcast_to(value, (*lead, *np.shape(value))).copy() for name, value in u.items()}
        return {"draw": local["draw"], "window": local["window"], "drawn": drawn, **found}

    def of_draw(self, params: Params, block: Block) -> Tree:
        """The frames of a block of windows: ``starts`` are then their ends."""
        found = [
            self._of_draw(number, ensemble, params.shared, params.local, block.ids)
            for number, ensemble in enumerate(self.ensembles)
        ]
        return {name: tuple(one[name] for one in found) for name in ("frames", "starts", "broke", "crowded")}

    def _of_draw(self, number: int, ensemble: Ensemble, u: Tree, local: Tree, ids: Any) -> Tree:
        theta = self.moving.at(u, ensemble.parameters)

        def walked(window: Any, start: PhasePoint, draw: Any) -> tuple:
            found = ensemble.walked(theta, start, self.key(number, window, draw), lambda point: point)
            return found.seen, found.end, found.broke, ensemble.crowded(found)

        starts = local["starts"][number]
        frames, ends, broke, crowded = ensemble.each(walked, ids, starts, local["draw"])
        again = lambda end, start: jnp.where((broke < 0)[:, None, None], end, start)  # noqa: E731
        ends = jax.tree.map(again, ends, starts)
        return {"frames": frames, "starts": ends, "broke": broke * 1.0, "crowded": crowded * 1.0}

    def partial_and_rows(self, params: Params, cell: Cell) -> tuple[Tree, Tree]:
        """(sums by ensemble, rows by ensemble), see ``Windows``."""
        local = jax.lax.stop_gradient(params.local)
        found = [self._weighed(number, params.shared, local, cell.ids) for number in range(len(self.ensembles))]
        return tuple(sums for sums, _ in found), tuple(rows for _, rows in found)

    def _weighed(self, number: int, u: Tree, local: Tree, ids: Any) -> tuple[Tree, Tree]:
        ensemble, broke = self.ensembles[number], local["broke"][number]
        drawn = {name: leaf[0] for name, leaf in local["drawn"].items()}
        thetas = tuple(self.moving.at(one, ensemble.parameters) for one in (u, drawn))
        weighed = lambda frames: jax.lax.map(partial(self._weighed_frame, ensemble, *thetas), frames)  # noqa: E731
        seen, weight = jax.lax.map(weighed, local["frames"][number])
        sums, windows = _sums(ensemble, seen, weight, ids, broke)
        rows = {
            "ends": local["starts"][number], "broke": broke, "crowded": local["crowded"][number],
            "observed": windows["observed"],
        }  # fmt: skip
        return sums, jax.lax.stop_gradient(rows)

    @staticmethod
    def _weighed_frame(ensemble: Ensemble, theta: Tree, drawn: Tree, point: PhasePoint) -> tuple[tuple, Any]:
        moved = ensemble.begun(theta, point)  # rigid bodies change with their lengths, in their places
        weight = jnp.exp(-(ensemble.energy(theta, moved) - ensemble.energy(drawn, point)) / ensemble.kT)
        return ensemble.observed(theta, moved), weight

    def summary(self, statistics: Statistics, shared: Tree, tile: Any) -> Tree:
        """See ``Windows``; shares: of its frames that carry the averages of each ensemble."""
        shares = [sums["weight"] ** 2 / (sums["square"] * sums["held"]) for sums in statistics.sliced]
        return super().summary(statistics, shared, tile) | {"shares": jnp.stack(shares)}

    def loss(self, sums: Tree, common: Tree, shared: Tree) -> Any:
        """See ``Windows``; infinite where too few frames carry the averages."""
        return jnp.where(jnp.min(sums["shares"]) < self.floor, jnp.inf, super().loss(sums, common, shared))

    def metrics(self, sums: Tree, common: Tree, shared: Tree) -> dict[str, Any]:
        """See ``Windows``; and the least share of frames that carry averages."""
        return super().metrics(sums, common, shared) | {"share_of_frames": jnp.min(sums["shares"])}


def _sums(ensemble: Ensemble, seen: Tree, weight: Any, ids: Any, broke: Any) -> tuple[Tree, Tree]:
    """(sums over windows, what each of them adds), from the numbers and weights of their frames, [windows, frames]."""
    observed, mean = jax.vmap(ensemble.of_window)(seen, weight)
    square = jnp.mean(weight[:, ensemble.skipped :] ** 2, axis=1)
    counted = jnp.where((ids >= 0) & (broke < 0), 1.0, 0.0)
    sums = {
        "observed": tuple(jnp.tensordot(counted, leaf, 1) for leaf in observed),
        "weight": counted @ mean,
        "held": jnp.sum(counted),
        "asked": jnp.sum(jnp.where(ids >= 0, 1.0, 0.0)),
        "square": counted @ square,
    }
    return sums, {"observed": observed, "weight": mean}


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
            found.append(_sums(self.ensembles[number], seen, weight, cell.ids, -1.0))
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


class Drawn(NamedTuple):
    """Frames [...]. x: [..., N, 3] nm; box: [..., 3, 3] nm, or None; energy: [...] kJ/mol, at the parameters that they
    were drawn at."""

    x: Any
    box: Any
    energy: Any


def _weigh(ensemble: Ensemble, theta: Tree, frame: Drawn) -> tuple[tuple, Any]:
    """The numbers of a frame and its weight."""
    point = ensemble.begun(theta, still(frame.x, frame.box))
    weight = jnp.exp(-(ensemble.energy(theta, point) - frame.energy) / ensemble.kT)
    return ensemble.observed(theta, point), weight


def still(x: Any, box: Any) -> PhasePoint:
    """A frame whose velocities nobody asks for."""
    return PhasePoint(x, jnp.zeros_like(x), box)


@jax.jit
def drawn(ensemble: Ensemble, theta: Tree, x: Any, box: Any) -> Drawn:
    """The frames [F, N, 3] of a window, on their constraints, with their energies at these parameters."""

    def begun(frame: tuple) -> Drawn:
        point = ensemble.begun(theta, still(*frame))
        return Drawn(point.x, point.box, ensemble.energy(theta, point))

    return jax.lax.map(begun, (x, box))


@jax.jit
def _sampled(problem: Reweighted, u: Tree, local: Tree) -> Tree:
    """The frames of a draw of all blocks of a rank."""
    return over_blocks(problem.of_draw, Params(u, local), Block(local["window"].astype(int), ()))
