"""The noise and validity of maps in a report on kind "force-map": learning, correlation in time, mean forces."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from hpcfit.kinds.force_map import captions
from hpcfit.kinds.force_map.numbers import REFERENCE, ForceUnit
from hpcfit.report.page import Figure, Section, Table, Text, number, significant
from hpcfit.runs.files import RunFiles

SURELY = 2.0  # standard errors by which g must grow


def learning(run: RunFiles) -> Section | None:
    """Noise against the number of frames, and against the ridge, of the maps that have something to fit."""
    from hpcfit.kinds.force_map import figures

    m = run.metrics
    unit, fitted = ForceUnit.of(m), [row for row in m["maps"] if row["free"] > 0]
    curves = {row["name"]: m["learning"][row["name"]] for row in fitted if m["learning"].get(row["name"])}
    blocks = []
    if curves:
        scaled = {name: [_in_unit(point, unit) for point in points] for name, points in curves.items()}
        known = m["learning"].get(REFERENCE)
        svg = figures.learning(scaled, unit.square(known[-1]["held_out"]) if known else None, unit.squared)
        blocks.append(Figure(svg, "Mean squared force against the number of frames fitted", captions.LEARNING))
    ridges = {row["name"]: row for row in fitted if len(row["curve"]) > 1}
    if ridges:
        scanned = {name: [(ridge, unit.square(value)) for ridge, value in row["curve"]] for name, row in ridges.items()}
        labels = ("ridge", f"mean |F|², held out, {unit.squared}")
        svg = figures.ridge_curves(scanned, {name: row["ridge"] for name, row in ridges.items()}, labels)
        blocks.append(Figure(svg, "Held-out mean squared force against the ridge", captions.RIDGE))
    return Section("Learning", blocks) if blocks else None


def _in_unit(point: dict[str, float], unit: ForceUnit) -> dict[str, float]:
    return {key: value if key == "frames" else unit.square(value) for key, value in point.items()}


def correlation(run: RunFiles) -> Section | None:
    """Statistical inefficiency against the span of a mean, and whether it has levelled off."""
    from hpcfit.kinds.force_map import figures

    m = run.metrics
    found = m.get("inefficiency")
    if not found:
        return None
    spans, of, n = found["spans"], found["of"], m["frames"]
    names = [f"'{name}'" for name, values in of.items() if grows(values, spans, n * m["beads"])]
    block = n // m["statistical_blocks"]
    growing = captions.GROWING.format(names=", ".join(names), span=spans[-1], block=block)
    said = Text(growing, warning=True) if names else Text(captions.LEVEL.format(span=spans[-1]))
    picture = Figure(figures.inefficiency(spans, of), "Statistical inefficiency against the span of a mean",
                     captions.INEFFICIENCY)  # fmt: skip
    rows = [[name, significant(values[-1]), significant(n / max(values[-1], 1.0))] for name, values in of.items()]
    head = ("map", f"g({spans[-1]})", "independent frames")
    return Section("Correlation in time", [picture, said, Table(head, rows, captions.INEFFICIENCIES.format(
        span=spans[-1]))])  # fmt: skip


def grows(values: list[float], spans: list[int], vectors: int) -> bool:
    """Whether g at the largest span is above the one before by more than it is known.

    vectors: frames times beads. The mean square of K = 3 vectors / s Gaussian components has a relative error of
    sqrt(2 / K).
    """
    if len(values) < 2:
        return False
    return values[-1] - values[-2] > SURELY * values[-1] * math.sqrt(2 * spans[-1] / (3 * vectors))


def validity(run: RunFiles) -> Section | None:
    """Whether mean forces agree, and chi^2 where the exact one is known."""
    m = run.metrics
    tables = [*_comparison(m), *_decomposition(m)]
    return Section("Validity", tables) if tables else None


def _comparison(m: dict[str, Any]) -> list[Table]:
    compared, unit = m.get("comparison"), ForceUnit.of(m)
    if not compared:
        return []
    head = ("map", "verdict", unit.head("cross"), "cross, s.e.", "difference, s.e.", "probability")
    rows = [
        [row["name"], row["verdict"], unit.shown(*row["cross"]), _errors(row["cross_in_errors"]),
         _errors(row["difference_in_errors"]), significant(row["doubt"], 2)]
        if row["name"] != compared["reference"]
        else [row["name"], "the reference", *[""] * 4]
        for row in compared["maps"]
    ]  # fmt: skip
    return [Table(head, rows, captions.COMPARISON.format(reference=compared["reference"]), text_columns=2)]


def _decomposition(m: dict[str, Any]) -> list[Table]:
    unit = ForceUnit.of(m)
    head = ("potential", "map", unit.head("χ²"), "error of the potential", "noise", "cross", "cross, s.e.",
            unit.head("bias", 1))  # fmt: skip
    rows = [
        [row["potential"], row["map"], *(unit.shown(*row[key]) for key in ("chi2", "pmf_error", "noise", "cross")),
         _errors(row["cross_in_errors"]), unit.shown(*row["bias"], power=1)]
        for row in m.get("decomposition") or ()
    ]  # fmt: skip
    return [Table(head, rows, captions.DECOMPOSITION, text_columns=2)] if rows else []


def _errors(value: float | None) -> Markup:
    """A number of standard errors."""
    return number(value, "" if value is None else f"{value:.1f}")
