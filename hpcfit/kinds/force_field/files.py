"""The files of a run of kind "force-field": their columns, and how they are read."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hpcfit.runs.files import RunFiles

PARAMETERS, OBSERVABLES, WEIGHTS = "parameters.csv", "observables.csv", "weights.csv"
DERIVATIVES = "derivatives.csv"
DERIVATIVE_COLUMNS = (
    *("system", "observable", "item", "parameter", "pathwise", "pathwise_error", "fluctuation", "fluctuation_error"),
    *("malliavin", "malliavin_error", "combined", "combined_error", "left", "left_error", "too_short", "best_window"),
)
GRADIENT = "gradient.csv"
GRADIENT_COLUMNS = ("parameter", "way", "gradient", "error", "error_of_derivatives", "signal_to_noise")
AVERAGES, AVERAGE_COLUMNS = "averages.csv", ("round", "system", "observable", "item", "average", "error")
PARAMETER_COLUMNS = ("name", "unit", "start", "value", "error", "error_of_data", "error_of_frames")
OBSERVABLE_COLUMNS = ("ensemble", "data", "column", "bound", "measured", "sigma", "before", "after", "held_out")
WITH_ERRORS = (*OBSERVABLE_COLUMNS, "error_after")  # of averages that were simulated
GEOMETRIES = "geometries.csv"
GEOMETRY_COLUMNS = (
    *("set", "geometry", "held_out", "weight", "reference", "before", "after"),
    *("force_deviation_before", "force_deviation_after"),
)
WEIGHT_COLUMNS = ("ensemble", "frame", "simulated", "force_field", "weight")


class Observable(NamedTuple):
    """A row of observables.csv: a datum, calculated before and after the fit, in the unit of the measurement.

    error_after: of the average after the fit, NaN where it is that of frames that were given.
    """

    ensemble: str
    data: str
    column: str
    bound: str
    measured: float
    sigma: float
    before: float
    after: float
    held_out: bool
    error_after: float = np.nan

    def deviation(self, calculated: float) -> float:
        """The deviation of a calculated value in sigma; 0 within a bound."""
        off = (calculated - self.measured) / self.sigma
        return max(off, 0.0) if self.bound == "upper" else min(off, 0.0) if self.bound == "lower" else off

    def error_bars(self, calculated: float, error: float) -> tuple[float, float]:
        """The lengths by which a standard error of a calculated value moves its deviation down and up, in sigma; 0
        within a bound."""
        off = self.deviation(calculated)
        return off - self.deviation(calculated - error), self.deviation(calculated + error) - off


def data_labels(names: Sequence[tuple[str, str]]) -> list[str]:
    """The labels of the data of one system, from observables and the numbers in them: an observable of one number alone
    needs none."""
    several = Counter(observable for observable, _ in set(names))
    return [f"{name} {item}" if several[name] > 1 else name for name, item in names]


class Geometry(NamedTuple):
    """A row of geometries.csv: energies above the least of the reference, kJ/mol; NaN where they are no targets."""

    set: str
    held_out: bool
    reference: float
    before: float
    after: float


class ForceFieldRun(RunFiles):
    """The files of a run, and those that only this kind writes."""

    @functools.cached_property
    def observables(self) -> list[Observable]:
        """All data."""
        columns = WITH_ERRORS if self.has_errors else OBSERVABLE_COLUMNS
        return [
            Observable(*row[:4], *map(float, row[4:8]), row[8] == "True", *map(float, row[9:]))
            for row in self.checked_rows(OBSERVABLES, columns)
        ]

    @property
    def has_errors(self) -> bool:
        """True where averages were simulated."""
        return "averages" in self.metrics

    @functools.cached_property
    def weights(self) -> dict[str, np.ndarray]:
        """Weights in the simulation, by the force field and of the result, [T, 3], by ensemble."""
        found: dict[str, list[Any]] = {}
        for row in self.checked_rows(WEIGHTS, WEIGHT_COLUMNS):
            found.setdefault(row[0], []).append([float(text) for text in row[2:]])
        return {name: np.array(rows) for name, rows in found.items()}

    @functools.cached_property
    def geometries(self) -> list[Geometry]:
        """All geometries that took part."""
        number = lambda text: float(text or "nan")  # noqa: E731
        rows = self.checked_rows(GEOMETRIES, GEOMETRY_COLUMNS)
        return [Geometry(row[0], row[2] == "True", *map(number, row[4:7])) for row in rows]

    @functools.cached_property
    def rounds(self) -> dict[tuple[str, str], np.ndarray]:
        """Averages and their errors, [rounds, items, 2], by system and observable; none of a run without the file."""
        found: dict[tuple[str, str], dict[int, list[Any]]] = {}
        for row in self.checked_rows(AVERAGES, AVERAGE_COLUMNS) if self.has(AVERAGES) else ():
            found.setdefault((row[1], row[2]), {}).setdefault(int(row[0]), []).append([float(x) for x in row[4:]])
        return {name: np.array(list(by_round.values())) for name, by_round in found.items()}
