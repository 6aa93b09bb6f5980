"""The objectives: comparisons of calculated and observed intensities, as functions of sums over orbits to minimise.

An objective knows orbits and their weights omega, neither frames nor ranks. Where it sees the calculated intensities
x through a few functions of known shape, d(misfit)/dx = sum_k coefficient_k direction_k(x), it also says which: then
the gradient is had in the pass that computes x (``fit.adjoint.Adjoint``). Objectives whose nuisances cannot be
profiled out in closed form are in ``kinds.frame_weights.likelihoods``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from hpcfit.pytrees import pytree

Tree = Any


class Splines(NamedTuple):
    """Functions of 1/d on the orbits of one tile: those of a set that are not 0 there, which follow one another.

    values: [m, width], whose sum over a whole set is 1 everywhere. first: which of the set the first of them is.
    """

    values: jax.Array
    first: jax.Array


class OrbitTerms(NamedTuple):
    """Orbits of one tile, [width]; weight is 0 for padding.

    x: calculated. y: observed, in units of the objective. weight: omega. variance: of y. part: 0 fitted, 1 held out.
    background: what an objective may add to x. radial: what is removed from x and y where only their anisotropy is
    compared. ess: effective frames behind x, a number.
    """

    x: jax.Array
    y: jax.Array
    weight: jax.Array
    variance: jax.Array
    part: jax.Array
    background: Splines
    radial: Splines
    ess: jax.Array

    def weight_of(self, part: int) -> jax.Array:
        """omega of the orbits of one part, 0 for the others."""
        return jnp.where(self.part == part, self.weight, 0.0)


class Directions(NamedTuple):
    """d(sums)/dx of the fitted orbits of a tile: functions of h that are known beforehand, [K - 1, width], and one,
    powered(h) x(h)^power, that is known with x."""

    basis: jax.Array
    powered: jax.Array
    power: int


class Objective(Protocol):
    """A frozen dataclass, registered as a JAX pytree.

    in_one_pass: whether ``directions`` and ``coefficients`` are known; other objectives need neither.
    """

    in_one_pass: bool

    def start(self) -> Tree:
        """The nuisance parameters where a fit starts; they are shared. Empty where they are profiled out."""

    def sums(self, orbits: OrbitTerms, shared: Tree, parts: int) -> Tree:
        """The sums over the orbits of a tile, leaves [parts, ...]; additive over tiles."""

    def misfit(self, fitted: Tree, judged: Tree, shared: Tree) -> jax.Array:
        """The disagreement of ``judged``, with the nuisances that suit ``fitted``.

        A fit passes the same sums as both, and minimises it.
        """

    def directions(self, orbits: OrbitTerms) -> Directions:
        """See ``Directions``; x and ess are not looked at."""

    def coefficients(self, sums_bar: Tree, orbits: OrbitTerms) -> jax.Array:
        """[K], from the cotangent of the sums; of the orbits only the places of the splines are looked at."""


def part_of(sums: Tree, number: int) -> Tree:
    """The sums of one part."""
    return jax.tree.map(lambda leaf: leaf[number], sums)


# ---- correlations ----------------------------------------------------------------------------------------------------


class PearsonSums(NamedTuple):
    """Sums of omega times the name, [parts] or [parts, groups]."""

    n: jax.Array
    x: jax.Array
    y: jax.Array
    xx: jax.Array
    yy: jax.Array
    xy: jax.Array


def pearson_terms(orbits: OrbitTerms) -> jax.Array:
    """The terms of ``PearsonSums``, [6, width], without the weights."""
    x, y = orbits.x, orbits.y
    return jnp.stack([jnp.ones_like(x), x, y, x * x, y * y, x * y])


def correlation(sums: PearsonSums) -> jax.Array:
    """Pearson's CC."""
    xx, yy, xy = second_moments(sums)
    return xy / jnp.sqrt(xx * yy)


