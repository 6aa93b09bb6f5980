"""The contract of an observable: numbers of a frame, their average, and what a measurement is compared with.

An observable is a frozen dataclass, registered as a JAX pytree: what can be fitted (the coefficients of a Karplus
curve) are leaves, all else is static. Positions are [N, 3], a box [3, 3] with the cell's vectors as rows or None;
lengths may be in any unit, the same for all. Derivatives by positions, boxes and leaves come from JAX.

Most observables need positions alone (``Observable``). One of energies, pressures or dipoles needs the state of a
simulation (``OfStates``), and one of a motion needs the frames of a walk in their order (``OfWalks``): its derivative
is that of the trajectory, which no sample of single frames knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax

from hpcfit.pytrees import pytree


class Observable(Protocol):
    """Numbers of a frame that are averaged, and a function of their average."""

    def of_frame(self, x: Any, box: Any) -> Any:
        """The numbers of one frame that are averaged, an array [...]."""

    def of_average(self, average: Any) -> Any:
        """The numbers that are compared with a measurement, [M]."""


class State(NamedTuple):
    """One frame of a simulation. x: [N, 3] nm; v: [N, 3] nm/ps, None where velocities are not known; box: [3, 3] nm or
    None; potential: (x, box) -> kJ/mol, at ``parameters``, those of the energy; kT: kJ/mol; masses: [N] amu."""

    x: Any
    v: Any
    box: Any
    potential: Callable[[Any, Any], Any]
    parameters: Any
    kT: Any
    masses: Any


@runtime_checkable
class OfStates(Protocol):
    """An observable that needs more of a frame than positions and box."""

    def of_state(self, state: State) -> Any:
        """The numbers of one frame that are averaged, an array [...]."""

    def of_average(self, average: Any) -> Any:
        """See ``Observable``."""


@runtime_checkable
class OfWalks(Protocol):
    """An observable of the frames of one walk, in their order. Its ``of_frame`` or ``of_state`` gives what is kept of a
    frame."""

    def of_walk(self, kept: Any, interval: Any) -> Any:
        """The numbers that are averaged over walks, from what was kept of each frame, [frames, ...], which are
        ``interval`` ps apart."""


def numbers(one: Observable | OfStates, state: State) -> Any:
    """The numbers of a frame that an observable of either sort averages, or keeps of a walk."""
    return one.of_state(state) if isinstance(one, OfStates) else one.of_frame(state.x, state.box)


def fixed(default: Any = MISSING) -> Any:
    """The field of a dataclass that is no leaf: indices, counts, names. It must be hashable."""
    return field(default=default, metadata={"static": True})


def observable(cls: type) -> type:
    """Make a class a frozen dataclass and a pytree whose ``fixed`` fields are static."""
    return pytree(dataclass(frozen=True)(cls))


def averaged(one: Observable, frames: Any, boxes: Any = None, weights: Any = None) -> Any:
    """The observable of frames [T, N, 3] with boxes [T, 3, 3] and weights [T] that sum to 1 (equal ones if None)."""
    of_frames = over_frames(one.of_frame)(frames, boxes)
    mean = of_frames.mean(axis=0) if weights is None else jax.numpy.tensordot(weights, of_frames, 1)
    return one.of_average(mean)


def over_frames(function: Callable) -> Callable:
    """``function(x, box)`` of each frame, one after another, which keeps what is made of a frame in the cache."""

    def mapped(frames: Any, boxes: Any) -> Any:
        if boxes is None:
            return jax.lax.map(lambda x: function(x, None), frames)
        return jax.lax.map(lambda pair: function(*pair), (frames, boxes))

    return mapped
