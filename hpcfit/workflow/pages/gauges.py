"""Gauges of a monitored fit for Prometheus, on the scheduler's /metrics beside Dask's own."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from prometheus_client import REGISTRY, Gauge

SECONDS, AGE = "hpcfit_step_seconds", "hpcfit_checkpoint_age_seconds"
MEANINGS = {
    SECONDS: "Seconds of a step that a rank spent computing, reducing, reading, and in all else",
    AGE: "Seconds since the newest checkpoint was written",
}


def set_seconds(run: str, rank: int, seconds: Mapping[str, float]) -> None:
    """Set how long a step of one rank took, by part."""
    for part, value in seconds.items():
        _set(SECONDS, value, run=run, rank=str(rank), part=part)


def set_newest(run: str, newest: Mapping[str, float], status: Mapping[str, Any]) -> None:
    """Set hpcfit_loss, hpcfit_cc, hpcfit_ess and others, and the age of the newest checkpoint that ``status`` knows."""
    for name, value in newest.items():
        _set(f"hpcfit_{name}", value, run=run)
    if status.get("checkpoint"):  # an age is of the moment in which it is asked for
        _gauge(AGE, run=run).set_function(lambda: time.time() - status["checkpoint"])


_gauges: dict[str, Gauge] = {}


def _set(name: str, value: float, **labels: str) -> None:
    if not math.isnan(value):
        _gauge(name, **labels).set(value)


def _gauge(name: str, **labels: str) -> Gauge:
    if name not in _gauges:
        meaning = MEANINGS.get(name, f"{name.removeprefix('hpcfit_')} at the newest step of a fit")
        _gauges[name] = Gauge(name, meaning, sorted(labels), registry=REGISTRY)
    return _gauges[name].labels(**labels)
