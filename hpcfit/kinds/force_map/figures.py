"""The figures of force maps: noise of each bead, against the number of frames, the ridge, and the span of a mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, ScalarFormatter

from hpcfit.kinds.force_map.files import BeadNoise
from hpcfit.report.drawing import BLUE, GREEN, INK, ORANGE, SOFT, drawn, index_axis, shortened
from hpcfit.report.page import grouped

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
    axis.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=7, borderpad=0, borderaxespad=0.3)
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


@drawn
def learning(curves: Mapping[str, Sequence[Mapping[str, float]]], basic: float | None, unit: str):
    """A panel for each fitted map: mean |F|^2 of the frames fitted, of those that follow, and by the law of optimism.

    basic: the held-out one of the basic map, where there is one; far above the curves it is only named.
    """
    figure, axes = _panels(len(curves), sharey=True)
    values = [row[key] for rows in curves.values() for row in rows for key in ("fitted", "held_out")]
    level, how = f"basic map, held out: {basic or 0:.4g}", {"color": SOFT, "linestyle": "--", "linewidth": 1}
    for axis, (name, rows) in zip(axes, curves.items()):
        frames, fitted, held_out, predicted = (
            np.array([np.nan if row[key] is None else row[key] for row in rows], float)
            for key in ("frames", "fitted", "held_out", "predicted")
        )
        axis.plot(frames, held_out, color=GREEN, marker="s", label="held out")
        axis.plot(frames, np.where(np.isfinite(predicted), predicted, np.nan), color=INK, linestyle=":", marker="x",
                  label="predicted for held-out frames")  # fmt: skip
        axis.plot(frames, fitted, color=BLUE, marker="o", label="fitted")
        if basic is not None and basic <= NEAR * max(values):
            axis.axhline(basic, label=level, **how)
        elif basic is not None:
            axis.plot([], [], label=f"{level}, above the panel", **how)
        axis.set_xscale("log")
        _plain_logarithmic(axis.xaxis)
        if _far_apart(values):
            axis.set_yscale("log")
            _plain_logarithmic(axis.yaxis)
        axis.set(title=name, xlabel="frames fitted")
    axes[0].set_ylabel(f"mean |F|², {unit}")
    _legend_above(figure, axes[0])
    return figure


def _far_apart(values: Sequence[float]) -> bool:
    known = [value for value in values if np.isfinite(value) and value > 0]
    return bool(known) and max(known) > 3 * min(known)


def _plain_logarithmic(axis) -> None:
    """Ticks at 1, 2, 5 times powers of ten, written as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axis.set_minor_locator(LogLocator(subs=range(1, 10), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: grouped(round(value)) if value >= 1 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _panels(n: int, sharey: bool = False):
    """A row of up to three panels, more in rows below; those that are not needed are hidden."""
    columns = min(n, 3)
    rows = -(-n // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(9, 0.7 + 2.7 * rows), squeeze=False, sharey=sharey)
    for axis in grid.flat[n:]:
        axis.set_visible(False)
    return figure, grid.flat[:n]


def _legend_above(figure, axis) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=5)


@drawn
def ridge_curves(curves: Mapping[str, Sequence[tuple[float, float]]], chosen: Mapping[str, float], labels: tuple):
    """A panel for each map: held-out quantity against the ridge, 0 at the left edge, the chosen one ringed.

    labels: of the axes.
    """
    figure, axes = _panels(len(curves))
    for axis, (name, curve) in zip(axes, curves.items()):
        ridge, value = np.array(curve, float).T
        x = with_zero(ridge)
        axis.plot(x, value, **style(name))
        at = int(np.argmin(np.abs(ridge - chosen[name])))
        axis.plot(x[at], value[at], "o", color=ORANGE, markersize=11, markerfacecolor="none", markeredgewidth=1.6,
                  label=f"chosen: {chosen[name]:g}")  # fmt: skip
        axis.set_xscale("log")
        axis.minorticks_off()
        axis.set_xticks(x, ["0" if r == 0 else _power(r) for r in ridge])
        if _far_apart(value):
            axis.set_yscale("log")
            _plain_logarithmic(axis.yaxis)
        axis.set(title=name, xlabel=labels[0])
        axis.legend(loc="best")
    axes[0].set_ylabel(labels[1])
    return figure


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
    axis.axhline(1.0, color=SOFT, linestyle="--", linewidth=1)
    for name, values in of.items():
        axis.plot(spans, values, label=name, **style(name))
    axis.set_xscale("log", base=2)
    axis.set_xticks(spans)
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.minorticks_off()
    axis.set(xlabel="span s, frames", ylabel="g(s)")
    axis.set_ylim(0, 1.12 * max(1.0, *(max(values) for values in of.values())))
    axis.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=7, borderpad=0, borderaxespad=0.3)
    return figure
