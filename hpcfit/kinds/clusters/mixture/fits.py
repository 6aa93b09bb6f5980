"""Mixtures opened from components and a curve, and their fits: the result, leave-out, and errors by bootstrap.

A study calls ``Mixture.of``, then ``fit_mixture`` with its ``Fits``; ``Unrecorded`` stands in for these in tools and
tests, and runs the same loop without files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, NamedTuple

import jax
import numpy as np

from hpcfit.errors import InputError
from hpcfit.fit import hooks
from hpcfit.fit.by_blocks import Reverse
from hpcfit.fit.gradient import Frames, Gradient
from hpcfit.fit.grid import Grid, Shape, make_grid
from hpcfit.fit.inner import InnerProduct
from hpcfit.fit.loop import Step, fit
from hpcfit.fit.optimizers import choose_optimizer
from hpcfit.fit.problem import FrameRows, Params
from hpcfit.fit.reduction import choose_sum
from hpcfit.fit.running_sum import Reductions
from hpcfit.fit.stages import Fits, Fitted
from hpcfit.kinds.clusters.mixture.components import Component
from hpcfit.kinds.clusters.mixture.config import SPHERES
from hpcfit.kinds.clusters.mixture.problem import (
    LINEAR,
    TILE,
    WIDTH,
    Intensities,
    Interference,
    MixtureFit,
    Points,
    Prior,
    Spheres,
)
from hpcfit.observables.pair_moments import pairs_of
from hpcfit.ranks import Ranks
from hpcfit.readers.scattering_curves import ScatteringCurve, at_momenta
from hpcfit.store.stream import Chunk

GRID = (0.05, 0.2, 0.5, 0.8)  # of the width between bounds, where the parameters of S(q) are tried
ENOUGH = 1e-9  # relative change of the loss that ends fits which are only compared
BOUNDS = {"radius": (3.0, 20.0), "fraction": (0.0, 0.5), "charge": (0.0, 10.0)}  # A, 1, e
STARTS = {"radius": 6.0, "fraction": 0.1, "charge": 1.0}


@dataclass(frozen=True)
class MixtureOptions:
    """The choices of a fit. weights: whether populations are fitted, held to the predicted ones by alpha; offset: if a
    constant is; pairs: of species whose B is fitted, each by a factor exp(+-b_width) of its start; spheres: S(q) with
    bounds and starts of its parameters by name, debye_length and bjerrum in A; profiled: whether scale, solvent and
    offset are found in closed form, or are parameters of the optimizer."""

    weights: bool = True
    alpha: float = 0.0
    offset: bool = True
    pairs: tuple[tuple[str, str], ...] = ()
    b_width: float = 1.0
    spheres: Spheres = "none"
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    starts: Mapping[str, float] = field(default_factory=dict)
    debye_length: float = np.inf
    bjerrum: float = 0.0
    profiled: bool = True

    @property
    def sphere_names(self) -> tuple[str, ...]:
        """The parameters of S(q)."""
        return SPHERES[self.spheres]

    def bounds_of(self, name: str) -> tuple[float, float]:
        """The bounds of a parameter of S(q)."""
        return tuple(self.bounds.get(name, BOUNDS[name]))

    def start_of(self, name: str) -> float:
        """The start of a parameter of S(q), strictly within its bounds."""
        (low, high), start = self.bounds_of(name), self.starts.get(name, STARTS[name])
        if not low < start < high:
            raise InputError(f"S(q) starts at {name} = {start}", remedy=f"start between {low} and {high}")
        return start


class MixtureResult(NamedTuple):
    """A fitted mixture.

    weights: [C], of sum 1; parameters: all others by name: scale, solvent, offset, B of refined pairs as factors, and
    those of S(q); chi2, points, free: parameters that were fitted; loss; model, mean, contributions: [Q], [Q] and
    [C, Q], the fitted curve, the mean of the components before scale and S(q), and what each adds to the curve; params:
    of this rank, for fits that begin there; stopped: why the fit ended.
    """

    weights: np.ndarray
    parameters: dict[str, float]
    chi2: float
    chi2_held_out: float
    points: int
    free: int
    loss: float
    model: np.ndarray
    mean: np.ndarray
    contributions: np.ndarray
    params: Params
    stopped: str = ""

    @property
    def reduced(self) -> float:
        """The chi2 a degree of freedom."""
        return self.chi2 / max(self.points - self.free, 1)


@dataclass(frozen=True)
class Mixture:
    """Components, a curve and options, the same on every rank. counts: [Q], how often each point counts, 0 where it is
    held out (``held_out``: [Q] of bool) or not drawn; solvent: [Q] or None."""

    components: tuple[Component, ...]
    species: tuple[str, ...]
    curve: ScatteringCurve
    options: MixtureOptions
    solvent: np.ndarray | None
    counts: np.ndarray
    held_out: np.ndarray

    @classmethod
    def of(
        cls, components: Sequence[Component], species: Sequence[str], curve: ScatteringCurve,
        options: MixtureOptions | None = None, solvent: ScatteringCurve | None = None,
    ) -> Mixture:  # fmt: skip
        """A mixture of the components of positive population. species: of their pairs; solvent: a measured curve of the
        solvent, interpolated on the curve's q. Raises InputError where too little is given."""
        used, options = tuple(one for one in components if one.weight > 0), options or MixtureOptions()
        if not used:
            raise InputError("no component has a population above 0", remedy="check the counts and the predictions")
        if wrong := [one.label for one in used if one.own.shape != curve.q.shape]:
            raise InputError(
                f"component '{wrong[0]}' is not on the {len(curve.q)} points of {curve.source}",
                remedy="compute components at the q of the curve",
            )
        if options.spheres == "charged" and not np.isfinite(options.debye_length):
            raise InputError("S(q) of charged spheres has no screening length", remedy="give debye_length in A")
        background = None if solvent is None else at_momenta(solvent, curve.q)[0]
        found = cls(
            used, tuple(species), curve, options, background, np.ones(len(curve.q)), np.zeros(len(curve.q), bool)
        )
        if found.free >= len(curve.q):
            raise InputError(
                f"{curve.source} has {len(curve.q)} points for {found.free} free parameters",
                remedy="fit fewer components or parameters",
            )
        return found

    # ---- sizes -----------------------------------------------------------------------------------------------------

    @property
    def n_blocks(self) -> int:
        """Blocks of components."""
        return -(-len(self.components) // WIDTH)

    @property
    def n_tiles(self) -> int:
        """Tiles of q."""
        return -(-len(self.curve.q) // TILE)

    @property
    def free(self) -> int:
        """The number of free parameters. A prior of populations (alpha) leaves fewer than this in effect."""
        chosen, options = len(self.components) - 1 if self.options.weights else 0, self.options
        return chosen + 1 + (self.solvent is not None) + options.offset + len(options.pairs) + len(options.sphere_names)

    def grid(self, world: Ranks) -> Grid:
        """All ranks along q; collective."""
        return make_grid(world, Shape(1, world.size, "all ranks along q"), self.n_blocks, self.n_tiles)

    # ---- the problem -----------------------------------------------------------------------------------------------

    def gradient(self, grid: Grid, reductions: Reductions = "reproducible") -> Reverse:
        """Value and gradient on this rank's tiles."""
        own, blocks = slice(grid.tiles.start, grid.tiles.stop), range(grid.blocks.start, grid.blocks.stop)
        rows = np.arange(blocks.start * WIDTH, blocks.stop * WIDTH).reshape(-1, WIDTH)
        held = rows < len(self.components)
        taken = np.where(held, rows, 0)
        ids = np.where(held, rows, -1)
        w0 = self.prior()
        more = Prior(np.log(w0)[taken], np.stack([one.sigma**2 for one in self.components])[taken])
        rows, data = FrameRows(ids, len(self.components), more), self._intensities(own, taken)
        chunk = Chunk(slice(0, len(ids)), slice(0, len(grid.tiles)), data)
        frames = Frames(rows, lambda: iter([chunk]))
        return Reverse(self.problem(own), frames, grid, choose_sum(reductions, grid))

    def prior(self) -> np.ndarray:
        """The predicted populations, [C], of sum 1."""
        weight = np.array([one.weight for one in self.components], float)
        return weight / weight.sum()

    def problem(self, tiles: slice = slice(None)) -> MixtureFit:
        """The problem on some tiles."""
        options, pairs = self.options, pairs_of(self.species)
        known = {pair: n for n, pair in enumerate(pairs)} | {pair[::-1]: n for n, pair in enumerate(pairs)}
        if wrong := [pair for pair in options.pairs if tuple(pair) not in known]:
            raise InputError(
                f"B of the pair {'-'.join(wrong[0])} is to be fitted",
                remedy=f"the species are {', '.join(self.species)}",
            )
        pair_of = np.eye(len(pairs))[[known[tuple(pair)] for pair in options.pairs]].reshape(-1, len(pairs))
        bounds = np.array([options.bounds_of(name) for name in options.sphere_names]).reshape(-1, 2)
        start = np.array([options.start_of(name) for name in options.sphere_names])
        share = (start - bounds[:, 0]) / (bounds[:, 1] - bounds[:, 0])
        return MixtureFit(
            Points(*(self._tiled(values)[tiles] for values in self._points())), float(options.alpha), pair_of,
            float(options.b_width) ** -2, Interference(*bounds.T, options.debye_length, options.bjerrum),
            np.log(share / (1 - share)), *self._linear_start(), self._units(), options.spheres, options.weights,
            self.solvent is not None, options.offset, options.profiled,
        )  # fmt: skip

    def _points(self) -> Points:
        c = self.curve
        solvent = np.zeros_like(c.q) if self.solvent is None else self.solvent
        return Points(c.q, c.intensity, self.counts / c.sigma**2, self.held_out / c.sigma**2, solvent)

    def _linear_start(self) -> tuple[np.ndarray, np.ndarray]:
        """(ln scale, ln solvent, offset) from the fit of the predicted mean, and a map that makes chi2 there equally
        curved in each direction; nothing where they are profiled."""
        if self.options.profiled:
            return np.zeros(3), np.eye(3)
        from scipy.optimize import lsq_linear

        columns = np.stack([self._mean(self.prior()), self._points().solvent, np.ones(len(self.curve.q))], axis=1)
        A = columns / self.curve.sigma[:, None] * [1, self.solvent is not None, self.options.offset]
        b, size = self.curve.intensity / self.curve.sigma, np.maximum(np.linalg.norm(A, axis=0), 1e-300)
        found = lsq_linear(A / size, b, ([0, 0, -np.inf], np.inf)).x / size
        found[:2] = np.maximum(found[:2], 1e-3 * np.linalg.norm(b) / size[:2])
        J = A * [found[0], found[1], 1]
        used = np.linalg.norm(J, axis=0) > 0
        H = J.T @ J + np.diag(~used)
        eigenvalues, vectors = np.linalg.eigh(H)
        turned = vectors / np.sqrt(np.maximum(eigenvalues, 1e-10 * eigenvalues[-1]))
        # The stiffest direction keeps its length, so that these curvatures are near those of the other parameters.
        return np.array([*np.log(found[:2]), found[2]]), turned / np.linalg.norm(turned[:, -1])

    def _units(self) -> np.ndarray:
        """What brings the predicted mean, the solvent and 1 to the size of the measured curve, [3]."""
        measured = np.linalg.norm(self.curve.intensity / self.curve.sigma)
        columns = self._mean(self.prior()), self._points().solvent, np.ones(len(self.curve.q))
        size = np.array([np.linalg.norm(column / self.curve.sigma) for column in columns])
        return measured / np.where(size > 0, size, measured)

    def _tiled(self, values: np.ndarray) -> np.ndarray:
        """[..., Q] as [tiles, ..., TILE], padded by zeros."""
        padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, self.n_tiles * TILE - values.shape[-1])])
        return np.moveaxis(padded.reshape(*values.shape[:-1], self.n_tiles, TILE), -2, 0)

    def _intensities(self, tiles: slice, rows: np.ndarray) -> Intensities:
        """Leaves [tiles, blocks, WIDTH, ...] of this rank."""
        own, damped = (self._tiled(np.stack([getattr(c, what) for c in self.components])) for what in ("own", "damped"))
        square = self._tiled(self.curve.q**2)[tiles]
        square = np.broadcast_to(square[:, None, None], (len(square), *rows.shape, TILE))
        return Intensities(own[tiles][:, rows], damped[tiles][:, rows], square)

    # ---- results ---------------------------------------------------------------------------------------------------

    def _mean(self, weights: np.ndarray, factor: np.ndarray | None = None) -> np.ndarray:
        return np.tensordot(weights, self.intensities(factor), 1)

    def intensities(self, factor: np.ndarray | None = None) -> np.ndarray:
        """I_c(q) of all components, [C, Q], with B multiplied by factors of the pairs [P]."""
        factor = np.ones(len(pairs_of(self.species))) if factor is None else factor
        moved = (one._replace(sigma=one.sigma * np.sqrt(factor)) for one in self.components)
        return np.stack([one.intensity(self.curve.q) for one in moved])

    def result(self, evaluate: Gradient, fitted: Fitted) -> MixtureResult:
        """The result of a fit, the same on every rank; collective."""
        at = evaluate.value(fitted.params)
        rows, problem = evaluate.frames.rows, evaluate.problem
        weights = np.zeros(len(self.components))
        e, _ = problem.weights(at.params, rows)
        weights[rows.ids[rows.ids >= 0]] = np.asarray(e)[rows.ids >= 0]
        weights = evaluate.grid.frames.sum(weights)
        weights /= weights.sum()
        shared = at.params.shared
        linear = np.asarray(problem.linear(at.sums, shared))
        factors = np.exp(np.asarray(shared["log_b"]))
        parameters = dict(zip(LINEAR, linear.tolist()))
        parameters |= {f"B {'-'.join(pair)}": float(f) for pair, f in zip(self.options.pairs, factors)}
        if self.options.spheres != "none":
            parameters |= dict(zip(self.options.sphere_names, np.asarray(problem.sphere_values(shared)).tolist()))
        curves = self.intensities(np.exp(np.asarray(shared["log_b"]) @ problem.pair_of))
        S = np.asarray(problem.structure_factor(self.curve.q, shared))
        contributions = linear[0] * S * weights[:, None] * curves
        solvent = 0.0 if self.solvent is None else linear[1] * self.solvent
        metrics = evaluate.metrics(at)
        return MixtureResult(
            weights, parameters, metrics["chi2"], metrics["chi2_held_out"], int(np.sum(self.counts)), self.free,
            at.loss,
            contributions.sum(axis=0) + solvent + linear[2], weights @ curves, contributions, at.params,
            fitted.stopped,
        )  # fmt: skip


