"""The figures of a report on clusters: the colormap in time, lifetimes, sizes, aggregation, speciation, g(r)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import PowerNorm

from hpcfit.kinds.clusters.kinetics import Bins
from hpcfit.report.drawing import (
    BLUE,
    DPI,
    GREEN,
    INK,
    ORANGE,
    PALE,
    SEQUENTIAL,
    SOFT,
    STYLE,
    drawn,
    index_axis,
    shortened,
)
from hpcfit.report.figures import legend_above, panels

MODES = {"count": "clusters in the bin", "fraction": "share of all clusters", "mean": "clusters a frame"}
MOST = 40  # rows of a colormap
LIMITS = (0.02, 0.98)  # quantiles of the values that the colours span
POWER = 0.35  # of the values that colours are proportional to: rare labels are seen beside common ones


def _heat(axis: Any, edges: np.ndarray, values: np.ndarray, labels: Sequence[str], title: str) -> Any:
    """A colormap of values [L, b]; the colours span the quantiles `LIMITS`, and tell small values apart."""
    low, high = np.quantile(values, LIMITS)
    scale = PowerNorm(POWER, vmin=low, vmax=max(high, low + 1e-12))
    rows = np.arange(len(labels) + 1)
    image = axis.pcolormesh(edges, rows, values, cmap=SEQUENTIAL, norm=scale, rasterized=True)
    axis.set_yticks(np.arange(len(labels)) + 0.5, [shortened(one, 18) for one in labels])
    axis.invert_yaxis()
    axis.grid(False)
    axis.set_title(title)
    return image


def _colormap(edges: np.ndarray, values: Mapping[str, np.ndarray], labels: Sequence[str], energies: Any, unit: str):
    rows = len(labels)
    lower = [1.6] if energies is not None else []
    heights = [max(1.2, 0.16 * rows + 0.5)] * len(values) + lower
    figure, axes = plt.subplots(
        len(heights), 1, figsize=(9, sum(heights) + 0.6), sharex=True, squeeze=False, height_ratios=heights
    )
    for axis, (mode, value) in zip(axes[:, 0], values.items()):
        figure.colorbar(_heat(axis, edges, value, labels, MODES[mode]), ax=axis, extend="both")
    if energies is not None:
        axis = axes[-1, 0]
        axis.plot(energies["time"], energies["potential"], color=BLUE)
        axis.set_ylabel("potential energy, Ha")
        other = axis.twinx()
        other.plot(energies["time"], energies["temperature"], color=ORANGE)
        other.set_ylabel("temperature, K")
    axes[-1, 0].set_xlabel(f"time, {unit}")
    return figure


@drawn
def colormap(edges: np.ndarray, values: Mapping[str, np.ndarray], labels: Sequence[str], energies: Any, unit: str):
    """Labels in time, a panel for each mode (`MODES`) of values [L, b]; energies: time, potential, temperature [n]
    below, or None."""
    return _colormap(edges, values, labels, energies, unit)


def write_colormap(folder: Path, bins: Bins, labels: Sequence[str]) -> None:
    """Write the colormap of mean counts as colormap.png and colormap.pdf."""
    import matplotlib

    with matplotlib.rc_context(STYLE | {"figure.facecolor": "white", "savefig.facecolor": "white"}):
        shown = np.argsort(-bins.raw.sum(axis=1), kind="stable")[:MOST]
        shown.sort()
        figure = _colormap(bins.edges / 1000, {"mean": bins.mean[shown]}, [labels[n] for n in shown], None, "ps")
        for name, facts in (("png", {"Software": None}), ("pdf", {"CreationDate": None, "Producer": None})):
            figure.savefig(folder / f"colormap.{name}", dpi=DPI, metadata=facts)
        plt.close(figure)


@drawn
def lifetimes(labels: Sequence[str], mean: np.ndarray, error: np.ndarray, step: float):
    """Mean lifetimes (fs) of labels with their errors, and the time between frames."""
    figure, axis = plt.subplots(figsize=(9, 1.0 + 0.22 * len(labels)))
    y = np.arange(len(labels))
    axis.errorbar(mean, y, xerr=np.where(np.isfinite(error), error, 0), fmt="o", color=BLUE, ecolor=SOFT, capsize=2)
    axis.axvline(step, color=ORANGE, linestyle="--", label="time between frames")
    axis.set_xscale("log")
    axis.set_yticks(y, [shortened(one, 24) for one in labels])
    axis.invert_yaxis()
    axis.set_xlabel("mean lifetime, fs")
    axis.legend(loc="best")
    return figure


@drawn
def sizes(nodes: np.ndarray, mean: np.ndarray, mean_error: np.ndarray, share: np.ndarray, share_error: np.ndarray):
    """Clusters a frame, and the share of nodes in them, by the number of their nodes."""
    figure, axes = panels(2, columns=2, row=2.6)
    for axis, y, error, label in zip(axes, (mean, share), (mean_error, share_error),
                                     ("clusters a frame", "share of all nodes")):  # fmt: skip
        axis.errorbar(nodes, y, yerr=np.where(np.isfinite(error), error, 0), fmt="o-", color=BLUE, capsize=2)
        axis.set(xlabel="nodes of a cluster", ylabel=label, yscale="log")
        index_axis(axis, nodes)
    return figure


@drawn
def in_time(time: np.ndarray, curves: Mapping[str, np.ndarray], radius: np.ndarray):
    """Aggregation numbers and radii against time (ps). Where time falls another trajectory begins, and another line."""
    figure, axes = panels(2, columns=1, row=1.9, sharex=True)
    begins = np.flatnonzero(np.diff(time) <= 0) + 1
    parted = lambda values: np.insert(np.asarray(values, float), begins, np.nan)  # noqa: E731
    for (name, values), colour in zip(curves.items(), (BLUE, ORANGE, SOFT)):
        axes[0].plot(parted(time), parted(values), color=colour, label=name, linewidth=1)
    axes[0].set_ylabel("nodes of a cluster")
    axes[1].plot(parted(time), parted(radius), color=GREEN, linewidth=1)
    axes[1].set(xlabel="time, ps", ylabel="radius of gyration, Å")
    legend_above(figure, axes[0])
    return figure


@drawn
def shares(species: Sequence[str], states: Sequence[str], values: np.ndarray):
    """Shares of ions [species, states] as stacked bars."""
    figure, axis = plt.subplots(figsize=(9, 0.9 + 0.4 * len(species)))
    left = np.zeros(len(species))
    for column, state, colour in zip(values.T, states, (PALE, BLUE, ORANGE)):
        axis.barh(np.arange(len(species)), column, left=left, color=colour, label=state)
        left += column
    axis.set_yticks(np.arange(len(species)), species)
    axis.set(xlim=(0, 1), xlabel="share of ions")
    axis.invert_yaxis()
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return figure


@drawn
def radial(r: np.ndarray, curves: Mapping[str, np.ndarray], cutoffs: Mapping[str, float]):
    """Radial distributions with the cut-offs of their pairs."""
    figure, axes = panels(len(curves), columns=3, row=2.3)
    for axis, (pair, g) in zip(axes, curves.items()):
        axis.plot(r, g, color=BLUE)
        if pair in cutoffs:
            axis.axvline(cutoffs[pair], color=ORANGE, linestyle="--", label=f"cut-off {cutoffs[pair]:.3g} Å")
            axis.legend(loc="best")
        axis.axhline(1, color=INK, linewidth=0.6)
        axis.set(title=pair, xlabel="r, Å")
    axes[0].set_ylabel("g(r)")
    return figure
