"""The misfit of a mixture of clusters to a measured curve, over the populations and what they need to scatter.

    I(q) = scale S(q) sum over c of w_c I_c(q; sigma) + solvent I_solvent(q) + offset
    L    = chi2 / 2 + alpha KL(w || w0) + sum over refined pairs of (t_p / width)^2 / 2

    w_c = w0_c exp(v_c) / sum                weights on the simplex, w0: the predicted populations
    sigma_cp^2 = sigma0_cp^2 exp(t_p)        a factor of B = 8 pi^2 sigma^2 for each refined pair of species

scale and solvent are not negative. Scale, solvent and offset are found in closed form at each point (``profiled``:
Golub and Pereyra 1973, 10.1137/0710036), or are parameters beside the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.fit.problem import Block, Cell, FrameRows, Params, Reduce, Statistics
from hpcfit.observables.interparticle import charged_spheres, hard_spheres
from hpcfit.pytrees import pytree

WIDTH = 16  # components a block
TILE = 64  # points of q a tile
Spheres = Literal["none", "hard", "charged"]
LINEAR = ("scale", "solvent", "offset")


class Prior(NamedTuple):
    """The numbers of each component (``fit.problem.FrameRows.more``). log_w0: [...], of sum 1; variance: sigma0^2 of
    each pair, [..., P] A^2."""

    log_w0: Any
    variance: Any


class Intensities(NamedTuple):
    """Components in a tile (``Cell.data``): own [width, TILE], damped [width, P, TILE], square [width, TILE]: q^2."""

    own: Any
    damped: Any
    square: Any


class Points(NamedTuple):
    """The measured points of each tile, [tiles, TILE]. weight: 1 / sigma^2 times how often it counts, 0 for padding;
    held_out: the same of points that are not fitted; solvent: I_solvent."""

    q: Any
    value: Any
    weight: Any
    held_out: Any
    solvent: Any


class WeightSums(NamedTuple):
    """Sums over components of e = w0 exp(v) and e v."""

    e: Any
    ev: Any


class Grams(NamedTuple):
    """Sums over points of weight x x^T, x = (scatterers, solvent, 1, measured) in their units, [4, 4]: of fitted points
    and of those held out."""

    fitted: Any
    held_out: Any


class Interference(NamedTuple):
    """S(q) of spheres. low, high: [K], bounds of radius (A), fraction and charge (e); debye_length, bjerrum: A."""

    low: Any
    high: Any
    debye_length: Any = np.inf
    bjerrum: Any = 0.0


@pytree
@dataclass(frozen=True)
class MixtureFit:
    """See ``hpcfit.fit.problem.Problem``; a frame is a component.

    Local parameters: v. Shared ones: log_b: t of each refined pair; spheres: S(q), between its bounds by a logistic;
    linear: z, where scale, solvent and offset are not profiled: (ln scale, ln solvent, offset) = start + map z.
    pair_of: [refined, P], 1 where a refined parameter is of that pair; b_precision: 1 / width^2; spheres_start: [K] in
    the unbounded parameters; linear_start, linear_map: [3] and [3, 3], which make chi2 equally curved by z.
    units: [3], that make scatterers, solvent and offset about as large as the measurement: the numbers of a Gram matrix
    are added at one exponent.
    """

    points: Points
    alpha: Any
    pair_of: Any
    b_precision: Any
    interference: Interference
    spheres_start: Any
    linear_start: Any
    linear_map: Any
    units: Any
    spheres: Spheres = field(metadata={"static": True})
    weights_fitted: bool = field(metadata={"static": True})
    has_solvent: bool = field(metadata={"static": True})
    has_offset: bool = field(metadata={"static": True})
    profiled: bool = field(metadata={"static": True})

    @property
    def tiles(self) -> Points:
        """The measured points."""
        return self.points

    # ---- parameters ------------------------------------------------------------------------------------------------

    def init(self, seed: int, frames: FrameRows) -> Params:
        """The predicted populations, the spreads as they are given, S(q) and linear terms at their starts."""
        shared = {"log_b": np.zeros(len(self.pair_of))}
        if self.spheres != "none":
            shared["spheres"] = np.array(self.spheres_start, float)
        if not self.profiled:
            shared["linear"] = np.zeros(3)
        return Params(shared, np.zeros(frames.ids.shape))

    def gauge(self, params: Params, frames: FrameRows, reduce: Reduce) -> Params:
        """Equivalent parameters: the sum of w0 exp(v) is 1."""
        v = np.asarray(params.local, float)
        held = frames.ids >= 0
        most = reduce.max(float(np.max(v[held], initial=-np.inf)))
        e = np.where(held, np.exp(frames.more.log_w0 + np.where(held, v, 0.0) - most), 0.0)
        total = np.sum(e, axis=1)
        shift = most + np.log(float(reduce.sum(total)))
        return Params(params.shared, np.where(held, v - shift, 0.0))

    def weights(self, params: Params, block: Any) -> tuple[Any, Any]:
        """w0 exp(v), 0 where there is no component, and v."""
        v = params.local if self.weights_fitted else jnp.zeros_like(params.local)
        return jnp.where(block.ids >= 0, jnp.exp(block.more.log_w0 + v), 0.0), v

    def sphere_values(self, shared: dict) -> Any:
        """Radius, fraction and charge, as far as S(q) has them, [K]."""
        low, high = self.interference.low, self.interference.high
        return low + (high - low) * jax.nn.sigmoid(shared["spheres"])

    def structure_factor(self, q: Any, shared: dict) -> Any:
        """S(q)."""
        if self.spheres == "none":
            return jnp.ones_like(q)
        values = self.sphere_values(shared)
        if self.spheres == "hard":
            return hard_spheres(q, values[0], values[1])
        return charged_spheres(q, *values, self.interference.debye_length, self.interference.bjerrum)

    def variances(self, shared: dict, variance: Any) -> Any:
        """sigma^2 of each pair [..., P], A^2."""
        return variance * jnp.exp(shared["log_b"] @ self.pair_of)

    # ---- sums ------------------------------------------------------------------------------------------------------

    def of_frames(self, params: Params, block: Block) -> WeightSums:
        """The sums that normalise the weights and make their divergence."""
        e, v = self.weights(params, block)
        return WeightSums(jnp.sum(e), jnp.sum(e * v))

    def partial(self, params: Params, cell: Cell) -> Any:
        """The sum over components of w0 exp(v) I_c(q), [TILE]."""
        e, _ = self.weights(params, cell)
        variance = self.variances(params.shared, cell.more.variance)
        damping = jnp.exp(-cell.data.square[:, None, :] * variance[..., None] / 2)
        return e @ (cell.data.own + jnp.sum(cell.data.damped * damping, axis=1))

    def summary(self, statistics: Statistics, shared: dict, tile: Points) -> Grams:
        """The products of model and measurement over the points of a tile."""
        scatterers = statistics.sliced / statistics.common.e * self.structure_factor(tile.q, shared)
        x = jnp.stack([scatterers, tile.solvent, jnp.ones_like(tile.q), tile.value])
        x = x * jnp.append(jnp.asarray(self.units), 1.0)[:, None]
        return Grams((x * tile.weight) @ x.T, (x * tile.held_out) @ x.T)

    # ---- loss ------------------------------------------------------------------------------------------------------

    def linear(self, sums: Grams, shared: dict) -> Any:
        """(scale, solvent, offset), [3]."""
        if self.profiled:
            return self.units * _least_squares(sums.fitted, self.has_solvent, self.has_offset)
        a = self.linear_start + self.linear_map @ shared["linear"]
        used = jnp.array([1.0, self.has_solvent, self.has_offset])
        return used * jnp.stack([jnp.exp(a[0]), jnp.exp(a[1]), a[2]])

    def loss(self, sums: Grams, common: WeightSums, shared: dict) -> Any:
        """See the module."""
        chi2 = self.misfit(sums.fitted, self.linear(sums, shared))
        held = jnp.sum(self.b_precision * shared["log_b"] ** 2) / 2
        return chi2 / 2 + self.alpha * self.divergence(common) + held

    def misfit(self, gram: Any, linear: Any) -> Any:
        """The chi2 of a Gram matrix at linear terms."""
        a = jnp.append(linear / jnp.asarray(self.units), -1.0)
        return a @ gram @ a

    def divergence(self, common: WeightSums) -> Any:
        """KL(w || w0), nats."""
        return common.ev / common.e - jnp.log(common.e)

    def metrics(self, sums: Grams, common: WeightSums, shared: dict) -> dict[str, Any]:
        """chi2 of fitted and of held-out points, the divergence, and the linear terms."""
        linear = self.linear(sums, shared)
        named = dict(zip(LINEAR, linear))
        of_held_out = self.misfit(sums.held_out, linear)
        return {
            "chi2": self.misfit(sums.fitted, linear), "chi2_held_out": of_held_out,
            "kl_populations": self.divergence(common), **named,
        }  # fmt: skip


def _least_squares(gram: Any, has_solvent: bool, has_offset: bool) -> Any:
    """The (scale >= 0, solvent >= 0, offset) of the least chi2: the best of those with either, both or none at 0."""
    A, b = gram[:3, :3], gram[:3, 3]
    size = jnp.sqrt(jnp.where(jnp.diag(A) > 0, jnp.diag(A), 1.0))
    A, b = A / jnp.outer(size, size), b / size
    best, least = jnp.zeros(3), jnp.inf
    for scaled, dissolved in product((True, False), (True, False) if has_solvent else (False,)):
        used = jnp.array([scaled, dissolved, has_offset], float)
        x = jnp.linalg.solve(A * jnp.outer(used, used) + jnp.diag(1 - used), used * b)
        value = x @ A @ x - 2 * b @ x
        # At a point where one is 0 exactly, derivatives are those of the side that is taken.
        better = (x[0] >= 0) & (x[1] >= 0) & (value < least)
        best, least = jnp.where(better, x, best), jnp.where(better, value, least)
    return best / size
