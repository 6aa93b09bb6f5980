"""The figures of scattering: traces with residuals, components, Guinier's line, S(q), populations with their errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from hpcfit.report.drawing import BLUE, GREEN, INK, ORANGE, PALE, SOFT, drawn, shortened
from hpcfit.report.figures import band, legend_over, panels

COLOURS = {"all": BLUE, "observed": ORANGE}
LEAST = 1e-5  # of the fit, the smallest part that is drawn
NAMES = {"all": "mixture", "observed": "observed labels alone"}
Columns = Mapping[str, np.ndarray]


def _scales(axis: Any, q: np.ndarray, *values: np.ndarray) -> None:
    """Logarithmic axes, intensities where all are positive."""
    if q[0] > 0:
        axis.set_xscale("log")
    if all(np.all(one > 0) for one in values):
        axis.set_yscale("log")


@drawn
def traces(by_name: Mapping[str, Columns]):
    """Fitted traces and the measured curve with its errors, above residuals in sigma; without a curve means alone."""
    first = next(iter(by_name.values()))
    q, measured = first["q"], np.all(np.isfinite(first["experimental"]))
    figure, axes = plt.subplots(
        2 if measured else 1, 1, figsize=(9, 5.4 if measured else 3.6), sharex=True, squeeze=False,
        height_ratios=[3, 1.3] if measured else None,
    )  # fmt: skip
    upper = axes[0, 0]
    if measured:
        upper.errorbar(q, first["experimental"], yerr=first["sigma"], fmt=".", color=SOFT, ecolor=PALE, markersize=3,
                       label="measured", zorder=1)  # fmt: skip
    for name, one in by_name.items():
        upper.plot(q, one["fitted"], color=COLOURS[name], label=NAMES[name] if measured else f"mean of {NAMES[name]}")
        if measured:
            upper.plot(q, one["least_squares"], color=COLOURS[name], linestyle=":", linewidth=1,
                       label=f"{NAMES[name]}: scale and offset alone, no errors")  # fmt: skip
            axes[1, 0].plot(q, one["residual_in_sigma"], ".", color=COLOURS[name], markersize=3)
    _scales(upper, q, *([first["experimental"]] if measured else []), *(one["fitted"] for one in by_name.values()))
    upper.set_ylabel("I")
    legend_over(upper, ncols=2)
    if measured:
        axes[1, 0].axhline(0, color=INK, linewidth=0.6)
        axes[1, 0].set_ylabel("residual / σ")
    axes[-1, 0].set_xlabel("q, 1/Å")
    return figure


@drawn
def components(q: np.ndarray, values: Mapping[str, np.ndarray], whole: np.ndarray | None, label: str):
    """Intensities [Q] of components by label, and of the whole fit."""
    figure, axis = plt.subplots(figsize=(9, 3.8))
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.92, len(values)))
    for (name, value), colour in zip(values.items(), colours):
        axis.plot(q, value, color=colour, linewidth=1.2, label=shortened(name, 16))
    if whole is not None:
        axis.plot(q, whole, color=INK, linewidth=1.4, label="fit")
    _scales(axis, q, *values.values())
    if whole is not None and axis.get_yscale() == "log":  # what adds less than that is not seen in the fit
        axis.set_ylim(max(axis.get_ylim()[0], LEAST * np.max(whole)), None)
    axis.set(xlabel="q, 1/Å", ylabel=label)
    legend_over(axis, ncols=6)
    return figure


@drawn
def guinier(q: np.ndarray, intensity: np.ndarray, sigma: np.ndarray, fit: Mapping[str, Any]):
    """ln I against q^2 about Guinier's region, with the line of the fit."""
    figure, axis = plt.subplots(figsize=(9, 3.0))
    near = (q <= 1.8 * fit["q_max"]) & (intensity > 0)
    x, y = q[near] ** 2, np.log(intensity[near])
    axis.errorbar(x, y, yerr=sigma[near] / intensity[near], fmt=".", color=SOFT, ecolor=PALE, label="measured")
    line = np.array([0.0, fit["q_max"] ** 2])
    axis.plot(line, np.log(fit["forward"]) - line * fit["radius"] ** 2 / 3, color=BLUE,
              label=f"Rg {fit['radius']:.3g} Å")  # fmt: skip
    axis.axvline(fit["q_min"] ** 2, color=ORANGE, linestyle="--", linewidth=1, label="fitted points")
    axis.axvline(fit["q_max"] ** 2, color=ORANGE, linestyle="--", linewidth=1)
    axis.set(xlabel="q², 1/Å²", ylabel="ln I")
    axis.legend(loc="best")
    return figure


@drawn
def factor(q: np.ndarray, values: np.ndarray):
    """S(q) of the fit."""
    figure, axis = plt.subplots(figsize=(9, 2.6))
    axis.plot(q, values, color=GREEN)
    axis.axhline(1, color=INK, linewidth=0.6)
    axis.set(xlabel="q, 1/Å", ylabel="S(q)")
    return figure


@drawn
def box(curves: Mapping[str, np.ndarray]):
    """S(q) of the box above, partial ones below; curves: q, S, error [3, B] by name, "total" first."""
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(9, 5.4), sharex=True)
    q, total, error = curves["total"]
    band(upper, q, total, error, BLUE, "total")
    upper.set_ylabel("S(q)")
    partial = {name: curve for name, curve in curves.items() if name != "total"}
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.92, len(partial)))
    for (name, (q, values, error)), colour in zip(partial.items(), colours):
        band(lower, q, values, error, colour, name)
    for axis in (upper, lower):
        axis.axhline(1, color=INK, linewidth=0.6)
    lower.axhline(0, color=INK, linewidth=0.6)
    lower.set(xlabel="q, 1/Å", ylabel="partial S(q)")
    legend_over(lower, ncols=8)
    return figure


@drawn
def intervals(names: Sequence[str], found: Columns):
    """Populations with the standard errors of the bootstrap and the 5 to 95 % interval of the posterior."""
    figure, [axis] = panels(1, columns=1, row=0.6 + 0.24 * len(names))
    y = np.arange(len(names))
    axis.plot(found["start"], y, "|", color=INK, markersize=11, label="counted or predicted")
    error = np.where(np.isfinite(found["bootstrap_error"]), found["bootstrap_error"], 0.0)
    # On a logarithmic axis an error as large as the value would reach to 0: it is cut at a hundredth of the value.
    lower = np.minimum(error, 0.99 * found["value"])
    axis.errorbar(found["value"], y - 0.15, xerr=[lower, error], fmt="o", color=BLUE, capsize=2, markersize=4,
                  label="fit, bootstrap")  # fmt: skip
    drawn_ones = np.isfinite(found["posterior_mean"])
    if drawn_ones.any():
        mean, low, high = (found[name] for name in ("posterior_mean", "posterior_5", "posterior_95"))
        axis.errorbar(mean, y + 0.15, xerr=[np.maximum(mean - low, 0), np.maximum(high - mean, 0)], fmt="s",
                      color=ORANGE, capsize=2, markersize=4, label="posterior, 5 to 95 %")  # fmt: skip
    axis.set_xscale("log")
    axis.set_yticks(y, [shortened(one, 24) for one in names])
    axis.invert_yaxis()
    axis.set_xlabel("population")
    legend_over(axis, ncols=3)
    return figure
