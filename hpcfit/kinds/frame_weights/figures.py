"""The figures of any fit of frame weights: convergence, and CC per resolution shell."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter

from hpcfit.report.drawing import BLUE, FEW, GREEN, INK, ORANGE, SOFT, drawn, index_axis
from hpcfit.report.figures import BASELINE, legend_over
from hpcfit.runs.history import History

CORRELATIONS = {
    "cc": ("total", BLUE, "o"), "cc_anisotropic": ("anisotropic", ORANGE, "^"), "cc_free": ("free", GREEN, "s"),
}  # fmt: skip
SHELL_CURVES = {
    "cc_star": ("CC*, the ceiling", {"color": INK, "linewidth": 1}),
    "cc_half": ("CC1/2", {"color": INK, "linestyle": ":", "linewidth": 1}),
    "cc_uniform": ("uniform weights", {"color": SOFT, "linestyle": "--", "marker": "s", "markerfacecolor": "none"}),
    "cc": ("fitted weights", {"color": BLUE, "marker": "o"}),
    "cc_free": ("fitted weights, held-out orbits", {"color": GREEN, "marker": "s", "linewidth": 0.9}),
}


@drawn
def convergence(history: History, uniform: dict[str, float]):
    """CC, loss, gradient norm and ESS against evaluations; `uniform` holds the baselines that are known."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 5.2), sharex=True)
    x, marks = _evaluations(history), len(history) <= FEW
    _correlations(axes[0, 0], history, uniform)
    for axis, name in zip(axes.flat[1:], ("loss", "gradient_norm", "ess"), strict=True):
        axis.plot(x, history[name], color=BLUE, marker="o" if marks else "")
    if np.any(history["gradient_norm"] > 0):
        axes[1, 0].set_yscale("log")
    if uniform.get("ess") is not None:
        axes[1, 1].axhline(uniform["ess"], **BASELINE)
    _from_zero_or_logarithmic(axes[1, 1], np.append(history["ess"], uniform.get("ess") or np.nan))
    for axis, title in zip(axes.flat, ("CC", "loss", "gradient norm", "ESS, frames"), strict=True):
        axis.set_title(title)
    for axis in axes[1]:
        axis.set_xlabel("evaluations of this fit")
        index_axis(axis, x)
    return figure


def _evaluations(history: History) -> np.ndarray:
    """Counted from 1: the history counts over all fits."""
    return history["evaluation"] - history["evaluation"][0] + 1


def _correlations(axis, history: History, uniform: dict[str, float]) -> None:
    """Total and anisotropic CC, their baselines dashed in the same colour; the legend beside the title."""
    marks = len(history) <= FEW
    for name, (label, colour, shape) in CORRELATIONS.items():
        if name not in history.columns:
            continue
        axis.plot(_evaluations(history), history[name], color=colour, marker=shape if marks else "", label=label)
        if uniform.get(name) is not None:
            axis.axhline(uniform[name], **BASELINE | {"color": colour})
    if uniform:
        axis.plot([], [], label="uniform weights", **BASELINE)
    legend_over(axis, "right", ncols=4, handlelength=1.3, columnspacing=1.0)


def _from_zero_or_logarithmic(axis, values: np.ndarray) -> None:
    """A linear axis from zero, or a logarithmic one when the values spread over more than a factor of ten."""
    known = values[np.isfinite(values) & (values > 0)]
    if len(known) and known.max() > 10 * known.min():
        axis.set_yscale("log")
    else:
        axis.set_ylim(0, 1.1 * known.max(initial=1.0))


@drawn
def shells(rows: Sequence[dict]):
    """CC per resolution shell on a 1/d axis labelled in A: of the weights, and how precise the map is, where known."""
    low = np.array([1 / row["d_max"] if row["d_max"] else 0.0 for row in rows])
    high = np.array([1 / row["d_min"] for row in rows])
    middle = (low + high) / 2
    figure, axis = plt.subplots(figsize=(9, 3.4))
    for name, (label, style) in SHELL_CURVES.items():
        values = np.array([np.nan if row.get(name) is None else row[name] for row in rows], float)
        if name in ("cc", "cc_uniform") or np.isfinite(values).any():
            axis.plot(middle, values, label=label, **style)
    margin = 0.0 if high[-1] > low[0] else 0.1 * high[-1]  # one shell of symmetry mates has no width
    axis.vlines(np.append(low, high[-1]), 0, 0.03, color=SOFT, transform=axis.get_xaxis_transform(), linewidth=0.8)
    axis.set(
        xlabel="resolution d, Å (axis uniform in 1/d)",
        ylabel="CC in the shell",
        xlim=(low[0] - margin, high[-1] + margin),
    )
    axis.xaxis.set_major_locator(FixedLocator(_resolution_ticks(low[0], high[-1])))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda s, _: f"{1 / s:.3g}" if s > 0 else "∞"))
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=5)
    return figure


def _resolution_ticks(low: float, high: float) -> list[float]:
    """1/d of round values of d, the roundest first, at least a twelfth of the axis apart."""
    ticks: list[float] = []
    for mantissa in (1, 2, 5, 3, 4, 1.5, 2.5, 1.2, 6, 8, 1.8, 3.5, 1.4, 1.6, 2.2, 1.1, 1.3):
        for s in (1 / (mantissa * 10.0**power) for power in range(3, -3, -1)):
            if low <= s <= high and all(abs(s - other) >= (high - low) / 12 for other in ticks):
                ticks.append(s)
    return ticks or [low, high]
