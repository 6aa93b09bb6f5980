"""Averages of observables over windows of simulated trajectories, and how well they agree with measurements.

A frame of the grid is a window: a short piece of a trajectory of each system, which begins where that of the round
before ended. Two estimators give the derivatives of the averages by the parameters:

pathwise       the derivative of what was simulated, for the noise of this draw: through each step of the trajectory
fluctuation    d<O>/dtheta = <dO/dtheta> - (<O dU/dtheta> - <O> <dU/dtheta>) / kT, of the frames as they are

Both are exact derivatives of sums over windows, so that the engine pulls back, or carries along, either alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.fit.problem import Block, Cell, FrameRows, Params, Reduce, Statistics
from hpcfit.kinds.force_field.parameters import Moving
from hpcfit.kinds.force_field.simulated.ensemble import Ensemble
from hpcfit.kinds.force_field.simulated.measured import NO_DIFFERENCES, Differences, Measured
from hpcfit.pytrees import pytree
from hpcfit.simulation.langevin import PhasePoint, chosen, noise_key

Tree = Any
HELD = 0.5  # of the windows of each system, that must not explode
SUMMED = ("observed", "weight")  # rows of windows that averages are made of


@pytree
@dataclass(frozen=True)
class Windows:
    """See ``hpcfit.fit.problem.Problem``: the averages of all ensembles, each over its windows.

    Shared parameters are the numbers u of ``Moving``. Local ones are no parameters: ``starts``, where the windows of
    each ensemble begin, ``window``, their numbers, ``draw``, that of the noise, and ``seen``, sums over rounds of what
    each window observed and of its weights, from draw ``settled`` on. Rows are ``ends``, from which the
    next draw starts, ``broke``, the step at which a window exploded or -1 (it is then left out of averages and
    derivatives, and starts again), ``crowded``, why that was (``Ensemble.crowded``), and
    ``observed`` and ``weight``, what each window adds to the averages and to what they are divided by. tiles: a
    ``Measured`` an observable, by ensemble, and behind them one a difference. pulled_back: see ``Ensemble.walked``.
    """

    tiles: Any
    ensembles: tuple[Ensemble, ...]
    moving: Moving
    seed: Any
    estimator: Literal["pathwise", "fluctuation", "reweighting"] = field(metadata={"static": True})
    pulled_back: bool = field(default=False, metadata={"static": True})
    differences: Differences = NO_DIFFERENCES
    settled: Any = np.inf

    # ---- parameters ------------------------------------------------------------------------------------------------

    def init(self, seed: int, frames: FrameRows) -> Params:
        """The parameters as they were given; starts are for a study to say."""
        return Params(self.moving.init(), {})

    def gauge(self, params: Params, frames: FrameRows, reduce: Reduce) -> Params:
        return params

    def of_frames(self, params: Params, block: Block) -> Any:
        return jnp.zeros(())

    # ---- sums over windows -----------------------------------------------------------------------------------------

    def partial(self, params: Params, cell: Cell) -> Tree:
        """Sums over the windows of a cell that did not explode."""
        return self.partial_and_rows(params, cell)[0]

    def partial_and_rows(self, params: Params, cell: Cell) -> tuple[Tree, Tree]:
        """(sums by ensemble, rows by ensemble), see the class."""
        local = jax.lax.stop_gradient(params.local)
        found = [
            self._of_ensemble(number, params.shared, starts, local["draw"], cell.ids)
            for number, starts in enumerate(local["starts"])
        ]
        return tuple(sums for sums, _ in found), tuple(rows for _, rows in found)

    def _of_ensemble(self, number: int, u: Tree, starts: PhasePoint, draw: Any, ids: Any) -> tuple[Tree, Tree]:
        ensemble = self.ensembles[number]
        theta = self.moving.at(u, ensemble.parameters)
        walks = ensemble.each(partial(self._window, ensemble, theta, number), ids, starts, draw)
        (observed, weight), ends, broke, crowded = walks
        held = broke < 0
        counted = jnp.where((ids >= 0) & held, 1.0, 0.0)
        sums = {
            "observed": tuple(jnp.tensordot(counted, leaf, 1) for leaf in observed),
            "weight": counted @ weight,
            "held": jnp.sum(counted),
            "asked": jnp.sum(jnp.where(ids >= 0, 1.0, 0.0)),
        }
        rows = {
            "ends": chosen(held, ends, starts), "broke": broke * 1.0, "crowded": crowded * 1.0, "observed": observed,
            "weight": counted * weight,
        }  # fmt: skip
        return sums, jax.lax.stop_gradient(rows)

    def _window(self, ensemble: Ensemble, theta: Tree, number: int, window: Any, start: PhasePoint, draw: Any) -> tuple:
        """What a window adds to averages, its end, where it broke, and whether a full list broke it."""
        key = self.key(number, window, draw)
        if self.estimator == "pathwise":
            seen = lambda point: (ensemble.observed(theta, point), 1.0)  # noqa: E731
            found = ensemble.walked(theta, start, key, seen, self.pulled_back)
        else:
            seen = partial(self._seen_and_weight, ensemble, theta)
            found = ensemble.walked(jax.lax.stop_gradient(theta), start, key, seen, self.pulled_back)
        return ensemble.of_window(*found.seen), found.end, found.broke, ensemble.crowded(found)

    @staticmethod
    def _seen_and_weight(ensemble: Ensemble, theta: Tree, point: PhasePoint) -> tuple[tuple, Any]:
        """The observed numbers, and 1 with the derivative of exp(-U / kT) by the parameters: that of the fluctuation
        formula. Rigid bodies change with their lengths, in their places."""
        point = ensemble.begun(theta, point)
        energy = ensemble.energy(theta, point)
        return ensemble.observed(theta, point), jnp.exp(-(energy - jax.lax.stop_gradient(energy)) / ensemble.kT)

    def key(self, number: int, window: Any, draw: Any) -> jax.Array:
        """The key of the noise of a window of an ensemble in a draw."""
        return jax.random.fold_in(noise_key(self.seed, draw.astype(int), window), number)

    def begun(self, params: Params) -> Params:
        """The parameters of the first draw, from those that say where windows start."""
        return params

    def redrawn(self, local: Tree, rows: Tree, shared: Tree) -> Tree:
        """See ``fit.problem.DrawnProblem``: windows begin where those of the last draw ended."""
        seen = tuple(self._added(total, one, local["draw"]) for total, one in zip(local["seen"], rows))
        return local | {"starts": tuple(one["ends"] for one in rows), "draw": local["draw"] + 1, "seen": seen}

    def _added(self, seen: Tree, rows: Tree, draw: Any) -> Tree:
        """``seen`` of an ensemble after one more draw."""
        counts = (np.asarray(rows["weight"]) > 0) & (draw >= self.settled)
        counted = lambda leaf: np.where(counts.reshape(*counts.shape, *[1] * (np.ndim(leaf) - 2)), leaf, 0.0)  # noqa: E731
        of_draw = {name: rows[name] for name in SUMMED}
        return jax.tree.map(lambda total, leaf: total + counted(leaf), seen, of_draw)

    def unseen(self, frames: FrameRows) -> Tree:
        """``seen`` before the first round."""
        return tuple({name: one[name] for name in SUMMED} for one in self.no_rows(frames))

    def no_rows(self, frames: FrameRows) -> Tree:
        """Zeros like the rows of all windows of a rank."""
        lead = frames.ids.shape
        return tuple(self._no_rows(one, lead) for one in self.ensembles)

    def _no_rows(self, ensemble: Ensemble, lead: tuple[int, ...]) -> Tree:
        zeros = lambda leaf: np.zeros((*lead, *leaf.shape))  # noqa: E731
        return {
            "ends": jax.tree.map(zeros, ensemble.blank), "broke": np.zeros(lead), "crowded": np.zeros(lead),
            "observed": jax.tree.map(zeros, ensemble.shapes), "weight": np.zeros(lead),
        }  # fmt: skip

    # ---- loss ------------------------------------------------------------------------------------------------------

    def summary(self, statistics: Statistics, shared: Tree, tile: Any) -> Tree:
        """The deviations of all observables from what was measured, fitted and held out; and the windows that held."""
        pairs = zip(self.along(shared), statistics.sliced)
        found = [one.averages(sums["observed"], sums["weight"]) for one, sums in pairs]
        data = self.differences.behind(jnp.concatenate([value for values in found for value in values]))
        return self.compared(data, tile) | {
            "windows": jnp.stack([sums["held"] for sums in statistics.sliced]),
            "held": jnp.stack([sums["held"] / sums["asked"] for sums in statistics.sliced]),
        }

    @property
    def tile(self) -> Any:
        """The measurements of the only tile, leaves [M]."""
        return jax.tree.map(lambda leaf: leaf[0], self.tiles)

    @staticmethod
    def compared(data: Any, tile: Any) -> Tree:
        """All data, calculated, and their deviations from what was measured, fitted and held out, [M + D]."""
        measured = Measured(*(jnp.concatenate(leaves) for leaves in zip(*(m for of_one in tile for m in of_one))))
        off, count = measured.deviations(data), measured.count
        return {
            "data": data,
            "fitted": jnp.sqrt(count) * off,
            "held_out": jnp.where(count > 0, 0.0, off),
        }

    def along(self, shared: Tree) -> tuple[Ensemble, ...]:
        """The ensembles whose averages make couplings by the curves at these parameters."""
        curves = self.moving.curves(shared)
        return tuple(one.along(curves) for one in self.ensembles) if curves else self.ensembles

    def residuals(self, sums: Tree, shared: Tree) -> Any:
        """Deviations of fitted data, and of parameters from their priors; the loss is half the sum of their squares."""
        return jnp.concatenate([sums["fitted"], self.moving.priors(shared)])

    def loss(self, sums: Tree, common: Tree, shared: Tree) -> Any:
        """(chi2 + the square of the parameters' changes in units of their priors) / 2; infinite where fewer windows
        held than ``HELD``."""
        found = 0.5 * jnp.sum(self.residuals(sums, shared) ** 2)
        return jnp.where(jnp.min(sums["held"]) < HELD, jnp.inf, found)

    def metrics(self, sums: Tree, common: Tree, shared: Tree) -> dict[str, Any]:
        """chi2 of fitted and of held-out data, what the priors add, the windows that held, of the ensemble that has the
        fewest, and the parameters."""
        return self.moving.named(shared) | {
            "chi2": jnp.sum(sums["fitted"] ** 2),
            "chi2_held_out": jnp.sum(sums["held_out"] ** 2),
            "prior": jnp.sum(self.moving.priors(shared) ** 2),
            "windows": jnp.min(sums["windows"]),
        }
