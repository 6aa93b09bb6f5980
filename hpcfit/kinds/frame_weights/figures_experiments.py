"""The figures of experiments whose data are averages over the frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from hpcfit.kinds.frame_weights.files import Datum
from hpcfit.report import figures
from hpcfit.report.drawing import BLUE, FEW, GREEN, INK, LINE, SOFT, drawn, index_axis, shortened
from hpcfit.report.figures import BASELINE, Scan, band, legend_above, panels
from hpcfit.runs.history import History

POINTS = 400  # of a long curve of weights


@drawn
def deviations(sets: dict[str, Sequence[Datum]]):
    """(calculated - measured) / sigma of the data of each set, before and after the fit; a panel a set."""
    figure, axes = panels(len(sets), 2, row=2.4, margin=0.5)
    for axis, (name, rows) in zip(axes, sets.items()):
        x, colour = np.arange(len(rows)), GREEN if rows[0].held_out else BLUE
        axis.axhspan(-1, 1, color=LINE, alpha=0.5, linewidth=0)
        axis.plot(x, [one.deviation_before for one in rows], "_", color=SOFT, markersize=8, label="before the fit")
        axis.plot(x, [one.deviation for one in rows], "o", color=colour, markersize=3.5, label="after")
        axis.set(title=shortened(name, 40), xlabel="number of the datum")
        index_axis(axis, x)
    axes[0].set_ylabel("(calculated − measured) / σ")
    legend_above(figure, axes[0])
    return figure


@drawn
def calculated(sets: dict[str, Sequence[Datum]]):
    """Measured and calculated data, before and after the fit; a panel a set."""
    figure, axes = panels(len(sets), 2, row=2.6, margin=0.5)
    for axis, (name, rows) in zip(axes, sets.items()):
        keys = ("measured", "sigma", "before", "after", "error")
        value, sigma, before, after, error = (np.array([getattr(one, key) for one in rows]) for key in keys)
        x = np.arange(len(rows))
        axis.errorbar(x, value, yerr=sigma, fmt="o", color=INK, markersize=3, label="measured", zorder=2)
        axis.plot(x, before, label="before the fit", **BASELINE)
        band(axis, x, after, error, GREEN if rows[0].held_out else BLUE, "after", above=10)
        axis.set(title=shortened(name, 40), xlabel="number of the datum")
        index_axis(axis, x)
    axes[0].set_ylabel("average")
    legend_above(figure, axes[0])
    return figure


def thetas(rows: Sequence[dict[str, Any]], chosen: float | None) -> bytes:
    """chi2 / 2 of left-out and of fitted data against theta. rows: of the cross-validation, largest theta first."""
    prior = next(row for row in rows if row["theta"] is None)
    tried = [row for row in rows if row["theta"] is not None]
    places = np.arange(len(tried))
    free, error, fitted = (
        np.array([row[key] for row in tried]) for key in ("misfit_free", "misfit_free_error", "misfit")
    )
    lines = [
        lambda axis: axis.axhline(prior["misfit_free"], label="prior weights", **BASELINE),
        lambda axis: axis.errorbar(places, free, yerr=error, fmt="s-", color=GREEN, capsize=3, label="left out"),
        lambda axis: axis.plot(places, fitted, "o-", color=BLUE, label="fitted"),
    ]
    at = next((n for n, row in enumerate(tried) if row["theta"] == chosen), None)
    ringed = None if at is None else (at, free[at], "chosen")
    one = Scan("χ²/2 against theta", places, [f"{row['theta']:g}" for row in tried], lines, ringed)
    return figures.scan([one], ("theta", "χ²/2 of all data"), height=2.9)


@drawn
def convergence(history: History):
    """Loss, chi2, gradient norm and effective frames of one fit against its evaluations."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 5.0), sharex=True)
    x = history["evaluation"] - history["evaluation"][0] + 1
    for axis, name in zip(axes.flat, ("loss", "chi2", "gradient_norm", "ess"), strict=True):
        axis.plot(x, history[name], color=BLUE, marker="o" if len(history) <= FEW else "")
    for axis, title in zip(axes.flat, ("loss", "χ²", "gradient norm", "ESS, frames"), strict=True):
        axis.set_title(title)
    if np.any(history["gradient_norm"] > 0):
        axes[1, 0].set_yscale("log")
    for axis in axes[1]:
        axis.set_xlabel("evaluations of this fit")
        index_axis(axis, x)
    return figure


@drawn
def weights(prior: np.ndarray, weight: np.ndarray):
    """Prior weights and weights times T, the heaviest frame first."""
    figure, axis = plt.subplots(figsize=(9, 2.9))
    n = len(weight)
    at = np.unique(np.linspace(0, n - 1, min(n, POINTS)).round().astype(int))
    for values, how in ((prior, {"label": "before the fit", **BASELINE}), (weight, {"label": "after", "color": BLUE})):
        axis.plot(at + 1, np.maximum(np.sort(values)[::-1][at] * n, 1e-3), **how)
    axis.set(yscale="log", xlabel="frames, the heaviest first", ylabel="weight × T")
    axis.legend(loc="best")
    return figure
