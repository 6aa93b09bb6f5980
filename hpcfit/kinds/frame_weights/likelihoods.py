"""Likelihoods whose scale and background are parameters of the fit: Student-t, Poisson, and a Gaussian that counts the
sampling error of the ensemble itself.

    mu(h) = k x(h) + sum_j c_j B_j(1/d)        misfit = sum of omega density(y, mu, v) / sum of omega

The scale k = k0 exp(log_scale) and the background are shared parameters. v is the variance of y: measured, or where the
map has none exp(2 log_sigma), a parameter as well. With ``model_error`` it is sigma^2 + (k x)^2 / ESS: the intensity of
ESS independent frames has a relative sampling error of 1 / sqrt(ESS), since the amplitude of a speckle is Gaussian. A
fit that collapses onto few frames pays for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.kinds.frame_weights.objectives import OrbitTerms, Splines
from hpcfit.pytrees import pytree

Density = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def gaussian(y: jax.Array, mu: jax.Array, variance: jax.Array) -> jax.Array:
    """r^2 / (2 v) + ln(v) / 2."""
    return 0.5 * (y - mu) ** 2 / variance + 0.5 * jnp.log(variance)


@dataclass(frozen=True)
class StudentT:
    """(nu + 1) / 2 ln(1 + r^2 / (nu v)) + ln(v) / 2: outliers pull with a force that falls again."""

    nu: float

    def __call__(self, y: jax.Array, mu: jax.Array, variance: jax.Array) -> jax.Array:
        r2 = (y - mu) ** 2 / (self.nu * variance)
        return 0.5 * (self.nu + 1) * jnp.log1p(r2) + 0.5 * jnp.log(variance)


def poisson(y: jax.Array, mu: jax.Array, variance: jax.Array) -> jax.Array:
    """Half the deviance, mu - y + y ln(y / mu); y in counts, mu > 0."""
    return mu - y + jax.scipy.special.xlogy(y, y) - jax.scipy.special.xlogy(y, mu)


class Averages(NamedTuple):
    """Sums over orbits, [parts]."""

    density: jax.Array
    n: jax.Array


@pytree
@dataclass(frozen=True)
class Likelihood:
    """See the module. k0: scale of x at the start. c0: [J], background there. positive: the background is c0 exp(b)
    instead of c0 + b, which keeps mu of a Poisson law above 0. free_sigma: the map has no sigmas."""

    in_one_pass = False  # the derivative by x depends on scale and residual
    k0: float
    c0: np.ndarray
    density: Density = field(metadata={"static": True})
    model_error: bool = field(default=False, metadata={"static": True})
    positive: bool = field(default=False, metadata={"static": True})
    free_sigma: bool = field(default=False, metadata={"static": True})

    def start(self) -> dict[str, np.ndarray]:
        """Scale and background as regression on the spread of the frames gives them."""
        free = {"log_sigma": np.zeros(())} if self.free_sigma else {}
        return {"log_scale": np.zeros(()), "background": np.zeros(len(self.c0)), **free}

    def sums(self, orbits: OrbitTerms, shared: dict, parts: int) -> Averages:
        """The density of every orbit, weighted."""
        kx = self.k0 * jnp.exp(shared["log_scale"]) * orbits.x
        mu = kx + self._background_at(orbits.background, shared)
        variance = orbits.variance * (jnp.exp(2 * shared["log_sigma"]) if self.free_sigma else 1.0)
        if self.model_error:
            variance = variance + kx**2 / orbits.ess
        held = orbits.weight > 0  # padding has mu = 0
        density = self.density(orbits.y, jnp.where(held, mu, 1.0), jnp.where(held, variance, 1.0))
        weights = jnp.stack([orbits.weight_of(number) for number in range(parts)])
        return Averages(weights @ density, jnp.sum(weights, axis=1))

    def _background_at(self, splines: Splines, shared: dict) -> jax.Array:
        m = splines.values.shape[0]
        c = jnp.pad(self.background(shared), (0, m))
        return jax.lax.dynamic_slice_in_dim(c, splines.first, m) @ splines.values

    def background(self, shared: dict) -> jax.Array:
        """c, [J]."""
        return self.c0 * jnp.exp(shared["background"]) if self.positive else self.c0 + shared["background"]

    def misfit(self, fitted: Averages, judged: Averages, shared: dict) -> jax.Array:
        """The mean density of the judged orbits."""
        return judged.density / judged.n
