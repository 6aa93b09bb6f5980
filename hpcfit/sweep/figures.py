"""The figure of a sweep: each quantity against one axis, a line for each combination of the others."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.ticker import FixedLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from hpcfit.kinds.table import Metric
from hpcfit.report.drawing import BLUE, GREEN, INK, ORANGE, SOFT, drawn
from hpcfit.report.figures import legend_above, panels
from hpcfit.sweep.outcome import Outcome, Sweep, shown

MOST_PANELS = 6
LOOKS = ((BLUE, "o", "-"), (ORANGE, "^", "-"), (GREEN, "s", "-"), (INK, "D", "--"), (SOFT, "v", "--"), (BLUE, "x", ":"))
FEW_TICKS = 8
BESIDE = 5  # points between the error bars of two lines


class Line(NamedTuple):
    """The finished points of one line: at each value of the axis those that only differ along averaged axes."""

    name: str
    outcomes: Sequence[Sequence[Outcome]]


def lines_against(sweep: Sweep, key: str) -> list[Line]:
    """A line for each combination of the other axes that are not repeated; one for all, if those are too many."""
    values = sweep.values(key)
    others = [axis.key for axis in sweep.axes if not axis.repeat and axis.key != key]
    lines: dict[str, list[list[Outcome]]] = {}
    for outcome in sweep.in_state("finished"):
        name = ", ".join(f"{other} = {shown(outcome.point.values[other])}" for other in others)
        line = lines.setdefault(name, [[] for _ in values])
        line[values.index(outcome.point.values[key])].append(outcome)
    if len(lines) > len(LOOKS):
        together = [[outcome for line in lines.values() for outcome in line[n]] for n in range(len(values))]
        return [Line(f"mean over {', '.join(others)}", together)]
    return [Line(name, line) for name, line in lines.items()]


@drawn
def against(key: str, values: Sequence[Any], lines: Sequence[Line], metrics: Sequence[Metric]):
    """Means with standard deviations of each of the metrics that was recorded."""
    chosen = _panels(metrics)
    figure, axes = panels(len(chosen), row=2.5, margin=0.5)
    for axis, metric in zip(axes, chosen):
        for number, (line, look) in enumerate(zip(lines, LOOKS)):
            aside = ScaledTranslation((number - (len(lines) - 1) / 2) * BESIDE / 72, 0, figure.dpi_scale_trans)
            for artist in _draw(axis, values, line, metric.name, look).get_children():
                artist.set_transform(artist.get_transform() + aside)  # now that the axis knows its limits
        axis.set_title(metric.head)
        axis.set_xlabel(key)
        _value_axis(axis, values)
    if len(lines) > 1 or lines[0].name:
        legend_above(figure, axes[0], "center", ncols=3)
    return figure


def _panels(metrics: Sequence[Metric]) -> list[Metric]:
    """The metrics that are no mere counts; the loss where its panel is free."""
    kept = [metric for metric in metrics if metric.digits != "whole"]
    if len(kept) > MOST_PANELS:
        kept = [metric for metric in kept if metric.name != "loss"]
    return kept[:MOST_PANELS]


def _draw(axis, values: Sequence[Any], line: Line, name: str, look: tuple[str, str, str]):
    """The means as a line with error bars."""
    colour, marker, style = look
    groups = [[outcome.quantities[name] for outcome in group if name in outcome.quantities] for group in line.outcomes]
    mean = [statistics.fmean(group) if group else np.nan for group in groups]
    deviation = [statistics.stdev(group) if len(group) > 1 else 0.0 for group in groups]
    return axis.errorbar(
        _places(values), mean, deviation, color=colour, marker=marker, linestyle=style if _numeric(values) else "",
        capsize=2, elinewidth=1, label=line.name,
    )  # fmt: skip


def _numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _places(values: Sequence[Any]) -> list[float]:
    return [float(value) for value in values] if _numeric(values) else [float(n) for n in range(len(values))]


def _value_axis(axis, values: Sequence[Any]) -> None:
    """Ticks at the values: logarithmic where they spread over more than a factor of ten, with room for a zero."""
    places = _places(values)
    positive = [place for place in places if place > 0]
    if _numeric(values) and min(places) >= 0 and positive and max(positive) >= 10 * min(positive):
        axis.set_xscale("symlog", linthresh=min(positive), linscale=0.4)
    if len(values) <= FEW_TICKS:
        axis.xaxis.set_major_locator(FixedLocator(places))
        axis.set_xticks(places, [shown(value) for value in values])
        axis.xaxis.set_minor_locator(NullLocator())
    axis.margins(x=0.08)
