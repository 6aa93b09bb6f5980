"""The part of the page /hpcfit that shows a fit while it runs: metrics, seconds per step of each rank, weights."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from bokeh.layouts import column, row
from bokeh.models import ColumnDataSource, FactorRange, HoverTool, Span
from bokeh.plotting import figure

from hpcfit.log import span
from hpcfit.report.page import correlation, duration, number, percent, significant
from hpcfit.workflow.pages.collector import Fit
from hpcfit.workflow.pages.feed import Feed
from hpcfit.workflow.pages.style import COLORS, cards, chart, fill, heading, text, with_legend

PARTS = ("compute", "reduce", "read", "other")  # of a step's seconds
PART_NAMES = {"compute": "computing", "reduce": "reductions", "read": "reading", "other": "all else"}
SHOWN_GROUPS = 15
PASSES, SECONDS = "passes over the data", "time since the start of the fit, s"


class FitSection:
    """Figures of one fit for one browser window; ``update`` brings what is new."""

    def __init__(self, fit: Fit):
        self.fit = fit
        self._head, self._seen = text(), (-1, 0.0)
        self._history, self._timing = Feed(fit.history), Feed(fit.timing)
        self._ranks = ColumnDataSource({"rank": [], **{part: [] for part in PARTS}})
        self._groups = ColumnDataSource({"name": [], "now": [], "before": []})
        self._bins = ColumnDataSource({"left": [], "right": [], "frames": []})
        self._ranks_figure, self._groups_figure = self._bars_of_ranks(), self._bars_of_groups()
        grid = [self._by_passes(), self._by_time(), [self._ranks_figure, self._groups_figure, self._histogram()]]
        self.figures = [made for figures in grid for made in figures]
        rows = [row(*figures, sizing_mode="stretch_width") for figures in grid]
        self.root = column(self._head, *rows, sizing_mode="stretch_width")
        self.update()

    def update(self) -> None:
        """Send what has changed since the last call."""
        self._write_head()
        if self._seen == (self.fit.history.added, self.fit.heard):
            return
        self._seen = (self.fit.history.added, self.fit.heard)
        self._history.update()
        self._timing.update()
        self._show_ranks()
        self._show_weights()

    # ---- figures -------------------------------------------------------------------------------------------------

    def _by_passes(self) -> list[figure]:
        return [
            *self._correlations("passes", PASSES),
            self._lines("loss", ["loss"], "passes", PASSES, "loss"),
            *(self._lines(title, [name], "passes", PASSES, title) for name, title in self._plain().items()),
        ]

    def _by_time(self) -> list[figure]:
        return [
            *self._correlations("seconds", SECONDS),
            self._lines("loss", ["loss"], "seconds", SECONDS, "loss"),
            self._step_seconds(),
        ]

    def _metrics(self, correlations: bool) -> list[dict[str, Any]]:
        """The metrics of the kind of problem that the history has."""
        recorded = (one for one in self.fit.about.get("metrics", ()) if one["name"] in self.fit.history.values)
        return [one for one in recorded if (one["digits"] == "correlation") == correlations]

    def _plain(self) -> dict[str, str]:
        """The main metrics that are no correlations: title and unit by name."""
        plain = (one for one in self._metrics(correlations=False) if one["brief"])
        return {one["name"]: ", ".join(filter(None, [one["title"], one["unit"]])) for one in plain}

    def _correlations(self, x: str, x_label: str) -> list[figure]:
        names = [one["name"] for one in self._metrics(correlations=True)]
        return [self._lines("correlation with the data", names, x, x_label, "CC")] if names else []

    def _title(self, name: str) -> str:
        return next((one["title"] for one in self.fit.about.get("metrics", ()) if one["name"] == name), "") or name

    def _lines(self, title: str, names: Sequence[str], x: str, x_label: str, y_label: str) -> figure:
        made = chart(title, x_label, y_label)
        for name, color in zip(names, COLORS):
            label = {"legend_label": self._title(name)} if len(names) > 1 else {}
            made.line(x, name, source=self._history.source, line_width=2, color=color, **label)
        made.add_tools(hover("step", {self._title(name): f"@{name}{{0.0000000}}" for name in names}))
        with_legend(made)
        return made

    def _step_seconds(self) -> figure:
        made, source = chart("time of a step, mean over ranks", PASSES, "time per step, ms"), self._timing.source
        for part, color in zip(PARTS, COLORS):
            made.line("passes", part, source=source, color=color, line_width=2, legend_label=PART_NAMES[part])
        slowest = {"color": COLORS[0], "line_dash": "dashed", "legend_label": "slowest rank"}
        made.line("passes", "slowest", source=source, **slowest)
        made.y_range.start = 0
        with_legend(made)
        return made

    def _bars_of_ranks(self) -> figure:
        explained = "rank; dashed: mean of computing and reading"
        made = chart("time of a step on each rank, now", explained, "time per step, ms")
        made.vbar_stack(
            PARTS, x="rank", width=0.8, source=self._ranks, color=COLORS[: len(PARTS)],
            legend_label=[PART_NAMES[part] for part in PARTS],
        )  # fmt: skip
        made.add_tools(hover("rank", {PART_NAMES[part]: f"@{part}{{0.00}} ms" for part in PARTS}))
        made.y_range.start, made.xaxis.ticker.min_interval = 0, 1
        made.xaxis.ticker.num_minor_ticks = 0
        self._mean = Span(dimension="width", line_color=COLORS[3], line_dash="dashed", line_width=2)
        made.add_layout(self._mean)
        with_legend(made)
        return made

    def _bars_of_groups(self) -> figure:
        made = chart("summed weights by label or source", "sum of weights; the mark is the value before the fit", "",
                     y_range=FactorRange())  # fmt: skip
        made.hbar("name", right="now", height=0.7, source=self._groups, color=COLORS[0])
        mark = {"marker": "dash", "angle": math.pi / 2, "size": 18, "line_width": 3, "color": COLORS[1]}
        made.scatter("before", "name", source=self._groups, **mark)
        made.add_tools(hover("name", {"now": "@now{0.0000}", "before": "@before{0.0000}"}))
        made.x_range.start, made.ygrid.grid_line_color = 0, None
        return made

    def _histogram(self) -> figure:
        made = chart("distribution of the weights", "ln(T w); 0 is the weight of uniform weights", "frames")
        bar = {"fill_color": COLORS[2], "line_color": None}
        made.quad(left="left", right="right", bottom=0, top="frames", source=self._bins, **bar)
        made.add_layout(Span(location=0, dimension="height", line_color=COLORS[1], line_dash="dashed", line_width=2))
        made.y_range.start = 0
        return made

    # ---- values --------------------------------------------------------------------------------------------------

    def _show_ranks(self) -> None:
        fit = self.fit
        ranks = sorted(fit.seconds)
        self._ranks.data = {
            "rank": ranks, **{part: [1e3 * fit.seconds[rank].get(part, 0.0) for rank in ranks] for part in PARTS},
        }  # fmt: skip
        working = fit.working_seconds()
        self._mean.location = 1e3 * float(np.mean(working)) if working else None

    def _show_weights(self) -> None:
        groups = sorted(self.fit.groups().items(), key=lambda item: -item[1][0])
        shown, rest = groups[:SHOWN_GROUPS], groups[SHOWN_GROUPS:]
        if rest:
            shown.append((f"{len(rest)} others", tuple(np.sum([sums for _, sums in rest], axis=0))))
        names = [name for name, _ in shown]
        if self._groups_figure.y_range.factors != names[::-1]:
            self._groups_figure.y_range.factors = names[::-1]
        self._groups.data = {"name": names, "now": [w for _, (w, _) in shown], "before": [w for _, (_, w) in shown]}
        edges, frames = self.fit.distribution()
        self._bins.data = {"left": edges[:-1], "right": edges[1:], "frames": frames}

    def _write_head(self) -> None:
        fit, status = self.fit, self.fit.status
        state = status.get("state", "")
        silent = time.time() - fit.heard
        if state == "running" and silent > 10 + 5 * fit.about.get("every", 1.0):
            state = f"nothing heard for {span(silent)}"
        note = f"{state} on {fit.about.get('ranks', '?')} ranks, {fit.about.get('summary', '')}"
        fill(self._head, heading(fit.name, note), cards(self._cards()))

    def _cards(self) -> list[tuple[str, str, str]]:
        history, about, status = self.fit.history, self.fit.about, self.fit.status
        step, passes = history.last("step"), history.last("passes")
        shown = [("step", number(step, f"{step:.0f}"), f"of at most {about['max_steps']}; {passes:.0f} passes")]
        for name in (one["name"] for one in self._metrics(correlations=True)):
            first = history.values[name][0]
            shown.append((self._title(name), correlation(history.last(name)), f"from {correlation(first).striptags()}"))
        loss, gradient = history.last("loss"), history.last("gradient_norm")
        shown.append(("loss", number(loss, f"{loss:.6f}"), f"|gradient| {gradient:.1e}"))
        for one in self._metrics(correlations=False):
            if one["brief"]:
                value = history.last(one["name"])
                share = f"{percent(value / about['frames']).striptags()} of {about['frames']} frames"
                shown.append((one["title"], significant(value), share if one["unit"] == "frames" else one["unit"]))
        seconds = sum(self.fit.timing.last(part) for part in PARTS) / 1e3
        shown.append(("time per step", duration(seconds), f"slowest rank {self.fit.imbalance():.2f} x mean"))
        if "study" in status:
            ended, total, running = status["study"]
            shown.append(("fits and stages", f"{ended} of {total}", running))
        shown.append(_checkpoint_card(status))
        shown.append(_end_card(status))
        return shown


def hover(title: str, shown: dict[str, str]) -> HoverTool:
    """A text for the point below the mouse: its column `title`, and others by name in Bokeh's formats."""
    return HoverTool(tooltips=[(title, f"@{title}"), *shown.items()])


def _checkpoint_card(status: dict) -> tuple[str, str, str]:
    written = status.get("checkpoint")
    if not written:
        return ("checkpoint", "none", "yet")
    return ("checkpoint", duration(max(time.time() - written, 1.0)), "ago")


def _end_card(status: dict) -> tuple[str, str, str]:
    if status.get("state") != "running" or not status.get("ends"):
        return ("ends", "–", "")
    end, why = min(status["ends"])
    at = time.strftime("%H:%M", time.localtime(end))
    return ("ends at the latest in", duration(max(end - time.time(), 1.0)), f"{at}: {why}")