# ---- fits ----------------------------------------------------------------------------------------------------------


def fit_mixture(
    mixture: Mixture, fits: Fits, name: str = "mixture", tolerance: float = 0.0, start: Params | None = None,
    grid: Grid | None = None,
) -> MixtureResult:  # fmt: skip
    """The fit of a mixture, from the predicted populations or from the parameters of another fit; collective. grid: of
    another fit of the same curve: each new one takes communicators, of which MPI has some thousands."""
    evaluate = mixture.gradient(mixture.grid(fits.grid.world) if grid is None else grid)
    start = _best_start(mixture, evaluate) if start is None else start
    return mixture.result(evaluate, fits.fit(name, start, evaluate, tolerance=tolerance))


def _best_start(mixture: Mixture, evaluate: Gradient) -> Params:
    """The predicted populations, with the parameters of S(q) of least loss on a coarse grid, unless starts are given:
    far from the best ones the scale may be 0, where no derivative leads away from it; collective."""
    start = evaluate.problem.init(0, evaluate.frames.rows)
    if not mixture.options.sphere_names or mixture.options.starts:
        return start
    shares = np.array(list(product(GRID, repeat=len(mixture.options.sphere_names))))
    tried = [start, *(Params(start.shared | {"spheres": np.log(s / (1 - s))}, start.local) for s in shares)]
    losses = np.array([float(evaluate.value(one).loss) for one in tried])
    return tried[int(np.argmin(np.where(np.isfinite(losses), losses, np.inf)))]


