"""Averages of observables over windows of simulated trajectories, and how well they agree with measurements.

A frame of the grid is a window: a short piece of a trajectory of each system, which begins where that of the round
before ended. Two estimators give the derivatives of the averages by the parameters:

pathwise       the derivative of what was simulated, for the noise of this draw: through each step of the trajectory
fluctuation    d<O>/dtheta = <dO/dtheta> - (<O dU/dtheta> - <O> <dU/dtheta>) / kT, of the frames as they are

Both are exact derivatives of sums over windows, so that the engine pulls back, or carries along, either alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.energies.constraints import Constraints
from hpcfit.energies.energy import Energy
from hpcfit.energies.lists import Lists
from hpcfit.fit.problem import Block, Cell, FrameRows, Params, Reduce, Statistics
from hpcfit.kinds.force_field.parameters import Moving
from hpcfit.observables.nmr import ScalarCouplings
from hpcfit.observables.observable import OfWalks, State, numbers
from hpcfit.pytrees import pytree
from hpcfit.simulation.barostat import GAIN, Barostat
from hpcfit.simulation.langevin import (
    Constrained,
    Course,
    Motion,
    PhasePoint,
    Scheme,
    Walk,
    calm,
    chosen,
    noise_key,
    unchanged,
    walk,
)
from hpcfit.simulation.malliavin import Weighed, Weighing

Tree = Any
HELD = 0.5  # of the windows of each system, that must not explode
FULL, SMALL = 1.0, 2.0  # see ``Ensemble.crowded``


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
    first of them ``skipped`` in averages. interval: ps between frames. anew: tangents begin anew at 0 after so many
    frames, of which then each time the first are skipped; 0: with the window.

    parameters: all classes of the energy. limits: of a step, (kinetic energy of a particle, its way). constraints: of
    distances, or None. lists: of neighbours, with as many slots as there are to be, or None where forces run over all
    pairs; a walk renews them wherever they do not hold. barostat: at constant pressure. boxed: its points have a box
    each, in place of ``box``, which is that of the start.
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
    constraints: Constraints | None = None
    lists: Lists | None = None
    barostat: Barostat | None = None
    boxed: bool = field(default=False, metadata={"static": True})
    anew: int = field(default=0, metadata={"static": True})

    @property
    def leaves(self) -> tuple[str, ...]:
        """The leaves of its points."""
        return tuple(name for name, leaf in self.blank._asdict().items() if leaf is not None)

    @property
    def blank(self) -> PhasePoint:
        """A point of zeros."""
        zeros = jnp.zeros((len(self.masses), 3))
        box, reach = self.boxed or None, None if self.barostat is None else jnp.zeros(())
        return PhasePoint(zeros, zeros, box and jnp.zeros((3, 3)), reach)

    def box_of(self, point: PhasePoint) -> Any:
        """The box of a point, [3, 3] nm or None."""
        return self.box if point.box is None else point.box

    def energy(self, theta: Tree, point: PhasePoint) -> Any:
        """The potential energy of a point, kJ/mol."""
        return self.potential(point.x, theta, self.box_of(point))

    @property
    def stretch(self) -> int:
        """Frames along which tangents are carried."""
        return self.anew or self.frames

    @property
    def counted(self) -> slice | np.ndarray:
        """The frames that averages count."""
        if not self.anew:
            return slice(self.skipped, None)
        return np.flatnonzero(np.arange(self.frames) % self.anew >= self.skipped)

    @property
    def ages(self) -> np.ndarray:
        """The frames since tangents began at 0, of each frame that averages count; 1 for the first frame."""
        return np.arange(self.frames)[self.counted] % self.stretch + 1

    def walked(self, theta: Tree, start: PhasePoint, key: Any, observe: Any, pulled_back: bool = False) -> Walk:
        """The walk of one window from a start, with what is observed of its frames. pulled_back: its derivatives will
        be pulled back and never carried along; only the points of frames are kept for that."""
        motion, checkpoint = self._motion(theta, pulled_back=pulled_back), pulled_back and self.stride > 1
        return walk(motion, self.begun(theta, start), key, self._course, observe, checkpoint)

    def weighed(self, theta: Tree, start: PhasePoint, key: Any, observe: Any) -> Walk:
        """A walk as ``walked``, with what is observed of its ``Weighed`` points; not where there are constraints."""
        motion = self._motion(theta)._replace(scheme=Weighing(self.scheme))
        return walk(motion, Weighed(start.x, start.v, jnp.zeros(())), key, self._course, observe)

    @property
    def _course(self) -> Course:
        return Course(self.stride * self.frames, self.stride, anew=self.anew)

    def moved(self, start: PhasePoint, key: Any, steps: int, first: Any) -> Walk:
        """So many steps from a start at the parameters given, of which nothing is observed, while the barostat adapts
        its moves; first: the number of the first one."""
        return walk(self._motion(self.parameters, GAIN), start, key, Course(steps, steps, first), lambda point: ())

    def begun(self, theta: Tree, point: PhasePoint) -> PhasePoint:
        """The point with positions and velocities that fulfil the constraints at these parameters."""
        return point if self.constraints is None else self._constrained(theta).begun(point)

    def each(self, function: Callable, *rows: Any) -> Any:
        """The function of each of some rows: side by side, or one after another where there are lists, which otherwise
        would all be renewed in every step in which one of them might have to be."""
        if self.lists is None:
            return jax.vmap(function)(*rows)
        return jax.lax.map(lambda row: function(*row), rows)

    def crowded(self, found: Walk) -> Any:
        """``FULL`` of a walk that broke because a list of neighbours had no slot left, ``SMALL`` where its box had
        become too small for a cut-off, else 0."""
        full = jnp.any(jnp.array([listed.full for listed in (found.memory or {}).values()], bool))
        small = False if self.barostat is None else jnp.min(jnp.diagonal(found.end.box)) < self.narrowest
        return jnp.where(found.broke >= 0, jnp.where(small, SMALL, jnp.where(full, FULL, 0.0)), 0.0)

    @property
    def narrowest(self) -> float:
        """Twice the largest cut-off, nm: its box must be as wide."""
        sources = self.potential.pair_sources.values()
        return 2 * max((source.cutoff for source in sources if source.periodic), default=0.0)

    def _motion(self, theta: Tree, gain: float = 0.0, pulled_back: bool = False) -> Motion:
        def forces(x: Any, lists: Any, box: Any = self.box) -> Any:
            return self.potential.forces(x, theta, box, lists, pulled_back=pulled_back)

        scheme = self.scheme if self.constraints is None else self._constrained(theta)
        renewed = unchanged if self.lists is None else self._renewed
        motion = Motion(forces, scheme, self._calm, self.lists, renewed, partial(self.begun, theta))
        if self.barostat is None:
            return motion
        energy = lambda point, lists: self.potential(point.x, theta, point.box, lists)  # noqa: E731
        return motion._replace(jump=partial(self.barostat.tried, energy, renewed, gain), every=self.barostat.every)

    def _renewed(self, lists: Lists, x: Any, *box: Any) -> Lists:
        return self.potential.current(lists, x, *(box or (self.box,)))

    def _constrained(self, theta: Tree) -> Constrained:
        positions = lambda moved, before: self.constraints.positions(moved, before, theta)  # noqa: E731
        return Constrained(self.scheme, self.interval / self.stride, positions, self.constraints.velocities)

    def _calm(self, new: PhasePoint, old: PhasePoint) -> Any:
        return calm(new, old, self.masses, *self.limits)

    def state(self, theta: Tree, point: PhasePoint) -> State:
        """A frame as observables see it; sites without mass stand where they belong."""
        x = self.potential.sites.place(jnp.asarray(point.x))
        potential = lambda x, box: self.potential(x, theta, box)  # noqa: E731
        return State(x, point.v, self.box_of(point), potential, theta, self.kT, self.masses)

    def observed(self, theta: Tree, point: PhasePoint) -> tuple:
        """The numbers of a frame that each observable averages, or keeps of the walk."""
        state = self.state(theta, point)
        return tuple(numbers(one, state) for one in self.observables)

    def of_window(self, kept: Sequence[Any], weight: Any) -> tuple[tuple, Any]:
        """The share of one window in the averages, and its weight, from the numbers of its frames, [frames, ...], and
        weights of the frames, [frames]."""
        mean = jnp.mean(weight[self.counted])
        return tuple(self._of_window(one, leaf, weight) for one, leaf in zip(self.observables, kept)), mean

    def _of_window(self, one: Any, kept: Any, weight: Any) -> Any:
        if isinstance(one, OfWalks):
            return one.of_walk(kept[self.skipped :], self.interval)
        return jnp.tensordot(weight[self.counted], kept[self.counted], 1) / len(self.ages)

    def averages(self, sums: Sequence[Any], weight: Any) -> tuple:
        """The numbers that measurements are compared with, from sums over windows."""
        return tuple(one.of_average(total / weight) for one, total in zip(self.observables, sums))

    def along(self, curves: Mapping[str, Any]) -> Ensemble:
        """The ensemble with couplings by curves of these coefficients."""
        moved = [one.along(curves) if isinstance(one, ScalarCouplings) else one for one in self.observables]
        return replace(self, observables=tuple(moved))

    def of_point(self, theta: Tree, point: PhasePoint) -> tuple:
        """The averages of a window that stands still."""
        still = lambda leaf: jnp.broadcast_to(leaf, (self.frames, *jnp.shape(leaf)))  # noqa: E731
        sums, weight = self.of_window(jax.tree.map(still, self.observed(theta, point)), jnp.ones(self.frames))
        return self.averages(sums, weight)


class Differences(NamedTuple):
    """Data that are factor (average - other average) + constant, leaves [D]. minuend, subtrahend: places among the
    averages of all ensembles, one after another."""

    minuend: Any
    subtrahend: Any
    factor: Any
    constant: Any

    def behind(self, averages: Any) -> Any:
        """All data: the averages [..., M], and the differences of some of them, [..., M + D]."""
        found = averages[..., self.minuend] - averages[..., self.subtrahend]
        return jnp.concatenate([averages, self.factor * found + self.constant], axis=-1)


NO_DIFFERENCES = Differences(*np.zeros((2, 0), int), *np.zeros((2, 0)))


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
        weight = jnp.ones(ensemble.frames)
        seen = jax.eval_shape(partial(ensemble.observed, ensemble.parameters), ensemble.blank)
        frames = jax.tree.map(lambda leaf: jnp.zeros((ensemble.frames, *leaf.shape)), seen)
        observed, _ = jax.eval_shape(ensemble.of_window, frames, weight)
        zeros = lambda leaf: np.zeros((*lead, *leaf.shape))  # noqa: E731
        return {
            "ends": jax.tree.map(zeros, ensemble.blank), "broke": np.zeros(lead), "crowded": np.zeros(lead),
            "observed": jax.tree.map(zeros, observed), "weight": np.zeros(lead),
        }  # fmt: skip

    # ---- loss ------------------------------------------------------------------------------------------------------

    def summary(self, statistics: Statistics, shared: Tree, tile: Any) -> Tree:
        """The deviations of all observables from what was measured, fitted and held out; and the windows that held."""
        pairs = zip(self.along(shared), statistics.sliced)
        found = [one.averages(sums["observed"], sums["weight"]) for one, sums in pairs]
        data = self.differences.behind(jnp.concatenate([value for values in found for value in values]))
        measured = Measured(*(jnp.concatenate(leaves) for leaves in zip(*(m for of_one in tile for m in of_one))))
        off, count = measured.deviations(data), measured.count
        return {
            "data": data,
            "fitted": jnp.sqrt(count) * off,
            "held_out": jnp.where(count > 0, 0.0, off),
            "windows": jnp.stack([sums["held"] for sums in statistics.sliced]),
            "held": jnp.stack([sums["held"] / sums["asked"] for sums in statistics.sliced]),
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
