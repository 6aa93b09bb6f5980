"""The report on kind "force-map": sections on the run as a whole, on its maps, and on the time that they took."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from hpcfit.kinds.force_map.files import ForceMapRun
from hpcfit.kinds.force_map.numbers import (
    REFERENCE,
    ForceUnit,
    chosen_map,
    data_efficiency,
    inefficiency,
    map_named,
)
from hpcfit.kinds.force_map.report_coefficients import coefficients
from hpcfit.kinds.force_map.report_models import fits_so_far, matching, simulation
from hpcfit.kinds.force_map.report_noise import correlation as noise_correlation
from hpcfit.kinds.force_map.report_noise import learning, validity
from hpcfit.report.page import (
    Card,
    Cards,
    Figure,
    Section,
    Table,
    Text,
    duration,
    grouped,
    near_zero,
    number,
    plural,
    significant,
)
from hpcfit.report.report import Contents
from hpcfit.report.sections import phases, rate, settings, study
from hpcfit.runs.files import RunFiles

READING = ("products of forces", "mapped frames")  # that read every frame once
INVALID = (
    "A map is invalid where it does not fulfil M Wᵀ = 1, or gives the atoms of a rigid group different coefficients: "
    "forces of constraints, which the simulation did not write down, are then missing from it. Its mean is not the "
    "force of the potential of mean force, so that a force field fitted to it is biased, however many frames there "
    "are. That its mean |F|² is shown does not mean that it may be used."
)
HELD_OUT = (
    "Mean |F|² is that of a force component on a bead: the mean force, which is the same for every valid map, and "
    "noise. Held out means on statistical blocks that the map was not fitted to; ± is its standard error over blocks."
)
EFFICIENCY_OF_RESIDUALS = "frames of the basic map that carry as much: ratio of the residuals of their force fields"
EFFICIENCY_OF_SQUARES = "frames of the basic map that carry as much, at least: both mean |F|² hold the mean force"
UNFINISHED = (
    "This run is not finished: {directory} has no metrics.json. {so_far} Maps, their noise and mapped frames are "
    "missing."
)
NO_HISTORY = "It has read frames so far, and no fit has begun."
HISTORY = "Below is the history of its fits so far."
MAPS = (
    "Every map that was made. ridge: strength of the regularisation, chosen by cross-validation over blocks; free: "
    "free coefficients of a bead, mean; frames asked: 33 for each coefficient of the bead that has most, with which "
    "the noise of new frames is within 1% of the least possible; predicted: held-out value by the law of optimism "
    "from the fitted one, for independent frames and without ridge. The last two columns say whether a map is valid: "
    "by how much it misses M Wᵀ = 1, and how much coefficients differ within a rigid group."
)
BEADS = (
    "Mean |F|² on frames that a map was not fitted to, by bead, with standard errors over statistical blocks. The "
    "baseline is the basic map (grey). A good map lies below it at every bead, most where many atoms around the bead "
    "can take part."
)
PASSES = "What the run did with the frames; the rate where it reads each of them once."


def outcome(run: RunFiles) -> Section:
    """The section on the frames mapped and the noise of the chosen map beside that of the others."""
    m = run.metrics
    invalid = [] if all(row["valid"] for row in m["maps"]) else [Text(INVALID)]
    return Section("Outcome", [Text(_what(m)), Cards(_cards(m)), *invalid, Text(HELD_OUT)])


def _what(m: dict[str, Any]) -> str:
    noise = f", with Gaussian noise of {m['noise']:g} Å on the beads" if m.get("noise") else ""
    return (
        f"Forces on {plural(m['atoms'], 'atom')} ({plural(m['groups'], 'rigid group')}; constraints:"
        f" {m['constraints']}) in {plural(m['frames'], 'frame')} were mapped to {plural(m['beads'], 'bead')}{noise} at"
        f" {m['temperature']:g} K, in {plural(m['statistical_blocks'], 'statistical block')}. The map '{m['chosen']}'"
        f" was taken; its frames are in {m['mapped']}."
    )


def _cards(m: dict[str, Any]) -> list[Card]:
    unit, chosen = ForceUnit.of(m), chosen_map(m)
    value = unit.shown(chosen["held_out"], chosen["held_out_error"])
    others = [row for name in (REFERENCE, "slice") if (row := map_named(m, name)) and row is not chosen]
    baseline = Markup("; ").join(_beside(row, chosen, unit) for row in others)
    meaning = f"{unit.squared}, map '{chosen['name']}' on frames that it was not fitted to"
    return [Card("mean |F|², held out", value, baseline, meaning), *_efficiency(m)]


def _beside(row: dict[str, Any], chosen: dict[str, Any], unit: ForceUnit) -> Markup:
    invalid = "" if row["valid"] else " (invalid)"
    ratio = row["held_out"] / chosen["held_out"] if chosen["held_out"] > 0 else None
    shown = Markup("{}{}: {}, {} times as much")
    return shown.format(row["name"], invalid, unit.shown(row["held_out"]), significant(ratio))


def _efficiency(m: dict[str, Any]) -> list[Card]:
    """How much fewer frames do, and what is left of it where frames are correlated."""
    factor = data_efficiency(m)
    if factor is None:
        return []
    meaning = EFFICIENCY_OF_RESIDUALS if m.get("force_matching") else EFFICIENCY_OF_SQUARES
    g, basic = inefficiency(m, m["chosen"]), inefficiency(m, REFERENCE)
    correlated = ""
    if g and basic:
        span = m["inefficiency"]["spans"][-1]
        correlated = Markup("with the correlation over {} frames: {}").format(span, significant(factor * basic / g))
    return [Card("data efficiency", Markup("{} ×").format(significant(factor)), correlated, meaning)]


def maps(run: ForceMapRun) -> Section:
    """The table of maps, and the noise of each bead."""
    from hpcfit.kinds.force_map import figures

    m = run.metrics
    unit = ForceUnit.of(m)
    table = Table(_head(unit), [_cells(row, m, unit) for row in m["maps"]], MAPS, text_columns=2)
    noise = {row["name"]: run.maps.noise[row["name"]] for row in m["maps"]}
    scaled = {name: one._replace(held_out=unit.square(one.held_out), error=unit.square(one.error))
              for name, one in noise.items()}  # fmt: skip
    invalid = [row["name"] for row in m["maps"] if not row["valid"]]
    svg = figures.bead_noise(scaled, run.maps.beads, invalid, unit.squared)
    return Section("Maps", [table, Figure(svg, "Held-out mean squared force of each bead and map", BEADS)])


def _head(unit: ForceUnit) -> tuple[Markup | str, ...]:
    squares = (unit.head("mean |F|² fitted"), "held out", "predicted")
    validity = ("M\u00a0Wᵀ\u00a0−\u00a01", "in rigid groups")
    return ("map", "", "ridge", "free", "frames asked", "of frames", *squares, *validity)


def _cells(row: dict[str, Any], m: dict[str, Any], unit: ForceUnit) -> list[Markup | str]:
    said = [word for word, so in (("chosen", row["name"] == m["chosen"]), ("INVALID", not row["valid"])) if so]
    free = row["free"] > 0
    ridge = "" if row["ridge"] is None else number(row["ridge"], f"{row['ridge']:g}")
    asked = number(row["frames_asked"], grouped(round(row["frames_asked"]))) if free else ""
    predicted = unit.shown(row["predicted"]) if free else ""
    return [
        row["name"], ", ".join(said), ridge, number(row["free"], f"{row['free']:g}"), asked, grouped(m["frames"]),
        unit.shown(row["fitted"]), unit.shown(row["held_out"], row["held_out_error"]), predicted,
        near_zero(row["consistency"]), near_zero(row["orthogonality"]),
    ]  # fmt: skip


def time(run: RunFiles) -> Section:
    """Phases, passes over the frames, and the rate of fits where there were any."""
    n = run.metrics["frames"]
    rows = [
        [step["name"], duration(step["seconds"]), _frames_per_second(step, n)]
        for step in run.metrics.get("passes_of_frames", [])
    ]
    passes = [Table(("", "time", "frames / s"), rows, PASSES)] if rows else []
    fits = [rate(run, "frames of beads")] if run.metrics.get("rate") and run.evaluated else []
    return Section("Time", [*study(run), phases(run), *passes, *fits])


def _frames_per_second(step: dict[str, Any], n: int) -> Markup | str:
    return significant(n / step["seconds"]) if step["name"] in READING and step["seconds"] > 0 else ""


def so_far(run: RunFiles) -> Section:
    """The head of a run that has no results yet."""
    said = HISTORY if run.evaluated else NO_HISTORY
    text = UNFINISHED.format(directory=run.directory, so_far=said)
    return Section("Outcome", [Text(text, warning=True)])


CONTENTS = Contents(
    finished=(
        outcome, maps, coefficients, learning, noise_correlation, validity, matching, simulation, time, settings,
    ),
    unfinished=(so_far, fits_so_far, settings),
    files=("config.toml", "environment.json", "maps.h5"),
    run=ForceMapRun,
)  # fmt: skip
