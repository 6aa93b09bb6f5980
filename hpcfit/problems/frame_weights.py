"""Weights of trajectory frames such that their diffuse intensity agrees best with a measured map.

    x_w(h) = sum_t w_t |F_t(h)|^2 - |sum_t w_t F_t(h)|^2          Guinier's diffuse intensity, weights on the simplex

is compared with y(h) by Pearson's correlation coefficient over Laue orbits with their multiplicities, in all (total)
or with the mean of each resolution shell removed from both (anisotropic): the total is dominated by the solvent ring.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.physics.moments import weighted_moments
from hpcfit.problems.base import Cell, FrameRows, Params, Reduce, Statistics


class WeightSums(NamedTuple):
    """Sums over frames of the weights w = w0 exp(u), where w0 are the prior weights; normalised or not."""

    w: jax.Array  # sum w
    ww: jax.Array  # sum w^2, for the effective sample size
    wu: jax.Array  # sum w u, for the Kullback-Leibler divergence


class Moments(NamedTuple):
    """Sums over frames for the reflections of a tile, of the stored (F - F0) / s."""

    wF: jax.Array  # sum w F, [width, 2]
    wFF: jax.Array  # sum w |F|^2, [width]


class ShellSums(NamedTuple):
    """Sums over orbits with their multiplicities, [shells] of one part of them; x: calculated, y: observed.

    As the sums of a fit [parts, shells]: part 0 is fitted, part 1, if there is one, is held out.
    """

    n: jax.Array
    x: jax.Array
    y: jax.Array
    xx: jax.Array
    yy: jax.Array
    xy: jax.Array


class Tiles(NamedTuple):
    """Constants of the reflections, [tiles, width]; the orbits of a tile are whole, and its unused end is padding.

    orbit: which of the tile's orbits (0 ... width - 1) a reflection belongs to. share: s(h)^2 / reflections of its
    orbit, 0 for padding. For each orbit: y, standardised; multiplicity, 0 for padding; shell; part, 1 if held out.
    """

    orbit: jax.Array
    share: jax.Array
    y: jax.Array
    multiplicity: jax.Array
    shell: jax.Array
    part: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FrameWeights:
    """The problem `frame-weights` (see ``problems.base.Problem``).

    Parameters: one u_t = ln(w_t / w0_t) a frame, local; nothing shared.
    theta: strength of the Kullback-Leibler divergence from the prior weights w0.
    parts: 2 if some orbits are held out of the fit and judged apart (``cc_free``), else 1.
    """

    tiles: Tiles
    n_shells: int = field(metadata={"static": True})
    anisotropic: bool = field(default=False, metadata={"static": True})
    theta: float = field(default=0.0, metadata={"static": True})
    precision: str = field(default="float32", metadata={"static": True})
    random_start: bool = field(default=False, metadata={"static": True})
    parts: int = field(default=1, metadata={"static": True})

    def init(self, seed: int, frames: FrameRows) -> Params:
        """The prior weights, or u from a normal distribution drawn by (seed, frame id)."""
        u = np.zeros(frames.ids.shape)
        if self.random_start:
            draw = jax.jit(
                jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(jax.random.key(seed), i), dtype=float))
            )
            for block, ids in enumerate(frames.ids):
                u[block] = np.where(ids >= 0, draw(np.maximum(ids, 0)), 0.0)
        return Params({}, {"u": u})

    def gauge(self, params: Params, frames: FrameRows, reduce: Reduce) -> Params:
        """Shift u so that the weights sum to 1; intensity, CC and KL do not change."""
        u, held = np.asarray(params.local["u"]), frames.ids >= 0
        log_w = u + frames.log_prior
        largest = reduce.max(np.max(log_w[held], initial=-np.inf))
        powers = np.where(held, np.exp(np.minimum(log_w - largest, 0.0)), 0.0)
        total = float(reduce.sum(powers.sum(axis=1)))
        return Params(params.shared, {"u": np.where(held, u - largest - np.log(total), 0.0)})

    def metric(self, params: Params, frames: FrameRows) -> Params:
        """The weights: the Fisher metric of the log-weights. A natural-gradient step is an exponentiated gradient."""
        return Params(
            params.shared, {"u": np.where(frames.ids >= 0, np.exp(params.local["u"] + frames.log_prior), 0.0)}
        )

    def partial(self, params: Params, cell: Cell) -> Statistics:
        """Moments of 64 frames in one tile; cell.data: [64, 2 width], real and imaginary parts alternating."""
        u = params.local["u"]
        w = jnp.where(cell.ids >= 0, jnp.exp(u + cell.log_prior), 0.0)
        wF, squares = weighted_moments(w.astype(self.precision), cell.data)
        moments = Moments(wF.reshape(-1, 2), jnp.sum(squares.reshape(-1, 2), axis=1))
        return Statistics(WeightSums(jnp.sum(w), jnp.sum(w * w), jnp.sum(w * u)), moments)

    def summary(self, statistics: Statistics, shared: dict, tile: Tiles) -> ShellSums:
        """The sums of a tile that every correlation coefficient is made of."""
        x, y = orbit_intensity(statistics, tile), tile.y
        values = (jnp.ones_like(x), x, y, x * x, y * y, x * y)
        row, rows = tile.part * self.n_shells + tile.shell, self.parts * self.n_shells
        sums = (jax.ops.segment_sum(tile.multiplicity * value, row, rows) for value in values)
        return ShellSums(*(leaf.reshape(self.parts, self.n_shells) for leaf in sums))

    def loss(self, sums: ShellSums, common: WeightSums, shared: dict) -> jax.Array:
        """theta KL(w || w0) - CC."""
        return self.theta * self.divergence(common) - correlation(part(sums, 0), by_shell=self.anisotropic)

    def divergence(self, common: WeightSums) -> jax.Array:
        """KL(p || w0) = sum p ln(p / w0) with p = w / sum w."""
        return common.wu / common.w - jnp.log(common.w)

    def metrics(self, sums: ShellSums, common: WeightSums) -> dict[str, jax.Array]:
        """CC, total and anisotropic, also of held-out orbits; Kish's effective sample size; KL divergence."""
        free = {
            "cc_free": correlation(part(sums, 1), by_shell=False),
            "cc_free_anisotropic": correlation(part(sums, 1), by_shell=True),
        } if self.parts == 2 else {}  # fmt: skip
        return {
            "cc": correlation(part(sums, 0), by_shell=False),
            "cc_anisotropic": correlation(part(sums, 0), by_shell=True),
            **free,
            "ess": common.w**2 / common.ww,
            "kl": jnp.maximum(self.divergence(common), 0.0),  # rounding may leave -1e-16
        }


