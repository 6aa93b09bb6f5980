"""The way derivatives are taken through trajectories, and what it costs in steps of plain dynamics.

A step with P tangents takes about 1.4 + P plain ones; a step whose cotangents are pulled back 3.4 for any P, with the
steps between two frames computed again. Tangents by the Hessian as a matrix take 0.7 x 3N + 0.5 P, which is less from P
= 4N or so on, and at most half: windows do not have that way. Measured on alanine dipeptide and argon, on one core.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from hpcfit.simulation.langevin import PhasePoint

if TYPE_CHECKING:
    from hpcfit.kinds.force_field.simulated.config import SimulatedConfig
    from hpcfit.kinds.force_field.simulated.ensemble import Ensemble

PULLED = 3.4  # plain steps, of a step with its pull-back
FRAME = 2.0  # plain steps, of the energy of a frame and each of its derivatives
STEPS = 50  # that are timed at once
LONG = 0.3  # seconds, after which a step has been timed


def of_tangents(P: int) -> float:
    """Plain steps that a step with P tangents takes."""
    return 1.4 + P


class Direction(NamedTuple):
    """A way to take derivatives. forward: tangents are carried along, else cotangents pulled back; cost: plain steps of
    a step; reason: in words."""

    forward: bool
    cost: float
    reason: str


def direction(choice: SimulatedConfig, P: int, n_data: int, stride: int) -> Direction:
    """The way of a fit of P parameters to so many data, with a frame each ``stride`` steps."""
    jacobian = choice.solver == "gauss-newton"
    forward = jacobian or of_tangents(P) <= PULLED
    if choice.estimator != "pathwise":
        cost = 1 + FRAME * (P + 1 if forward else PULLED) / stride
        return Direction(forward, cost, f"derivatives of frames alone by {P} parameters")
    carried = f"{P} tangents carried along, {of_tangents(P):.3g} plain steps a step"
    if not forward:
        return Direction(False, PULLED, f"the gradient alone, pulled back: {PULLED} plain steps a step; {carried}")
    if not jacobian:
        return Direction(True, of_tangents(P), f"{carried}; a pull-back {PULLED}")
    backward = f"pull-backs of {n_data} data {PULLED + 2 * (n_data - 1):.3g}, and solver = 'optimizer' needs one"
    return Direction(True, of_tangents(P), f"{carried}, for Gauss-Newton; {backward}")


def seconds_a_step(ensemble: Ensemble, positions: Any, block: int) -> float:
    """The seconds of a plain step of one of a block of windows, from positions [N, 3] nm: the least of some runs."""
    start = PhasePoint(*np.zeros((2, block, *np.shape(positions))))
    start.x[:] = positions
    found, began = [], time.perf_counter()
    jax.block_until_ready(_moved(ensemble, start))
    while not found or time.perf_counter() - began < LONG:
        before = time.perf_counter()
        jax.block_until_ready(_moved(ensemble, start))
        found.append(time.perf_counter() - before)
    return min(found) / STEPS / block


@jax.jit
def _moved(ensemble: Ensemble, start: PhasePoint) -> PhasePoint:
    return ensemble.each(lambda one: ensemble.moved(one, jax.random.key(0), STEPS, 0).end, start)
