"""Derivatives of averages by the likelihood of the noise: Malliavin weights, which need no Hessian.

Hold the positions of a trajectory fixed while a parameter changes. The noise that leads through them, step by step,

    n = (x' - x - xv v - xf F) / xn,        v' = vv v + vf F + vn n                    (``langevin.Scheme``)

then changes by dn, with the force where it is and with the velocities that follow; the density of the positions, a
product of normal ones, changes by the weight q, and an average of positions by what correlates with it:

    q = -sum over steps of n dn/dtheta        d<O>/dtheta = <dO/dtheta> + <O q> - <O> <q>

Steps n, dn are independent, so that q is a martingale: its mean is 0 and its variance grows with the number of steps.
This holds for each scheme with noise of its own on all positions, exactly, at any step; one noise moves position and
velocity along a line, and the formula above finds what forces change across it. Warren and Allen, Entropy 16, 221
(2014), 10.3390/e16010221.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hpcfit.simulation.langevin import PhasePoint, Scheme


class Weighed(NamedTuple):
    """A point whose positions depend on no parameter. likelihood: a number whose derivative by the parameters is the
    weight q of the walk so far; its value means nothing."""

    x: Any
    v: Any
    likelihood: Any

    @property
    def place(self) -> tuple[Any, ...]:
        """Its positions."""
        return (self.x,)


@dataclass(frozen=True)
class Weighing:
    """A scheme that takes the steps of another, with positions as constants and the weight of each step."""

    scheme: Scheme

    def kicked(self, point: Weighed, force: Any, noise: Any) -> Weighed:
        """The point one step later."""
        one = self.scheme
        x, v, *_ = jax.lax.stop_gradient(one.kicked(PhasePoint(point.x, point.v), force, noise))
        shaken = jnp.where(one.xn > 0, one.xn, jnp.inf)  # particles without mass do not move by themselves
        n = (x - one.moved(PhasePoint(point.x, point.v), force).x) / shaken
        behind = one.vv * point.v + one.vf * force + one.vn * n
        v = v + (behind - jax.lax.stop_gradient(behind))  # the value without its rounding
        return Weighed(x, v, point.likelihood - jnp.sum(jax.lax.stop_gradient(noise) * n))
