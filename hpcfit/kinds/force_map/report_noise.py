"""The noise and validity of maps in a report on kind "force-map": learning, correlation in time, mean forces."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from hpcfit.kinds.force_map.numbers import REFERENCE, ForceUnit
from hpcfit.report.page import Figure, Section, Table, Text, number, significant
from hpcfit.runs.files import RunFiles

SURELY = 2.0  # standard errors by which g must grow
LEARNING = (
    "Mean |F|² against the number of frames that a map is fitted to: of these frames, and of the last third of the "
    "blocks, which none of these fits has seen. What lies between the two is noise that the map hides by fitting it. "
    "Crosses: what the law of optimism predicts for held-out frames from the fitted ones. Dashed: the basic map on "
    "the same held-out frames, the baseline. Where the curves still fall apart at the right end, more frames, or a "
    "map with fewer coefficients, give less noise."
)
RIDGE = (
    "Mean |F|² on held-out blocks against the strength of the ridge, a fraction of the mean squared force on a rigid "
    "group; 0 is drawn at the left edge. Ringed: the strength taken. A minimum far from 0 says that the frames are "
    "too few for the coefficients; the baseline is no ridge."
)
INEFFICIENCY = (
    "Statistical inefficiency of the mapped forces: g(s) = s ⟨(mean over s frames)²⟩ / ⟨F²⟩. The baseline is 1 "
    "(dashed), which independent frames have at every span. Where g levels off, T/g is the number of independent "
    "frames that T frames are worth, and statistical blocks should be much longer than that span. Below 1, forces of "
    "neighbouring frames cancel each other."
)
GROWING = (
    "g still grows at the largest span for {names}: the memory of the forces is longer than {span} frames, and errors "
    "over blocks are too small unless a block ({block} frames) is much longer than the memory."
)
LEVEL = "Within its error, g does not grow any more at the largest span, {span} frames."
INEFFICIENCIES = "g at the span of {span} frames, and the number of independent frames by it."
COMPARISON = (
    "Mean forces of the maps against those of '{reference}', the baseline. cross: ⟨(F − F_ref)·G⟩ along the field G "
    "fitted to the reference; difference: along the field fitted to what the two differ by in the other blocks. Two "
    "valid maps have the same mean force, so that both are 0 within their standard errors (s.e.). Agreement does not "
    "make a map valid: it says that these frames are too few to see the difference."
)
DECOMPOSITION = (
    "χ² of each map's force along the pair against a potential's: χ² = error of the potential + noise of the map + "
    "cross term. The error of the potential is known as the exact mean force was given. The cross term of a valid map "
    "is 0 for every potential; bias is the mean of the map's force minus the exact one, 0 for a valid map. 'none': a "
    "potential of 0; 'fitted': the one fitted to that map, which takes up the bias of an invalid one."
)


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
        blocks.append(Figure(svg, "Mean squared force against the number of frames fitted", LEARNING))
    ridges = {row["name"]: row for row in fitted if len(row["curve"]) > 1}
    if ridges:
        scanned = {name: [(ridge, unit.square(value)) for ridge, value in row["curve"]] for name, row in ridges.items()}
        labels = ("ridge", f"mean |F|², held out, {unit.squared}")
        svg = figures.ridge_curves(scanned, {name: row["ridge"] for name, row in ridges.items()}, labels)
        blocks.append(Figure(svg, "Held-out mean squared force against the ridge", RIDGE))
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
    growing = GROWING.format(names=", ".join(names), span=spans[-1], block=block)
    said = Text(growing, warning=True) if names else Text(LEVEL.format(span=spans[-1]))
    picture = Figure(figures.inefficiency(spans, of), "Statistical inefficiency against the span of a mean",
                     INEFFICIENCY)  # fmt: skip
    rows = [[name, significant(values[-1]), significant(n / max(values[-1], 1.0))] for name, values in of.items()]
    head = ("map", f"g({spans[-1]})", "independent frames")
    return Section("Correlation in time", [picture, said, Table(head, rows, INEFFICIENCIES.format(
        span=spans[-1]))])  # fmt: skip


def grows(values: list[float], spans: list[int], vectors: int) -> bool:
    """True if g at the largest span is above the one before by more than ``SURELY`` standard errors.

    vectors: frames times beads. The mean square of K = 3 vectors / s Gaussian components has a relative error of
    sqrt(2 / K).
    """
    if len(values) < 2:
        return False
    return values[-1] - values[-2] > SURELY * values[-1] * math.sqrt(2 * spans[-1] / (3 * vectors))


def validity(run: RunFiles) -> Section | None:
    """The section on the agreement of mean forces, with chi^2 where the exact one is known."""
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
    return [Table(head, rows, COMPARISON.format(reference=compared["reference"]), text_columns=2)]


def _decomposition(m: dict[str, Any]) -> list[Table]:
    unit = ForceUnit.of(m)
    head = ("potential", "map", unit.head("χ²"), "error of the potential", "noise", "cross", "cross, s.e.",
            unit.head("bias", 1))  # fmt: skip
    rows = [
        [row["potential"], row["map"], *(unit.shown(*row[key]) for key in ("chi2", "pmf_error", "noise", "cross")),
         _errors(row["cross_in_errors"]), unit.shown(*row["bias"], power=1)]
        for row in m.get("decomposition") or ()
    ]  # fmt: skip
    return [Table(head, rows, DECOMPOSITION, text_columns=2)] if rows else []


def _errors(value: float | None) -> Markup:
    """A number of standard errors."""
    return number(value, "" if value is None else f"{value:.1f}")
