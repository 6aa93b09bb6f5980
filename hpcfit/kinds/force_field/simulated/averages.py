"""Averages of observables over windows of simulated trajectories, and how well they agree with measurements.

A frame of the grid is a window: a short piece of a trajectory of each system, which begins where that of the round
before ended. Two estimators give the derivatives of the averages by the parameters:

pathwise       the derivative of what was simulated, for the noise of this draw: through each step of the trajectory
fluctuation    d<O>/dtheta = <dO/dtheta> - (<O dU/dtheta> - <O> <dU/dtheta>) / kT, of the frames as they are

Both are exact derivatives of sums over windows, so that the engine pulls back, or carries along, either alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.energies.energy import Energy
from hpcfit.fit.problem import Block, Cell, FrameRows, Params, Reduce, Statistics
from hpcfit.kinds.force_field.simulated.parameters import Moving
from hpcfit.observables.observable import OfWalks, State, numbers
from hpcfit.pytrees import pytree
from hpcfit.simulation.langevin import PhasePoint, Scheme, Walk, calm, noise_key, walk

Tree = Any


class Measured(NamedTuple):
    """The measurements of one observable, leaves [1, M], of the one tile there is.

    side: 1 counts only beyond an upper bound, -1 beyond a lower one, 0 on both sides. count: how often each counts in
    the fit, 0 if it is held out.
    """

    value: Any
    sigma: Any
    side: Any
    count: Any

    def deviations(self, calculated: Any) -> Any:
        """(calculated - measured) / sigma, 0 within a bound, [M]."""
        off = (calculated - self.value) / self.sigma
        inside = jnp.where(self.side > 0, off < 0, (self.side < 0) & (off > 0))
        return jnp.where(inside, 0.0, off)


@pytree
@dataclass(frozen=True)
class Ensemble:
    """A system in a state, and how a window of it is walked: so many ``frames``, a frame each ``stride`` steps, the
    first of them ``skipped`` in averages. interval: ps between frames.

    parameters: all classes of the energy. limits: of a step, (kinetic energy of a particle, its way).
    """

    potential: Energy
    parameters: Tree
    box: Any
    masses: Any
    kT: Any
    scheme: Scheme
    limits: tuple[Any, Any]
    observables: tuple
    interval: Any
    stride: int = field(metadata={"static": True})
    frames: int = field(metadata={"static": True})
    skipped: int = field(metadata={"static": True})

    def walked(self, theta: Tree, start: PhasePoint, key: Any, observe: Any, checkpoint: bool = False) -> Walk:
        """The walk of one window from a start, with what is observed of its frames."""
        steps, forces = self.stride * self.frames, self._forces(theta)
        return walk(
            forces, self.scheme, start, key, steps, self.stride, observe, fine=self._calm, checkpoint=checkpoint
        )

    def moved(self, start: PhasePoint, key: Any, steps: int, first: Any) -> Walk:
        """So many steps from a start at the parameters given, of which nothing is observed; first: the number of the
        first one."""
        forces = self._forces(self.parameters)
        return walk(forces, self.scheme, start, key, steps, steps, lambda point: (), first, self._calm)

    def _forces(self, theta: Tree) -> Any:
        return lambda x: -jax.grad(self.potential)(x, theta, self.box)

    def _calm(self, new: PhasePoint, old: PhasePoint) -> Any:
        return calm(new, old, self.masses, *self.limits)

    def state(self, theta: Tree, point: PhasePoint) -> State:
        """A frame as observables see it; sites without mass stand where they belong."""
        x = self.potential.sites.place(jnp.asarray(point.x))
        potential = lambda x, box: self.potential(x, theta, box)  # noqa: E731
        return State(x, point.v, self.box, potential, theta, self.kT, self.masses)

    def observed(self, theta: Tree, point: PhasePoint) -> tuple:
        """The numbers of a frame that each observable averages, or keeps of the walk."""
        state = self.state(theta, point)
        return tuple(numbers(one, state) for one in self.observables)

    def of_window(self, kept: Sequence[Any], weight: Any) -> tuple[tuple, Any]:
        """What one window adds to the averages, of what was observed of each frame, [frames, ...], and weights of the
        frames, [frames]; and the weight that it adds."""
        behind = slice(self.skipped, None)
        mean = jnp.mean(weight[behind])
        return tuple(self._of_window(one, leaf, weight) for one, leaf in zip(self.observables, kept)), mean

    def _of_window(self, one: Any, kept: Any, weight: Any) -> Any:
        if isinstance(one, OfWalks):
            return one.of_walk(kept[self.skipped :], self.interval)
        return jnp.tensordot(weight[self.skipped :], kept[self.skipped :], 1) / (self.frames - self.skipped)

    def averages(self, sums: Sequence[Any], weight: Any) -> tuple:
        """What measurements are compared with, from sums over windows."""
        return tuple(one.of_average(total / weight) for one, total in zip(self.observables, sums))

    def of_point(self, theta: Tree, point: PhasePoint) -> tuple:
        """The averages of a window that stands still."""
        still = lambda leaf: jnp.broadcast_to(leaf, (self.frames, *jnp.shape(leaf)))  # noqa: E731
        sums, weight = self.of_window(jax.tree.map(still, self.observed(theta, point)), jnp.ones(self.frames))
        return self.averages(sums, weight)


@pytree
@dataclass(frozen=True)
class Windows:
    """See ``hpcfit.fit.problem.Problem``: the averages of all ensembles, each over its windows.

    Shared parameters are the numbers u of ``Moving``. Local ones are no parameters: ``starts``, where the windows of
    each ensemble begin, and ``draw``, the number of the noise. Rows are ``ends``, from which the next draw starts,
    ``broke``, the step at which a window exploded or -1 (it is then left out of averages and derivatives, and starts
    again), and ``observed``, what each window adds to the averages. tiles: a ``Measured`` an observable, by ensemble.
    """

    tiles: Any
    ensembles: tuple[Ensemble, ...]
    moving: Moving
    seed: Any
    estimator: Literal["pathwise", "fluctuation"] = field(metadata={"static": True})
    checkpoint: bool = field(default=False, metadata={"static": True})

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
        walks = jax.vmap(partial(self._window, ensemble, theta, number))(ids, starts, draw)
        (observed, weight), ends, broke = walks
        held = broke < 0
        counted = jnp.where((ids >= 0) & held, 1.0, 0.0)
        sums = {
            "observed": tuple(jnp.tensordot(counted, leaf, 1) for leaf in observed),
            "weight": counted @ weight,
            "held": jnp.sum(counted),
        }
        again = lambda end, start: jnp.where(held[:, None, None], end, start)  # noqa: E731
        rows = {"ends": jax.tree.map(again, ends, starts), "broke": broke * 1.0, "observed": observed}
        return sums, jax.lax.stop_gradient(rows)

    def _window(self, ensemble: Ensemble, theta: Tree, number: int, window: Any, start: PhasePoint, draw: Any) -> tuple:
        """What a window adds to averages, its end, and where it broke."""
        key = jax.random.fold_in(noise_key(self.seed, draw.astype(int), window), number)
        if self.estimator == "pathwise":
            seen = lambda point: (ensemble.observed(theta, point), 1.0)  # noqa: E731
            found = ensemble.walked(theta, start, key, seen, self.checkpoint)
        else:
            fixed = jax.lax.stop_gradient(theta)
            seen = lambda point: (ensemble.observed(theta, point), self._weight(ensemble, theta, point))  # noqa: E731
            found = ensemble.walked(fixed, start, key, seen, self.checkpoint)
        return ensemble.of_window(*found.seen), found.end, found.broke

    @staticmethod
    def _weight(ensemble: Ensemble, theta: Tree, point: PhasePoint) -> Any:
        """1, with the derivative of exp(-U / kT) by the parameters: that of the fluctuation formula."""
        energy = ensemble.potential(point.x, theta, ensemble.box)
        return jnp.exp(-(energy - jax.lax.stop_gradient(energy)) / ensemble.kT)

    def redrawn(self, local: Tree, rows: Tree) -> Tree:
        """See ``fit.problem.DrawnProblem``: windows begin where those of the last draw ended."""
        return {"starts": tuple(one["ends"] for one in rows), "draw": local["draw"] + 1}

    def no_rows(self, frames: FrameRows) -> Tree:
        """Zeros like the rows of all windows of a rank."""
        lead = frames.ids.shape
        return tuple(self._no_rows(one, lead) for one in self.ensembles)

    def _no_rows(self, ensemble: Ensemble, lead: tuple[int, ...]) -> Tree:
        point = PhasePoint(*(jnp.zeros((len(ensemble.masses), 3)),) * 2)
        weight = jnp.ones(ensemble.frames)
        seen = jax.eval_shape(partial(ensemble.observed, ensemble.parameters), point)
        frames = jax.tree.map(lambda leaf: jnp.zeros((ensemble.frames, *leaf.shape)), seen)
        observed, _ = jax.eval_shape(ensemble.of_window, frames, weight)
        zeros = lambda leaf: np.zeros((*lead, *leaf.shape))  # noqa: E731
        return {
            "ends": jax.tree.map(zeros, point), "broke": np.zeros(lead), "observed": jax.tree.map(zeros, observed)
        }  # fmt: skip

    # ---- loss ------------------------------------------------------------------------------------------------------

    def summary(self, statistics: Statistics, shared: Tree, tile: Any) -> Tree:
        """The deviations of all observables from what was measured, fitted and held out; and the windows that held."""
        found = [one.averages(sums["observed"], sums["weight"]) for one, sums in zip(self.ensembles, statistics.sliced)]
        off = [m.deviations(value) for values, of_one in zip(found, tile) for value, m in zip(values, of_one)]
        count = jnp.concatenate([m.count for of_one in tile for m in of_one])
        off = jnp.concatenate(off)
        return {
            "averages": tuple(found),
            "fitted": jnp.sqrt(count) * off,
            "held_out": jnp.where(count > 0, 0.0, off),
            "windows": jnp.stack([sums["held"] for sums in statistics.sliced]),
        }

    def residuals(self, sums: Tree, shared: Tree) -> Any:
        """What the loss is half the square of: deviations of fitted data, and of parameters from their priors."""
        return jnp.concatenate([sums["fitted"], self.moving.priors(shared)])

    def loss(self, sums: Tree, common: Tree, shared: Tree) -> Any:
        """(chi2 + the square of the parameters' changes in units of their priors) / 2."""
        return 0.5 * jnp.sum(self.residuals(sums, shared) ** 2)

    def metrics(self, sums: Tree, common: Tree, shared: Tree) -> dict[str, Any]:
        """chi2 of fitted and of held-out data, what the priors add, the windows that held, of the ensemble that has the
        fewest, and the parameters."""
        return self.moving.named(shared) | {
            "chi2": jnp.sum(sums["fitted"] ** 2),
            "chi2_held_out": jnp.sum(sums["held_out"] ** 2),
            "prior": jnp.sum(self.moving.priors(shared) ** 2),
            "windows": jnp.min(sums["windows"]),
        }
