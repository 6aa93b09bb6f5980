"""Gauges of a monitored fit for Prometheus, on the scheduler's /metrics beside Dask's own."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, Gauge

if TYPE_CHECKING:
    from hpcfit.workflow.pages.collector import Fit

SECONDS, AGE = "hpcfit_step_seconds", "hpcfit_checkpoint_age_seconds"
MEANINGS = {
    SECONDS: "Seconds of a step that a rank spent computing, reducing, reading, and in all else",
    AGE: "Seconds since the newest checkpoint was written",
}


def set_gauges(fit: Fit, rank: int) -> None:
    """The newest value of all that a rank reports; of rank 0 also hpcfit_loss, hpcfit_cc, hpcfit_ess and others."""
    for part, seconds in fit.seconds.get(rank, {}).items():
        _set(SECONDS, seconds, run=fit.name, rank=str(rank), part=part)
    if rank != 0:
        return
    for name in fit.history.values:
        _set(f"hpcfit_{name}", fit.history.last(name), run=fit.name)
    if fit.status.get("checkpoint"):  # an age is of the moment in which it is asked for
        _gauge(AGE, run=fit.name).set_function(lambda: time.time() - fit.status["checkpoint"])


_gauges: dict[str, Gauge] = {}


def _set(name: str, value: float, **labels: str) -> None:
    if not math.isnan(value):
        _gauge(name, **labels).set(value)


def _gauge(name: str, **labels: str) -> Gauge:
    if name not in _gauges:
        meaning = MEANINGS.get(name, f"{name.removeprefix('hpcfit_')} at the newest step of a fit")
        _gauges[name] = Gauge(name, meaning, sorted(labels), registry=REGISTRY)
    return _gauges[name].labels(**labels)