def second_moments(sums: PearsonSums) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(xx, yy, xy) about the means; nothing of nothing. Traced, or of NumPy arrays."""
    n = sums.n + (sums.n == 0)
    return sums.xx - sums.x**2 / n, sums.yy - sums.y**2 / n, sums.xy - sums.x * sums.y / n


@pytree
@dataclass(frozen=True)
class Pearson:
    """-CC."""

    in_one_pass = True

    def start(self) -> dict:
        """Scale and offset do not change a correlation."""
        return {}

    def sums(self, orbits: OrbitTerms, shared: dict, parts: int) -> PearsonSums:
        """The six sums of each part."""
        weights = jnp.stack([orbits.weight_of(number) for number in range(parts)])
        return PearsonSums(*(pearson_terms(orbits) @ weights.T))

    def misfit(self, fitted: PearsonSums, judged: PearsonSums, shared: dict) -> jax.Array:
        """-CC of the orbits that are judged."""
        return -correlation(judged)

    def directions(self, orbits: OrbitTerms) -> Directions:
        """omega, omega y, omega x."""
        weight = orbits.weight_of(0)
        return Directions(jnp.stack([weight, weight * orbits.y]), weight, 1)

    def coefficients(self, sums_bar: PearsonSums, orbits: OrbitTerms) -> jax.Array:
        """The coefficients of omega, omega y and omega x, [3]."""
        return jnp.stack([sums_bar.x[0], sums_bar.xy[0], 2 * sums_bar.xx[0]])


# ---- with functions of 1/d beside x ----------------------------------------------------------------------------------


class SplineSums(NamedTuple):
    """The normal equations of x and y in splines: sums of omega times the product that the name says, leaves [parts,
    ...] with B over all splines of the set. n: the sum of omega variance."""

    n: jax.Array
    xx: jax.Array
    xy: jax.Array
    yy: jax.Array
    xB: jax.Array
    yB: jax.Array
    BB: jax.Array


def spline_sums(orbits: OrbitTerms, splines: Splines, n_splines: int, parts: int) -> SplineSums:
    """The normal equations of one tile, with its few splines at their places among all."""
    x, y, B = orbits.x, orbits.y, splines.values
    weights = jnp.stack([orbits.weight_of(number) for number in range(parts)])
    n, xx, xy, yy = jnp.stack([orbits.variance, x * x, x * y, y * y]) @ weights.T
    xB, yB = ((weights * values) @ B.T for values in (x, y))
    BB = jnp.einsum("ph,ih,jh->pij", weights, B, B)
    return SplineSums(
        n, xx, xy, yy, *(_placed(leaf, splines.first, n_splines, (1,)) for leaf in (xB, yB)),
        _placed(BB, splines.first, n_splines, (1, 2)),
    )  # fmt: skip


def _placed(values: jax.Array, first: jax.Array, n: int, axes: tuple[int, ...]) -> jax.Array:
    """Some of n entries along ``axes``, from ``first`` on, among zeros."""
    m = values.shape[axes[0]]
    for axis in axes:
        shape = list(values.shape)
        shape[axis] = n + m
        values = jax.lax.dynamic_update_slice_in_dim(jnp.zeros(shape, values.dtype), values, first, axis)
        values = jax.lax.slice_in_dim(values, 0, n, axis=axis)
    return values


def _spline_directions(orbits: OrbitTerms, splines: Splines) -> Directions:
    """omega B_j of the tile's splines, omega y, omega x."""
    weight = orbits.weight_of(0)
    return Directions(weight * jnp.concatenate([splines.values, orbits.y[None]]), weight, 1)


def _spline_coefficients(sums_bar: SplineSums, splines: Splines) -> jax.Array:
    m = splines.values.shape[0]
    of_splines = jax.lax.dynamic_slice_in_dim(jnp.pad(sums_bar.xB[0], (0, m)), splines.first, m)
    return jnp.concatenate([of_splines, sums_bar.xy[:1], 2 * sums_bar.xx[:1]])


def partial_correlation(fitted: SplineSums, judged: SplineSums) -> jax.Array:
    """The correlation of what the splines leave of x and y, with the splines that suit ``fitted`` best."""
    b_x, b_y = _solve(fitted.BB, fitted.xB), _solve(fitted.BB, fitted.yB)

    def left(ab, aB, bB, a, b):
        # <a - a_j B_j, b - b_j B_j>
        return ab - b @ aB - a @ bB + a @ judged.BB @ b

    xx = left(judged.xx, judged.xB, judged.xB, b_x, b_x)
    yy = left(judged.yy, judged.yB, judged.yB, b_y, b_y)
    return left(judged.xy, judged.xB, judged.yB, b_x, b_y) / jnp.sqrt(xx * yy)


@pytree
@dataclass(frozen=True)
class AnisotropicPearson:
    """-CC of what a smooth function of 1/d leaves of x and y (``OrbitTerms.radial``): the rings, and above all that of
    the solvent, say nothing of structure, and dominate the total CC."""

    in_one_pass = True
    n_splines: int = field(metadata={"static": True})

    def start(self) -> dict:
        """Scale and offset do not change a correlation."""
        return {}

    def sums(self, orbits: OrbitTerms, shared: dict, parts: int) -> SplineSums:
        """The normal equations of the radial functions."""
        return spline_sums(orbits, orbits.radial, self.n_splines, parts)

    def misfit(self, fitted: SplineSums, judged: SplineSums, shared: dict) -> jax.Array:
        """-CC of the orbits that are judged, without the radial functions of those that were fitted."""
        return -partial_correlation(fitted, judged)

    def directions(self, orbits: OrbitTerms) -> Directions:
        """omega B_j, omega y, omega x."""
        return _spline_directions(orbits, orbits.radial)

    def coefficients(self, sums_bar: SplineSums, orbits: OrbitTerms) -> jax.Array:
        """The coefficients of omega B_j, omega y and omega x, [K]."""
        return _spline_coefficients(sums_bar, orbits.radial)


