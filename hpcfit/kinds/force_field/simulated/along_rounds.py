"""The averages of each round with their errors over its windows, and averages without each window, which give them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hpcfit.fit.gradient import Gradient
from hpcfit.fit.grid import Grid
from hpcfit.fit.loop import Step
from hpcfit.fit.problem import Params
from hpcfit.fit.state import gather_rows, to_arrays
from hpcfit.kinds.force_field.files import AVERAGE_COLUMNS, AVERAGES
from hpcfit.kinds.force_field.simulated.averages import SUMMED, Windows
from hpcfit.kinds.force_field.simulated.case import SimulatedCase
from hpcfit.kinds.force_field.simulated.ensemble import Ensemble
from hpcfit.statistics.blocks import jackknife_error, parts_of
from hpcfit.store.files import csv_lines, write_csv

Rows = dict[str, np.ndarray]


class AlongRounds:
    """Writes the averages of each round (``fit.loop.Hook``); rounds that an interrupted run had beyond its checkpoint
    are written anew."""

    def __init__(self, case: SimulatedCase, evaluate: Gradient):
        self._case, self._evaluate = case, evaluate
        self._written: list[list[Any]] | None = None

    def __call__(self, step: Step) -> None:
        """Add those of the accepted evaluation; collective."""
        rows = summed_rows(step.state.rows, self._evaluate.grid)
        self._evaluate.grid.world.on_root(lambda: self._write(step.number, step.state.params.shared, rows))

    def _write(self, number: int, u: Any, rows: Rows) -> None:
        path = self._case.config.run.directory / AVERAGES
        if self._written is None:
            self._written = []
            if number and path.is_file():
                self._written = [row for row in csv_lines(path)[1:] if int(row[0]) < number]
        at = self._case, self._evaluate.problem, u, rows
        left_out = without(*at)
        columns = (without(*at, lambda n: [[]])[0], jackknife_error(left_out)) if len(left_out) else ([], [])
        for name, average, error in zip(self._case.data_names(), *columns):
            self._written.append([number, name.system, name.observable, name.item, float(average), float(error)])
        write_csv(path, AVERAGE_COLUMNS, self._written)


def summed_rows(rows: Params, grid: Grid) -> Rows:
    """The sums that each window of an evaluation adds to the averages, gathered from all ranks; collective."""
    local = to_arrays([rows]).local
    chosen = {name: leaf for name, leaf in local.items() if any(f"'{one}'" in name for one in SUMMED)}
    return gather_rows(chosen, grid)


def noise_of_chi2(case: SimulatedCase, problem: Windows, u: Any, rows: Rows) -> dict[str, float]:
    """The noise of the windows in chi2 of fitted and of held-out data, and the errors of both, by name; bounds count
    beyond them."""
    left_out = without(case, problem, u, rows)
    compared, found = problem.compared(left_out, problem.tile), {}
    for name, of_data in (("chi2", compared["fitted"]), ("chi2_held_out", compared["held_out"])):
        deviations = np.asarray(of_data)
        found[f"noise_of_{name}"] = float(np.sum(jackknife_error(deviations) ** 2))
        found[f"error_of_{name}"] = float(jackknife_error(np.sum(deviations**2, axis=1)))
    return found


def without(
    case: SimulatedCase, problem: Windows, u: Any, rows: Rows, parts_of: Callable[[int], Sequence] = parts_of
) -> np.ndarray:
    """The averages [B, data] over windows that held in all systems, without each part of these: by default without each
    window, or a few of them where there are many."""
    ensembles = problem.along(u)
    weights = [of_windows(case, rows, number, "weight") for number in range(len(ensembles))]
    held, found = np.flatnonzero(np.all(np.stack(weights) > 0, axis=0)), []
    if not len(held):
        return np.zeros((0, 0))
    for number, ensemble in enumerate(ensembles):
        parts = [of_windows(case, rows, number, f"observed'][{k}]")[held] for k in range(len(ensemble.observables))]
        found.append(_without(ensemble, parts, weights[number][held], parts_of(len(held))))
    return np.asarray(problem.differences.behind(np.concatenate(found, axis=1)))


def both(case: SimulatedCase, problem: Windows, u: Any, first: Rows, second: Rows) -> tuple[np.ndarray, ...]:
    """``without`` of two draws, of the windows that held in both; () where none did."""
    weights = [name for name in second if name.endswith("['weight']")]
    held = {name: np.where((first[name] > 0) & (second[name] > 0), 1.0, 0.0) for name in weights}
    kept = [rows | {name: rows[name] * held[name] for name in weights} for rows in (first, second)]
    found = tuple(without(case, problem, u, rows) for rows in kept)
    return found if len(found[0]) else ()


def _without(ensemble: Ensemble, parts: list[np.ndarray], weight: np.ndarray, parts_left_out: Sequence) -> np.ndarray:
    """The averages of a system without parts of its windows; those of no window are none."""
    found = []
    for part_left_out in parts_left_out:
        left_out = np.asarray(part_left_out, int)
        rest = [part.sum(axis=0) - part[left_out].sum(axis=0) for part in parts]
        left = weight.sum() - weight[left_out].sum() if len(weight) > len(left_out) else 1.0
        averages = ensemble.averages(rest, left)
        found.append(np.concatenate([np.ravel(value) for value in averages]))
    return np.array(found)


def of_windows(case: SimulatedCase, rows: Rows, number: int, what: str) -> np.ndarray:
    """A row of all windows of a system, [windows, ...], in their order."""
    [found] = [leaf for name, leaf in rows.items() if f"[{number}]['{what}" in name]
    return found.reshape(-1, *found.shape[2:])[: case.n_frames]
