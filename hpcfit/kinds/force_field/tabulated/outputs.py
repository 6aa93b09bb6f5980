"""The files that a fit of kind "force-field" leaves: parameters, observables, weights and metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from hpcfit.fit import derivatives
from hpcfit.fit.gradient import Evaluation, Gradient
from hpcfit.fit.problem import Block
from hpcfit.fit.stages import Result
from hpcfit.fit.state import gather_rows
from hpcfit.kinds.force_field.files import (
    OBSERVABLE_COLUMNS,
    OBSERVABLES,
    PARAMETER_COLUMNS,
    PARAMETERS,
    WEIGHT_COLUMNS,
    WEIGHTS,
)
from hpcfit.kinds.force_field.outputs import parameter_lines, parameter_rows
from hpcfit.kinds.force_field.tabulated.case import TabulatedCase
from hpcfit.kinds.force_field.tabulated.config import TabulatedConfig
from hpcfit.kinds.force_field.tabulated.problem import JointFit
from hpcfit.observables.averages import in_units_of_measurements
from hpcfit.runs.directory import RunDirectory


def write_results(
    directory: RunDirectory, case: TabulatedCase, result: Result, facts: dict[str, Any]
) -> dict[str, Any]:
    """Write all files of the result; collective. Returns the metrics."""
    evaluate, params = result.evaluate, result.fitted.params
    problem, rows = evaluate.problem, evaluate.frames.rows
    after, before = evaluate.value(params), evaluate.value(problem.init(case.config.run.seed, rows))
    p, _, q, _ = derivatives.weights(problem, params, Block(rows.ids, rows.more))
    gathered = gather_rows({"p": np.asarray(p), "q": np.asarray(q)}, evaluate.grid)
    metrics = _metrics(case, evaluate, before, after) | facts

    def write() -> None:
        table = facts["parameters"]
        directory.write_csv(
            PARAMETERS, PARAMETER_COLUMNS, parameter_rows(table, _units(case.config.problem, table["names"]))
        )
        directory.write_csv(OBSERVABLES, OBSERVABLE_COLUMNS, _observables(case, problem, before, after))
        directory.write_csv(WEIGHTS, WEIGHT_COLUMNS, _weights(case, gathered))
        directory.write_json("metrics.json", metrics)  # last: a run with metrics is a finished one

    evaluate.grid.world.on_root(write)
    return metrics


def headline(metrics: dict[str, Any]) -> list[str]:
    """chi2 of each ensemble before and after, then the fitted parameters."""
    lines = [
        f"{one['name']:16s} chi2 {one['chi2_before']:.4g} -> {one['chi2']:.4g} of {one['data']} data, effective frames"
        f" {one['ess']:.4g} of {one['frames']}"
        for one in metrics["ensembles"]
    ]
    return lines + parameter_lines(metrics["parameters"])


def _metrics(case: TabulatedCase, evaluate: Gradient, before: Evaluation, after: Evaluation) -> dict[str, Any]:
    return {
        "kind": "force-field",
        "estimator": case.config.problem.estimator,
        "frames": case.n_frames,
        "fitted": _judged(case, evaluate.metrics(after)),
        "before": _judged(case, evaluate.metrics(before)),
        "ensembles": list(_ensembles(case, evaluate.problem, before, after)),
    }


def _judged(case: TabulatedCase, metrics: dict[str, float]) -> dict[str, float]:
    """The metrics without chi2 of held-out data where those were only held out of folds."""
    return {name: value for name, value in metrics.items() if case.validated or name != "chi2_held_out"}


def _ensembles(
    case: TabulatedCase, problem: JointFit, before: Evaluation, after: Evaluation
) -> Iterator[dict[str, Any]]:
    sums, names = after.statistics.common, case.data_names()
    kl_weights, kl_force_field = problem.divergences(sums)
    columns = {
        "chi2": _chi2(problem, after),
        "chi2_before": _chi2(problem, before),
        "chi2_held_out": _chi2(problem, after, held_out=True),
        "chi2_held_out_before": _chi2(problem, before, held_out=True),
        "kl_weights": kl_weights,
        "kl_force_field": kl_force_field,
        "ess": sums.p**2 / sums.pp,
        "ess_force_field": sums.q**2 / sums.qq,
    }
    for number, one in enumerate(case.ensembles):
        mine = [datum for datum in names if datum.ensemble == one.config.name]
        held_out = sum(datum.held_out for datum in mine)
        counts = {"frames": one.n_frames, "data": len(mine) - held_out, "held_out": held_out}
        yield {"name": one.config.name, **counts, **{key: float(values[number]) for key, values in columns.items()}}


def _chi2(problem: JointFit, at: Evaluation, held_out: bool = False) -> np.ndarray:
    return np.asarray(problem.chi2(at.sums, at.statistics.common, at.params.shared, held_out))


def _units(choice: TabulatedConfig, names: list[str]) -> list[str]:
    """The unit of each fitted parameter: corrections come before curves."""
    corrections = sum(one.fitted for one in choice.correction)
    return ["kT" if number < corrections else "Hz" for number in range(len(names))]


def _observables(
    case: TabulatedCase, problem: JointFit, before: Evaluation, after: Evaluation
) -> Iterator[tuple[Any, ...]]:
    """A row for each datum, all in the unit of its measurement."""
    d, calculated = problem.data, []
    for at in (before, after):
        off = np.asarray(problem.deviations(at.sums, at.statistics.common, at.params.shared))
        calculated.append(in_units_of_measurements(d, off).tolist())
    bound = {1: "upper", -1: "lower", 0: ""}
    columns = (*(values.tolist() for values in (d.side, d.measured, d.sigma)), *calculated)
    for name, side, *values in zip(case.data_names(), *columns):
        yield name.ensemble, name.data, name.column, bound[side], *values, name.held_out


def _weights(case: TabulatedCase, gathered: dict[str, np.ndarray]) -> Iterator[tuple[Any, ...]]:
    """A row for each frame, numbered from 0 in its ensemble; the weights of an ensemble sum to 1."""
    p, q = (gathered[name].ravel() for name in ("p", "q"))
    for one, start, stop in zip(case.ensembles, case.starts, case.starts[1:]):
        force_field, weight = q[start:stop] / q[start:stop].sum(), p[start:stop] / p[start:stop].sum()
        for frame, values in enumerate(zip(one.w0.tolist(), force_field.tolist(), weight.tolist())):
            yield one.config.name, frame, *values
