"""Sections of every report: the time that a run took, and its settings."""

from __future__ import annotations

import json

import numpy as np
from markupsafe import Markup

from hpcfit.report.page import Fold, Section, Table, Text, bar, duration, percent, significant
from hpcfit.runs.files import RunFiles

RATE = "The rate against the bandwidth that a plain read of memory reached on the same rank, the baseline."


def phases(run: RunFiles) -> Table:
    """The duration of each phase."""
    times = {phase["name"]: phase["seconds"] for phase in run.metrics["phases"]}
    total, longest = sum(times.values()), max(times.values(), default=0.0)
    rows = [
        [name, duration(seconds), percent(seconds / total if total else None), bar(seconds, longest)]
        for name, seconds in times.items()
    ]
    rows.append(["total", duration(total), "", ""])
    return Table(("phase", "time", "share", ""), rows, "How long each phase took.")


def rate(run: RunFiles, what: str) -> Table:
    """The rate of the fit, and where the time of its evaluations went. what: the data that a rank reads."""
    known, history = run.metrics.get("rate") or {}, run.history
    rows = [
        [f"{what} read by each rank", _with_unit(known.get("gb_per_s_per_rank"), "GB/s")],
        ["measured memory bandwidth per rank", _with_unit(known.get("bandwidth_gb_per_s"), "GB/s")],
        ["rate / bandwidth", percent(known.get("fraction"))],
        ["median evaluation: computing", duration(_median(history["compute_seconds"]))],
        ["median evaluation: reducing over ranks", duration(_median(history["reduce_seconds"]))],
    ]
    return Table(("rate", ""), rows, RATE)


def _with_unit(value: float | None, unit: str) -> Markup:
    return significant(value) if value is None else significant(value) + f" {unit}"


def _median(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None


def study(run: RunFiles) -> list[Text]:
    """The number of fits and stages that the result took, where the run says it."""
    found = run.study
    if found is None:
        return []
    waiting = f" of {found.total}; '{found.running}' is not done" if found.ended < found.total else ""
    return [Text(f"Fits and stages done: {found.ended}{waiting}.")]


def settings(run: RunFiles) -> Section:
    """Config and environment, folded."""
    environment = json.dumps(run.environment, indent=2, ensure_ascii=False)
    folds = [Fold("config.toml, with every default", run.config_text), Fold("environment.json", environment)]
    return Section("Settings", folds)
