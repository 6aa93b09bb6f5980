"""The files that a fit to stored geometries leaves: parameters, geometries, metrics, and Systems of OpenMM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hpcfit.fit.stages import Result
from hpcfit.kinds.force_field.files import GEOMETRIES, GEOMETRY_COLUMNS, PARAMETER_COLUMNS, PARAMETERS
from hpcfit.kinds.force_field.geometries.case import GeometriesCase
from hpcfit.kinds.force_field.geometries.study import Compared
from hpcfit.kinds.force_field.outputs import parameter_lines, parameter_rows
from hpcfit.runs.directory import RunDirectory
from hpcfit.store.files import write_text


def write_results(
    directory: RunDirectory, case: GeometriesCase, result: Result, facts: dict[str, Any]
) -> dict[str, Any]:
    """Write all files of the result; collective. Returns the metrics."""
    compared = facts.pop("compared")
    metrics = {
        "kind": "force-field",
        "estimator": "geometries",
        "frames": case.n_frames,
        "fitted": result.fitted.metrics,
        **facts,
    }

    def write() -> None:
        units = [""] * len(case.moving.labels)
        directory.write_csv(PARAMETERS, PARAMETER_COLUMNS, parameter_rows(facts["parameters"], units))
        directory.write_csv(GEOMETRIES, GEOMETRY_COLUMNS, geometry_rows(compared))
        problem, u = result.evaluate.problem, result.fitted.params.shared
        for one, molecule in zip(case.opened, problem.molecules):
            if one.loaded is not None:
                write_text(directory.path / f"{one.name}.xml", one.loaded.to_xml(problem.at(u, molecule)))
        directory.write_json("metrics.json", metrics)  # last: a run with metrics is a finished one

    result.evaluate.grid.world.on_root(write)
    return metrics


def geometry_rows(sets: Sequence[Compared]) -> Iterator[tuple[Any, ...]]:
    """A row for each geometry; energies are above the least reference energy of its set, without the offset."""
    for one in sets:
        of, empty = one.of, [""] * len(one.of.number)
        energies = [empty] * 3
        if one.energies is not None:
            reference = of.energies - of.energies.min()
            energies = [reference.tolist(), *(reference + one.energies).tolist()]
        forces = [empty] * 2 if one.forces is None else one.forces.tolist()
        columns = of.number.tolist(), of.held_out.tolist(), of.weight.tolist(), *energies, *forces
        for row in zip(*columns):
            yield of.config.name, *row


def headline(metrics: dict[str, Any]) -> list[str]:
    """Root mean squares of deviations of each set before and after, then the fitted parameters."""
    return [*set_lines(metrics["sets"]), *parameter_lines(metrics["parameters"])]


def set_lines(sets: Sequence[dict[str, Any]]) -> list[str]:
    """Root mean squares of deviations of each set before and after, a line each."""
    lines = []
    for one in sets:
        half = "held out" if one["held_out"] else "fitted"
        for name, unit in (("energy", "kJ/mol"), ("force", "kJ/mol/nm")):
            if name in one:
                found = one[name]
                values = f"{found['before']:.4g} -> {found['after']:.4g} +- {found['after_error']:.2g} {unit}"
                lines.append(f"{one['set']}, {one['geometries']} {half}: {name} RMSE {values}")
    return lines
