"""The report on a fit to stored geometries: outcome, energies, parameters, convergence, time."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from hpcfit.kinds.force_field.files import GEOMETRIES, PARAMETERS, ForceFieldRun
from hpcfit.kinds.force_field.sections import cards, convergence, correlations, so_far, time
from hpcfit.report.page import Figure, Section, Table, Text, plural, plus_minus, significant
from hpcfit.report.report import Contents
from hpcfit.report.sections import settings

MEANING = {
    "energy_rmse_held_out": ("energies held out", "see energies; of geometries that were never fitted, kJ/mol"),
    "force_rmse_held_out": ("forces held out", "see forces; of geometries that were never fitted, kJ/mol/nm"),
    "energy_rmse": ("energies", "root mean square deviation of the fitted energies without the offset, kJ/mol"),
    "force_rmse": ("forces", "root mean square deviation of the components of fitted forces, kJ/mol/nm"),
    "chi2": ("χ²", "the sum of the squares of fitted deviations in units of their σ"),
}
SETS = (
    "Root mean square deviations of each set before the fit and after it, with the standard error over geometries"
    " (bootstrap). Geometries count as the fit weighs them."
)
ENERGIES = (
    "Energies of the geometries above the least reference energy of their set: reference against the force field before"
    " the fit (grey) and after it, fitted (blue) and held out (green). On the line they agree."
)
PARAMETERS_TABLE = (
    "Fitted parameters in units of the energy. A reference is no measurement with noise: what is left of the deviations"
    " is what the energy function cannot say. The error is that of their scatter: how far the parameters would move"
    " with other geometries drawn alike, each taken as independent of the others (Huber's and White's estimate)."
)


def outcome(run: ForceFieldRun) -> Section:
    """The headline numbers beside those before the fit."""
    m, choice = run.metrics, run.config["problem"]
    held_out = sum(one["geometries"] for one in m["sets"] if one["held_out"])
    said = (
        f"{m['frames']} geometries of {plural(len(choice['molecule']), 'molecule')}, {m['frames'] - held_out} fitted,"
        f" {held_out} held out."
    )
    there = {key for one in m["sets"] for key in _keys(one)} | {"chi2"}
    meaning = {key: words for key, words in MEANING.items() if key in there}
    stopped = Text(f"The fit stopped after {plural(m['steps'], 'step')}: {m['stopped']}.")
    numbers = cards(meaning, m["fitted"], m["before"], _errors(m["sets"]))
    return Section("Outcome", [Text(said), numbers, stopped])


def _errors(sets: list[dict[str, Any]]) -> dict[str, float]:
    """Of each headline number that is that of one set alone."""
    found: dict[str, list[float]] = {}
    for one in sets:
        for key in _keys(one):
            found.setdefault(key, []).append(one[key.partition("_")[0]]["after_error"])
    return {key: errors[0] for key, errors in found.items() if len(errors) == 1}


def _keys(one: dict[str, Any]) -> list[str]:
    return [f"{what}_rmse{'_held_out' if one['held_out'] else ''}" for what in ("energy", "force") if what in one]


def geometries(run: ForceFieldRun) -> Section | None:
    """Deviations of each set, and energies against those of the reference; None of a run without any."""
    from hpcfit.kinds.force_field import figures

    if not run.metrics.get("sets"):
        return None
    by_set: dict[str, list] = {}
    for one in run.geometries:
        if np.isfinite(one.reference):
            by_set.setdefault(one.set, []).append(one)
    head = (
        "set",
        "",
        "geometries",
        "energy before",
        "energy after",
        "force before",
        "force after",
    )
    table = Table(head, [_row(one) for one in run.metrics["sets"]], SETS, text_columns=2)
    drawn = [Figure(figures.energies(by_set), "energies against the reference", ENERGIES)] if by_set else []
    return Section("Geometries", [*drawn, table])


def _row(one: dict[str, Any]) -> list:
    values = [
        plus_minus(significant(one[what][when], 4), one[what][f"{when}_error"]) if what in one else ""
        for what in ("energy", "force")
        for when in ("before", "after")
    ]
    return [one["set"], "held out" if one["held_out"] else "fitted", one["geometries"], *values]


def parameters(run: ForceFieldRun) -> Section:
    """Values with errors, and correlations."""
    table = run.metrics["parameters"]
    errors = table["errors_of_data"] or [None] * len(table["names"])
    rows = [
        [name, significant(start, 4), plus_minus(significant(value, 4), error)]
        for name, start, value, error in zip(table["names"], table["start"], table["values"], errors)
    ]
    values = Table(("parameter", "before", "value"), rows, PARAMETERS_TABLE)
    unknown = [Text(f"The geometries do not determine {one}.", warning=True) for one in run.metrics["undetermined"]]
    return Section("Parameters", [values, *correlations(table), *unknown])


CONTENTS = Contents(
    finished=(outcome, geometries, parameters, partial(convergence, words="."), time, settings),
    unfinished=(partial(so_far, meaning=MEANING), partial(convergence, words="."), settings),
    files=("config.toml", "environment.json", "history.jsonl", PARAMETERS, GEOMETRIES),
    run=ForceFieldRun,
)
