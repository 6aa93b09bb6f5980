"""Averages over a sample whose frames are weighed anew, until too few of them carry the averages.

A draw simulates at the parameters that it begins with and keeps its frames. At others each frame counts as
exp(-(U - U_drawn) / kT), so that several steps of an optimizer are taken before frames are drawn again (Thaler and
Zavadlav 2021, 10.1038/s41467-021-27241-4; Zwanzig 1954, 10.1063/1.1740409).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.fit.cells import over_blocks
from hpcfit.fit.problem import Block, Cell, Params, Statistics
from hpcfit.kinds.force_field.simulated.averages import Windows
from hpcfit.kinds.force_field.simulated.ensemble import Ensemble
from hpcfit.pytrees import pytree
from hpcfit.simulation.langevin import PhasePoint, chosen

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
        return {name: local[name] for name in ("draw", "window", "seen")} | {"drawn": drawn, **found}

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
        ends = chosen(broke < 0, ends, starts)
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
        sums, windows = weighed_sums(ensemble, seen, weight, ids, broke)
        rows = {
            "ends": local["starts"][number], "broke": broke, "crowded": local["crowded"][number], **windows,
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


def weighed_sums(ensemble: Ensemble, seen: Tree, weight: Any, ids: Any, broke: Any) -> tuple[Tree, Tree]:
    """(sums over windows, what each of them adds), from the numbers and weights of their frames, [windows, frames]."""
    observed, mean = jax.vmap(ensemble.of_window)(seen, weight)
    square = jnp.mean(weight[:, ensemble.counted] ** 2, axis=1)
    counted = jnp.where((ids >= 0) & (broke < 0), 1.0, 0.0)
    sums = {
        "observed": tuple(jnp.tensordot(counted, leaf, 1) for leaf in observed),
        "weight": counted @ mean,
        "held": jnp.sum(counted),
        "asked": jnp.sum(jnp.where(ids >= 0, 1.0, 0.0)),
        "square": counted @ square,
    }
    return sums, {"observed": observed, "weight": counted * mean}


@jax.jit
def _sampled(problem: Reweighted, u: Tree, local: Tree) -> Tree:
    """The frames of a draw of all blocks of a rank."""
    return over_blocks(problem.of_draw, Params(u, local), Block(local["window"].astype(int), ()))
