"""The figures of kind "force-field": data, prices, parameters, weights, convergence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from hpcfit.kinds.force_field.files import Geometry, Observable, data_labels
from hpcfit.report import figures
from hpcfit.report.drawing import BLUE, DIVERGING, FEW, GREEN, INK, LINE, ORANGE, SOFT, drawn, index_axis, shortened
from hpcfit.report.figures import BASELINE, Scan, band, legend_above, panels, plain_logarithmic
from hpcfit.runs.history import History

LABELLED = 40  # data of an ensemble that are named one by one
FLOOR = 1e-3  # least weight x T that is drawn
POINTS = 400  # of a long curve of weights
NAMED = 12  # derivatives by a parameter that are named one by one
WRITTEN = 8  # parameters whose correlations are written into the matrix
LONG = 18  # letters of a parameter's name, beyond which a matrix numbers its columns
WAYS = {"pathwise": (BLUE, "o"), "fluctuation": (SOFT, "s"), "malliavin": (ORANGE, "^"), "combined": (GREEN, "D")}
LETTERS = {"alpha": "α", "beta": "β", "gamma": "γ"}


@drawn
def targets(ensembles: dict[str, Sequence[Observable]]):
    """Deviations of all data from their measurements, in sigma, before and after the fit; a panel an ensemble."""
    largest = max(map(len, ensembles.values()))
    height = 1.0 + 0.17 * min(largest, LABELLED)
    figure, axes = panels(len(ensembles), 2, row=height, margin=0.5)
    for axis, (name, rows) in zip(axes, ensembles.items()):
        y = np.arange(len(rows))
        before, after = (np.array([one.deviation(getattr(one, when)) for one in rows]) for when in ("before", "after"))
        held_out = np.array([one.held_out for one in rows])
        axis.axvspan(-1, 1, color=LINE, alpha=0.5, linewidth=0)
        axis.hlines(y, before, after, color=LINE, linewidth=1)
        axis.plot(before, y, "|", color=SOFT, markersize=9, markeredgewidth=1.8, label="before the fit")
        bars = np.transpose([one.error_bars(one.after, one.error_after) for one in rows])
        # Both also where an ensemble has one alone: the legend of one panel is that of all.
        for shown, color, marker, label in ((~held_out, BLUE, "o", "fitted"), (held_out, GREEN, "s", "held out")):
            xerr = bars[:, shown] if np.isfinite(bars).any() else None
            axis.errorbar(after[shown], y[shown], xerr=xerr, fmt=marker, color=color, capsize=2, label=label)
        _name_data(axis, rows)
        axis.set(title=shortened(name, 40), ylim=(len(rows) - 0.4, -0.6), xlabel="(calculated − measured) / σ")
    legend_above(figure, axes[0])
    return figure


def _name_data(axis: Any, rows: Sequence[Observable]) -> None:
    if len(rows) <= LABELLED:
        labels = data_labels([(one.data, one.column) for one in rows])
        axis.set_yticks(range(len(rows)), [shortened(label, 28) for label in labels], fontsize=7)
    else:
        axis.set_ylabel("number of the datum")
    axis.grid(axis="y", visible=False)


def prices(rows: Sequence[dict[str, Any]], chosen: dict[str, float]) -> bytes:
    """chi2 a datum of held-out and of fitted data against each price of which there are several; at each value the
    best of the others. rows: of the cross-validation, the simulated ensembles first."""
    before, *tried = rows
    several = [name for name in chosen if len({row[name] for row in tried}) > 1]
    return figures.scan([_scan(name, before, tried, chosen[name]) for name in several], ("value tried", ""), height=2.9)


def _scan(name: str, before: dict[str, Any], tried: Sequence[dict[str, Any]], chosen: float) -> Scan:
    values = sorted({row[name] for row in tried})
    best = [min((row for row in tried if row[name] == value), key=lambda row: row["held_out"]) for value in values]
    places = np.arange(len(values))
    held_out, error, fitted = (np.array([row[key] for row in best]) for key in ("held_out", "held_out_error", "fitted"))
    at = values.index(chosen)
    lines = [
        lambda axis: axis.axhline(before["held_out"], label="simulated ensembles, held out", **BASELINE),
        lambda axis: axis.errorbar(places, held_out, yerr=error, fmt="s-", color=GREEN, capsize=3, label="held out"),
        lambda axis: axis.plot(places, fitted, "o-", color=BLUE, label="fitted"),
    ]
    title = f"χ² a datum against {LETTERS[name]}"
    return Scan(title, places, [f"{value:g}" for value in values], lines, (at, held_out[at], "chosen"))


@drawn
def averages(curves: dict[str, Sequence[Observable]]):
    """Observables of many numbers, before and after the fit beside what was measured; a panel each."""
    figure, axes = panels(len(curves), 2, row=2.6, margin=0.5)
    for axis, (name, rows) in zip(axes, curves.items()):
        x = np.arange(len(rows))
        keys = ("measured", "sigma", "before", "after", "error_after")
        value, sigma, before, after, error = (np.array([getattr(one, key) for one in rows]) for key in keys)
        axis.errorbar(x, value, yerr=sigma, fmt="o", color=INK, markersize=3, label="measured", zorder=2)
        axis.plot(x, before, label="before the fit", **BASELINE)
        band(axis, x, after, error, GREEN if rows[0].held_out else BLUE, "after", above=10)
        axis.set(title=shortened(name + (", held out" if rows[0].held_out else ""), 40), xlabel="number of the datum")
        index_axis(axis, x)
    axes[0].set_ylabel("average")
    legend_above(figure, axes[0])
    return figure


@drawn
def energies(sets: dict[str, Sequence[Geometry]]):
    """Energies of geometries before and after the fit against those of the reference; a panel a set."""
    figure, axes = panels(len(sets), 2, row=3.2, margin=0.5)
    for axis, (name, rows) in zip(axes, sets.items()):
        reference, before, after = (np.array([getattr(one, key) for one in rows]) for key in Geometry._fields[2:])
        held_out = np.array([one.held_out for one in rows])
        axis.plot(reference, before, "x", color=SOFT, markersize=4, label="before the fit")
        axis.plot(reference[~held_out], after[~held_out], "o", color=BLUE, markersize=3.5, label="fitted")
        axis.plot(reference[held_out], after[held_out], "s", color=GREEN, markersize=3.5, label="held out")
        ends = [min(reference.min(), after.min()), max(reference.max(), after.max())]
        axis.plot(ends, ends, color=INK, linewidth=0.8)
        axis.set(title=shortened(name, 40), xlabel="reference, kJ/mol")
    axes[0].set_ylabel("force field, kJ/mol")
    legend_above(figure, axes[0])
    return figure


@drawn
def rounds(
    history: History, names: Sequence[str], start: Sequence[float], errors: Sequence[float], settled: int | None
):
    """Each parameter relative to its start, where that is not 0, at each round, with the errors of those found.
    settled: the round from which steps are averaged."""
    figure, axes = panels(len(names), 3, row=2.1, margin=0.4)
    for axis, name, begun, error in zip(axes, names, start, errors):
        unit = begun or 1.0
        values = history[name] / unit
        x = np.arange(len(values))
        axis.plot(x, values, color=BLUE, marker="o" if len(x) <= FEW else "")
        axis.errorbar(x[-1:], values[-1:], yerr=np.abs(error / unit), color=BLUE, capsize=3)
        if not begun:
            axis.set_ylabel("value")
        if settled is not None:
            axis.axvline(settled, color=SOFT, linestyle=":")
        axis.set(title=shortened(name, 30), xlabel="round")
        index_axis(axis, x)
    if start[0]:
        axes[0].set_ylabel("value / start")
    return figure


@drawn
def along_rounds(observables: dict[str, tuple[Sequence[Observable], np.ndarray]]):
    """Deviations of averages from their measurements, in sigma, at each round, a panel an observable: with error bars,
    or the root mean square over its items, and what noise alone would make of that. observables: data, and [rounds,
    items, 2], averages and errors."""
    figure, axes = panels(len(observables), 3, row=2.1, margin=0.4)
    for axis, (name, (rows, found)) in zip(axes, observables.items()):
        off = np.array([[one.deviation(value) for one, value in zip(rows, values)] for values in found[..., 0]])
        x, color = np.arange(len(found)), GREEN if rows[0].held_out else BLUE
        if len(rows) == 1:
            axis.axhspan(-1, 1, color=LINE, alpha=0.5, linewidth=0)
            bars = np.transpose([rows[0].error_bars(*at) for at in found[:, 0]])
            axis.errorbar(x, off[:, 0], yerr=bars, color=color, marker="o", capsize=2)
        else:
            of_noise = found[..., 1] / [one.sigma for one in rows]
            axis.plot(x, np.sqrt(np.mean(off**2, axis=1)), color=color, marker="o" if len(x) <= FEW else "")
            axis.plot(x, np.sqrt(np.mean(of_noise**2, axis=1)), color=color, linestyle=":")
            axis.set_ylim(bottom=0)
        axis.set(title=shortened(name, 30), xlabel="round")
        index_axis(axis, x)
    axes[0].set_ylabel("deviation / σ")
    return figure


@drawn
def estimators(rows: Sequence[dict[str, Any]]):
    """Derivatives by both estimators over that of the fluctuation formula, a panel a parameter."""
    names = list(dict.fromkeys(row["parameter"] for row in rows))
    figure, axes = panels(len(names), 2, row=2.4, margin=0.5)
    for axis, name in zip(axes, names):
        mine = [row for row in rows if row["parameter"] == name]
        x, unit = np.arange(len(mine)), np.array([row["fluctuation"] for row in mine])
        pathwise, error, whole = (
            np.array([row[key] for row in mine]) / unit for key in ("pathwise", "pathwise_error", "fluctuation_error")
        )
        short = np.array([row["too_short"] for row in mine])
        axis.axhline(1.0, **BASELINE)
        look = {"fmt": "none", "capsize": 2}
        axis.errorbar(x + 0.12, np.ones(len(x)), yerr=np.abs(whole), ecolor=SOFT, **look)
        axis.plot(x + 0.12, np.ones(len(x)), "o", color=SOFT, markerfacecolor="none", label="fluctuation")
        for shown, color, label in ((~short, BLUE, "pathwise"), (short, ORANGE, "pathwise, windows too short")):
            at = x[shown] - 0.12, pathwise[shown], np.abs(error)[shown]
            axis.errorbar(*at, fmt="o", color=color, capsize=2, label=label)
        axis.set(title=shortened(f"by {name}", 30), xlim=(-0.6, len(x) - 0.4))
        if len(x) <= NAMED:
            axis.set_xticks(x, [shortened(row["label"], 16) for row in mine], rotation=90)
        else:
            axis.set_xlabel("number of the derivative")
            index_axis(axis, x)
    axes[0].set_ylabel("derivative / fluctuation")
    legend_above(figure, axes[0])
    return figure


@drawn
def gradients(rows: Sequence[dict[str, Any]]):
    """The gradient of the loss by each parameter and estimator, in units of the least of their errors."""
    names, ways = (list(dict.fromkeys(row[key] for row in rows)) for key in ("parameter", "way"))
    unit = {name: min(row["error"] for row in rows if row["parameter"] == name) for name in names}
    figure, axis = plt.subplots(figsize=(9, 3.2))
    axis.axhline(0.0, **BASELINE)
    for place, way in enumerate(ways):
        mine = [row for row in rows if row["way"] == way]
        value, error = (np.array([row[key] / unit[row["parameter"]] for row in mine]) for key in ("gradient", "error"))
        x = np.array([names.index(row["parameter"]) for row in mine]) + 0.15 * (place - (len(ways) - 1) / 2)
        color, marker = WAYS[way]
        axis.errorbar(x, value, yerr=error, fmt=marker, color=color, capsize=3, label=way)
    turned = 90 if len(names) > 6 else 0
    axis.set_xticks(range(len(names)), [shortened(name, 24) for name in names], rotation=turned)
    axis.set(xlim=(-0.6, len(names) - 0.4), ylabel="gradient / least error")
    legend_above(figure, axis)
    return figure


@drawn
def memory(parts: Sequence[tuple[str, dict[str, Any], int]]):
    """C(t) / C(0) by parameter; parts: system, what it remembers, frames that are not averaged."""
    figure, axes = panels(len(parts), 3, row=2.2, margin=0.5)
    for axis, (system, one, skipped) in zip(axes, parts):
        time, left, error = (np.array(one[key]) for key in ("time", "left", "error"))
        axis.axhline(0.0, **BASELINE)
        axis.fill_between(time, left - error, left + error, color=BLUE, alpha=0.2, linewidth=0)
        axis.plot(time, left, color=BLUE)
        axis.axvline(time[skipped], color=SOFT, linestyle=":")
        title = f"{system}: {one['label']} by {one['parameter']}"
        axis.set(title=shortened(title, 34), xlabel="time, ps")
    axes[0].set_ylabel("C(t) / C(0)")
    return figure


@drawn
def windows(systems: dict[str, dict[str, Any]]):
    """Bias, noise and error of derivatives along the length of tangents, a panel a system."""
    figure, axes = panels(len(systems), 3, row=2.4, margin=0.5)
    for axis, (name, one) in zip(axes, systems.items()):
        time, best = np.array(one["time"]), one["time"].index(one["best"])
        axis.plot(time, one["error"], color=BLUE, label="error")
        axis.plot(time, one["bias"], color=ORANGE, linestyle="--", label="bias")  # may lie on the error
        axis.plot(time, one["noise"], color=GREEN, linestyle=":", label="noise")
        axis.plot(time[best], one["error"][best], "o", color=BLUE, label="least")
        axis.axvline(one["used"], color=SOFT, linestyle=":")
        axis.set(title=shortened(name, 30), xlabel="length of tangents, ps", yscale="log")
    axes[0].set_ylabel("error / derivative")
    legend_above(figure, axes[0])
    return figure


@drawn
def correlations(names: Sequence[str], matrix: np.ndarray):
    """The correlation matrix of the fitted parameters."""
    n, numbered = len(names), max(map(len, names)) > LONG
    figure, axis = plt.subplots(figsize=(9, min(6.0 if numbered else 7.5, 2.2 + 0.32 * n)))
    edges = np.arange(n + 1) - 0.5
    mesh = axis.pcolormesh(edges, edges, matrix, cmap=DIVERGING, vmin=-1, vmax=1, rasterized=True)
    if numbered:
        axis.set_xticks(range(n), range(1, n + 1), rotation=90)
        axis.set_yticks(range(n), [f"{shortened(name, 2 * LONG)}  {k}" for k, name in enumerate(names, 1)])
    else:
        axis.set_xticks(range(n), names, rotation=90)
        axis.set_yticks(range(n), names)
    axis.set_aspect("auto" if numbered else "equal")
    axis.invert_yaxis()
    axis.grid(visible=False)
    for row, column in np.ndindex(n, n) if n <= WRITTEN else ():
        value = matrix[row, column]
        color = "white" if abs(value) > 0.6 else "black"
        axis.text(column, row, f"{value:.2f}".replace("-", "−"), ha="center", va="center", fontsize=8, color=color)
    # Beside a square matrix, which is narrower than the figure; long names leave no room for one.
    where = {"ax": axis, "shrink": 0.8} if numbered else {"cax": axis.inset_axes([1.04, 0.1, 0.04, 0.8])}
    figure.colorbar(mesh, label="correlation", **where)
    return figure


@drawn
def curves(names: Sequence[str], before: np.ndarray, after: np.ndarray):
    """Karplus curves [n, 3] before and after the fit against the torsion, a panel each."""
    figure, axes = panels(len(names), 3, row=2.3, margin=0.5)
    degrees = np.linspace(-180, 180, 181)
    c = np.cos(np.deg2rad(degrees))
    for axis, name, old, new in zip(axes, names, before, after):
        axis.plot(degrees, np.polyval(old, c), label="before the fit", **BASELINE)
        axis.plot(degrees, np.polyval(new, c), color=BLUE, label="fitted")
        axis.set(title=shortened(name, 30), xlabel="torsion with its offset, degrees", xticks=range(-180, 181, 90))
    axes[0].set_ylabel("coupling, Hz")
    legend_above(figure, axes[0])
    return figure


@drawn
def weights(ensembles: dict[str, np.ndarray]):
    """Weight x T of each ensemble's frames, the heaviest first: in the simulation, by the force field, of the result.
    ensembles: [T, 3] each."""
    figure, axes = panels(len(ensembles), 3, row=2.5, margin=0.5, sharey=True)
    looks = (
        {"label": "simulated", **BASELINE},
        {"label": "by the force field", "color": INK, "linestyle": ":", "zorder": 3},
        {"label": "result", "color": BLUE},
    )
    for axis, (name, w) in zip(axes, ensembles.items()):
        shown = np.unique(np.linspace(0, len(w) - 1, POINTS).astype(int))
        for column, look in zip(w.T, looks):
            axis.plot(100 * (shown + 0.5) / len(w), np.maximum(np.sort(column)[::-1][shown] * len(w), FLOOR), **look)
        axis.set(title=shortened(name, 30), xlabel="frames, heaviest first, %", yscale="log")
        plain_logarithmic(axis.yaxis)
    axes[0].set_ylabel("weight × T")
    legend_above(figure, axes[0])
    return figure


@drawn
def convergence(history: History):
    """Loss, chi2 and the norm of the gradient at each evaluation of one fit."""
    figure, axes = panels(3, 3, row=2.3, margin=0.4)
    x = history["evaluation"] - history["evaluation"][0] + 1
    for axis, name, title in zip(axes, ("loss", "chi2", "gradient_norm"), ("loss", "χ²", "gradient norm")):
        known = history[name] > 0
        axis.plot(x[known], history[name][known], color=BLUE, marker="o" if len(x) <= FEW else "")
        axis.set(title=title, xlabel="evaluations of this fit")
        if np.any(known) and history[name][known].max() > 10 * history[name][known].min():
            axis.set_yscale("log")
        index_axis(axis, x)
        if x[-1] > x[0]:
            axis.set_xlim(x[0] - 0.02 * (x[-1] - x[0]), x[-1] + 0.02 * (x[-1] - x[0]))
    return figure
