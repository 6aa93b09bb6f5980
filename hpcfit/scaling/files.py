"""The files of a scaling series: scaling.json, scaling.csv, scaling.svg and scaling.html."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hpcfit import __version__
from hpcfit.errors import InputError
from hpcfit.log import logger
from hpcfit.scaling.measurement import Measurement
from hpcfit.scaling.summary import Prediction, Row, Scaling
from hpcfit.store.files import write_csv, write_text

SCHEMA = 1
JSON = "scaling.json"


def check_mode(directory: Path, mode: str) -> None:
    """Raise InputError if the directory holds the results of a series of the other mode."""
    path = directory / JSON
    if not path.exists():
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))["mode"]
    except (ValueError, KeyError, TypeError):
        there = "unknown"
    if there != mode:
        raise InputError(
            f"{path} is of a series with --mode {there}, now --mode {mode}", remedy="choose another --directory"
        )


def write_scaling(directory: Path, scaling: Scaling, measurements: Sequence[Sequence[Measurement]]) -> None:
    """Write all files; ``measurements``: the repeats of each row, kept in the JSON file."""
    from hpcfit.scaling.figures import overview
    from hpcfit.scaling.page import page

    record = to_record(scaling) | {"measurements": [[m.record() for m in repeats] for repeats in measurements]}
    write_text(directory / JSON, json.dumps(record, indent=1))
    _write_rows(directory / "scaling.csv", scaling.rows)
    write_text(directory / "scaling.svg", overview(scaling).decode())
    write_text(directory / "scaling.html", page(scaling, directory.resolve().name))
    logger.info("%s, scaling.csv, scaling.svg and scaling.html are written", directory / JSON)


def to_record(scaling: Scaling) -> dict[str, Any]:
    """Rows, model and predictions as JSON values; seconds and bytes per second."""
    return {
        "schema": SCHEMA,
        "hpcfit": __version__,
        "mode": scaling.mode,
        "problem": scaling.summary,
        "load": asdict(scaling.load),
        "rows": [_row(row) for row in scaling.rows],
        "model": {"fitted_to": scaling.fitted, **asdict(scaling.machine)},
        "accelerator": asdict(scaling.accelerator),
        "predictions": [_prediction(prediction) for prediction in scaling.predictions],
        "warnings": scaling.warnings,
    }


def _row(row: Row) -> dict[str, Any]:
    predicted = row.predicted._asdict() | {"seconds": row.predicted.seconds}
    return row._asdict() | {"predicted": predicted, "error_of_prediction": row.error}


def _prediction(prediction: Prediction) -> dict[str, Any]:
    rows = [
        {
            "ranks": row.ranks,
            "grid": row.grid,
            **row.cost._asdict(),
            "seconds": row.cost.seconds,
            "efficiency": row.efficiency,
            "frames_only_seconds": row.frames_only.seconds,
        }
        for row in prediction.rows
    ]
    return {
        "title": prediction.title,
        "measured": False,
        "load": asdict(prediction.load),
        "machine": asdict(prediction.machine),
        "rows": rows,
    }


def _write_rows(path: Path, rows: Sequence[Row]) -> None:
    records = [{k: v for k, v in _row(row).items() if k != "predicted"} for row in rows]
    for record, row in zip(records, rows, strict=True):
        record["predicted_step"] = row.predicted.seconds
    write_csv(path, list(records[0]), (record.values() for record in records))
