"""The figures of a scaling series: where the time of a step goes, speed-up, efficiency and rates; and the model beyond.

Blue filled circles are the step, grey dashed squares a plain stream of memory on the same ranks; dashed strokes across
bars are the model; hollow circles are points whose ranks shared cores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from hpcfit.report.drawing import BLUE, INK, LINE, ORANGE, PALE, SOFT, drawn
from hpcfit.report.figures import legend_over, panels
from hpcfit.scaling.summary import Prediction, Row, Scaling

PARTS = (("compute", BLUE), ("reduce", ORANGE), ("read", PALE), ("other", SOFT))
MOST_LABELS = 12  # bars whose names fit side by side


@drawn
def overview(scaling: Scaling):
    """Time per step in its parts, speed-up, efficiency and rates."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 6.2))
    rows, base = scaling.rows, scaling.rows[0].ranks
    ranks = sorted({row.ranks for row in rows})
    times, speed, efficiency, rate = axes.flat
    _times(times, rows)
    speed.set_title(f"speed-up against {base} rank{'s' * (base > 1)}")
    speed.plot(ranks, [n / base for n in ranks], color=LINE, label="ideal")
    _lines(speed, rows, lambda row: row.speedup, lambda row: row.stream_speedup)
    speed.legend(loc="best")
    efficiency.set_title("efficiency, %")
    efficiency.axhline(100, color=LINE)
    _lines(
        efficiency, rows,
        lambda row: None if row.efficiency is None else 100 * row.efficiency,
        lambda row: None if row.stream_speedup is None else 100 * row.stream_speedup * base / row.ranks,
    )  # fmt: skip
    rate.set_title("GB/s of all ranks")
    _lines(rate, rows, lambda row: row.rate / 1e9, lambda row: row.stream / 1e9)
    for axis in (speed, efficiency, rate):
        axis.set_ylim(bottom=0)
        _ranks_axis(axis, ranks)
    return figure


def _times(axis, rows: Sequence[Row]) -> None:
    """Stacked bars, one a row, with the range of the repeats and the model's total."""
    x = np.arange(len(rows))
    bottom = np.zeros(len(rows))
    for name, colour in PARTS:
        values = np.array([1e3 * getattr(row, name) for row in rows])
        axis.bar(x, values, bottom=bottom, width=0.5, color=colour, label=name)
        bottom += values
    low = np.array([1e3 * row.step_fastest for row in rows])
    high = np.array([1e3 * row.step_slowest for row in rows])
    axis.vlines(x, low, high, color=INK, linewidth=1)
    model = [1e3 * row.predicted.seconds for row in rows]
    axis.hlines(model, x - 0.42, x + 0.42, color=INK, linestyle="--", linewidth=1.2, label="model")
    names = [f"{row.ranks}{'*' * row.oversubscribed}\n{row.grid}" for row in rows]
    axis.set_xticks(x, names if len(rows) <= MOST_LABELS else [str(row.ranks) for row in rows])
    axis.grid(visible=False, axis="x")
    axis.set_title("ms a step")
    legend_over(axis, "right", ncols=5, handlelength=1, columnspacing=0.8)


def _best(rows: Sequence[Row]) -> list[Row]:
    """The fastest grid of each number of ranks."""
    fastest: dict[int, Row] = {}
    for row in rows:
        if row.ranks not in fastest or row.step < fastest[row.ranks].step:
            fastest[row.ranks] = row
    return list(fastest.values())


def _lines(
    axis, rows: Sequence[Row], of_step: Callable[[Row], float | None], of_stream: Callable[[Row], float | None]
) -> None:
    """The best grid of each number of ranks as a line, the others as points, the stream dashed."""
    best = _best(rows)
    _plot(axis, best, of_stream, color=SOFT, linestyle="--", marker="s", markerfacecolor="none", label="plain stream")
    _plot(axis, best, of_step, color=BLUE, marker="o", label="step, fastest grid")
    others = [row for row in rows if row not in best]
    _plot(axis, others, of_step, color=BLUE, marker="o", linestyle="", alpha=0.45, label="other grids")
    crowded = [row for row in rows if row.oversubscribed]
    _plot(axis, crowded, of_step, color=BLUE, marker="o", linestyle="", markerfacecolor="none", label="shared cores")


def _plot(axis, rows: Sequence[Row], value: Callable[[Row], float | None], **style) -> None:
    points = [(row.ranks, found) for row in rows if (found := value(row)) is not None]
    if points:
        axis.plot(*zip(*points, strict=True), **style)


def _ranks_axis(axis, ranks: Sequence[int]) -> None:
    """Logarithmic in the ranks that were measured."""
    axis.set_xscale("log", base=2)
    axis.set_xlim(min(ranks) / 1.2, max(ranks) * 1.2)
    axis.xaxis.set_major_locator(FixedLocator(sorted(set(ranks))))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_xlabel("ranks")


@drawn
def predicted(predictions: Sequence[Prediction]):
    """The model's step against ranks: the grid that `auto` chooses, ranks x 1, and what of the step is overhead."""
    figure, axes = panels(len(predictions), row=2.6, sharey=True)
    for axis, prediction in zip(axes, predictions):
        rows = prediction.rows
        ranks = [row.ranks for row in rows]
        best = [1e3 * row.cost.seconds for row in rows]
        axis.plot(ranks, [best[0] / n for n in ranks], color=LINE, label="ideal")
        axis.plot(ranks, [1e3 * row.frames_only.seconds for row in rows], color=ORANGE, marker="^", label="ranks x 1")
        axis.plot(ranks, best, color=INK, marker="x", label="the grid of auto")
        axis.axhline(1e3 * prediction.machine.overhead, color=SOFT, linestyle=":", label="overhead of a step")
        axis.set_yscale("log")
        _ranks_axis(axis, ranks)
        axis.set_title(f"predicted: {prediction.title}")
        axis.set_ylim(top=3 * max(best))
    axes[0].set_ylabel("ms a step")
    axes[0].legend(loc="lower left")
    return figure
