"""The files that a fit to simulated windows leaves: parameters, observables, metrics, and Systems of OpenMM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hpcfit.fit.stages import Result
from hpcfit.kinds.force_field.files import (
    DERIVATIVE_COLUMNS,
    DERIVATIVES,
    GEOMETRIES,
    GEOMETRY_COLUMNS,
    GRADIENT,
    GRADIENT_COLUMNS,
    OBSERVABLES,
    PARAMETER_COLUMNS,
    PARAMETERS,
    WITH_ERRORS,
)
from hpcfit.kinds.force_field.geometries.outputs import geometry_rows, set_lines
from hpcfit.kinds.force_field.outputs import parameter_lines, parameter_rows
from hpcfit.kinds.force_field.simulated.case import SimulatedCase
from hpcfit.runs.directory import RunDirectory
from hpcfit.store.files import write_text


def write_results(
    directory: RunDirectory, case: SimulatedCase, result: Result, facts: dict[str, Any]
) -> dict[str, Any]:
    """Write all files of the result; collective. Returns the metrics."""
    compared = facts.pop("compared", None)
    metrics = {
        "kind": "force-field",
        "estimator": case.config.problem.estimator,
        "frames": case.n_frames,
        "fitted": result.fitted.metrics,
        **facts,
    }

    def write() -> None:
        metrics["seconds"] |= _of_rounds(directory.rows)
        rows = parameter_rows(facts["parameters"], case.moving.units)
        directory.write_csv(PARAMETERS, PARAMETER_COLUMNS, rows)
        directory.write_csv(OBSERVABLES, WITH_ERRORS, _observables(case, facts))
        rows = [map(row.get, DERIVATIVE_COLUMNS) for one in facts.get("derivatives", ()) for row in one["rows"]]
        if rows:
            directory.write_csv(DERIVATIVES, DERIVATIVE_COLUMNS, rows)
        if facts.get("gradient"):
            columns = (map(row.get, GRADIENT_COLUMNS) for row in facts["gradient"])
            directory.write_csv(GRADIENT, GRADIENT_COLUMNS, columns)
        if compared is not None:
            directory.write_csv(GEOMETRIES, GEOMETRY_COLUMNS, geometry_rows(compared))
        for name, xml in _systems(case, result):
            write_text(directory.path / name, xml)
        directory.write_json("metrics.json", metrics)  # last: a run with metrics is a finished one

    result.evaluate.grid.world.on_root(write)
    return metrics


def _of_rounds(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The seconds of all rounds, those before an interruption too, that went into windows and into sums over ranks."""
    spent = {"rounds: windows and their derivatives": "compute_seconds", "rounds: sums over ranks": "reduce_seconds"}
    return {words: sum(row[name] for row in rows) for words, name in spent.items()}


def headline(metrics: dict[str, Any]) -> list[str]:
    """chi2 before and after, of fitted and held-out data, then the fitted parameters."""
    before, after = metrics["before"], metrics["fitted"]
    pairs = [("chi2", "fitted data"), ("chi2_held_out", "held-out data")]
    lines = [f"{words:16s} chi2 {before[key]:.4g} -> {after[key]:.4g}" for key, words in pairs if key in before]
    lines += [*set_lines(metrics.get("sets", ())), *parameter_lines(metrics["parameters"])]
    carried = metrics["estimator"] == "pathwise"
    systems = [one for one in metrics.get("derivatives", ()) if carried and one["windows"]]
    return lines + [f"{'tangents':16s} {advice(one['system'], one['windows'])}" for one in systems]


def advice(system: str, windows: dict[str, Any]) -> str:
    """A sentence on how long tangents should be carried."""
    at = {windows["time"][k]: error for k, error in enumerate(windows["error"])}
    used, best = windows["used"], windows["best"]
    least = f"{system}: tangents carried over {best:.3g} ps have the least error, {_percent(at[best])} of a derivative"
    place = windows["time"].index(best)
    short = "; most of it is what they lack, or may lack: lengthen [problem] window, or take more of them"
    less = "" if best == used else f"; over the {used:.3g} ps used it is {_percent(at[used])}"
    return least + less + (short if windows["bias"][place] > windows["noise"][place] else "") + "."


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _observables(case: SimulatedCase, facts: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """A row for each datum that was measured, in the unit of its measurement."""
    bound = {1: "upper", -1: "lower", 0: ""}
    tiles = [row for tile in case.tiles for m in tile for row in zip(m.value[0], m.sigma[0], m.side[0])]
    columns = facts["averages_before"], facts["averages"], facts["errors_of_averages"]
    for name, (value, sigma, side), before, after, error in zip(case.data_names(), tiles, *columns):
        if not name.measured:
            continue
        yield (
            name.system, name.observable, name.item, bound[int(side)], float(value), float(sigma), before, after,
            name.held_out, error,
        )  # fmt: skip


def _systems(case: SimulatedCase, result: Result) -> Iterator[tuple[str, str]]:
    """A file for each system of OpenMM, with the parameters found."""
    for one in case.opened:
        if one.loaded is not None:
            found = case.moving.at(result.fitted.params.shared, one.parameters)
            yield f"{one.name}.xml", one.loaded.to_xml(found)
