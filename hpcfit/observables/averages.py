"""The misfit of averages over frames to measurements, chi2 / 2, whatever weights the frames have.

    chi2 = sum over data of ((c - measured) / sigma)^2,     of a bound only beyond it

c is a function of averages over frames of numbers that no parameter changes: the average itself, a distance by a power
of it, or a coupling by a Karplus curve whose coefficients may be fitted. c of a set of data may be adjusted first by a
factor and a constant, which are those of least chi2 (weighted linear regression on the fitted data of the set): they
are solved for, not iterated, and since chi2 is at its minimum in them they change no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

SCALED, SHIFTED = ("scale", "both", "modulation-depth"), ("offset", "both")


class Adjusted(NamedTuple):
    """The sets of data that are adjusted, [n] each. A set that is scaled and not shifted is so about ``pivot``: 0, or
    1 for a modulation depth, where 1 - d + d c is compared."""

    scaled: Any
    shifted: Any
    pivot: Any

    @classmethod
    def of(cls, words: Sequence[str]) -> Adjusted:
        """The sets by the words of their configs."""
        pick = lambda known: np.array([word in known for word in words], bool)  # noqa: E731
        return cls(pick(SCALED), pick(SHIFTED), pick(("modulation-depth",)).astype(float))


class Data(NamedTuple):
    """The measurements, [N] each but ``sets``. A column is where the averages of an ensemble have the first number of a
    datum.

    A plain datum averages (g - measured) / sigma; one of a ``power`` p averages (r / measured)^-p; one of a curve
    averages cos in its column and cos^2 in the next. curve: number, -1 for none. intensity: 1 where r^-p itself is
    compared, with the sigma p r^-p sigma / r that BME gives it, 0 for distances. side: 1 counts only beyond an upper
    bound, -1 beyond a lower one, 0 on both sides. count: how often it counts in the fit, 0 if it is held out. adjusted:
    the number of its set in ``sets``, -1 for none.
    """

    ensemble: Any
    column: Any
    curve: Any
    power: Any
    intensity: Any
    side: Any
    measured: Any
    sigma: Any
    count: Any
    of_held_out: Any
    adjusted: Any
    sets: Adjusted


class Adjustment(NamedTuple):
    """The factor and the constant of each adjusted set, [n] each: scale c + offset is compared."""

    scale: Any
    offset: Any


def deviations(data: Data, averages: Any, curves: Any) -> Any:
    """(calculated - measured) / sigma of each datum, [N], with its sign: above 0 for a distance that is too long.

    averages: [S, F] of each ensemble; curves: [C, 3], Hz.
    """
    plain = _as_calculated(data, averages, curves)
    if not len(data.sets.scaled):
        return plain
    scale, c0, e0 = _regression(data, plain)
    c, number = data.measured + data.sigma * plain, jnp.maximum(data.adjusted, 0)
    off = (scale[number] * (c - c0[number]) - (data.measured - e0[number])) / data.sigma
    return jnp.where(data.adjusted >= 0, off, plain)


def adjustments(data: Data, averages: Any, curves: Any) -> Adjustment:
    """The factor and the constant of each adjusted set."""
    scale, c0, e0 = _regression(data, _as_calculated(data, averages, curves))
    return Adjustment(scale, e0 - scale * c0)


def misfits(data: Data, off: Any) -> Any:
    """The square of each deviation that counts: of a bound, only beyond it, [N]."""
    inside = jnp.where(data.side > 0, off < 0, jnp.where(data.side < 0, off > 0, False))
    return jnp.where(inside, 0.0, off**2)


def half_chi2(data: Data, averages: Any, curves: Any) -> Any:
    """chi2 / 2 of the fitted data."""
    return jnp.sum(data.count * misfits(data, deviations(data, averages, curves))) / 2


def in_units_of_measurements(data: Data, off: np.ndarray) -> np.ndarray:
    """The calculated numbers, adjusted, in the unit of ``measured``, from the deviations [N]; distances also where
    intensities are compared."""
    plain = data.measured + data.sigma * off
    power = np.where(data.power > 0, data.power, 1)
    # 1 - X = off p sigma / r of intensities, X = mean of (r / measured)^-p
    relative = np.maximum(1 - off * power * data.sigma / data.measured, np.finfo(float).tiny)
    return np.where(data.intensity > 0, data.measured * relative ** (-1.0 / power), plain)


def _as_calculated(data: Data, averages: Any, curves: Any) -> Any:
    """The deviations without any adjustment, [N]."""
    first = averages[data.ensemble, data.column]
    power = jnp.where(data.power > 0, data.power, 1)
    shortened = jnp.where(data.power > 0, first, 1.0) ** (-1.0 / power)
    of_distance = (shortened - 1) * data.measured / data.sigma
    of_intensity = (1 - first) * data.measured / (power * data.sigma)
    of_power = jnp.where(data.intensity > 0, of_intensity, of_distance)
    off = jnp.where(data.power > 0, of_power, first)
    if not len(curves):
        return off
    second = averages[data.ensemble, jnp.minimum(data.column + 1, averages.shape[1] - 1)]
    A, B, C = curves[data.curve].T
    return jnp.where(data.curve >= 0, (A * second + B * first + C - data.measured) / data.sigma, off)


def _regression(data: Data, plain: Any) -> tuple[Any, Any, Any]:
    """The factor of each adjusted set, and the calculated and measured number that it keeps together, [n] each.

    A set of which nothing is fitted is adjusted by its own data: nothing else tells its units.
    """
    member = data.adjusted == jnp.arange(len(data.sets.scaled))[:, None]
    total = lambda values: jnp.sum(jnp.where(member, values, 0.0), axis=1)  # noqa: E731
    counted = jnp.where((total(data.count) > 0)[:, None], data.count, data.of_held_out)
    weight = jnp.where(member, counted / data.sigma**2, 0.0)
    sums = jnp.sum(weight, axis=1)
    mean = lambda values: jnp.sum(weight * values, axis=1) / jnp.where(sums > 0, sums, 1.0)  # noqa: E731
    c, e = data.measured + data.sigma * plain, data.measured
    c0 = jnp.where(data.sets.shifted, mean(c), data.sets.pivot)
    e0 = jnp.where(data.sets.shifted, mean(e), data.sets.pivot)
    dc, de = c - c0[:, None], e - e0[:, None]
    square = jnp.sum(weight * dc * dc, axis=1)
    slope = jnp.sum(weight * dc * de, axis=1) / jnp.where(square > 0, square, 1.0)
    return jnp.where(data.sets.scaled, slope, 1.0), c0, e0
