"""offsets.csv and metrics.json."""

from __future__ import annotations

from typing import Any

import numpy as np

from hpcfit.fit.stages import Result
from hpcfit.fit.state import gather_rows
from hpcfit.runs.directory import RunDirectory
from toykind.case import ToyCase


def write_results(directory: RunDirectory, case: ToyCase, result: Result, facts: dict[str, Any]) -> dict[str, Any]:
    params, evaluate = result.fitted.params, result.evaluate
    rows = gather_rows({"id": evaluate.frames.rows.ids, "offset": np.asarray(params.local)}, evaluate.grid)
    slope = float(params.shared["slope"])
    metrics = {"kind": "toy", "fitted": result.fitted.metrics, "slope": slope, "warnings": [], **facts}

    def write() -> None:
        held = rows["id"].ravel() >= 0
        table = zip(rows["id"].ravel()[held].tolist(), rows["offset"].ravel()[held].tolist())
        directory.write_csv("offsets.csv", ("point", "offset"), table)
        directory.write_json("metrics.json", metrics)

    evaluate.grid.world.on_root(write)
    return metrics


def headline(metrics: dict[str, Any]) -> list[str]:
    return [f"slope {metrics['slope']:.6f}"]
