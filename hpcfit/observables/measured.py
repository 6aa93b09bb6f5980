"""Measurements of observables: numbers of the config, of a table, or of a text file as users have them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hpcfit.config.observables.experiments import NoeConfig, ScalarCouplingsConfig, SmallAngleScatteringConfig
from hpcfit.config.observables.geometry import DistancesConfig, OwnConfig
from hpcfit.config.observables.measured import MeasuredCurve, MeasuredLengths, ObservableConfig
from hpcfit.errors import InputError
from hpcfit.observables.readers import (
    BME_DATA,
    Curve,
    Measurements,
    distances_in_nm,
    lengths_in_nm,
    nm,
    radial_in_nm,
    read_curve,
    read_measurements,
    require_items,
    scattering_per_nm,
)
from hpcfit.readers.tables import check_all, open_table

SIDES = {"upper": 1, "lower": -1, None: 0}
# The data of a file of BME that an observable can be compared with; any other one with none.
COMPARED = {
    DistancesConfig: ("NOE", "DIST"), NoeConfig: ("NOE",), ScalarCouplingsConfig: ("JCOUPLINGS",), OwnConfig: BME_DATA,
}  # fmt: skip
EDGE = 1e-9  # of a place on a curve: what rounding may do to it


class Measured(NamedTuple):
    """M measured numbers. value, sigma: [M], in the unit of the observable; side: [M], 1 for an upper bound, -1 for a
    lower one, else 0."""

    value: np.ndarray
    sigma: np.ndarray
    side: np.ndarray


def measured(config: ObservableConfig, one: Any, count: int) -> Measured:
    """The measurements of an observable that has ``count`` numbers. Raises InputError for another number of data, and
    for a file that is of something else."""
    if not config.is_text:
        return _of_numbers(config, count)
    if isinstance(config, MeasuredCurve):
        return _of_curve(config, one.at)
    found = _in_nm(config, read_measurements(config.measured))
    _check_data(config, found)
    require_items(found, count, f"observable '{config.name}'")
    return Measured(found.value, found.sigma, _sides(config, found))


# ---- numbers -----------------------------------------------------------------------------------------------------


def _of_numbers(config: ObservableConfig, count: int) -> Measured:
    value, sigma = _inline(config) if config.measured is None else _of_table(config)
    if len(value) != count or len(sigma) != count:
        raise InputError(
            f"observable '{config.name}' has {count} numbers; {config.measured or 'the config'} has {len(value)}"
            f" values and {len(sigma)} sigmas",
            remedy="give a value and a sigma for each",
        )
    return Measured(value, sigma, np.full(count, SIDES[config.bound]))


def _inline(config: ObservableConfig) -> tuple[np.ndarray, np.ndarray]:
    value, sigma = np.atleast_1d(np.array(config.values, float)), np.array(config.sigma, float)
    return value, np.full(len(value), sigma) if sigma.ndim == 0 else sigma


def _of_table(config: ObservableConfig) -> tuple[np.ndarray, np.ndarray]:
    table = open_table(config.measured)
    if len(table.names) != 2:
        raise InputError(
            f"{table.path} has {len(table.names)} columns", remedy="give two: the measured value and its sigma"
        )
    rows = table.rows(slice(None))
    check_all(table, np.stack([rows[:, 0] < np.inf, rows[:, 1] > 0], 1), "sigma must be above 0", "give sigma")
    return rows[:, 0], rows[:, 1]


# ---- text --------------------------------------------------------------------------------------------------------


def _in_nm(config: ObservableConfig, found: Measurements) -> Measurements:
    if getattr(config, "power", None) is not None:
        return distances_in_nm(found, config.unit)
    return lengths_in_nm(found, config.unit) if isinstance(config, MeasuredLengths) else found


def _check_data(config: ObservableConfig, found: Measurements) -> None:
    """Raise InputError where BME's head says that the file is of something else."""
    if found.data and found.data not in COMPARED.get(type(config), ()):
        raise InputError(
            f"{found.path} has DATA={found.data}, but observable '{config.name}' is '{config.observable}'",
            remedy="correct the observable, or the file",
        )
    power = getattr(config, "power", None)
    if found.data == "NOE" and not isinstance(config, OwnConfig) and found.power != power:
        raise InputError(
            f"{found.path} is of averages of r^-{found.power} (POWER of its head; 6 where it has none), but observable"
            f" '{config.name}' has power = {power}",
            remedy=f"set power = {found.power}, or correct the file",
        )


def _sides(config: ObservableConfig, found: Measurements) -> np.ndarray:
    """The bounds of the config, or those of the file."""
    said = np.full(len(found.bound), SIDES[config.bound])
    if config.bound is not None and np.any(found.bound) and not np.array_equal(said, found.bound):
        row = int(np.argmax(said != found.bound))
        names = {side: name for name, side in SIDES.items()}
        raise InputError(
            f"{found.path} says '{names[found.bound[row]] or 'no bound'}' of item {row} ({found.names[row]}), but"
            f" observable '{config.name}' has bound = '{config.bound}'",
            remedy="leave the bound out of the config, or correct the file",
        )
    return found.bound if config.bound is None else said


# ---- curves ------------------------------------------------------------------------------------------------------


def momentum_transfers(config: SmallAngleScatteringConfig) -> np.ndarray:
    """The momentum transfers at which an intensity is calculated, [Q] 1/nm: those given, or those of its curve."""
    return _curve(config).at if config.q is None else np.array(config.q)


def _of_curve(config: MeasuredCurve, at: np.ndarray) -> Measured:
    """The values of a curve at some places, between its rows linear."""
    found = _curve(config)
    outside = np.flatnonzero((at < found.at[0] * (1 - EDGE)) | (at > found.at[-1] * (1 + EDGE)))
    if len(outside):
        raise InputError(
            f"observable '{config.name}' has a number at {at[outside[0]]:g}, but the rows of {found.path} that are used"
            f" reach from {found.at[0]:g} to {found.at[-1]:g} (nm or 1/nm)",
            remedy="leave the number out, or take wider bins: a bin's centre must lie among the rows within the bins",
        )
    value, sigma = (np.interp(at, found.at, row) for row in (found.value, found.sigma))
    return Measured(value, sigma, np.zeros(len(at), int))


def _curve(config: MeasuredCurve) -> Curve:
    """The rows of a curve that are used, by nm or 1/nm: those within the bins of a g(r), or within a range of q."""
    if isinstance(config, SmallAngleScatteringConfig):
        used = None if config.range is None else _within(np.array(config.range) * nm(config.unit))
        return scattering_per_nm(read_curve(config.measured, config.columns, used), config.unit)
    used = _within(np.array(config.borders)[[0, -1]] / nm(config.unit))
    return radial_in_nm(read_curve(config.measured, config.columns, used), config.unit)


def _within(ends: np.ndarray) -> tuple[float, float]:
    """A range with both of its ends, in the unit of a file."""
    return float(ends[0] * (1 - EDGE)), float(ends[1] * (1 + EDGE))
