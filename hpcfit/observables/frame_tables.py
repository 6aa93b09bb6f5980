"""The tables of sets of data: what was measured, and the numbers of each frame whose averages are compared with it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcfit.config.observables.averages import HDF5, AveragedConfig
from hpcfit.config.observables.experiments import CurveConfig
from hpcfit.errors import InputError
from hpcfit.observables.averages import Adjusted, Data
from hpcfit.observables.bioen import read_scaled, refuse_pickle
from hpcfit.observables.calculated import TextTable, open_calculated
from hpcfit.observables.measured import SIDES
from hpcfit.observables.readers import Measurements, read_measurements
from hpcfit.readers.tables import CSV, NPY, NumberTable, check_all, open_table


class DataTables(NamedTuple):
    """The tables of a set of data. power: of distances, 0 for none; intensities: whether r^-power itself is compared;
    offset: rad, added to its torsions; curve: the number of its curve, -1 for none."""

    config: AveragedConfig
    frames: Any  # a NumberTable, or what has its fields and rows
    measured: Measurements
    power: int
    intensities: bool
    offset: float
    curve: int

    @property
    def size(self) -> int:
        """The number of data."""
        return len(self.measured.value)

    @property
    def width(self) -> int:
        """The number of averages it takes: two of each torsion, cos and cos^2."""
        return self.size * (1 if self.curve < 0 else 2)

    def groups(self, number: int) -> list[Hashable]:
        """The group of each datum, which folds hold out whole: itself where none is given. None: it is not fitted.
        number: of the set, which tells its data from those of others."""
        if self.config.held_out:
            return [None] * self.size
        return self.config.groups or [(number, row) for row in range(self.size)]

    def features(self, rows: slice) -> np.ndarray:
        """The numbers of some frames that are averaged, [n, width] (see ``averages.Data``)."""
        values, m, sigma = self.frames.rows(rows), self.measured.value, self.measured.sigma
        if self.curve >= 0:
            c = np.cos(values + self.offset)
            return np.stack([c, c**2], axis=-1).reshape(len(c), self.width)
        return (values / m) ** -float(self.power) if self.power else (values - m) / sigma


def open_data(config: AveragedConfig, curves: Sequence[CurveConfig]) -> DataTables:
    """Open and check the tables of a set of data. Raises InputError with file, place and remedy."""
    measured = _open_measured(config)
    labelled = any(name != str(row) for row, name in enumerate(measured.names))
    power = config.power or measured.power or 0
    frames = _open_frames(config, measured, labelled, power)
    if len(measured.value) != len(frames.names):
        raise InputError(
            f"data '{config.name}': {frames.path} has {len(frames.names)} columns, {measured.path} has"
            f" {len(measured.value)} rows",
            remedy="give a measurement for each column of what was calculated",
        )
    if config.groups is not None and len(config.groups) != len(measured.value):
        raise InputError(
            f"data '{config.name}': {len(config.groups)} groups are given, {measured.path} has {len(measured.value)}"
            " rows",
            remedy="give the group of each datum",
        )
    if power:
        _check_lengths(measured, frames)
    if config.compared is not None and not power:
        raise InputError(f"data '{config.name}': compared has no effect without a power", remedy="leave it out")
    intensities = config.compared == "intensities" or (config.compared is None and measured.power is not None)
    if config.adjusted is not None and (power or np.any(measured.bound)):
        raise InputError(
            f"data '{config.name}': adjusted = '{config.adjusted}', and {measured.path} has distances by a power, or"
            " bounds",
            remedy="leave adjusted out",
        )
    number = next((n for n, curve in enumerate(curves) if curve.name == config.curve), -1)
    offset = curves[number].offset if number >= 0 else 0.0
    return DataTables(config, frames, measured, power, intensities, offset, number)


def data_of(ensembles: Sequence[Sequence[DataTables]]) -> Data:
    """The measurements of ensembles, each with its sets of data, in their order."""
    parts, adjusted = [], []
    for number, tables in enumerate(ensembles):
        column = 0
        for one in tables:
            full, step = partial(np.full, one.size), 2 if one.curve >= 0 else 1
            held_out, choice = float(one.config.held_out), one.config
            of_set = -1 if choice.adjusted is None else len(adjusted)
            adjusted += [] if choice.adjusted is None else [choice.adjusted]
            parts.append(
                (
                    full(number), column + step * np.arange(one.size), full(one.curve), full(one.power),
                    full(int(one.intensities)), one.measured.bound, one.measured.value, one.measured.sigma,
                    full(1.0 - held_out), full(held_out), full(of_set),
                )
            )  # fmt: skip
            column += one.width
    return Data(*(np.concatenate(leaves) for leaves in zip(*parts)), Adjusted.of(adjusted))


def groups_of(tables: Sequence[DataTables]) -> list[Hashable]:
    """The group of each datum of the sets of one ensemble, in their order."""
    return [group for number, one in enumerate(tables) for group in one.groups(number)]


def dealt_folds(ensembles: Sequence[Sequence[DataTables]], n_folds: int, seed: int) -> list[np.ndarray]:
    """The fold of each datum of each ensemble, -1 for those of a validation set: groups are dealt out in an order that
    is drawn. Raises InputError where there are fewer groups than folds."""
    dealt, found, random = 0, [], np.random.default_rng((n_folds, seed))
    for tables in ensembles:
        of_datum = groups_of(tables)
        groups = dict.fromkeys(group for group in of_datum if group is not None)
        order = random.permutation(len(groups))
        folds = dict(zip(groups, ((dealt + np.argsort(order)) % n_folds).tolist()))
        found.append(np.array([folds.get(group, -1) for group in of_datum]))
        dealt += len(groups)
    if n_folds > dealt:
        raise InputError(
            f"[problem] folds = {n_folds} of {dealt} data, or groups of them, that are fitted",
            remedy=f"use at most {dealt} folds",
        )
    return found


def check_alike(tables: Sequence[Any], whose: str) -> None:
    """Raise InputError unless all tables have a row for each of the same frames. whose: in words."""
    for other in tables[1:]:
        if other.n_rows != tables[0].n_rows:
            raise InputError(
                f"{whose}: {tables[0].path} has {tables[0].n_rows} rows, {other.path} has {other.n_rows}",
                remedy="give tables with a row for each frame of the ensemble, the same frames in the same order",
            )


def given_weights(table: NumberTable | None, n_frames: int) -> np.ndarray:
    """The weights w0 [T] of a table, of sum 1; equal ones without it."""
    if table is None:
        return np.full(n_frames, 1 / n_frames)
    if len(table.names) != 1:
        raise InputError(f"{table.path} has {len(table.names)} columns", remedy="give one weight a frame")
    values = table.rows(slice(None))
    check_all(table, values >= 0, "a weight must not be negative", "give weights, not their logarithms")
    if not values.sum() > 0:
        raise InputError(f"{table.path}: all weights are 0", remedy="give weights of frames")
    return values[:, 0] / values.sum()


def _open_frames(config: AveragedConfig, measured: Measurements, labelled: bool, power: int) -> Any:
    """The numbers of frames: of a file, or computed of positions."""
    if config.positions is None:
        return open_calculated(config.calculated or config.torsions, measured.names, labelled)
    from hpcfit.observables.computed import PositionTable  # JAX and HDF5, which files need not

    return PositionTable(config, measured.names, power)


def stores_of(tables: Sequence[DataTables]) -> dict[str, str]:
    """The digests of the stores of positions that data are computed of, by name."""
    return {f"positions {one.config.name}": one.frames.digest() for one in tables if one.config.positions is not None}


def _open_measured(config: AveragedConfig) -> Measurements:
    """A table of two columns, HDF5, or text; bounds that the config gives are those of all data."""
    path = config.measured
    refuse_pickle(path)
    if path.suffix in HDF5:
        found = read_scaled(path)
    else:
        found = _of_table(path) if path.suffix in (CSV, NPY) else read_measurements(path)
    if config.bound is None:
        return found
    if np.any(found.bound):
        raise InputError(
            f"data '{config.name}': bound = '{config.bound}', and {path} has bounds of its own", remedy="give one"
        )
    return found._replace(bound=np.full(len(found.value), SIDES[config.bound]))


def _of_table(path: Path) -> Measurements:
    table = open_table(path)
    if len(table.names) != 2:
        raise InputError(f"{path} has {len(table.names)} columns", remedy="give two: the measured value and its sigma")
    values = table.rows(slice(None))
    good = np.stack([values[:, 0] < np.inf, values[:, 1] > 0], 1)
    check_all(table, good, "sigma must be above 0", "give sigma")
    return Measurements(path, tuple(map(str, range(len(values)))), *values.T, np.zeros(len(values), int))


def _check_lengths(measured: Measurements, frames: Any) -> None:
    lengths, remedy = "data of power are distances, above 0", "give distances, or leave power out"
    bad = np.flatnonzero(measured.value <= 0)
    if len(bad):
        row = bad[0]
        raise InputError(
            f"{measured.path}: row {row}, datum {measured.names[row]} is {measured.value[row]:g} (rows count from 0):"
            f" {lengths}",
            remedy=remedy,
        )
    if not isinstance(frames, NumberTable | TextTable):
        return  # computed, of different atoms
    check_all(frames, frames.rows(slice(None)) > 0, lengths, remedy)
