"""Correlations in time along a walk: velocities, positions, displacements, and the diffusion they amount to.

Each is a mean over all time origins behind a burn-in and over the atoms. A lag is a number of frames; walks have
positions that no box has wrapped. Only the derivative of the trajectory itself knows how they depend on parameters, and
they depend on the friction of the bath as well.

A diffusion constant of a periodic box of edge L is too small by about 2.837 kT / (6 pi viscosity L), which is not added
(Yeh and Hummer 2004, 10.1021/jp0477147).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.errors import InputError
from hpcfit.observables.geometry import AsAveraged
from hpcfit.observables.observable import State, fixed, observable

Lags = tuple[int, ...]


def over_origins(frames: Any, lags: Lags, burn_in: int, of_two: Callable[[Any, Any], Any]) -> Any:
    """The mean of of_two(frame, frame a lag later) over all origins behind the burn-in, for each lag, [L].

    frames: [T, n, d]; of_two: of arrays [..., n, d], a number of each vector, [..., n].
    """
    kept = frames[burn_in:]
    _check_lags(lags, len(frames), burn_in)
    places = jnp.arange(len(kept))

    def at(lag: Any) -> Any:
        held = places < len(kept) - lag
        later = jnp.roll(kept, -lag, axis=0)  # a lag may be traced: one program for all of them
        return jnp.sum(jnp.where(held, jnp.mean(of_two(kept, later), axis=-1), 0.0)) / (len(kept) - lag)

    return jax.lax.map(at, jnp.asarray(lags))


def _check_lags(lags: Lags, frames: int, burn_in: int) -> None:
    if max(lags) >= frames - burn_in:
        raise InputError(
            f"a walk of {frames} frames has no two frames {max(lags)} apart behind a burn-in of {burn_in}",
            remedy="lengthen the windows, or shorten the lags or the burn-in",
        )


def _check_numbers(lags: Lags, burn_in: int, fewest: int = 1) -> None:
    if len(lags) < fewest or min(lags) < 0 or burn_in < 0:
        raise InputError(
            f"lags = {list(lags)} and burn_in = {burn_in} frames of a walk",
            remedy=f"give at least {fewest} of them, none below 0",
        )


def product(one: Any, other: Any) -> Any:
    """The scalar product of vectors [..., d], [...]."""
    return jnp.sum(one * other, axis=-1)


def squared_distance(one: Any, other: Any) -> Any:
    """|one - other|^2 of vectors [..., d], [...]."""
    return jnp.sum((one - other) ** 2, axis=-1)


class AtLags:
    """A motion seen at some lags."""

    def __post_init__(self):
        _check_numbers(self.lags, self.burn_in)


class OfVelocities:
    """A motion of which velocities are kept."""

    def of_state(self, state: State) -> Any:
        if state.v is None:
            raise InputError("these frames have no velocities", remedy="use windows of a simulation")
        return state.v[np.array(self.atoms)]


class OfPositions:
    """A motion of which positions are kept."""

    def of_frame(self, x: Any, box: Any) -> Any:
        return x[np.array(self.atoms)]


@observable
class VelocityAutocorrelation(AtLags, OfVelocities, AsAveraged):
    """<v(t) . v(t + lag)> for each lag, [L] nm^2/ps^2; d kT / m at lag 0."""

    atoms: tuple[int, ...] = fixed()
    lags: Lags = fixed()
    burn_in: int = fixed()

    def of_walk(self, kept: Any, interval: Any) -> Any:
        return over_origins(kept, self.lags, self.burn_in, product)


@observable
class PositionAutocorrelation(AtLags, OfPositions, AsAveraged):
    """<u(t) . u(t + lag)> for each lag, [L] nm^2, of the displacements u from ``centre``.

    centre: [n, d] nm, the mean positions of the atoms or the bottoms of their wells, a constant of the sample.
    """

    centre: Any
    atoms: tuple[int, ...] = fixed()
    lags: Lags = fixed()
    burn_in: int = fixed()

    def of_walk(self, kept: Any, interval: Any) -> Any:
        return over_origins(kept - jnp.asarray(self.centre), self.lags, self.burn_in, product)


@observable
class MeanSquareDisplacement(AtLags, OfPositions, AsAveraged):
    """<|x(t + lag) - x(t)|^2> for each lag, [L] nm^2."""

    atoms: tuple[int, ...] = fixed()
    lags: Lags = fixed()
    burn_in: int = fixed()

    def of_walk(self, kept: Any, interval: Any) -> Any:
        return over_origins(kept, self.lags, self.burn_in, squared_distance)


@observable
class Diffusion(OfPositions, AsAveraged):
    """The diffusion constant by Einstein's relation, [1] nm^2/ps: the slope of the mean square displacement over 2 d.

    lags: two or more, where displacements grow linearly; the slope is that of the least-squares line through them.
    """

    atoms: tuple[int, ...] = fixed()
    lags: Lags = fixed()
    burn_in: int = fixed()

    def __post_init__(self):
        _check_numbers(self.lags, self.burn_in, fewest=2)
        if len(set(self.lags)) == 1:
            raise InputError(f"all lags of a diffusion are {self.lags[0]}", remedy="give two or more that differ")

    def of_walk(self, kept: Any, interval: Any) -> Any:
        away = np.array(self.lags) - np.mean(self.lags)
        moved = over_origins(kept, self.lags, self.burn_in, squared_distance)
        slope = jnp.dot(away, moved) / (interval * np.sum(away**2))
        return slope[None] / (2 * kept.shape[-1])


@observable
class DiffusionOfVelocities(OfVelocities, AsAveraged):
    """The diffusion constant by the relation of Green and Kubo, [1] nm^2/ps: the integral of <v(0) . v(t)> over d.

    The integral ends at the lag ``last`` and is a sum of trapezia an interval wide, which must be short beside the time
    in which velocities change.
    """

    atoms: tuple[int, ...] = fixed()
    last: int = fixed()
    burn_in: int = fixed()

    def __post_init__(self):
        _check_numbers((self.last - 1,), self.burn_in)

    def of_walk(self, kept: Any, interval: Any) -> Any:
        found = over_origins(kept, tuple(range(self.last + 1)), self.burn_in, product)
        return interval * jnp.trapezoid(found)[None] / kept.shape[-1]
