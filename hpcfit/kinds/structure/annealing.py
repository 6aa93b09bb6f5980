"""Simulated annealing by Langevin dynamics, of many replicas at once, as an optimizer that is told of evaluations.

    T(t) = T_0 (1 - t / steps)

Langevin dynamics in the middle scheme (``simulation.langevin.middle``), with one evaluation a step. Masses have no
effect on which configurations a temperature has, so that every particle has the same one: it is given by the mean
displacement of a coordinate in a step at T_0. What a replica does depends on its seed alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import numpy as np

from hpcfit.fit.gradient import Evaluation
from hpcfit.fit.inner import InnerProduct
from hpcfit.fit.lbfgs import GOING, MAX_STEPS, NOT_FINITE
from hpcfit.fit.problem import Params
from hpcfit.simulation.langevin import Bath, Scheme, middle, noise

Array = np.ndarray
HOT = 1000.0  # K, where energies are in kJ/mol
STEP = 0.02  # of a coordinate at the first temperature, in units of length
FRICTION = 0.01  # of a step: velocities are forgotten in a hundred of them
FASTEST = 10.0  # of the thermal velocity at T_0: no component is faster, so that a clash throws nothing far away


class Cooling(NamedTuple):
    """A course of temperatures. kT: the first one, in units of energy; step: the root mean square displacement of a
    coordinate in a step at that temperature, in the unit of coordinates; steps: until 0."""

    kT: float
    step: float
    steps: int

    def scheme(self) -> Scheme:
        """The integrator at the first temperature, numbers; a unit of time is a step."""
        made = middle(Bath(self.kT, FRICTION, 1.0), np.array([self.kT / self.step**2]))
        return Scheme(*(float(np.ravel(number)[0]) for number in made))


class AnnealingState(NamedTuple):
    """Replicas on their way, numbers [*each]. params, loss, gradient: where they are; velocity: of a step."""

    params: Params
    loss: Array
    gradient: Params
    velocity: Params
    steps: Array
    status: Array

    @property
    def going(self) -> Array:
        """Those that have not ended."""
        return self.status == GOING


@dataclass(frozen=True)
class Annealing:
    """See the module and ``fit.downhill.Descent``. The result of a replica is where it is at temperature 0, not the
    best point on its way. seeds: [W], of the rows of ``inner``."""

    inner: InnerProduct
    seeds: Array
    cooling: Cooling

    def begun(self, params: Params, here: Evaluation) -> AnnealingState:
        """The replicas at their starts, with velocities of the first temperature."""
        zeros, loss = np.zeros(self.inner.each), np.asarray(here.loss, float)
        velocity = self.inner.combine([zeros + self.cooling.step], [self._noise(params, zeros.astype(int))])
        status = np.where(np.isfinite(loss), GOING, NOT_FINITE)
        return AnnealingState(params, loss, here.gradient, velocity, zeros.astype(int), status)

    def trial(self, state: AnnealingState) -> Params:
        """The points that are to be evaluated next; of one that has ended, where it is."""
        return self._moved(state)[0]

    def told(self, state: AnnealingState, here: Evaluation) -> AnnealingState:
        """All after a step. One that comes to where there is no energy stays where it was."""
        params, velocity = self._moved(state)
        loss, chosen = np.asarray(here.loss, float), self.inner.chosen
        taken = state.going & np.isfinite(loss)
        steps = state.steps + state.going
        status = np.where(taken, np.where(steps >= self.cooling.steps, MAX_STEPS, GOING), NOT_FINITE)
        return AnnealingState(
            chosen(taken, params, state.params), np.where(taken, loss, state.loss),
            chosen(taken, here.gradient, state.gradient), chosen(taken, velocity, state.velocity), steps,
            np.where(state.going, status, state.status),
        )  # fmt: skip

    @cached_property
    def _scheme(self) -> Scheme:
        return self.cooling.scheme()

    def _moved(self, state: AnnealingState) -> tuple[Params, Params]:
        """Places and velocities after a step at the present temperature."""
        one, scheme = np.ones(self.inner.each), self._scheme
        amplitude = np.sqrt(np.maximum(1 - state.steps / self.cooling.steps, 0.0))  # of noise, sqrt(T / T_0)
        vectors = [state.velocity, state.gradient, self._noise(state.params, state.steps + 1)]
        ahead = self.inner.combine([scheme.xv * one, -scheme.xf * one, scheme.xn * amplitude], vectors)
        after = self.inner.combine([scheme.vv * one, -scheme.vf * one, scheme.vn * amplitude], vectors)
        most = FASTEST * self.cooling.step
        ahead, after = (jax.tree.map(lambda leaf: np.clip(leaf, -most, most), tree) for tree in (ahead, after))
        return self.inner.combine([one, np.where(state.going, 1.0, 0.0)], [state.params, ahead]), after

    def _noise(self, like: Params, numbers: Array) -> Params:
        """Normal numbers of a step of each replica, by its number."""
        z = like.local["z"]
        return Params((), {"z": np.asarray(_noise(self.seeds, numbers[0], z[0]))[None]})


@jax.jit
def _noise(seeds, numbers, like):
    return jax.vmap(lambda seed, number, one: noise(jax.random.key(seed), number, one))(seeds, numbers, like)
