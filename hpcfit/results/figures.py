"""The figures of a fit of weights: convergence, CC per resolution shell, weights along each trajectory."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from hpcfit.results.drawing import BLUE, GREEN, ORANGE, PALE, SOFT, drawn
from hpcfit.results.run_files import History, SourceWeights

FEW = 60  # points that are drawn one by one
MOST_PANELS = 12  # sources that get a panel of their own
BINS = 400  # of a longer trajectory
FLOOR = 1e-3  # smallest weight x T drawn on a logarithmic axis
STRIP_BINS = 200
STRIP_COLOURS = "PuOr_r"
CORRELATIONS = {
    "cc": ("total", BLUE, "o"), "cc_anisotropic": ("anisotropic", ORANGE, "^"), "cc_free": ("free", GREEN, "s"),
}  # fmt: skip
LINEAR_UP_TO = 12.0  # largest weight x T drawn on a linear axis


@drawn
def convergence(history: History, uniform: dict[str, float]):
    """CC, loss, gradient norm and ESS against evaluations; `uniform` holds the baselines that are known."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 5.2), sharex=True)
    x, marks = history["evaluation"], len(history) <= FEW
    _correlations(axes[0, 0], history, uniform)
    for axis, name in zip(axes.flat[1:], ("loss", "gradient_norm", "ess"), strict=True):
        axis.plot(x, history[name], color=BLUE, marker="o" if marks else "")
    if np.any(history["gradient_norm"] > 0):
        axes[1, 0].set_yscale("log")
    if uniform.get("ess") is not None:
        axes[1, 1].axhline(uniform["ess"], color=SOFT, linestyle="--", linewidth=1)
    _from_zero_or_logarithmic(axes[1, 1], np.append(history["ess"], uniform.get("ess") or np.nan))
    for axis, title in zip(axes.flat, ("CC", "loss", "gradient norm", "ESS, frames"), strict=True):
        axis.set_title(title)
    for axis in axes[1]:
        axis.set_xlabel("evaluations (passes over the data)")
        _index_axis(axis, x)
    return figure


def _correlations(axis, history: History, uniform: dict[str, float]) -> None:
    """Total and anisotropic CC, their baselines dashed in the same colour; the legend beside the title."""
    marks = len(history) <= FEW
    for name, (label, colour, shape) in CORRELATIONS.items():
        if name not in history.columns:
            continue
        axis.plot(history["evaluation"], history[name], color=colour, marker=shape if marks else "", label=label)
        if uniform.get(name) is not None:
            axis.axhline(uniform[name], color=colour, linestyle="--", linewidth=1)
    if uniform:
        axis.plot([], [], color=SOFT, linestyle="--", linewidth=1, label="uniform weights")
    axis.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, borderpad=0, borderaxespad=0.3, handlelength=1.8)


def _from_zero_or_logarithmic(axis, values: np.ndarray) -> None:
    """A linear axis from zero, or a logarithmic one when the values spread over more than a factor of ten."""
    known = values[np.isfinite(values) & (values > 0)]
    if len(known) and known.max() > 10 * known.min():
        axis.set_yscale("log")
    else:
        axis.set_ylim(0, 1.1 * known.max(initial=1.0))


def _index_axis(axis, index: np.ndarray) -> None:
    """Whole numbers along x, at least one unit wide."""
    if len(index) and index[0] == index[-1]:
        axis.set_xlim(index[0] - 0.6, index[0] + 0.6)
    else:
        axis.margins(x=0.02)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


@drawn
def shells(rows: Sequence[dict]):
    """CC per resolution shell, fitted and uniform, on a 1/d axis labelled in A."""
    low = np.array([1 / row["d_max"] if row["d_max"] else 0.0 for row in rows])
    high = np.array([1 / row["d_min"] for row in rows])
    middle = (low + high) / 2
    figure, axis = plt.subplots(figsize=(9, 3.4))
    for name, label, style in (
        ("cc_uniform", "uniform weights", {"color": SOFT, "linestyle": "--", "marker": "s", "markerfacecolor": "none"}),
        ("cc", "fitted weights", {"color": BLUE, "marker": "o"}),
    ):
        values = np.array([np.nan if row[name] is None else row[name] for row in rows], float)
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
    axis.legend(loc="best")
    return figure


def _resolution_ticks(low: float, high: float) -> list[float]:
    """1/d of round values of d, the roundest first, at least a twelfth of the axis apart."""
    ticks: list[float] = []
    for mantissa in (1, 2, 5, 3, 4, 1.5, 2.5, 1.2, 6, 8, 1.8, 3.5, 1.4, 1.6, 2.2, 1.1, 1.3):
        for s in (1 / (mantissa * 10.0**power) for power in range(3, -3, -1)):
            if low <= s <= high and all(abs(s - other) >= (high - low) / 12 for other in ticks):
                ticks.append(s)
    return ticks or [low, high]


@drawn
def weights(sources: Sequence[SourceWeights], n_frames: int):
    """Weight x T along each source: a panel each, or one strip each when there are many."""
    return _strips(sources, n_frames) if len(sources) > MOST_PANELS else _panels(sources, n_frames)


def weights_drawn(sources: Sequence[SourceWeights], n_frames: int) -> list[str]:
    """How `weights` draws these sources, in words: shape, look of the baseline, then notes."""
    strips, longest = len(sources) > MOST_PANELS, max(len(source.weight) for source in sources)
    words = [f"a row for each source, means of up to {STRIP_BINS} stretches", "white"]
    if not strips:
        words = ["a panel for each source", "dashed"]
    if not strips and longest > BINS:
        words.append(f"Sources of more than {BINS} frames: line, mean of {BINS} stretches; band, their range.")
    if strips or _largest(sources, n_frames) > LINEAR_UP_TO:
        words.append(f"Values below {FLOOR:g} are drawn at {FLOOR:g}.")
    return words