class LeftOut(NamedTuple):
    """The misfit of points that were not fitted. chi2: of each fold, a point; fitted: of the points that were fitted
    there, a point; q_min, q_max: of each fold."""

    chi2: np.ndarray
    fitted: np.ndarray
    q_min: np.ndarray
    q_max: np.ndarray


def leave_out(
    mixture: Mixture, fits: Fits, folds: int = 5, start: Params | None = None, name: str = "left out"
) -> LeftOut:
    """Fits without each of so many segments of q, which are then predicted; collective. A segment of successive points
    is harder to predict than scattered ones, and says more. start: of each fit, such as the result's parameters."""
    segments, found = np.array_split(np.arange(len(mixture.curve.q)), folds), []
    grid = mixture.grid(fits.grid.world)
    for number, segment in enumerate(segments):
        out = np.zeros(len(mixture.curve.q), bool)
        out[segment] = True
        one = replace(mixture, counts=np.where(out, 0.0, 1.0), held_out=out)
        result = fit_mixture(one, fits, f"{name} {number + 1}", ENOUGH, start, grid)
        found.append((result.chi2_held_out / len(segment), result.chi2 / result.points))
    chi2, fitted = np.array(found).T
    q = mixture.curve.q
    return LeftOut(chi2, fitted, q[[s[0] for s in segments]], q[[s[-1] for s in segments]])


