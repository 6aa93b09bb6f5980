"""The files that a fit to averages leaves: weights of frames, data before and after the fit, and metrics."""

from __future__ import annotations

from typing import Any

import numpy as np

from hpcfit.fit.stages import Result
from hpcfit.fit.state import gather_rows
from hpcfit.kinds.frame_weights.averages.case import AveragesCase
from hpcfit.kinds.frame_weights.experiments import at_weights, experiment_metrics, experiment_rows
from hpcfit.kinds.frame_weights.explained import write_explained
from hpcfit.kinds.frame_weights.files import AVERAGES_WEIGHT_COLUMNS, EXPERIMENT_COLUMNS, EXPERIMENTS
from hpcfit.kinds.frame_weights.groups import group_rows, independent_frames
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.runs.directory import RunDirectory


def write_results(directory: RunDirectory, case: AveragesCase, result: Result, facts: dict[str, Any]) -> dict[str, Any]:
    """Write all files of the result; collective. Returns the metrics."""
    evaluate, params = result.evaluate, result.fitted.params
    problem, rows = evaluate.problem, evaluate.frames.rows
    after, before = evaluate.value(params), evaluate.value(problem.init(0, rows))
    ends = [at_weights(problem, one, evaluate.metrics(one)) for one in (before, after)]
    gathered = gather_rows({"w": problem.weights_of(after.params, rows)}, evaluate.grid)
    metrics = {
        "kind": "frame-weights",
        "data": "averages",
        "frames": case.n_frames,
        "temperature": case.config.problem.temperature,
        "before": ends[0].metrics,
        "fitted": ends[1].metrics,
        **experiment_metrics(problem.experiments, case.tables, *ends, facts),
    } | facts

    def write() -> None:
        of_data = experiment_rows(problem.experiments, case.tables, *ends, facts.get("errors", {}))
        directory.write_csv(EXPERIMENTS, EXPERIMENT_COLUMNS, of_data)
        w, of = gathered["w"].ravel()[: case.n_frames], case.trajectories
        directory.write_csv("weights.csv", AVERAGES_WEIGHT_COLUMNS, _weights(case, w))
        write_explained(directory, metrics)
        metrics["groups"] = group_rows(of.groups, of.group, case.w0, w, case.config.problem.temperature)
        metrics["independent_frames"] = independent_frames(of.sources, of.source[of.held], w[of.held])
        directory.write_json("metrics.json", metrics)  # last: a run with metrics is a finished one

    evaluate.grid.world.on_root(write)
    return metrics


def headline(metrics: dict[str, Any]) -> list[str]:
    """chi2 of each set of data before and after, and the frames that carry the result."""
    lines = [
        f"{one['name']:16s} chi2 {one['chi2_before']:.6g} -> {one['chi2']:.6g} of {one['data']} data"
        + (", held out" if one["held_out"] else "")
        for one in metrics["experiments"]
    ]
    fitted = metrics["fitted"]
    return [*lines, f"{'weights':16s} KL {fitted['kl']:.6g} nats, effective frames {fitted['ess']:.5g}"]


def _weights(case: AveragesCase, w: np.ndarray) -> Any:
    """A row for each frame: its number, prior weight, weight, ln w, and -kT ln(w / w0), kJ/mol."""
    kT = GAS_CONSTANT * case.config.problem.temperature
    with np.errstate(divide="ignore", invalid="ignore"):  # a weight of 0 has no logarithm
        log_weight = np.log(w)
        delta_G = -kT * (log_weight - np.log(case.w0))
    return zip(range(case.n_frames), *(v.tolist() for v in (case.w0, w, log_weight, delta_G)), strict=True)
