"""The files that a fit of frame weights leaves in its run directory: weights, sources, map and metrics."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.fit.gradient import Evaluation, Gradient
from hpcfit.fit.grid import Grid
from hpcfit.fit.selection import ABSENT
from hpcfit.fit.stages import Result
from hpcfit.fit.state import gather_rows
from hpcfit.kinds.frame_weights.case import FrameWeightsCase
from hpcfit.kinds.frame_weights.experiments import at_weights, experiment_metrics, experiment_rows
from hpcfit.kinds.frame_weights.explained import write_explained
from hpcfit.kinds.frame_weights.files import (
    EXPERIMENT_COLUMNS,
    EXPERIMENTS,
    MAP_ATTRIBUTES,
    SOURCE_COLUMNS,
    WEIGHT_COLUMNS,
)
from hpcfit.kinds.frame_weights.groups import group_rows, independent_frames
from hpcfit.kinds.frame_weights.objectives import part_of
from hpcfit.kinds.frame_weights.problem import shell_correlations
from hpcfit.kinds.frame_weights.quality import MeasuredQuality, map_quality, number_or_none
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.runs.directory import RunDirectory
from hpcfit.store.catalog import FrameRows as StoreRows
from hpcfit.store.catalog import frame_rows
from hpcfit.store.structure_factors import amplitude_unit

MEASURED = "scale of the measured map"


class WeightTable(NamedTuple):
    """One row a frame. log_weight: ln w. delta_G: -kT ln(T w), kJ/mol, 0 at the uniform weight."""

    rows: StoreRows
    weight: np.ndarray
    log_weight: np.ndarray
    delta_G: np.ndarray

    def columns(self) -> tuple[Any, ...]:
        """The columns named WEIGHT_COLUMNS."""
        r = self.rows
        return r.id, r.source, r.index, r.label, self.weight, self.log_weight, self.delta_G, r.file


def write_results(
    directory: RunDirectory, case: FrameWeightsCase, result: Result, facts: dict[str, Any]
) -> dict[str, Any]:
    """Write weights, sources, map and metrics of the fitted parameters beside those of uniform weights; collective.

    Returns the metrics on root.
    """
    evaluate, params = result.evaluate, result.fitted.params
    grid, problem, rows = evaluate.grid, evaluate.problem, evaluate.frames.rows
    flat_weights = np.full(rows.ids.shape, 1 / rows.total)
    fitted, flat = evaluate.value(params), evaluate.value(problem.at_weights(flat_weights, rows))
    intensities = [_intensities(case, problem, evaluation, grid) for evaluation in (fitted, flat)]
    w = gather_rows({"w": problem.weights_of(fitted.params, rows), "ids": rows.ids}, grid)
    metrics = _metrics(case, evaluate, fitted, flat) | facts
    if case.tables:
        ends = [at_weights(problem, one, evaluate.metrics(one)) for one in (flat, fitted)]
        metrics |= experiment_metrics(problem.experiments, case.tables, *ends, facts)
        rows = list(experiment_rows(problem.experiments, case.tables, *ends, facts.get("errors", {})))
        grid.world.on_root(lambda: directory.write_csv(EXPERIMENTS, EXPERIMENT_COLUMNS, rows))
    grid.world.on_root(lambda: _write(directory, case, w, intensities, metrics))
    return metrics


def headline(metrics: dict[str, Any]) -> list[str]:
    """The fitted metrics beside those of uniform weights, for the log."""
    fitted, uniform = metrics["fitted"], metrics["uniform"]
    return [f"{name:16s} {fitted[name]:.6f}  (uniform weights: {uniform[name]:.6f})" for name in fitted]


def _write(
    directory: RunDirectory,
    case: FrameWeightsCase,
    w: dict[str, np.ndarray],
    intensities: list[np.ndarray],
    metrics: dict[str, Any],
) -> None:
    table = _weight_table(case, w)
    directory.write_csv("weights.csv", WEIGHT_COLUMNS, zip(*table.columns(), strict=True))
    directory.write_h5(
        "weights.h5",
        dict(zip(WEIGHT_COLUMNS, table.columns(), strict=True)),
        {"temperature_K": case.config.problem.temperature},
        {"delta_G_kJ_mol": "kJ/mol"},
    )
    directory.write_csv("sources.csv", SOURCE_COLUMNS, _sources(table))
    _write_map(directory, case, *intensities)
    write_explained(directory, metrics)
    prior = np.where(w["ids"] >= 0, np.exp(case.prior.log_weights(case.blocks)), 0.0)
    of = case.groups
    metrics["groups"] = group_rows(of.names, of.number, prior, w["w"], case.config.problem.temperature)
    names, number = np.unique(table.rows.source, return_inverse=True)
    metrics["independent_frames"] = independent_frames(names, number, table.weight)
    directory.write_json("metrics.json", metrics)  # last: a run with metrics is a finished one


def _weight_table(case: FrameWeightsCase, w: dict[str, np.ndarray]) -> WeightTable:
    held = w["ids"] >= 0
    rows = frame_rows(case.store, case.blocks)
    if not np.array_equal(rows.id, w["ids"][held]):
        raise InputError(
            f"{case.store.folder}: the frame ids in the shards are not those of the catalog",
            remedy="prepare the store again",
        )
    weight = np.where(np.abs(w["w"][held]) > 2 * ABSENT, w["w"][held], 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):  # a weight of 0, or below 0, has no logarithm
        log_weight = np.log(weight)
    kT = GAS_CONSTANT * case.config.problem.temperature  # kJ/mol
    return WeightTable(rows, weight, log_weight, -kT * (log_weight + np.log(case.n_frames)))


def _sources(table: WeightTable) -> list[tuple[str, str, int, float, float]]:
    """Summed weight of each source, in the order of the store."""
    names, first, inverse = np.unique(table.rows.source, return_index=True, return_inverse=True)
    frames, total = np.bincount(inverse), np.bincount(inverse, table.weight)
    return [
        (str(names[n]), table.rows.label[first[n]], int(frames[n]), float(frames[n] / len(inverse)), float(total[n]))
        for n in np.argsort(first)
    ]


def _intensities(case: FrameWeightsCase, problem: Any, evaluation: Evaluation, grid: Grid) -> np.ndarray:
    """x of every orbit, [orbits], on all ranks of the first row; each rank computes its tiles."""
    statistics = evaluation.statistics
    mine = np.zeros(len(case.orbits.observed))
    for number in range(len(grid.tiles)):
        tile, moments = (_leaves_at(tree, number) for tree in (problem.tiles, statistics.sliced))
        places = case.tiling.orbits[grid.tiles[number]]
        x = problem.intensity(statistics._replace(sliced=moments), tile)
        mine[places[places >= 0]] = x[places >= 0]
    return grid.slices.sum(mine)


def _leaves_at(tree: Any, number: int) -> Any:
    import jax

    return jax.tree.map(lambda leaf: np.asarray(leaf)[number], tree)


def _write_map(directory: RunDirectory, case: FrameWeightsCase, calculated: np.ndarray, flat: np.ndarray) -> None:
    orbits, reflections = case.orbits, case.store.reference.reflections
    datasets = {
        "hkl": orbits.hkl, "inverse_d": orbits.inverse_d, "shell": orbits.shell, "multiplicity": orbits.multiplicity,
        "observed": orbits.observed, "calculated": calculated, "uniform": flat,
    }  # fmt: skip
    if orbits.sigma is not None:
        datasets["sigma"] = orbits.sigma
    if np.any(case.chosen.part):
        datasets["held_out"] = case.chosen.part == 1
    about = (reflections.ndiv, reflections.cell, case.config.problem.laue)
    squares = f"{amplitude_unit(case.store)}^2"
    units = {"inverse_d": "1/A", "calculated": squares, "uniform": squares, "observed": MEASURED, "sigma": MEASURED}
    directory.write_h5("map.h5", datasets, dict(zip(MAP_ATTRIBUTES, about)), units)


def _metrics(case: FrameWeightsCase, evaluate: Gradient, fitted: Evaluation, flat: Evaluation) -> dict[str, Any]:
    choice = case.config.problem
    quality = map_quality(case.orbits, choice.shells)
    beside = " and experiments" if case.tables else ""
    return {
        "kind": "frame-weights",
        "objective": f"{choice.objective}{beside}, {'anisotropic' if choice.anisotropic else 'total'}",
        "frames": case.n_frames,
        "reflections": len(case.orbits.column),
        "orbits": len(case.orbits.observed),
        "laue": choice.laue,
        "temperature": choice.temperature,
        "fitted": evaluate.metrics(fitted),
        "uniform": evaluate.metrics(flat),
        "shells": _shell_rows(case, fitted, flat, quality),
        **({"quality": quality.as_json()} if quality else {}),
        "left_out": case.orbits.left_out,
    }


def _shell_rows(
    case: FrameWeightsCase, fitted: Evaluation, flat: Evaluation, quality: MeasuredQuality | None
) -> list[dict[str, float | int | None]]:
    """CC of each resolution shell that has orbits, and where the map's precision is known the most it can be."""
    columns = {"cc": _shell_cc(fitted, 0), "cc_uniform": _shell_cc(flat, 0)}
    if np.any(case.chosen.part):
        columns["cc_free"] = _shell_cc(fitted, 1)
    if quality:
        columns |= {"cc_half": quality.found.shells.cc_half, "cc_star": quality.found.shells.cc_star}
    shell, inverse_d = case.orbits.shell, case.orbits.inverse_d
    rows = []
    for number in np.unique(shell):
        inside = inverse_d[shell == number]
        limits = {"d_max": float(1 / inside.min()), "d_min": float(1 / inside.max())}
        values = {name: number_or_none(column[number]) for name, column in columns.items()}
        rows.append({"shell": int(number), **limits, "orbits": len(inside), **values})
    return rows


def _shell_cc(evaluation: Evaluation, part: int) -> np.ndarray:
    return shell_correlations(part_of(evaluation.sums.shells, part))