class Bootstrap(NamedTuple):
    """Refits of resamples. weights: [resamples, C]; parameters: [resamples] by name; chi2: [resamples]."""

    weights: np.ndarray
    parameters: dict[str, np.ndarray]
    chi2: np.ndarray

    @property
    def weight_errors(self) -> np.ndarray:
        """The standard errors of the weights, [C]."""
        return self.weights.std(axis=0, ddof=1)

    def errors(self) -> dict[str, float]:
        """The standard errors of all other parameters."""
        return {name: float(values.std(ddof=1)) for name, values in self.parameters.items()}


def bootstrap(
    mixture: Mixture, fits: Fits, resamples: int, by_block: Mapping[str, Sequence[Component]] | None = None,
    block: int = 1, seed: int = 1, start: Params | None = None, name: str = "resample",
) -> Bootstrap:  # fmt: skip
    """Refits with points of q drawn with replacement, in runs of ``block`` neighbours (Künsch 1989,
    10.1214/aos/1176347265), and with components drawn from blocks of frames where they are given; collective.

    by_block: the component of a label in each block of frames (weight: its count there), the same number of blocks for
    every label. Resample n is a function of (seed, n). start: of each fit, such as the result's parameters.
    """
    found, grid = [], mixture.grid(fits.grid.world)
    for number in range(resamples):
        random = np.random.default_rng((seed, number))
        one = replace(mixture, counts=_drawn(len(mixture.curve.q), block, random))
        if by_block:
            one = replace(one, components=_redrawn(mixture.components, by_block, random))
        found.append(fit_mixture(one, fits, f"{name} {number + 1}", ENOUGH, start, grid))
    parameters = {key: np.array([one.parameters[key] for one in found]) for key in found[0].parameters}
    return Bootstrap(np.stack([one.weights for one in found]), parameters, np.array([one.chi2 for one in found]))


