"""Experiments whose data are averages over the frames: their part of the loss, their folds, and what is told of them.

    chi2 / 2 of all sets of data  +  gamma R,     R: the mean squared change of the fitted Karplus curves, Hz^2

(``observables.averages``). The numbers of a frame that are averaged are rows beside its prior weight, so that averages
are sums over blocks of frames as the sum of weights is: a map's structure factors are read no second time for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from hpcfit.errors import InputError
from hpcfit.fit.gradient import Evaluation
from hpcfit.kinds.frame_weights.experiments_config import WithExperiments
from hpcfit.observables.averages import (
    Data,
    adjustments,
    deviations,
    in_units_of_measurements,
    misfits,
)
from hpcfit.observables.curves import CIRCLE, mean_square_change, whitening
from hpcfit.observables.frame_tables import DataTables, check_alike, data_of, dealt_folds, open_data
from hpcfit.pytrees import pytree

BOUNDS = {1: "upper", -1: "lower", 0: ""}


@pytree
@dataclass(frozen=True)
class Experiments:
    """The data, and the curves that couplings follow. of_set: [N], the number of the set that a datum is of. judged:
    whether chi2 of held-out data is told. coefficients: [C, 3], Hz; placed: [C, n], 1 where a curve is the n-th fitted
    one; gamma: 1/Hz^2. Shared parameters "curves" [n, 3] are in units in which the price has second derivative 1."""

    data: Data
    of_set: Any
    coefficients: Any
    placed: Any
    gamma: Any
    names: tuple[str, ...] = field(metadata={"static": True})
    judged: bool = field(metadata={"static": True})

    def start(self) -> dict[str, Any]:
        """The shared parameters of curves as they are given; none where none is fitted."""
        n = self.placed.shape[1]
        return {"curves": np.zeros((n, 3))} if n else {}

    def curves(self, shared: dict) -> Any:
        """The coefficients of all curves [C, 3], Hz."""
        return self.coefficients + self.placed @ self._changes(shared)

    def _changes(self, shared: dict) -> Any:
        return shared["curves"] @ whitening(CIRCLE).T / jnp.sqrt(self.gamma) if "curves" in shared else np.zeros((0, 3))

    def deviations(self, averages: Any, shared: dict) -> Any:
        """(calculated - measured) / sigma of each datum, [N]. averages: [F]."""
        return deviations(self.data, averages[None], self.curves(shared))

    def loss(self, averages: Any, shared: dict) -> Any:
        """See the module."""
        return self.misfit(averages, shared) + self.gamma * mean_square_change(self._changes(shared))

    def misfit(self, averages: Any, shared: dict) -> Any:
        """chi2 / 2 of the fitted data."""
        return jnp.sum(self.data.count * self._squares(averages, shared)) / 2

    def misfit_free(self, averages: Any, shared: dict) -> Any:
        """chi2 / 2 of the held-out data, times all data for each of these: comparable over folds; 0 without any."""
        held_out, counted = jnp.sum(self.data.of_held_out), jnp.sum(self.data.count)
        found = jnp.sum(self.data.of_held_out * self._squares(averages, shared)) / 2
        return found * (counted + held_out) / jnp.where(held_out > 0, held_out, 1.0)

    def _squares(self, averages: Any, shared: dict) -> Any:
        return misfits(self.data, self.deviations(averages, shared))

    def metrics(self, averages: Any, shared: dict) -> dict[str, Any]:
        """chi2 of the fitted data, all and of each set, and where there are any of the data held out."""
        squares, d = self._squares(averages, shared), self.data
        counted = {"chi2": d.count} | ({"chi2_free": d.of_held_out} if self.judged else {})
        found = {}
        for name, count in counted.items():
            found[name] = jnp.sum(count * squares)
            for number, of in enumerate(self.names):
                found[f"{name} {of}"] = jnp.sum(jnp.where(self.of_set == number, count * squares, 0.0))
        return found

    def in_a_batch(self) -> Experiments:
        """With chi2 of held-out data, and leaves of its own for what the fits of a study differ in."""
        data = self.data._replace(count=np.array(self.data.count), of_held_out=np.array(self.data.of_held_out))
        return replace(self, data=data, judged=True)

    def without(self, left_out: np.ndarray) -> Experiments:
        """A copy in which some of the fitted data, [N] bool, are held out; a validation set takes no part."""
        count = np.where(left_out, 0.0, self.data.count)
        held_out = np.where(left_out, self.data.count, 0.0)
        return replace(self, data=self.data._replace(count=count, of_held_out=held_out), judged=True)

    def drawn(self, groups: Sequence[Any], seed: int) -> Experiments:
        """A bootstrap resample of the groups of fitted data; groups: of each datum, None where it is not fitted."""
        names = list(dict.fromkeys(group for group in groups if group is not None))
        random = np.random.default_rng((seed, 2))
        times = np.bincount(random.integers(len(names), size=len(names)), minlength=len(names))
        counts = dict(zip(names, times.astype(float).tolist()))
        count = np.array([0.0 if group is None else counts[group] for group in groups])
        return replace(self, data=self.data._replace(count=count))


def open_experiments(choice: WithExperiments, n_frames: int, whose: str) -> list[DataTables]:
    """Open and check the tables of all experiments. whose: the frames of which there are so many, in words; 0 frames:
    as many as the first table has. Raises InputError."""
    tables = [open_data(one, choice.curve) for one in choice.experiment]
    check_alike([one.frames for one in tables], "[[problem.experiment]]")
    if tables and n_frames and tables[0].frames.n_rows != n_frames:
        raise InputError(
            f"{tables[0].frames.path} has {tables[0].frames.n_rows} rows, {whose} has {n_frames} frames",
            remedy="give a row for each frame of the store, in the order of `weights.csv`",
        )
    return tables


def experiments_of(choice: WithExperiments, tables: Sequence[DataTables]) -> Experiments | None:
    """The data of all experiments; None without any."""
    if not tables:
        return None
    coefficients = np.array([one.coefficients for one in choice.curve], float).reshape(-1, 3)
    placed = np.eye(len(choice.curve))[:, [one.fitted for one in choice.curve]]
    of_set = np.repeat(np.arange(len(tables)), [one.size for one in tables])
    names = tuple(one.config.name for one in tables)
    judged = any(one.config.held_out for one in tables)
    gamma = np.array(choice.gamma or 1.0)
    return Experiments(data_of([tables]), of_set, coefficients, placed, gamma, names, judged)


def features_of(tables: Sequence[DataTables], ids: np.ndarray) -> Any:
    """The numbers that are averaged of the frames ``ids`` [blocks, width], [blocks, width, F]; an empty tree without
    experiments. A row of a table is that of the frame of its number."""
    if not tables:
        return ()
    held = ids >= 0
    first, last = (int(ids[held].min()), int(ids[held].max()) + 1) if np.any(held) else (0, 0)
    rows = np.concatenate([one.features(slice(first, last)) for one in tables], axis=1)
    found = np.zeros((*ids.shape, rows.shape[1]))
    found[held] = rows[ids[held] - first]
    return found


def data_folds(tables: Sequence[DataTables], n_folds: int, seed: int) -> np.ndarray:
    """The fold of each datum, [N], -1 for a validation set. Raises InputError where there are fewer groups."""
    [found] = dealt_folds([tables], n_folds, seed)
    return found


def words_of(tables: Sequence[DataTables]) -> str:
    """The sets of data and how many data they have."""
    return ", ".join(f"{one.size} of {one.config.name}" for one in tables)


def calculated(experiments: Experiments, averages: np.ndarray, shared: dict) -> tuple[np.ndarray, np.ndarray]:
    """The calculated number of each datum, adjusted, in the unit of its measurement, and its deviation in sigma."""
    off = np.asarray(experiments.deviations(averages, shared))
    return in_units_of_measurements(experiments.data, off), off


class AtWeights(NamedTuple):
    """Averages [F] at some weights, the shared parameters there, and the metrics."""

    averages: np.ndarray
    shared: dict
    metrics: dict[str, float]


def at_weights(problem: Any, at: Evaluation, metrics: dict[str, float]) -> AtWeights:
    """The averages of a problem with ``averages`` at an evaluation of it."""
    return AtWeights(np.asarray(problem.averages(at.statistics.common)), at.params.shared, metrics)


def experiment_rows(
    experiments: Experiments, tables: Sequence[DataTables], before: AtWeights, after: AtWeights, errors: dict
) -> Iterator[tuple[Any, ...]]:
    """The rows of experiments.csv. errors: of the study, by what was resampled."""
    d, columns = experiments.data, []
    for at in (before, after):
        columns.append(calculated(experiments, at.averages, at.shared))
    (c0, off0), (c1, off1) = columns
    spread = [one["calculated"] for one in errors.values() if "calculated" in one]
    error = np.sqrt(np.sum(np.square(spread), axis=0)).tolist() if spread else [""] * len(d.measured)
    names = [(one.config.name, name, one.config.held_out) for one in tables for name in one.measured.names]
    values = (d.side, d.measured, d.sigma, c0, c1, off0, off1)
    for (of, name, held_out), side, *rest, spread_of in zip(names, *(v.tolist() for v in values), error):
        yield of, name, BOUNDS[side], *rest, spread_of, held_out


def experiment_metrics(
    experiments: Experiments, tables: Sequence[DataTables], before: AtWeights, after: AtWeights, facts: dict
) -> dict[str, Any]:
    """The part of metrics.json on experiments: chi2 of each set before and after the fit and of data left out of
    folds, summed over these, factors and constants of adjusted sets, and fitted curves. facts: of the study."""
    found = adjustments(experiments.data, after.averages[None], experiments.curves(after.shared))
    scanned = {row["theta"]: row for row in facts.get("cross_validation", ())}
    folds = {
        name: scanned.get(theta, {})
        for name, theta in (("chi2_left_out_before", None), ("chi2_left_out", facts.get("theta")))
    }
    rows, adjusted = [], 0
    for one in tables:
        name = one.config.name
        key = "chi2_free " if one.config.held_out else "chi2 "
        row = {"name": name, "data": one.size, "held_out": one.config.held_out}
        row |= {"chi2_before": before.metrics[key + name], "chi2": after.metrics[key + name]}
        for column, scan in folds.items():
            if "folds" in scan and not one.config.held_out:
                row[column] = scan[f"chi2_free {name}"] * len(scan["folds"])
        if one.config.adjusted is not None:
            row |= {"scale": float(found.scale[adjusted]), "offset": float(found.offset[adjusted])}
            adjusted += 1
        rows.append(row)
    curves = np.asarray(experiments.curves(after.shared)).tolist()
    return {"experiments": rows, "curves": curves}
