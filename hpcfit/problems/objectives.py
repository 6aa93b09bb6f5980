"""How calculated and observed intensities are compared: what is minimised, as a function of sums over orbits.

An objective knows orbits and their weights omega, neither frames nor ranks. Where it sees the calculated intensities
x through a few functions of known shape, d(misfit)/dx = sum_k coefficient_k direction_k(x), it also says which: then
the gradient is had in the pass that computes x (``fit.gradient.Adjoint``). Objectives whose nuisances cannot be
profiled out in closed form are in ``problems.likelihoods``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

Tree = Any


class OrbitTerms(NamedTuple):
    """Orbits of one tile, [width]; weight is 0 for padding.

    x: calculated. y: observed, in units of the objective. weight: omega. variance: of y. part: 0 fitted, 1 held out.
    shell: of resolution. background: [J, width], smooth functions of 1/d. first_shell: the lowest of the tile. ess:
    effective frames behind x, a number.
    """

    x: jax.Array
    y: jax.Array
    weight: jax.Array
    variance: jax.Array
    part: jax.Array
    shell: jax.Array
    background: jax.Array
    first_shell: jax.Array
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
        """How badly ``judged`` agrees, with nuisances as they suit ``fitted``: of the same sums, what is minimised."""

    def directions(self, orbits: OrbitTerms) -> Directions:
        """See ``Directions``; x and ess are not looked at."""

    def coefficients(self, sums_bar: Tree, first_shell: jax.Array) -> jax.Array:
        """[K], from the cotangent of the sums; ``first_shell``: the lowest of the tile."""


class PearsonSums(NamedTuple):
    """Sums of omega times the name, [parts, groups]."""

    n: jax.Array
    x: jax.Array
    y: jax.Array
    xx: jax.Array
    yy: jax.Array
    xy: jax.Array


def pearson_sums(
    orbits: OrbitTerms, parts: int, groups: jax.Array, first: jax.Array, spread: int, n: int
) -> PearsonSums:
    """In n groups; ``groups`` [width] of each orbit are first ... first + spread - 1 in this tile."""
    x, y = orbits.x, orbits.y
    terms = jnp.stack([jnp.ones_like(x), x, y, x * x, y * y, x * y])
    # A product with 0 and 1 for each group is faster than sums of segments, whose length the compiler does not know.
    inside = (groups - first) == jnp.arange(spread)[:, None]
    weights = jnp.stack([jnp.where(inside, orbits.weight_of(number), 0.0) for number in range(parts)])
    found = jnp.einsum("vh,pgh->vpg", terms, weights)
    whole = jnp.zeros((len(terms), parts, n + spread), found.dtype)
    return PearsonSums(*jax.lax.dynamic_update_slice_in_dim(whole, found, first, axis=2)[:, :, :n])


def centred(sums: PearsonSums) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Second moments (xx, yy, xy) about the mean of each group, [groups]; an empty group has none."""
    n = jnp.where(jnp.asarray(sums.n) > 0, sums.n, 1.0)
    return sums.xx - sums.x**2 / n, sums.yy - sums.y**2 / n, sums.xy - sums.x * sums.y / n


def correlation(sums: PearsonSums) -> jax.Array:
    """Pearson's CC of one part, the mean of each group removed from x and y."""
    xx, yy, xy = (jnp.sum(value) for value in centred(sums))
    return xy / jnp.sqrt(xx * yy)


def part_of(sums: Tree, number: int) -> Tree:
    """The sums of one part."""
    return jax.tree.map(lambda leaf: leaf[number], sums)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pearson:
    """-CC. groups: 1, or the number of resolution shells whose means are removed (anisotropic). tile_shells: the most
    shells that one tile has."""

    in_one_pass = True
    groups: int = field(default=1, metadata={"static": True})
    tile_shells: int = field(default=1, metadata={"static": True})

    def start(self) -> dict:
        """Scale and offset do not change a correlation."""
        return {}

    def sums(self, orbits: OrbitTerms, shared: dict, parts: int) -> PearsonSums:
        """By shell, or all together."""
        first = self._group(orbits.first_shell)
        return pearson_sums(orbits, parts, self._group(orbits.shell), first, self.tile_shells, self.groups)

    def misfit(self, fitted: PearsonSums, judged: PearsonSums, shared: dict) -> jax.Array:
        """-CC of the orbits that are judged."""
        return -correlation(judged)

    def directions(self, orbits: OrbitTerms) -> Directions:
        """omega y, omega of each shell of the tile, omega x: the cotangents of xx and xy are those of all shells."""
        weight = orbits.weight_of(0)
        slot = self._group(orbits.shell - orbits.first_shell)
        shells = [jnp.where(slot == number, weight, 0.0) for number in range(self.tile_shells)]
        return Directions(jnp.stack([weight * orbits.y, *shells]), weight, 1)

    def coefficients(self, sums_bar: PearsonSums, first_shell: jax.Array) -> jax.Array:
        """Of omega y, of omega in each shell of the tile, and of omega x."""
        bar = part_of(sums_bar, 0)
        first = self._group(first_shell)
        shells = jnp.pad(bar.x, (0, self.tile_shells))[first + jnp.arange(self.tile_shells)]
        return jnp.concatenate([bar.xy[first][None], shells, 2 * bar.xx[first][None]])

    def _group(self, shell: jax.Array) -> jax.Array:
        return shell if self.groups > 1 else jnp.zeros_like(shell)


