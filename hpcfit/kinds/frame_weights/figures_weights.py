"""The figures of fitted weights: along each source, and sums over groups with their errors."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.ticker import FuncFormatter

from hpcfit.kinds.frame_weights.files import SourceWeights
from hpcfit.report.drawing import BLUE, FEW, PALE, drawn, index_axis, shortened
from hpcfit.report.figures import BASELINE, panels

MOST_PANELS = 12  # sources that get a panel of their own
BINS = 400  # of a longer trajectory
FLOOR = 1e-3  # smallest weight x T drawn on a logarithmic axis
STRIP_BINS = 200
STRIP_COLOURS = "PuOr_r"
LINEAR_UP_TO = 12.0  # largest weight x T drawn on a linear axis


@drawn
def weights(sources: Sequence[SourceWeights], n_frames: int):
    """Weight x T along each source: a panel each, or one strip each when there are many."""
    return _strips(sources, n_frames) if len(sources) > MOST_PANELS else _panels(sources, n_frames)


def weights_drawn(sources: Sequence[SourceWeights], n_frames: int) -> list[str]:
    """A description in words of the figure `weights` of these sources: shape, look of the baseline, then notes."""
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
    figure, axes = panels(len(sources), columns, row=1.75, margin=0.4, sharey=True)
    largest = _largest(sources, n_frames)
    for axis, source in zip(axes, sources):
        _trajectory(axis, source.index, source.weight * n_frames, largest > LINEAR_UP_TO)
        axis.set_title(_title(source, columns))
    if largest <= LINEAR_UP_TO:
        lowest = min(0.0, float(min(source.weight.min() for source in sources)) * n_frames)
        axes[0].set_ylim(1.08 * lowest, 1.08 * max(largest, 1.2))
    figure.supxlabel("index of the frame in its source", fontsize=9)
    figure.supylabel("weight × T", fontsize=9)
    return figure


def _title(source: SourceWeights, columns: int) -> str:
    share, ess = source.weight.sum(), compact(effective(source.weight))
    return f"{_name(source, 96 // columns)}\nΣw = {share:.3g}, ESS {ess} of {len(source.weight)}"


def _name(source: SourceWeights, length: int) -> str:
    """Label and name of a source, no longer than that."""
    return shortened(source.name if source.label in ("", source.name) else f"{source.label} · {source.name}", length)


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
    axis.axhline(1.0, **BASELINE)
    axis.set_yscale("log" if logarithmic else "linear")
    index_axis(axis, index)


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