def uniform(frames: FrameRows) -> Params:
    """The parameters of uniform weights, whatever the prior."""
    return Params({}, {"u": np.where(frames.ids >= 0, -np.log(frames.total) - frames.log_prior, 0.0)})


def part(sums: ShellSums, number: int) -> ShellSums:
    """The sums over the fitted orbits (0) or over those held out (1)."""
    return ShellSums(*(leaf[number] for leaf in sums))


def orbit_intensity(statistics: Statistics, tile: Tiles) -> jax.Array:
    """x of each orbit of a tile, [width], electrons^2: the mean over the orbit's reflections."""
    common, moments = statistics
    # x(h) does not change with F0 because the weights are divided by their sum.
    mean = moments.wF / common.w
    x = moments.wFF / common.w - jnp.sum(mean * mean, axis=-1)
    return jax.ops.segment_sum(x * tile.share, tile.orbit, x.shape[0])


def correlation(sums: ShellSums, *, by_shell: bool) -> jax.Array:
    """Pearson's CC; ``by_shell`` removes the mean of each shell from x and y (anisotropic)."""
    groups = sums if by_shell else ShellSums(*(jnp.sum(leaf, keepdims=True) for leaf in sums))
    xx, yy, xy = (jnp.sum(value) for value in _centred(groups))
    return xy / jnp.sqrt(xx * yy)


def shell_correlations(sums: ShellSums) -> np.ndarray:
    """CC within each shell, [shells]; NaN where a shell has fewer than two orbits."""
    xx, yy, xy = (np.asarray(value) for value in _centred(sums))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((xx > 0) & (yy > 0), xy / np.sqrt(xx * yy), np.nan)


def _centred(sums: ShellSums) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Second moments about the mean of each shell, [shells]; an empty shell has none."""
    n = jnp.where(jnp.asarray(sums.n) > 0, sums.n, 1.0)
    return sums.xx - sums.x**2 / n, sums.yy - sums.y**2 / n, sums.xy - sums.x * sums.y / n
