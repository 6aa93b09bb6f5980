"""Weights of trajectory frames such that their diffuse intensity agrees best with a measured map.

    x_w(h) = sum_t w_t |F_t(h)|^2 - |sum_t w_t F_t(h)|^2          Guinier's diffuse intensity

is compared with y(h) over Laue orbits (``kinds.frame_weights.objectives``, ``kinds.frame_weights.likelihoods``), for
weights of some kind (``kinds.frame_weights.weight_kinds``) that are held to their prior by regularisers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.fit.problem import Block, Cell, FrameRows, Params, Reduce, Statistics
from hpcfit.kinds.frame_weights.experiments import Experiments
from hpcfit.kinds.frame_weights.moments import weighted_moments
from hpcfit.kinds.frame_weights.objectives import (
    Directions,
    Objective,
    OrbitTerms,
    PearsonSums,
    Splines,
    SplineSums,
    correlation,
    part_of,
    partial_correlation,
    pearson_terms,
    second_moments,
    spline_sums,
)  # fmt: skip
from hpcfit.kinds.frame_weights.one_pass import as_read, one_pass
from hpcfit.kinds.frame_weights.orbit_sums import Coefficients, Orbits
from hpcfit.kinds.frame_weights.weight_kinds import Simplex, WeightKind
from hpcfit.pytrees import pytree

KEPT_OF_DIFFERENCES = 1e-5  # the relative precision of x at least


class WeightSums(NamedTuple):
    """Sums over frames of the weights w and prior weights w0; those of the simplex normalised or not."""

    w: jax.Array  # sum w
    ww: jax.Array  # sum w^2, for the effective sample size
    wl: jax.Array  # sum w l, for the Kullback-Leibler divergence; l = ln(w / w0) on the simplex
    ww0: jax.Array  # sum w w0
    w0w0: jax.Array  # sum w0^2
    absolute: jax.Array  # sum |w|
    steps: jax.Array  # sum of (l_t - l_(t-1))^2 along the trajectories
    of_groups: jax.Array  # sum w of each group whose sum is free, [groups]
    of_groups0: jax.Array  # sum w0 of each, [groups]
    w0: jax.Array  # sum w0
    features: Any = ()  # sum w g [F], of what the data of experiments average


class Moments(NamedTuple):
    """Sums over frames for the reflections of a tile, of the stored (F - F0) / s."""

    wF: jax.Array  # sum w F, [width, 2]
    wFF: jax.Array  # sum w |F|^2, [width]


class FitSums(NamedTuple):
    """The sums of a fit. shells: [parts, shells], what CC is reported of; radial: and anisotropic CC. objective: what
    is minimised. leakage, total: sums of |Bragg intensity in x| and of |x|, of the fitted orbits."""

    shells: PearsonSums
    radial: SplineSums
    objective: Any
    leakage: jax.Array
    total: jax.Array


class Prepared(NamedTuple):
    """For ``one_pass``. of_tiles: F0, share and orbit, leaves [tiles, ...]; of_fits: basis and powered, leaves [fits,
    tiles, ...]; power: of x in the last of the directions; held: [T], which rows are frames of any fit."""

    of_tiles: tuple
    of_fits: tuple
    power: int
    held: np.ndarray


class Tiles(NamedTuple):
    """Constants of the reflections, [tiles, width]; the orbits of a tile are whole, and its unused end is padding.

    orbit: which of the tile's orbits (0 ... width - 1) a reflection belongs to. share: s(h)^2 / reflections of its
    orbit, 0 for padding. F0: [tiles, width, 2], F0(h) / s(h), or None where weights sum to 1. For each orbit: y, in
    units of the objective; multiplicity, 0 for padding; weight, of an orbit in the objective, multiplicity included;
    variance, of y; drawn, how often it counts; shell; part, 1 if held out. first_shell: the lowest of each tile.
    background, radial: splines in 1/d.
    """

    orbit: jax.Array
    share: jax.Array
    F0: jax.Array | None
    y: jax.Array
    multiplicity: jax.Array
    weight: jax.Array
    variance: jax.Array
    drawn: jax.Array
    shell: jax.Array
    part: jax.Array
    first_shell: jax.Array
    background: Splines
    radial: Splines


@pytree
@dataclass(frozen=True)
class Regularisers:
    """The cost of leaving the prior weights w0, added to the misfit:

        theta D(w || w0) + l1 sum |w| + l2 T sum (w - w0)^2 + smoothness / T sum (l_t - l_(t-1))^2

    D is the Kullback-Leibler divergence, or the part of it within groups (``FrameWeights.priced``). The last runs over
    successive frames of each trajectory, l = ln(w / w0) on the simplex and u of other weights.
    """

    theta: float = 0.0
    l1: float = 0.0
    l2: float = 0.0
    smoothness: float = 0.0


class PriorRows(NamedTuple):
    """The numbers of each frame that the weights know beside the data (``fit.problem.FrameRows.more``), [blocks, 64].

    log_prior: ln of the frames' weights before any data, whose sum over all ranks is 1; 0 where there is no frame.
    follows: bool, whether a frame comes next to that of the row before it in one trajectory; the row before the first
    of a block is the last of the block before. group: int, which group of free sum the frame is of, -1 where
    there is none (``FrameWeights.priced``). features: [blocks, 64, F], what the data of experiments average.
    """

    log_prior: np.ndarray
    follows: np.ndarray
    group: np.ndarray
    features: Any = ()


@pytree
@dataclass(frozen=True)
class FrameWeights:
    """The problem `frame-weights` (see ``fit.problem``: it is selectable, on the simplex, of one pass, and compares
    neighbours).

    Parameters: one u a frame, local, from which ``kind`` makes its weight; the nuisances of the objective, shared.
    total: frames of the data set. tile_shells: the most resolution shells that one tile has. n_radial: splines of the
    anisotropic CC. parts: 2 if some orbits are held out of the fit and judged apart, else 1. neighbours: whether they
    are compared along trajectories (``Regularisers.smoothness``). n_groups: groups of frames whose sums of weights
    are free. experiments: of averages over the frames; map_weight: that of the map's misfit beside chi2 / 2 of theirs.
    """

    tiles: Tiles
    objective: Objective
    regularisers: Regularisers
    total: int = field(metadata={"static": True})
    n_shells: int = field(metadata={"static": True})
    tile_shells: int = field(metadata={"static": True})
    n_radial: int = field(metadata={"static": True})
    kind: WeightKind = field(default=Simplex(), metadata={"static": True})
    precision: str = field(default="float32", metadata={"static": True})
    parts: int = field(default=1, metadata={"static": True})
    neighbours: bool = field(default=False, metadata={"static": True})
    n_groups: int = field(default=0, metadata={"static": True})
    experiments: Experiments | None = None
    map_weight: float = 1.0

    def init(self, seed: int, frames: FrameRows) -> Params:
        """The prior weights."""
        return self.at_weights(np.exp(frames.more.log_prior), frames)

    def at_weights(self, w: np.ndarray, frames: FrameRows) -> Params:
        """The parameters at weights w [blocks, 64], with nuisances as they start."""
        return Params(self._shared(), {"u": self.kind.parameters(w, frames)})

    def _shared(self) -> dict:
        """The shared parameters at the start."""
        return self.objective.start() | (self.experiments.start() if self.experiments else {})

    def random_start(self, seed: int, frames: FrameRows) -> Params:
        """A random start, drawn by (seed, frame id)."""

        @jax.jit
        @jax.vmap
        def draw(i):
            key = jax.random.fold_in(jax.random.key(seed), i)
            return jax.random.normal(key, dtype=float), jax.random.uniform(key, dtype=float)

        u = np.zeros(frames.ids.shape)
        for block, ids in enumerate(frames.ids):
            normal, uniform = (np.asarray(drawn) for drawn in draw(np.maximum(ids, 0)))
            u[block] = np.where(ids >= 0, self.kind.random(normal, uniform), 0.0)
        return Params(self._shared(), {"u": u})

    def weights_of(self, params: Params, frames: FrameRows) -> np.ndarray:
        """w of the rows of some blocks, [blocks, 64]; of the simplex at gauged parameters."""
        return np.asarray(self.kind.weights(params.local["u"], frames.ids, frames.more.log_prior, self.total))

    def gauge(self, params: Params, frames: FrameRows, reduce: Reduce) -> Params:
        """On the simplex: divide u so that the weights sum to 1; intensity, CC and KL do not change."""
        return Params(params.shared, {"u": self.kind.gauge(np.asarray(params.local["u"]), frames, reduce)})

    def natural_direction(self, gradient: Params, frames: FrameRows) -> Params:
        """Downhill by Fisher's metric of the weights, 4 w0 in u; nuisances by their own."""
        metric = 4 * np.exp(frames.more.log_prior)
        down = np.where(frames.ids >= 0, -gradient.local["u"] / metric, 0.0)
        return Params(jax.tree.map(np.negative, gradient.shared), {"u": down})

    def multiplied(self, params: Params, direction: Params, length: float) -> Params:
        """The parameters of the simplex after a step that multiplies each weight by exp(2 length direction / u).

        By e^200 at most: a step that wants more is shortened by whoever searches along it, and must not overflow.
        """
        u = params.local["u"]
        rate = np.divide(direction.local["u"], u, out=np.zeros_like(u), where=u != 0)
        shared = jax.tree.map(lambda value, step: value + length * step, params.shared, direction.shared)
        return Params(shared, {"u": u * np.exp(np.minimum(length * rate, 100.0))})

    # ---- sums over frames ----------------------------------------------------------------------------------------

    def weights(self, params: Params, block: Block) -> jax.Array:
        """w of 64 frames."""
        return self.kind.weights(params.local["u"], block.ids, block.more.log_prior, self.total)

    def of_frames(self, params: Params, block: Block) -> WeightSums:
        """The sums of weights for the regularisers and the effective sample size."""
        w, level = self.weights(params, block), self.kind.level(params.local["u"])
        w0 = jnp.where(block.ids >= 0, jnp.exp(block.more.log_prior), 0.0)
        steps = self._steps(level, block) if self.neighbours else jnp.zeros(())
        sums = (jnp.sum(values) for values in (w, w * w, w * level, w * w0, w0 * w0, jnp.abs(w)))
        inside = block.more.group == jnp.arange(self.n_groups)[:, None]
        of_groups = (jnp.sum(jnp.where(inside, values, 0.0), axis=1) for values in (w, w0))
        features = jnp.sum(w[:, None] * block.more.features, axis=0) if self.experiments else ()
        return WeightSums(*sums, steps, *of_groups, jnp.sum(w0), features)

    def edges(self, params: Params, frames: FrameRows) -> tuple[Any, Any]:
        """u of the first row of each block, with whether it follows the row before, and u of the last row."""
        if not self.neighbours:
            return (), ()
        u, follows = np.asarray(params.local["u"]), frames.more.follows
        return {"u": u[:, 0], "follows": follows[:, 0].astype(float)}, {"u": u[:, -1]}

    def _steps(self, level: jax.Array, block: Block) -> jax.Array:
        """The sum of (l_t - l_(t-1))^2 over the rows that follow another one.

        A step from block to block counts half in each of them, and its gradient in each is that by the block's row.
        """
        before, after = (self.kind.level(beside["u"]) for beside in (block.before, block.after))
        follows = block.more.follows
        within = jnp.where(follows[1:], level[1:] - level[:-1], 0.0)
        first = jnp.where(follows[0], level[0] - before, 0.0)
        last = jnp.where(block.after["follows"] > 0, level[-1] - after, 0.0)
        across = first**2 + last**2
        return jnp.sum(within**2) + across - jax.lax.stop_gradient(across) / 2

    def partial(self, params: Params, cell: Cell) -> Moments:
        """Moments of 64 frames in one tile; cell.data: [64, 2 width], real and imaginary parts alternating."""
        w = self.kind.weights(params.local["u"], cell.ids, cell.more.log_prior, self.total)
        wF, squares = weighted_moments(w.astype(self.precision), cell.data)
        return Moments(wF.reshape(-1, 2), jnp.sum(squares.reshape(-1, 2), axis=1))

    def weighted_sums(self, weights: jax.Array, rows: jax.Array) -> Moments:
        """Moments of some frames [T, 2 width] at n sets of weights [n, T] at once: two matrix products."""
        F = rows.astype(self.precision)
        wF, squares = weights.astype(self.precision) @ F, weights.astype(self.precision) @ (F * F)
        pairs = (len(weights), -1, 2)
        return Moments(wF.reshape(pairs), jnp.sum(squares.reshape(pairs), axis=-1))

    def equal_weights(self, n: jax.Array) -> WeightSums:
        """The sums of n weights of 1."""
        none = (jnp.zeros(self.n_groups),) * 2
        return WeightSums(n, n, *(jnp.zeros(()),) * 5, *none, jnp.zeros(()))

    def misfit_sums(self, statistics: Statistics, shared: dict, tile: Tiles) -> Any:
        """The sums over the orbits of a tile that the objective needs."""
        return self.summary(statistics, shared, tile).objective

    def misfit_of(self, sums: Any, shared: dict) -> jax.Array:
        """The misfit of the fitted orbits."""
        fitted = part_of(sums, 0)
        return self.objective.misfit(fitted, fitted, shared)

    def misfit_at(self, x_h: jax.Array, ess: jax.Array, shared: dict) -> jax.Array:
        """The misfit of the fitted orbits at calculated intensities [tiles, width] of reflections, in units of s^2."""

        def sums(tile, x_h):
            x = jax.ops.segment_sum(x_h * tile.share, tile.orbit, x_h.shape[0])
            return self.objective.sums(self._terms(tile, x, tile.weight, ess), shared, self.parts)

        return self.misfit_of(jax.tree.map(lambda leaf: jnp.sum(leaf, axis=0), jax.vmap(sums)(self.tiles, x_h)), shared)

    # ---- sums over reflections -----------------------------------------------------------------------------------

    def intensity(self, statistics: Statistics, tile: Tiles) -> np.ndarray:
        """x of each orbit of a tile, [width], electrons^2: the mean over the orbit's reflections. Of NumPy arrays."""
        x, _ = self._intensity(statistics, tile)
        return np.bincount(tile.orbit, x * tile.share, len(x))

    def _intensity(self, statistics: Statistics, tile: Tiles) -> tuple[jax.Array, jax.Array]:
        """x of each reflection in units of s^2, and |M1|^2. Traced, or of NumPy arrays."""
        common, moments = statistics
        if self.kind.normalised:
            # x(h) does not change with F0 because the weights are divided by their sum.
            mean = moments.wF / common.w
            bragg = (mean * mean).sum(axis=-1)
            return moments.wFF / common.w - bragg, bragg
        mean = moments.wF + common.w * tile.F0
        second = moments.wFF + (tile.F0 * (2 * moments.wF + common.w * tile.F0)).sum(axis=-1)
        bragg = (mean * mean).sum(axis=-1)
        return second - bragg, bragg

    def in_a_batch(self) -> FrameWeights:
        """With sums of two parts, of which the second may have no orbit, so that those of fits with and without
        held-out orbits have one shape; with leaves of its own of all that the fits of a study differ in."""
        tiles = self.tiles._replace(part=jnp.array(self.tiles.part), drawn=jnp.array(self.tiles.drawn))
        own = jax.tree.map(lambda number: np.array(number, float), self.regularisers)
        experiments = self.experiments.in_a_batch() if self.experiments else None
        return replace(self, tiles=tiles, regularisers=own, parts=2, experiments=experiments)

    def of_all_fits(self, more: PriorRows) -> PriorRows:
        """The rows that no fit of the frames changes, None in place of others."""
        return PriorRows(None, None, None, more.features)

    def of_loss(self, sums: FitSums) -> FitSums:
        """The sums without those that are only reported."""
        return FitSums(None, None, sums.objective, None, None)

    def summary(self, statistics: Statistics, shared: dict, tile: Tiles) -> FitSums:
        """The sums of a tile that misfit and correlation coefficients are made of."""
        common = statistics.common
        x_h, bragg = self._intensity(statistics, tile)
        x = jax.ops.segment_sum(x_h * tile.share, tile.orbit, x_h.shape[0])
        terms = self._terms(tile, x, tile.weight, common.w**2 / common.ww)
        # What is only reported is not differentiated.
        plain = terms._replace(x=jax.lax.stop_gradient(x), weight=tile.multiplicity * tile.drawn)
        shells = self._shell_sums(plain, tile)
        radial = spline_sums(plain, tile.radial, self.n_radial, self.parts)
        leakage = jnp.zeros(()) if self.kind.normalised else jnp.sum(jnp.abs(self._leakage(common, bragg) * tile.share))
        objective = self.objective.sums(terms, shared, self.parts)
        return FitSums(shells, radial, objective, leakage, jnp.sum(jnp.abs(x_h) * tile.share))

    def _shell_sums(self, orbits: OrbitTerms, tile: Tiles) -> PearsonSums:
        """Of each part and resolution shell."""
        # A product with 0 and 1 for each shell of the tile is faster than sums of segments of unknown length.
        inside = (tile.shell - tile.first_shell) == jnp.arange(self.tile_shells)[:, None]
        weights = jnp.stack([jnp.where(inside, orbits.weight_of(number), 0.0) for number in range(self.parts)])
        found = jnp.einsum("vh,pgh->vpg", pearson_terms(orbits), weights)
        whole = jnp.zeros((*found.shape[:2], self.n_shells + self.tile_shells), found.dtype)
        placed = jax.lax.dynamic_update_slice_in_dim(whole, found, tile.first_shell, axis=2)
        return PearsonSums(*placed[:, :, : self.n_shells])

    def _leakage(self, common: WeightSums, bragg: jax.Array) -> jax.Array:
        """W (1 - W) |<F>|^2 of each reflection, <F> = M1 / W."""
        return (1 - common.w) / common.w * bragg

    def _terms(self, tile: Tiles, x: jax.Array, weight: jax.Array, ess: jax.Array) -> OrbitTerms:
        return OrbitTerms(
            x, tile.y, weight * tile.drawn, tile.variance, tile.part, tile.background, tile.radial, ess
        )  # fmt: skip

    def loss(self, sums: FitSums, common: WeightSums, shared: dict) -> jax.Array:
        """Misfit and regularisers.

        NaN, at which a line search turns back, where nearly all weight is on one frame: x = sum over pairs w_s w_t
        |F_s - F_t|^2 is 1 - sum w^2 of the terms whose difference it is, and would be their rounding.
        """
        misfit = self.misfit(sums, shared)
        if self.experiments:
            misfit = self.map_weight * misfit + self.experiments.loss(self.averages(common), shared)
        loss = misfit + self.penalty(common)
        if not self.kind.normalised:
            return loss
        pairs = 1 - common.ww / common.w**2
        return jnp.where(pairs * KEPT_OF_DIFFERENCES > np.finfo(self.precision).eps, loss, jnp.nan)

    def misfit(self, sums: FitSums, shared: dict, part: int = 0) -> jax.Array:
        """The misfit of one part to the map, with the nuisances that suit the fitted one."""
        return self.objective.misfit(part_of(sums.objective, 0), part_of(sums.objective, part), shared)

    def averages(self, common: WeightSums) -> jax.Array:
        """The averages that the data of experiments are made of, [F]."""
        return common.features / common.w

    def penalty(self, common: WeightSums) -> jax.Array:
        """See ``Regularisers``."""
        r, W = self.regularisers, common.w if self.kind.normalised else 1.0
        distance = common.ww / W**2 - 2 * common.ww0 / W + common.w0w0
        kl = self.priced(common) if self.kind.normalised else 0.0
        smooth = r.smoothness / self.total * common.steps
        return r.theta * kl + r.l1 * common.absolute / W + r.l2 * self.total * distance + smooth

    def divergence(self, common: WeightSums) -> jax.Array:
        """KL(p || w0) = sum p ln(p / w0) with p = w / sum w."""
        return common.wl / common.w - jnp.log(common.w)

    def priced(self, common: WeightSums) -> jax.Array:
        """The divergence that theta prices, at least 0.

        With P_g the weight of group g, KL(p || w0) = KL(P || P0) + sum_g P_g KL(p / P_g || w0 / P0_g), each term of the
        second sum within one group. The first would pull populations towards those of the simulation, which the map
        is to judge: only the second is priced. Frames in no group have sum p ln(p / w0) - p + w0 (Csiszar 1991,
        10.1214/aos/1176348385), which no group sum takes part in. Without groups it is KL(p || w0).
        """
        kl = self.divergence(common)
        if not self.n_groups:
            return kl
        P, P0 = common.of_groups / common.w, common.of_groups0
        held = (P > 0) & (P0 > 0)  # a resample of frames may leave a group out
        between = jnp.where(held, P * jnp.log(jnp.where(held, P, 1.0) / jnp.where(held, P0, 1.0)), 0.0)
        alone = (common.w0 - jnp.sum(P0)) - (1 - jnp.sum(P))
        return kl - jnp.sum(between) + alone

    def metrics(self, sums: FitSums, common: WeightSums, shared: dict) -> dict[str, jax.Array]:
        """CC, total and anisotropic, also of held-out orbits; the misfit where it is none of them; Kish's effective
        sample size; KL divergence, and that within groups, or where weights need not sum to 1 their sum and the Bragg
        leakage."""
        names = {"cc": 0, "cc_free": 1} if self.parts == 2 else {"cc": 0}
        ccs = {}
        for name, part in names.items():
            total = jax.tree.map(lambda leaf, n=part: jnp.sum(leaf[n]), sums.shells)
            anisotropic = partial_correlation(part_of(sums.radial, 0), part_of(sums.radial, part))
            ccs |= {name: correlation(total), f"{name}_anisotropic": anisotropic}
        found = {**ccs, "misfit": self.misfit(sums, shared), "ess": common.w**2 / common.ww}
        if self.parts == 2:
            found["misfit_free"] = self.misfit(sums, shared, 1)
        if self.experiments:
            found |= self._with_experiments(found, common, shared)
        if self.kind.normalised:
            kl = {"kl": self.divergence(common)} | ({"kl_within": self.priced(common)} if self.n_groups else {})
            return found | {name: jnp.maximum(value, 0.0) for name, value in kl.items()}  # rounding may leave -1e-16
        return found | {"sum_w": common.w, "bragg_leakage": sums.leakage / sums.total}

    def _with_experiments(self, of_map: dict[str, Any], common: WeightSums, shared: dict) -> dict[str, Any]:
        """The misfit to the map and all data, beside the one to the map alone; chi2 of the data."""
        averages, found = self.averages(common), {"map_misfit": of_map["misfit"]}
        found["misfit"] = self.map_weight * of_map["misfit"] + self.experiments.misfit(averages, shared)
        if self.parts == 2:
            of_data = self.experiments.misfit_free(averages, shared)
            found |= {"map_misfit_free": of_map["misfit_free"]}
            found["misfit_free"] = self.map_weight * of_map["misfit_free"] + of_data
        return found | self.experiments.metrics(averages, shared)

    # ---- value and gradient in one pass --------------------------------------------------------------------------

    @property
    def in_one_pass(self) -> bool:
        """True if the objective sees x through few directions."""
        return self.objective.in_one_pass

    def directions(self) -> Directions:
        """Directions through which the objective sees x, leaves [tiles, K - 1, width] and [tiles, width]."""
        basis, powered, power = _directions(self)
        return Directions(basis, powered, int(np.asarray(power)[0]))

    def prepare(self, alike: Sequence[FrameWeights], frames: Sequence[FrameRows]) -> Prepared:
        """The data that every pass reads beside the frames."""
        tiles, found = self.tiles, [problem.directions() for problem in alike]
        F0 = jax.device_put(np.zeros((*tiles.share.shape, 2))) if self.kind.normalised else tiles.F0
        put = np.stack if jax.default_backend() == "cpu" else jnp.stack
        of_fits = tuple(put(leaves) for leaves in zip(*(each[:2] for each in found)))
        held = np.any([rows.ids.ravel() >= 0 for rows in frames], axis=0)
        return Prepared(as_read((F0, tiles.share, tiles.orbit)), of_fits, found[0].power, held)

    def one_pass(
        self, w_rt: np.ndarray, common: WeightSums, chunk: Any, prepared: Prepared, of: np.ndarray, threads: int
    ) -> tuple[Moments, Any]:
        """Moments and rows [R, tiles, K, T] of the tiles of a chunk; chunk.data: [tiles, strips, T, 2 strip]."""
        F0, share, orbit = (leaf[chunk.tiles] for leaf in prepared.of_tiles)
        basis, powered = (leaf[:, chunk.tiles] for leaf in prepared.of_fits)
        with np.errstate(over="ignore"):  # a line search may go too far: the sums say so
            w_rt = w_rt.astype(self.precision)
        m1, m2, rows = one_pass(
            w_rt, np.asarray(common.w), chunk.data, Orbits(share, orbit),
            Coefficients(basis, powered, prepared.power), F0, of=of, held=prepared.held, threads=threads,
        )  # fmt: skip
        return Moments(m1, m2), rows

    def coefficients(self, sums_bar: FitSums, tile: Tiles) -> jax.Array:
        """[K] of one tile."""
        nothing = jnp.zeros_like(tile.y)
        return self.objective.coefficients(sums_bar.objective, self._terms(tile, nothing, nothing, jnp.ones(())))


@jax.jit
def _directions(problem: FrameWeights) -> Directions:
    """Of all tiles. Compiled once for all fits of a study, which differ in orbits and regularisers alone."""

    def one(tile):
        return problem.objective.directions(problem._terms(tile, jnp.zeros_like(tile.y), tile.weight, jnp.ones(())))

    return jax.vmap(one)(problem.tiles)


def shell_correlations(sums: PearsonSums) -> np.ndarray:
    """CC within each shell, [shells]; NaN where a shell has fewer than two orbits. Of NumPy arrays."""
    xx, yy, xy = second_moments(sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((xx > 0) & (yy > 0), xy / np.sqrt(xx * yy), np.nan)