@pytree
@dataclass(frozen=True)
class ProfiledGaussian:
    """Half the reduced chi^2 of y against k x + sum_j c_j B_j(1/d), with the best k and c (closed form).

    omega holds 1 / sigma^2. A negative scale is counted as the loss of agreement that it is, so that with B = 1 and
    equal sigmas the misfit is (1 - CC |CC|) / 2 times the variance of y: least where CC is largest.
    """

    in_one_pass = True
    n_splines: int = field(metadata={"static": True})

    def start(self) -> dict:
        """Scale and background are profiled out."""
        return {}

    def sums(self, orbits: OrbitTerms, shared: dict, parts: int) -> SplineSums:
        """The normal equations; n counts orbits by omega sigma^2, so that chi^2 comes out reduced."""
        return spline_sums(orbits, orbits.background, self.n_splines, parts)

    def misfit(self, fitted: SplineSums, judged: SplineSums, shared: dict) -> jax.Array:
        """The misfit of the judged orbits, with scale and background of the fitted ones."""
        k, c = self.nuisances(fitted)
        j = judged
        chi2 = j.yy + k**2 * j.xx + c @ j.BB @ c - 2 * k * j.xy - 2 * c @ j.yB + 2 * k * c @ j.xB
        # What the term in x takes off chi^2 is k^2 times what the background leaves of x.
        left = j.xx - j.xB @ _solve(j.BB, j.xB)
        return 0.5 * (chi2 + (k**2 - k * jnp.abs(k)) * left) / j.n

    def nuisances(self, fitted: SplineSums) -> tuple[jax.Array, jax.Array]:
        """(k, c [J]) of the best k x + sum_j c_j B_j."""
        b_x, b_y = _solve(fitted.BB, fitted.xB), _solve(fitted.BB, fitted.yB)
        k = (fitted.xy - b_x @ fitted.yB) / (fitted.xx - b_x @ fitted.xB)
        return k, b_y - k * b_x

    def directions(self, orbits: OrbitTerms) -> Directions:
        """omega B_j, omega y, omega x."""
        return _spline_directions(orbits, orbits.background)

    def coefficients(self, sums_bar: SplineSums, orbits: OrbitTerms) -> jax.Array:
        """The coefficients of omega B_j, omega y and omega x, [K]."""
        return _spline_coefficients(sums_bar, orbits.background)


RIDGE = 1e-12  # of a spline that no orbit tells from others, beside a diagonal of 1


def _solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """A symmetric system, brought to a unit diagonal first; a spline without orbits gets 0."""
    diagonal = jnp.diagonal(matrix)
    scale = jnp.where(diagonal > 0, 1 / jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1.0)), 0.0)
    unit = scale[:, None] * matrix * scale + RIDGE * jnp.eye(len(scale))
    return scale * jnp.linalg.solve(unit, scale * right)


# ---- distributions ---------------------------------------------------------------------------------------------------


class CrossEntropySums(NamedTuple):
    """Sums of omega times the name, [parts]."""

    x: jax.Array
    y: jax.Array
    y_ln_x: jax.Array
    y_ln_y: jax.Array


@pytree
@dataclass(frozen=True)
class CrossEntropy:
    """KL(q || p) of the distributions q = omega y / sum and p = omega x / sum: free of a scale, as a correlation is,
    but not of an offset. y >= 0."""

    in_one_pass = True

    def start(self) -> dict:
        """The scale is divided out."""
        return {}

    def sums(self, orbits: OrbitTerms, shared: dict, parts: int) -> CrossEntropySums:
        """x must be positive; where it is not the misfit is not a number, and a line search turns back."""
        x, y = jnp.where(orbits.weight > 0, orbits.x, 1.0), orbits.y
        values = (x, y, y * jnp.log(x), jax.scipy.special.xlogy(y, y))
        weights = [orbits.weight_of(number) for number in range(parts)]
        return CrossEntropySums(*(jnp.stack([jnp.sum(weight * value) for weight in weights]) for value in values))

    def misfit(self, fitted: CrossEntropySums, judged: CrossEntropySums, shared: dict) -> jax.Array:
        """KL(q || p) of the judged orbits, as distributions among themselves."""
        return (judged.y_ln_y - judged.y_ln_x) / judged.y + jnp.log(judged.x / judged.y)

    def directions(self, orbits: OrbitTerms) -> Directions:
        """omega, and omega y / x."""
        weight = orbits.weight_of(0)
        return Directions(weight[None], weight * orbits.y, -1)

    def coefficients(self, sums_bar: CrossEntropySums, orbits: OrbitTerms) -> jax.Array:
        """The coefficients of omega and of omega y / x, [2]."""
        return jnp.stack([sums_bar.x[0], sums_bar.y_ln_x[0]])
