"""The figures of force maps: noise of each bead, against the number of frames, the ridge, and the span of a mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import ScalarFormatter

from hpcfit.kinds.force_map.files import BeadNoise
from hpcfit.report import figures
from hpcfit.report.drawing import BLUE, GREEN, INK, ORANGE, SOFT, drawn, index_axis, shortened
from hpcfit.report.figures import BASELINE, Learning, Scan, legend_over, logarithmic_if_far_apart

# Grey is the baseline; Okabe and Ito's colours for the rest.
MAP_COLOURS = {
    "slice": "#cc79a7", "basic": SOFT, "optimal": BLUE, "local": GREEN, "tied": ORANGE, "features": "#e69f00",
    "file": "#56b4e9",
}  # fmt: skip
MAP_MARKS = dict(zip(MAP_COLOURS, "vsoD^P*"))
MOST_BARS = 40  # beads that are drawn one by one
LOGARITHMIC = 20.0  # largest over least, from which an axis of noise is logarithmic
NEAR = 1.6  # times the highest value: how far above the curves their baseline is drawn
ABOVE_ZERO = 0.1  # of the least ridge above 0: where a ridge of 0 is drawn


def style(name: str) -> dict[str, Any]:
    """Colour and mark of a map in every figure."""
    return {"color": MAP_COLOURS.get(name, INK), "marker": MAP_MARKS.get(name, "o")}


@drawn
def bead_noise(noise: Mapping[str, BeadNoise], beads: Sequence[str], invalid: Sequence[str], unit: str):
    """Held-out mean |F|^2 of each bead and map, with its standard error."""
    figure, axis = plt.subplots(figsize=(9, 3.6))
    largest, least = (of(of(one.held_out) for one in noise.values()) for of in (max, min))
    logarithmic = largest > LOGARITHMIC * least > 0
    draw = _points if logarithmic or len(beads) > MOST_BARS else _bars
    for number, (name, one) in enumerate(noise.items()):
        label = f"{name} (invalid)" if name in invalid else name
        shift = 0.8 * (number - (len(noise) - 1) / 2) / len(noise)
        draw(axis, one, (shift, 0.8 / len(noise)), {"label": label, **style(name)})
    if logarithmic:
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
    _bead_axis(axis, beads)
    axis.set_ylabel(f"mean |F|², held out, {unit}")
    legend_over(axis)
    return figure


def _bars(axis, one: BeadNoise, place: tuple[float, float], how: dict[str, Any]) -> None:
    """place: shift and width of the bars, beads being 1 apart."""
    shift, width = place
    x = np.arange(len(one.held_out)) + shift
    axis.bar(x, one.held_out, width, color=how["color"], label=how["label"])
    axis.errorbar(x, one.held_out, yerr=one.error, fmt="none", ecolor=INK, elinewidth=0.9, capsize=1.5)


def _points(axis, one: BeadNoise, place: tuple[float, float], how: dict[str, Any]) -> None:
    x = np.arange(len(one.held_out))
    if len(x) > MOST_BARS:
        axis.plot(x, one.held_out, color=how["color"], label=how["label"], linewidth=1)
        axis.fill_between(x, one.held_out - one.error, one.held_out + one.error, color=how["color"], alpha=0.25, lw=0)
    else:
        axis.errorbar(x + 0.5 * place[0], one.held_out, yerr=one.error, fmt=how["marker"], color=how["color"],
                      label=how["label"], capsize=2)  # fmt: skip


def _bead_axis(axis, beads: Sequence[str]) -> None:
    if len(beads) > MOST_BARS:
        axis.set_xlabel("number of the bead")
        index_axis(axis, np.arange(len(beads)))
        return
    slanted = sum(map(len, beads)) > 90
    how = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    axis.set_xticks(range(len(beads)), [shortened(name, 16) for name in beads], **how)
    axis.set_xlim(-0.6, len(beads) - 0.4)
    axis.grid(axis="x", visible=False)


def learning(curves: Mapping[str, Sequence[Mapping[str, float]]], basic: float | None, unit: str) -> bytes:
    """A panel for each fitted map: mean |F|^2 of the frames fitted, of those that follow, and by the law of optimism.

    basic: the held-out one of the basic map, where there is one; far above the curves it is only named.
    """
    highest = max(row[key] for rows in curves.values() for row in rows for key in ("fitted", "held_out"))
    level = f"basic map, held out: {basic or 0:.4g}"
    shown = [(basic, level, BASELINE)] if basic is not None else []
    if basic is not None and basic > NEAR * highest:
        shown = [(None, f"{level}, above the panel", BASELINE)]
    found = [Learning(name, *(_column(rows, key) for key in ("frames", "fitted", "held_out", "predicted")), shown)
             for name, rows in curves.items()]  # fmt: skip
    return figures.learning(found, ("frames fitted", f"mean |F|², {unit}"), logarithmic=True)


def _column(rows: Sequence[Mapping[str, float]], key: str) -> np.ndarray:
    return np.array([np.nan if row[key] is None else row[key] for row in rows], float)


def ridge_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]], chosen: Mapping[str, float], labels: tuple[str, str]
) -> bytes:
    """A panel for each map: held-out quantity against the ridge, 0 at the left edge, the chosen one ringed.

    labels: of the axes.
    """
    return figures.scan([_ridges(name, *np.array(curve, float).T, chosen[name]) for name, curve in curves.items()],
                        labels)  # fmt: skip


def _ridges(name: str, ridge: np.ndarray, value: np.ndarray, chosen: float) -> Scan:
    x, at = with_zero(ridge), int(np.argmin(np.abs(ridge - chosen)))

    def line(axis) -> None:
        axis.plot(x, value, **style(name))
        axis.set_xscale("log")
        axis.minorticks_off()
        logarithmic_if_far_apart(axis, value)

    names = ["0" if r == 0 else _power(r) for r in ridge]
    return Scan(name, x, names, [line], (at, value[at], f"chosen: {chosen:g}"))


def with_zero(ridge: np.ndarray) -> np.ndarray:
    """Ridges on a logarithmic axis, one that is 0 a decade below the least other."""
    above = ridge[ridge > 0]
    return np.where(ridge > 0, ridge, ABOVE_ZERO * above.min(initial=np.inf) if len(above) else 1.0)


def _power(value: float) -> str:
    exponent = np.log10(value)
    whole = abs(exponent - round(exponent)) < 1e-9 and abs(exponent) > 1.5
    return f"$10^{{{round(exponent)}}}$" if whole else f"{value:g}"


@drawn
def inefficiency(spans: Sequence[int], of: Mapping[str, Sequence[float]]):
    """g(s) of each map."""
    figure, axis = plt.subplots(figsize=(9, 3.2))
    axis.axhline(1.0, **BASELINE)
    for name, values in of.items():
        axis.plot(spans, values, label=name, **style(name))
    axis.set_xscale("log", base=2)
    axis.set_xticks(spans)
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.minorticks_off()
    axis.set(xlabel="span s, frames", ylabel="g(s)")
    axis.set_ylim(0, 1.12 * max(1.0, *(max(values) for values in of.values())))
    legend_over(axis)
    return figure
