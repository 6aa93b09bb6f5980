"""Averages of observables over an ensemble that depends on parameters, and how well they agree with measurements.

Two problems give the same averages and differ in how these depend on the parameters. ``Windows`` simulates: each frame
of the grid is the start of a short piece of a trajectory, through which derivatives are carried. ``Reweighted`` has
frames of a sample and weighs them anew: at the parameters of the sample its gradient is the fluctuation formula

    d<O>/dtheta = <dO/dtheta> - (<O dU/dtheta> - <O> <dU/dtheta>) / kT

Parameters are a tree of arrays, of which ``start`` holds the values and the shared parameters of a fit the changes, in
units of ``scale``: an optimizer sees numbers of order 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.fit.problem import Block, Cell, FrameRows, Params, Reduce, Statistics
from hpcfit.observables.observable import Observable
from hpcfit.simulation.langevin import PhasePoint, Scheme, Walk, calm, noise_key, walk

Tree = Any
Potential = Callable[[Any, Tree, Any], Any]  # (positions [N, d], parameters, box) -> energy, a scalar


class Measured(NamedTuple):
    """Measurements of one observable. value, sigma: [1, M], of the one tile there is."""

    value: Any
    sigma: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Fitted:
    """The parameters a fit may change: theta = start + scale times the shared parameters."""

    start: Tree
    scale: Tree

    def at(self, shared: Tree) -> Tree:
        """The parameters theta."""
        return jax.tree.map(lambda start, scale, by: start + scale * by, self.start, self.scale, shared)


@dataclass(frozen=True)
class _Averages:
    """The half of both problems that knows of averages alone. tiles: a ``Measured`` an observable."""

    tiles: Any
    observables: tuple[Observable, ...]
    fitted: Fitted

    def init(self, seed: int, frames: FrameRows) -> Params:
        """No change of any parameter."""
        return Params(jax.tree.map(lambda start: np.zeros(np.shape(start)), self.fitted.start), {})

    def gauge(self, params: Params, frames: FrameRows, reduce: Reduce) -> Params:
        return params

    def of_frames(self, params: Params, block: Block) -> Any:
        return jnp.zeros(())

    def summary(self, statistics: Statistics, shared: Tree, tile: Any) -> Tree:
        """Each observable, and its squared deviation in units of sigma."""
        sums = statistics.sliced
        found = [one.of_average(total / sums["weight"]) for one, total in zip(self.observables, sums["observed"])]
        off = [jnp.sum(((value - m.value) / m.sigma) ** 2) for value, m in zip(found, tile)]
        return sums | {"observed": found, "chi2": jnp.stack(off)}

    def loss(self, sums: Tree, common: Tree, shared: Tree) -> Any:
        """Half of chi squared."""
        return 0.5 * jnp.sum(sums["chi2"])

    def _observed(self, x: Any, box: Any) -> tuple:
        return tuple(one.of_frame(x, box) for one in self.observables)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["tiles", "observables", "fitted", "potential", "scheme", "masses", "limits", "seed", "draw"],
    meta_fields=["steps", "stride", "checkpoint"],
)
@dataclass(frozen=True)
class Windows(_Averages):
    """Averages over windows of trajectories: the derivative of what was simulated, with the noise of this draw.

    The data of a cell are the starts of its windows, x and v [width, N, d], and their boxes, [width, 3, 3] or (). Rows
    are the ends of windows, x and v, which the next draw starts from, and broke, the step at which a window exploded
    (``simulation.langevin.Walk``) or -1: such a window is left out of averages and derivatives, and starts again.

    limits: of a step, (kinetic energy of a particle, way of a particle).
    """

    potential: Potential
    scheme: Scheme
    masses: Any
    limits: tuple[float, float]
    seed: Any
    draw: Any
    steps: int
    stride: int
    checkpoint: bool = False

    def partial(self, params: Params, cell: Cell) -> Tree:
        """Sums over the windows of a cell that did not explode."""
        return self.partial_and_rows(params, cell)[0]

    def partial_and_rows(self, params: Params, cell: Cell) -> tuple[Tree, Tree]:
        """(sums, {x, v, broke}), see the class."""
        theta = self.fitted.at(params.shared)
        windows = PhasePoint(cell.data["x"], cell.data["v"])
        walks = jax.vmap(partial(self._window, theta))(cell.ids, windows, cell.data["box"])
        held = walks.broke < 0
        counted = jnp.where((cell.ids >= 0) & held, 1.0, 0.0)
        observed = tuple(jnp.tensordot(counted, leaf, 1) for leaf in walks.seen)
        again = lambda end, start: jnp.where(held[:, None, None], end, start)  # noqa: E731
        ends = jax.tree.map(again, walks.end, windows)
        return {"observed": observed, "weight": jnp.sum(counted)}, {**ends._asdict(), "broke": walks.broke * 1.0}

    def _window(self, theta: Tree, number: Any, start: PhasePoint, box: Any) -> Walk:
        """The walk of a window, whose observations are the means over its frames."""
        box = None if isinstance(box, tuple) else box
        found = walk(
            lambda x: -jax.grad(self.potential)(x, theta, box),
            self.scheme,
            start,
            noise_key(self.seed, self.draw, number),
            self.steps,
            self.stride,
            lambda point: self._observed(point.x, box),
            fine=partial(calm, masses=self.masses, hottest=self.limits[0], furthest=self.limits[1]),
            checkpoint=self.checkpoint,
        )
        return found._replace(seen=tuple(leaf.mean(axis=0) for leaf in found.seen))

    def no_rows(self, frames: FrameRows) -> Tree:
        """Zeros like the ends of all windows of a rank."""
        of_each = np.zeros((*frames.ids.shape, len(self.masses), 3))
        return {"x": of_each, "v": of_each, "broke": np.zeros(frames.ids.shape)}

    def metrics(self, sums: Tree, common: Tree, shared: Tree) -> dict[str, Any]:
        """chi2, and the number of windows that held."""
        return {"chi2": jnp.sum(sums["chi2"]), "windows": sums["weight"]}


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["tiles", "observables", "fitted", "potential", "kT", "shift"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Reweighted(_Averages):
    """Averages over frames of a sample, drawn at the parameters ``fitted.start`` and weighed by exp(-(U - U_start) /
    kT).

    The data of a cell are frames, x [width, N, d], and their boxes. shift: a constant of the sample that keeps the
    exponentials within bounds, in kT. The square of the weights' sum over the sum of their squares is the number of
    frames that the averages rest on.
    """

    potential: Potential
    kT: Any
    shift: Any = 0.0

    def partial(self, params: Params, cell: Cell) -> Tree:
        """Sums over the frames of a cell, each with its weight."""
        theta = self.fitted.at(params.shared)

        def frame(x: Any, box: Any) -> tuple[Any, tuple]:
            box = None if isinstance(box, tuple) else box
            change = self.potential(x, theta, box) - self.potential(x, self.fitted.start, box)
            return jnp.exp(self.shift - change / self.kT), self._observed(x, box)

        weight, observed = jax.vmap(frame)(cell.data["x"], cell.data["box"])
        weight = jnp.where(cell.ids >= 0, weight, 0.0)
        observed = tuple(jnp.tensordot(weight, leaf, 1) for leaf in observed)
        return {"observed": observed, "weight": jnp.sum(weight), "square": jnp.sum(weight**2)}

    def metrics(self, sums: Tree, common: Tree, shared: Tree) -> dict[str, Any]:
        """chi2, and the effective number of frames."""
        return {"chi2": jnp.sum(sums["chi2"]), "ess": sums["weight"] ** 2 / sums["square"]}