def _largest(sources: Sequence[SourceWeights], n_frames: int) -> float:
    return float(max(source.weight.max() for source in sources) * n_frames)


def _panels(sources: Sequence[SourceWeights], n_frames: int):
    columns = 1 if len(sources) == 1 else 2 if len(sources) <= 4 else 3
    rows = -(-len(sources) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(9, 0.4 + 1.75 * rows), sharey=True, squeeze=False)
    largest = _largest(sources, n_frames)
    for axis, source in zip(axes.flat, sources, strict=False):
        _trajectory(axis, source.index, source.weight * n_frames, largest > LINEAR_UP_TO)
        axis.set_title(_title(source, columns))
    if largest <= LINEAR_UP_TO:
        axes[0, 0].set_ylim(0, 1.08 * max(largest, 1.2))
    for axis in axes.flat[len(sources) :]:
        axis.set_visible(False)
    figure.supxlabel("index of the frame in its source", fontsize=9)
    figure.supylabel("weight × T", fontsize=9)
    return figure


def _title(source: SourceWeights, columns: int) -> str:
    share, ess = source.weight.sum(), compact(effective(source.weight))
    return f"{_name(source, 96 // columns)}\nΣw = {share:.3g}, ESS {ess} of {len(source.weight)}"


def _name(source: SourceWeights, length: int) -> str:
    """Label and name of a source, no longer than that."""
    return shortened(source.name if source.label in ("", source.name) else f"{source.label} · {source.name}", length)


def shortened(name: str, length: int) -> str:
    """The name with its middle left out, if it is longer than that; no mathematics is read into a dollar sign."""
    text = name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[-length // 2 + 1 :]}"
    return text.replace("$", r"\$")


def compact(value: float) -> str:
    """Three significant digits, never a power of ten."""
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def effective(weight: np.ndarray) -> float:
    """Kish effective sample size of weights that need not sum to 1: (sum w)^2 / sum w^2."""
    square = np.square(weight).sum()
    return float(weight.sum() ** 2 / square) if square > 0 else 0.0


def _trajectory(axis, index: np.ndarray, relative: np.ndarray, logarithmic: bool) -> None:
    """One source: points when few, else the range and mean of bins of frames."""
    shown = np.maximum(relative, FLOOR) if logarithmic else relative
    if len(shown) <= BINS:
        axis.vlines(index, 1.0, np.maximum(1.0, shown) if logarithmic else shown, color=PALE, linewidth=1)
        axis.plot(index, shown, "o", color=BLUE, markersize=4 if len(shown) <= FEW else 1.8)
    else:
        x, low, high, mean = (np.array(row) for row in zip(*map(_summary, *_bins(index, shown)), strict=True))
        axis.fill_between(x, low, high, color=PALE, linewidth=0)
        axis.plot(x, mean, color=BLUE, linewidth=0.9)
    axis.axhline(1.0, color=SOFT, linestyle="--", linewidth=1)
    axis.set_yscale("log" if logarithmic else "linear")
    _index_axis(axis, index)


def _bins(index: np.ndarray, values: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return np.array_split(index, BINS), np.array_split(values, BINS)


def _summary(index: np.ndarray, values: np.ndarray) -> tuple[float, float, float, float]:
    return index.mean(), values.min(), values.max(), values.mean()


def _strips(sources: Sequence[SourceWeights], n_frames: int):
    """A row per source; along it the mean weight x T of up to STRIP_BINS bins, logarithmic, white where uniform."""
    figure, axis = plt.subplots(figsize=(9, 1.2 + 0.2 * len(sources)))
    image = np.array([_binned(source.weight * n_frames) for source in sources])
    logarithm = np.log10(np.maximum(image, FLOOR))
    limit = max(np.log10(2), np.abs(logarithm).max())
    edges = np.linspace(0, 100, STRIP_BINS + 1), np.arange(len(sources) + 1)
    mesh = axis.pcolormesh(*edges, logarithm, cmap=STRIP_COLOURS, norm=Normalize(-limit, limit), rasterized=True)
    axis.set_yticks(np.arange(len(sources)) + 0.5, [_name(source, 36) for source in sources])
    axis.invert_yaxis()
    axis.grid(visible=False)
    axis.tick_params(axis="y", length=0, labelsize=7.5)
    axis.set_xlabel("position in the source, % of its frames")
    right = axis.secondary_yaxis("right")
    ess = [compact(effective(source.weight)) for source in sources]
    sums = [f"{s.weight.sum():.2g} · {e}/{len(s.weight)}" for s, e in zip(sources, ess, strict=True)]
    right.set_yticks(np.arange(len(sources)) + 0.5, sums)
    right.tick_params(axis="y", length=0, labelsize=7.5)
    axis.set_title("Σw · ESS/frames", loc="right", fontsize=7.5)
    colours = figure.colorbar(mesh, ax=axis, location="bottom", shrink=0.5, aspect=40, label="mean weight × T")
    colours.ax.xaxis.set_major_formatter(FuncFormatter(lambda power, _: f"{10.0**power:.6f}".rstrip("0").rstrip(".")))
    return figure


def _binned(relative: np.ndarray) -> np.ndarray:
    """Mean of up to STRIP_BINS bins, repeated to fill STRIP_BINS columns."""
    parts = np.array_split(relative, min(STRIP_BINS, len(relative)))
    means = np.array([part.mean() for part in parts])
    return means[np.arange(STRIP_BINS) * len(means) // STRIP_BINS]
