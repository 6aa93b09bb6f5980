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
    ids, left = evaluate.frames.rows.ids, result.fitted.rows.local["left"]
    rows = gather_rows({"id": ids, "offset": np.asarray(params.local), "left": left}, evaluate.grid)
    slope = float(params.shared["slope"])
    metrics = {"kind": "toy", "fitted": result.fitted.metrics, "slope": slope, **facts}

    def write() -> None:
        held = rows["id"].ravel() >= 0
        columns = [rows[name].ravel()[held].tolist() for name in ("id", "offset", "left")]
        directory.write_csv("offsets.csv", ("point", "offset", "left"), zip(*columns))
        directory.write_json("metrics.json", metrics)

    evaluate.grid.world.on_root(write)
    return metrics


def headline(metrics: dict[str, Any]) -> list[str]:
    return [f"slope {metrics['slope']:.6f}"]
