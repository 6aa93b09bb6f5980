"""The section of a report that explains fitted weights: slopes on numbers of the frames, free-energy profiles."""

from __future__ import annotations

from typing import Any

from hpcfit.kinds.frame_weights.files import ExperimentsRun
from hpcfit.report.page import Figure, Section, Table, Text, change, grouped, plus_minus, significant

MOST_PANELS = 12  # profiles that are drawn
MEANING = (
    "In an ensemble that differs from the simulation by an energy ΔU of each frame, w ∝ w⁰ exp(−ΔU/kT). So "
    "−kT ln(w/w⁰), kJ/mol, is the energy that the fit adds to the simulation, but for a constant. It is regressed here "
    "on numbers of the frames, each frame counted by its prior weight. The weights were fitted to data: a slope is "
    "that of the fit, not of the molecule by itself. Theta makes it smaller; noise of the data scatters the weights. "
    "A number that only goes together with what the data see has a slope too."
)
SLOPES = (
    "Slopes: kJ/mol per unit of the number, as its column gives it; alone: of a fit to this number only; together: of "
    "one fit to all numbers, where each is corrected for the others, not determined where the columns depend linearly "
    "on each other.{errors} Held-out R²: what the slope predicts of blocks of frames that were left out of its fit; 0 "
    "is the baseline, the mean of the other frames, and below 0 the column tells less than nothing. "
    "ΔU of 1 standard deviation: the slope times the spread of the number."
)
ERRORS = (
    " ±: standard deviation over {resamples} resamples of {blocks} blocks of frames within their sources, at the same "
    "weights: sampling only, neither the noise of the data nor theta."
)
PROFILES = (
    "Free energy −kT ln p of each bin along a number, before the fit (grey, the baseline: prior weights) and after it "
    "(blue); bands: ± standard deviation over resamples of blocks of frames, sampling only. Where the two differ by "
    "more than both bands, the fit moved the distribution. Bins without frames are gaps."
)


def explained(run: ExperimentsRun) -> Section | None:
    """Slopes and profiles; None of a run whose config names no numbers."""
    found = run.metrics.get("explained")
    if found is None:
        return None
    return Section("What the weights mean", [Text(MEANING), *_counted(found), *_slopes(found), *_profiles(found)])


def _counted(found: dict[str, Any]) -> list[Text]:
    """How many frames take part."""
    frames, gone = found["frames"], found["zero"] + found["near_zero"]
    if not gone:
        return []
    return [
        Text(
            f"{grouped(gone)} of {grouped(frames)} frames have no weight ({grouped(found['zero'])}) or less than 10⁻⁶ "
            f"of their prior weight ({grouped(found['near_zero'])}), whose logarithm says nothing: slopes are of the "
            "others. In the profiles they count.",
            warning=True,
        )
    ]


def _slopes(found: dict[str, Any]) -> list[Figure | Table]:
    if not found["alone"]:
        return []
    together = found.get("together")
    rows = [_row(one, n, together) for n, one in enumerate(found["alone"])]
    head = ("number", "alone, kJ/mol per unit", "ΔU of 1 standard deviation", "R²", "R² held out")
    if together:
        rows.append(["all together", "", "", *_shares(together), ""])
        head = (*head, "together, kJ/mol per unit")
    errors = ERRORS.format(resamples=found["resamples"], blocks=grouped(found["blocks"])) if found["resamples"] else ""
    table = Table(head, rows, SLOPES.format(errors=errors))
    return [*_slopes_figure(found), table]


def _slopes_figure(found: dict[str, Any]) -> list[Figure]:
    """Slopes by standard deviation of each number with their errors, where they are known."""
    from hpcfit.kinds.frame_weights import figures_explained

    drawn = found["alone"][:MOST_PANELS]
    together = found.get("together")
    svg = figures_explained.slopes(drawn, None if together is None or together["dependent"] else together)
    caption = (
        "Energy that one standard deviation of each number adds, kJ/mol: alone, and beside all others (together). "
        "Bars: standard deviation over resamples of frames. Dashed: 0, the baseline of a number that has nothing to do "
        "with the weights."
    )
    return [Figure(svg, "Slopes of −kT ln(w/w⁰) on each number", caption)]


def _row(one: dict[str, Any], n: int, together: dict[str, Any] | None) -> list[str]:
    slope = plus_minus(significant(one["slopes"][0]), one["errors"][0])
    row = [one["names"][0], slope, significant(one["slopes"][0] * one["spread"][0]), *_shares(one)]
    if together and together["dependent"]:
        row.append("not determined")
    elif together:
        row.append(plus_minus(significant(together["slopes"][n]), together["errors"][n]))
    return row


def _shares(one: dict[str, Any]) -> tuple[str, str]:
    return significant(one["r2"]), change(one["r2_held_out"])


def _profiles(found: dict[str, Any]) -> list[Figure]:
    from hpcfit.kinds.frame_weights import figures_explained

    drawn = found["profiles"][:MOST_PANELS]
    if not drawn:
        return []
    more = (
        f" Others of the {len(found['profiles'])} are in profiles.csv." if len(found["profiles"]) > len(drawn) else ""
    )
    return [
        Figure(figures_explained.profiles(drawn), "Free energy along each number before and after", PROFILES + more)
    ]
