"""The parts of figures, for every kind: panels, curves with bands, learning curves, scans, values with two errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from hpcfit.report.drawing import BLUE, FEW, GREEN, INK, ORANGE, SEQUENTIAL, SOFT, drawn, index_axis, shortened
from hpcfit.report.page import grouped

BASELINE = {"color": SOFT, "linestyle": "--", "linewidth": 1}  # how a level to compare with is drawn
BARS = (BLUE, ORANGE)  # colours of the two errors of a value


def panels(n: int, columns: int = 3, *, row: float = 2.7, margin: float = 0.7, **shared: bool) -> tuple[Any, list[Any]]:
    """A figure with n panels in rows of up to ``columns``; places that are not needed are hidden.

    row, margin: the height is margin + row * rows, inches; shared: sharex and sharey.
    """
    columns = min(n, columns)
    rows = -(-n // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(9, margin + row * rows), squeeze=False, **shared)
    for axis in grid.flat[n:]:
        axis.set_visible(False)
    return figure, list(grid.flat[:n])


def legend_above(figure: Any, axis: Any, place: str = "left", ncols: int = 5) -> None:
    """The legend of one panel, above all of them."""
    figure.legend(*axis.get_legend_handles_labels(), loc=f"outside upper {place}", ncols=ncols)


def legend_over(axis: Any, side: str = "left", ncols: int = 7, **how: Any) -> None:
    """The legend of a panel over its upper edge, at its left or right end."""
    corner = (0.0 if side == "left" else 1.0, 1.0)
    axis.legend(loc=f"lower {side}", bbox_to_anchor=corner, ncols=ncols, borderpad=0, borderaxespad=0.3, **how)


def ring(axis: Any, x: Any, y: Any, label: str) -> None:
    """A ring around what was chosen."""
    axis.plot(x, y, "o", color=ORANGE, markersize=11, markerfacecolor="none", markeredgewidth=1.6, label=label)


def band(axis: Any, x: np.ndarray, y: np.ndarray, error: np.ndarray, colour: str, label: str, above: int = 0) -> None:
    """A line [n] with the band of its error [n], nothing where it is not finite. above: other lines beneath it."""
    y = np.where(np.isfinite(y), y, np.nan)
    width = np.where(np.isfinite(error), error, 0.0)
    axis.fill_between(x, y - width, y + width, color=colour, alpha=0.25, linewidth=0)
    axis.plot(x, y, color=colour, label=label, zorder=2 + 0.1 * above)


class Learning(NamedTuple):
    """One panel of `learning`. fitted, of_others, predicted: values [n] against x [n], on the frames that were fitted,
    and on others; levels: (value, label, how) of lines across, those without a value in the legend alone."""

    title: str
    x: np.ndarray
    fitted: np.ndarray
    of_others: np.ndarray
    predicted: np.ndarray | None = None
    levels: Sequence[tuple[float | None, str, dict[str, Any]]] = ()


@drawn
def learning(curves: Sequence[Learning], labels: tuple[str, str], logarithmic: bool):
    """Curves of fitted and of held-out values against the number of frames (logarithmic) or of evaluations."""
    figure, axes = panels(len(curves), margin=0.7 if logarithmic else 0.8, sharey=logarithmic)
    values = [value for one in curves for value in (*one.fitted, *one.of_others)]
    for axis, one in zip(axes, curves):
        mark = "o" if len(one.x) <= FEW else ""
        axis.plot(one.x, one.of_others, color=GREEN, marker=mark and "s", label="held out")
        if one.predicted is not None:
            axis.plot(one.x, np.where(np.isfinite(one.predicted), one.predicted, np.nan), color=INK, linestyle=":",
                      marker="x", label="predicted for held-out frames")  # fmt: skip
        axis.plot(one.x, one.fitted, color=BLUE, marker=mark, label="fitted")
        for value, label, how in one.levels:
            axis.axhline(value, label=label, **how) if value is not None else axis.plot([], [], label=label, **how)
        axis.set(title=one.title, xlabel=labels[0])
        if not logarithmic:
            index_axis(axis, one.x)
            continue
        axis.set_xscale("log")
        plain_logarithmic(axis.xaxis)
        logarithmic_if_far_apart(axis, values)
    axes[0].set_ylabel(labels[1])
    legend_above(figure, axes[0])
    return figure


class Scan(NamedTuple):
    """One panel of `scan`. places: [n], where the values tried lie on the axis, and names of them; lines: what draws
    each of the lines; chosen: (number of the value, a quantity there, label), None where none was."""

    title: str
    places: np.ndarray
    names: Sequence[str]
    lines: Sequence[Callable[[Any], None]]
    chosen: tuple[int, float, str] | None


@drawn
def scan(tried: Sequence[Scan], labels: tuple[str, str], height: float = 2.7):
    """A quantity against what was tried, a panel for each; what was chosen is ringed."""
    figure, axes = panels(len(tried), row=height)
    for axis, one in zip(axes, tried):
        for draw in one.lines:
            draw(axis)
        several = bool(axis.get_legend_handles_labels()[0])
        if one.chosen is not None:
            number, value, label = one.chosen
            ring(axis, one.places[number], value, label)
        axis.set_xticks(one.places, one.names)
        axis.set(title=one.title, xlabel=labels[0])
        if not several:
            axis.legend(loc="best")
    axes[0].set_ylabel(labels[1])
    if several:
        legend_above(figure, axes[0], "center")
    return figure


class Value(NamedTuple):
    """A value beside its baseline; errors: of two kinds, None where unknown. marks: further estimates of it."""

    name: str
    baseline: float
    value: float
    errors: tuple[float | None, float | None]
    marks: Sequence[float] = ()


@drawn
def values_with_errors(rows: Sequence[Value], errors: tuple[str, str], label: str, marks: Sequence[str] = ()):
    """Values from top to bottom, each with a bar for each kind of error, and its baseline. label: of the values. marks:
    what the marks of every value are."""
    figure, axis = plt.subplots(figsize=(9, 1.0 + 0.36 * len(rows)))
    y = np.arange(len(rows))
    value, baseline = (np.array([getattr(row, name) for row in rows]) for name in ("value", "baseline"))
    for number, (kind, colour, shift) in enumerate(zip(errors, BARS, (-0.12, 0.12))):
        error = np.array([row.errors[number] if row.errors[number] is not None else np.nan for row in rows])
        if np.isfinite(error).any():
            axis.errorbar(value, y + shift, xerr=error, fmt="none", ecolor=colour, capsize=3,
                          label=f"error by {kind}")  # fmt: skip
    axis.plot(value, y, "o", color=BLUE, label="fitted")
    axis.plot(baseline, y, "|", color=SOFT, markersize=13, markeredgewidth=2, label="before the fit")
    for number, (name, marker) in enumerate(zip(marks, "dx")):
        axis.plot([row.marks[number] for row in rows], y, marker, color=ORANGE, markersize=6, label=name)
    axis.set_yticks(y, [shortened(row.name, 36) for row in rows])
    axis.set(ylim=(len(rows) - 0.4, -0.6), xlabel=label)
    axis.set_xlim(left=min(0.0, axis.get_xlim()[0]))
    legend_over(axis, "right", ncols=4)
    return figure


def logarithmic_if_far_apart(axis: Any, values: Sequence[float]) -> None:
    """A logarithmic y axis with plain numbers, where the values spread over more than a factor of three."""
    known = [value for value in values if np.isfinite(value) and value > 0]
    if known and max(known) > 3 * min(known):
        axis.set_yscale("log")
        plain_logarithmic(axis.yaxis)


def plain_logarithmic(axis: Any) -> None:
    """Ticks at 1, 2, 5 times powers of ten, written as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axis.set_minor_locator(LogLocator(subs=range(1, 10), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: grouped(round(value)) if value >= 1 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


class Body(NamedTuple):
    """A structure to be drawn. x: [n, 3]; edges: [e, 2], pairs that are joined by lines; kinds: of each particle, such
    as its element, which has a colour then; without, colour is the distance from who looks."""

    name: str
    x: np.ndarray
    edges: np.ndarray
    kinds: Sequence[str] = ()


KINDS = (BLUE, ORANGE, GREEN, INK, SOFT)  # colours of kinds of particles, one after another


@drawn
def two_sides(bodies: Sequence[Body], length: str):
    """Structures from two sides: along the shortest principal axis, and along the longest."""
    figure, axes = panels(2 * len(bodies), columns=4, row=2.2)
    known = list(dict.fromkeys(kind for body in bodies for kind in body.kinds))
    for number, body in enumerate(bodies):
        centred = body.x - body.x.mean(axis=0)
        _, _, directions = np.linalg.svd(centred, full_matrices=False)
        along = centred @ directions.T
        if along.shape[1] < 3:
            along = np.pad(along, ((0, 0), (0, 3 - along.shape[1])))
        colours = np.array([KINDS[known.index(kind) % len(KINDS)] for kind in body.kinds])
        for side, (across, up, depth) in enumerate(((0, 1, 2), (1, 2, 0))):
            axis, order = axes[2 * number + side], np.argsort(along[:, depth])
            plane = along[:, (across, up)]
            axis.add_collection(LineCollection(plane[body.edges], colors=SOFT, linewidths=0.6, zorder=1))
            colour = colours[order] if known else along[order, depth]
            axis.scatter(*plane[order].T, c=colour, cmap=None if known else SEQUENTIAL, s=_area(len(body.x)),
                         linewidths=0, zorder=2)  # fmt: skip
            axis.set_aspect("equal", adjustable="box" if known else "datalim")
            if known:  # both sides at one scale
                reach = 1.15 * max(float(np.abs(along).max()), 1e-3)
                axis.set(xlim=(-reach, reach), ylim=(-reach, reach))
            axis.set_title(shortened(body.name, 22) if side == 0 else "from its end")
    axes[0].set_ylabel(length)
    if known:
        for kind, colour in zip(known, KINDS):
            axes[0].scatter([], [], c=colour, label=kind)
        legend_above(figure, axes[0])
    return figure


def _area(n: int) -> float:
    """The area of a point of n, points squared."""
    return float(np.clip(4000 / n, 2, 60))