def _drawn(points: int, block: int, random: np.random.Generator) -> np.ndarray:
    """How often each point is drawn, [Q]."""
    pieces = np.array_split(np.arange(points), -(-points // block))
    counts = np.bincount(random.integers(len(pieces), size=len(pieces)), minlength=len(pieces))
    return np.repeat(counts, [len(piece) for piece in pieces]).astype(float)


def _redrawn(
    components: Sequence[Component], by_block: Mapping[str, Sequence[Component]], random: np.random.Generator
) -> tuple[Component, ...]:
    """Components averaged over drawn blocks of frames, the same blocks for all labels; as they are where none of a
    label's blocks was drawn."""
    n = len(next(iter(by_block.values())))
    drawn = np.bincount(random.integers(n, size=n), minlength=n)

    def mean(one: Component) -> Component:
        parts = by_block.get(one.label, ())
        share = np.array([times * part.weight for times, part in zip(drawn, parts)])
        if not share.sum() > 0:
            return one
        share /= share.sum()
        own, damped = (sum(s * getattr(p, what) for s, p in zip(share, parts)) for what in ("own", "damped"))
        return one._replace(own=own, damped=damped)

    return tuple(mean(one) for one in components)


# ---- without a run -------------------------------------------------------------------------------------------------


@dataclass
class Unrecorded:
    """The part of ``fit.stages.Fits`` that these fits need, by the same loop and L-BFGS, without records: for tools and
    tests. A fit ends when its loss changes by less than ``relative`` in each of 5 steps."""

    world: Ranks = field(default_factory=Ranks)
    steps: int = 2000
    relative: float = 1e-11
    warnings: list[str] = field(default_factory=list)

    @property
    def grid(self) -> Grid:
        """A grid of these ranks, for its ``world``."""
        return make_grid(self.world, Shape(1, self.world.size, ""), 1, self.world.size)

    def fit(self, name: str, start: Params, evaluate: Gradient, *, tolerance: float = 0.0, **_: Any) -> Fitted:
        """See ``fit.stages.Fits.fit``."""
        inner = InnerProduct(evaluate.add)
        optimizer = choose_optimizer("lbfgs", {"noise": 1e-12, "memory": 20}, None, inner)
        calls = [0]

        def counted(params: Params) -> Any:
            calls[0] += 1
            return evaluate(params)

        state = optimizer.start(start, counted)
        ends = [hooks.MaxSteps(self.steps), hooks.SmallChange(max(self.relative, tolerance), 5)]
        outcome = fit(optimizer, counted, inner.norm, ends, Step(0, state, inner.norm(state.gradient), (state.loss,)))
        state = outcome.last.state
        metrics = {"loss": float(state.loss), **evaluate.metrics(evaluate.value(state.params))}
        params = jax.tree.map(np.asarray, state.params)
        return Fitted(name, params, metrics, outcome.last.number, calls[0], outcome.stop.reason)
