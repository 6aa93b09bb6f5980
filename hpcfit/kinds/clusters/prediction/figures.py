"""The figures of a prediction: mean counts by size, weights of labels, models judged by the largest size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

from hpcfit.report.drawing import BLUE, GREEN, INK, ORANGE, SOFT, drawn, index_axis, shortened
from hpcfit.report.figures import legend_above, legend_over

MARKS = (("o", BLUE), ("^", ORANGE), ("s", GREEN), ("D", SOFT))  # of models


class Counts(NamedTuple):
    """Labels with their nodes and mean counts a frame [n]; low, high: intervals [n], NaN where there are none."""

    labels: Sequence[str]
    nodes: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


@drawn
def counts(observed: Counts, predicted: Counts):
    """Mean counts of labels by nodes, on a logarithmic scale; those that are 0 are left out."""
    figure, axis = plt.subplots(figsize=(9, 3.6))
    for some, mark, colour, name in ((observed, "o", BLUE, "observed"), (predicted, "^", ORANGE, "predicted")):
        shift = _beside(some.nodes)
        there = some.mean > 0
        error = np.abs(np.stack([some.mean - some.low, some.high - some.mean]))
        error = np.where(np.isfinite(error), error, 0)
        axis.errorbar((some.nodes + shift)[there], some.mean[there], yerr=error[:, there], fmt=mark, color=colour,
                      capsize=2, label=name)  # fmt: skip
        for label, x, y, shown in zip(some.labels, some.nodes + shift, some.mean, there):
            if shown:
                axis.annotate(shortened(label, 14), (x, y), xytext=(4, 2), textcoords="offset points", fontsize=7)
    axis.set(yscale="log", xlabel="nodes of a cluster", ylabel="clusters a frame")
    index_axis(axis, np.unique(np.concatenate([observed.nodes, predicted.nodes])))
    axis.margins(x=0.06)
    legend_over(axis)
    return figure


def _beside(nodes: np.ndarray) -> np.ndarray:
    """Shifts along x, so that labels of one size stand beside each other."""
    shift = np.zeros(len(nodes))
    for n in np.unique(nodes):
        mine = np.flatnonzero(nodes == n)
        shift[mine] = 0.6 * ((np.arange(len(mine)) + 0.5) / len(mine) - 0.5) if len(mine) > 1 else 0.0
    return shift


@drawn
def histograms(labels: Sequence[str], alone: Mapping[str, float], combined: Mapping[str, float], new: Sequence[str]):
    """Weights of labels in shares of 1: observed ones alone, and with those that are predicted (`new`)."""
    figure, axes = plt.subplots(2, 1, figsize=(9, 4.6), sharex=True)
    x = np.arange(len(labels))
    colours = [ORANGE if label in new else BLUE for label in labels]
    for axis, weights, title in zip(axes, (alone, combined), ("observed only", "observed and predicted")):
        values = np.array([weights.get(label, 0.0) for label in labels])
        axis.bar(x, values, color=colours)
        positive = values[values > 0]
        axis.set(yscale="log", ylabel="share of clusters", title=title)
        if len(positive):
            axis.set_ylim(positive.min() / 3, 2)
    axes[-1].set_xticks(x, [shortened(one, 12) for one in labels], rotation=60, ha="right")
    return figure


@drawn
def foretold(
    labels: Sequence[str], observed: np.ndarray, error: np.ndarray, models: Mapping[str, Sequence[Mapping[str, Any]]]
):
    """Mean counts of the largest size, by models that did not see it (label by label: predicted, interval), against
    what was observed [n] with its error [n]; zeros at the edge."""
    figure, axis = plt.subplots(figsize=(9, 3.2))
    every = np.concatenate([observed, *([one["predicted"] for one in rows] for rows in models.values())])
    floor = every[every > 0].min() / 3
    x = np.arange(len(labels))
    for value, off, at in zip(observed, np.nan_to_num(error), x):
        axis.fill_between([at - 0.4, at + 0.4], max(value - off, floor), value + off, color=INK, alpha=0.2, lw=0)
        axis.plot([at - 0.4, at + 0.4], [value, value], color=INK, label="observed" if at == 0 else None)
    for n, (name, rows) in enumerate(models.items()):
        mark, colour = MARKS[n % len(MARKS)]
        values = np.maximum([one["predicted"] for one in rows], floor)
        bounds = np.array([one["interval"] or (np.nan, np.nan) for one in rows], float).T
        reach = np.abs(np.maximum(bounds, floor) - values)
        axis.errorbar(x + 0.16 * (n - (len(models) - 1) / 2), values, yerr=np.nan_to_num(reach), fmt=mark, color=colour,
                      capsize=2, label=name.replace("_", " "))  # fmt: skip
    axis.set(yscale="log", ylabel="clusters a frame")
    axis.set_xticks(x, [shortened(one, 16) for one in labels])
    legend_above(figure, axis)
    return figure
