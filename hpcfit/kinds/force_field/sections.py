"""Sections that the reports of kind "force-field" share: data, parameters, the way of the fit."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from markupsafe import Markup

from hpcfit.kinds.force_field.files import ForceFieldRun
from hpcfit.kinds.force_field.outputs import total_errors
from hpcfit.report.page import (
    Card,
    Cards,
    Figure,
    Section,
    Table,
    Text,
    grouped,
    near_zero,
    number,
    plural,
    plus_minus,
    significant,
)
from hpcfit.report.sections import phases, study

TARGETS = (
    "Each datum's deviation from its measurement in units of σ: before any fit (bars, the baseline), after it (blue),"
    " and of data that were held out (green). Grey: within one σ. A bound that is kept counts as 0."
)
WITH_ERRORS = " Error bars: standard errors of the averages, over windows."
CORRELATIONS = (
    "Correlations of the errors{of}. Where two parameters are strongly correlated, read their values together."
)
CURVES = "Fitted curves and those given (dashed, the baseline)."
CONVERGENCE = "{fit}: loss, χ² and the norm of the gradient{note}"
UNFINISHED = "This run is not finished: {directory} has no metrics.json. Below is its history so far."
UNKNOWN: Mapping[str, float] = MappingProxyType({})  # errors
Meaning = Mapping[str, tuple[str, str]]  # metric -> its title, and what it is


def cards(
    meaning: Meaning, fitted: dict[str, float], before: dict[str, float], errors: Mapping[str, float] = UNKNOWN
) -> Cards:
    """The headline numbers, with their errors where these are known, beside those before the fit."""
    return Cards(
        [
            Card(title, plus_minus(_shown(fitted[name]), errors.get(name)), _baseline(before, name), words)
            for name, (title, words) in meaning.items()
            if name in fitted
        ]
    )


def _baseline(before: dict[str, float], name: str) -> Markup:
    return Markup("before: {}").format(_shown(before[name])) if name in before else Markup("")


def _shown(value: float) -> Markup:
    """A headline number; counts are whole numbers."""
    return number(value, grouped(int(value))) if float(value).is_integer() else near_zero(value)


def deviations(run: ForceFieldRun) -> Figure:
    """The deviations of all data, a panel an ensemble."""
    from hpcfit.kinds.force_field import figures

    by_ensemble: dict[str, list] = {}
    for one in run.observables:
        by_ensemble.setdefault(one.ensemble, []).append(one)
    caption = TARGETS + (WITH_ERRORS if run.has_errors else "")
    return Figure(figures.targets(by_ensemble), "deviations of data before and after", caption)


def data_counted(run: ForceFieldRun) -> str:
    """The numbers of fitted and of held-out data in words."""
    held_out = sum(one.held_out for one in run.observables)
    return f"{plural(len(run.observables) - held_out, 'datum').replace('datums', 'data')} fitted, {held_out} held out"


def parameter_table(table: dict[str, Any], caption: str) -> Table:
    """Values with their two errors."""
    nothing = [None] * len(table["names"])
    columns = table["names"], table["start"], table["values"], total_errors(table)
    errors = (table[key] or nothing for key in ("errors_of_data", "errors_of_frames"))
    rows = [
        [name, significant(start, 4), plus_minus(significant(value, 4), total), *map(significant, parts)]
        for name, start, value, total, *parts in zip(*columns, *errors)
    ]
    return Table(("parameter", "before", "value", "error of data", "error of frames"), rows, caption)


def correlations(table: dict[str, Any], of: str = "") -> list[Figure]:
    """The correlation matrix of the errors, where there are several parameters. of: which errors, in words."""
    from hpcfit.kinds.force_field import figures

    if table["correlations"] is None or len(table["names"]) < 2:
        return []
    svg = figures.correlations(table["names"], np.array(table["correlations"]))
    return [Figure(svg, "correlation matrix of the fitted parameters", CORRELATIONS.format(of=of))]


def fitted_curves(run: ForceFieldRun) -> list[Figure]:
    """The fitted curves, which are the last of the parameters, before and after; none where there are none."""
    from hpcfit.kinds.force_field import figures

    table, n = run.metrics["parameters"], sum(one["fitted"] for one in run.config["problem"].get("curve", ()))
    if not n:
        return []
    names = [name.removesuffix(" A") for name in table["names"][-3 * n :: 3]]
    before, after = (np.reshape(table[key][-3 * n :], (n, 3)) for key in ("start", "values"))
    return [Figure(figures.curves(names, before, after), "fitted curves", CURVES)]


def so_far(run: ForceFieldRun, meaning: Meaning) -> Section:
    """The head of a run that has no results yet."""
    history = run.history.of_fit(run.history.newest_fit)
    last = {name: float(history[name][-1]) for name in meaning if name in history.columns}
    said = Text(UNFINISHED.format(directory=run.directory), warning=True)
    return Section("Outcome", [said, cards(meaning, last, {})])


def convergence(run: ForceFieldRun, words: str) -> Section:
    """The final fit's way, or the newest one's while there is none. words: what is to be seen, behind the caption."""
    from hpcfit.kinds.force_field import figures

    number, name = run.history.newest_fit, "The newest fit"
    if run.finished:
        number, name = run.metrics["final_fit"], f"The final fit, one of {len(run.metrics['fits'])}"
    history = run.history.of_fit(number)
    if np.any(history["loss"] <= 0):
        words += " Values of 0 and below, which rounding makes, are not drawn."
    caption = CONVERGENCE.format(fit=name, note=f"{words} {history.note}")
    return Section("Convergence", [Figure(figures.convergence(history), "loss, χ² and gradient norm", caption)])


def time(run: ForceFieldRun) -> Section:
    """The time that each phase took."""
    return Section("Time", [*study(run), phases(run)])
