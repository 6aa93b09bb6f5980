"""The way derivatives are taken through trajectories, and what it costs in steps of plain dynamics.

A step with P tangents takes about 1.4 + P plain ones. Multiplied with the Hessian as a matrix, which is made once a
step for all of them, they take 1.4 + 0.75 x 3N + P / 2: less beyond P = 1.5 x 3N. A step whose cotangents are pulled
back takes 3.4 for any P, with the steps between two frames computed again; where derivatives of each averaged number
are asked for, 4 with the first and 1.3 more with each further one of an observable. Measured on alanine dipeptide and
argon, on one core (``tools/bench_force_field.py hessian data``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from hpcfit.simulation.langevin import PhasePoint

if TYPE_CHECKING:
    from hpcfit.kinds.force_field.simulated.config import SimulatedConfig
    from hpcfit.kinds.force_field.simulated.ensemble import Ensemble

FRAME = 2.0  # plain steps, of the energy of a frame and each of its derivatives
PULLED = 3.4  # plain steps, of a step with the pull-back of a gradient
FIRST, FURTHER = 3.0, 1.3  # plain steps, of the pull-back of one of an observable's numbers, and of each more with it
COLUMN, ROW = 0.75, 0.5  # plain steps, of each coordinate and of each tangent by the Hessian as a matrix
STEPS = 50  # that are timed at once
LONG = 0.3  # seconds, after which a step has been timed


def by_products(P: int) -> float:
    """Plain steps that a step with P tangents takes, each multiplied with the Hessian by itself."""
    return 1.4 + P


def by_matrix(P: int, coordinates: int) -> float:
    """Plain steps that a step with P tangents takes, all multiplied with the Hessian as a matrix."""
    return 1.4 + COLUMN * coordinates + ROW * P


def of_tangents(P: int, coordinates: int, matrix: bool) -> float:
    """Plain steps that a step with P tangents takes."""
    return by_matrix(P, coordinates) if matrix else by_products(P)


def of_pull_backs(averaged: Sequence[int]) -> float:
    """Plain steps that a step takes whose averaged numbers, so many by each observable, are pulled back one by one."""
    return 1 + sum(FIRST + FURTHER * (count - 1) for count in averaged)


class Size(NamedTuple):
    """A system as far as its derivatives cost. coordinates: 3N; steps: of a window, of which each ``stride``-th is a
    frame; averaged: the numbers that each of its observables averages."""

    coordinates: int
    steps: int
    stride: int
    averaged: tuple[int, ...]


class Direction(NamedTuple):
    """A way to take derivatives. forward: those of the sums are taken in one pass, else the gradient alone is pulled
    back in a second one; pulled: those of the sums by pull-backs of each of their numbers, else by tangents of each
    parameter; matrix: of each system, whether its tangents are multiplied with the Hessian as a matrix; costs: of each,
    plain steps of a step; reason: in words."""

    forward: bool
    pulled: bool
    matrix: tuple[bool, ...]
    costs: tuple[float, ...]
    reason: str


def direction(choice: SimulatedConfig, P: int, sizes: Sequence[Size]) -> Direction:
    """The way of a fit of P parameters to averages of systems of these sizes."""
    jacobian = choice.solver == "gauss-newton"
    matrix = tuple(by_matrix(P, one.coordinates) < by_products(P) for one in sizes)
    if choice.estimator != "pathwise":
        forward = jacobian or by_products(P) <= PULLED
        costs = tuple(1 + FRAME * (P + 1 if forward else PULLED) / one.stride for one in sizes)
        return Direction(forward, False, matrix, costs, f"derivatives of frames alone by {P} parameters")
    carried = tuple(of_tangents(P, one.coordinates, by) for one, by in zip(sizes, matrix))
    backward = tuple(of_pull_backs(one.averaged) for one in sizes)
    pulled = _mean(backward, sizes) < _mean(carried, sizes)
    along = f"{P} tangents carried along{_by_matrix(matrix)}, {_mean(carried, sizes):.3g} plain steps a step"
    each = f"pull-backs of {sum(sum(one.averaged) for one in sizes)} averaged numbers"
    none = (False,) * len(sizes)
    if not jacobian and _mean(carried, sizes) > PULLED:
        reason = f"the gradient alone, pulled back: {PULLED} plain steps a step; {along}"
        return Direction(False, pulled, none, (PULLED,) * len(sizes), reason)
    if not jacobian:
        return Direction(True, False, matrix, carried, f"{along}; a pull-back {PULLED}")
    if pulled:
        reason = f"{each}, {_mean(backward, sizes):.3g} plain steps a step, for Gauss-Newton; {along}"
        return Direction(True, True, none, backward, reason)
    reason = f"{along}, for Gauss-Newton; {each} {_mean(backward, sizes):.3g}, and solver = 'optimizer' needs one"
    return Direction(True, False, matrix, carried, reason)


def _mean(costs: Sequence[float], sizes: Sequence[Size]) -> float:
    """The mean over all systems, of which large ones and long windows count more."""
    return float(np.average(costs, weights=[one.coordinates * one.steps for one in sizes]))


def _by_matrix(matrix: Sequence[bool]) -> str:
    if not any(matrix):
        return ""
    systems = "" if all(matrix) else f" in {sum(matrix)} of {len(matrix)} systems"
    return f" by the Hessian as a matrix{systems}"


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