class NormalEquations(NamedTuple):
    """gram: [parts, J + 2, J + 2], sums of omega a b over a, b in (x, background functions, y). n: [parts], omega."""

    gram: jax.Array
    n: jax.Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ProfiledGaussian:
    """Half the reduced chi^2 of y against k x + sum_j c_j B_j(1/d), with the best k and c (closed form).

    omega holds 1 / sigma^2. A negative scale is counted as the loss of agreement that it is, so that with B = 1 and
    equal sigmas the misfit is (1 - CC |CC|) / 2 times the variance of y: least where CC is largest.
    """

    in_one_pass = True

    def start(self) -> dict:
        """Scale and background are profiled out."""
        return {}

    def sums(self, orbits: OrbitTerms, shared: dict, parts: int) -> NormalEquations:
        """The normal equations; n counts orbits by omega sigma^2, so that chi^2 comes out reduced."""
        terms = jnp.concatenate([orbits.x[None], orbits.background, orbits.y[None]])
        weights = jnp.stack([orbits.weight_of(number) for number in range(parts)])
        gram = jnp.einsum("ph,ih,jh->pij", weights, terms, terms)
        return NormalEquations(gram, jnp.sum(weights * orbits.variance, axis=1))

    def misfit(self, fitted: NormalEquations, judged: NormalEquations, shared: dict) -> jax.Array:
        """Of the judged orbits, with scale and background of the fitted ones."""
        k, c = self.nuisances(fitted)
        best = jnp.concatenate([jnp.array([k]), c, jnp.array([-1.0])])
        # The quadratic form of the residual k x + c B - y.
        chi2 = best @ judged.gram @ best
        # What the term in x takes off chi^2 is k^2 S, S being the Schur complement of the background.
        gain = k * jnp.abs(k) * _schur(judged.gram)
        return 0.5 * (chi2 + k**2 * _schur(judged.gram) - gain) / judged.n

    def nuisances(self, fitted: NormalEquations) -> tuple[jax.Array, jax.Array]:
        """(k, c [J]) of the best k x + sum_j c_j B_j."""
        solution = _solve(fitted.gram[:-1, :-1], fitted.gram[:-1, -1])
        return solution[0], solution[1:]

    def directions(self, orbits: OrbitTerms) -> Directions:
        """omega B_j, omega y, omega x."""
        weight = orbits.weight_of(0)
        return Directions(weight * jnp.concatenate([orbits.background, orbits.y[None]]), weight, 1)

    def coefficients(self, sums_bar: NormalEquations, first_shell: jax.Array) -> jax.Array:
        """Of omega B_j, omega y and omega x: the row and the column of x in the cotangent."""
        bar = sums_bar.gram[0]
        return jnp.roll(bar[0] + bar[:, 0], -1)


def _schur(gram: jax.Array) -> jax.Array:
    """The sum of squares of what the background leaves of x."""
    xB, BB = gram[0, 1:-1], gram[1:-1, 1:-1]
    return gram[0, 0] - xB @ _solve(BB, xB)


def _solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """A symmetric positive system, brought to a unit diagonal first: electrons^2 and counts differ by decades."""
    scale = 1 / jnp.sqrt(jnp.diagonal(matrix))
    return scale * jnp.linalg.solve(scale[:, None] * matrix * scale, scale * right)


class CrossEntropySums(NamedTuple):
    """Sums of omega times the name, [parts]."""

    x: jax.Array
    y: jax.Array
    y_ln_x: jax.Array
    y_ln_y: jax.Array


@jax.tree_util.register_dataclass
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
        """Of the judged orbits, as distributions among themselves."""
        return (judged.y_ln_y - judged.y_ln_x) / judged.y + jnp.log(judged.x / judged.y)

    def directions(self, orbits: OrbitTerms) -> Directions:
        """omega, and omega y / x."""
        weight = orbits.weight_of(0)
        return Directions(weight[None], weight * orbits.y, -1)

    def coefficients(self, sums_bar: CrossEntropySums, first_shell: jax.Array) -> jax.Array:
        """Of omega and of omega y / x."""
        return jnp.stack([sums_bar.x[0], sums_bar.y_ln_x[0]])
