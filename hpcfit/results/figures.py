"""The figures of a report, as SVG that follows the light or dark page. Colours are told apart by colour-blind readers.

Everywhere: blue filled circles are the fit, orange triangles its anisotropic part, grey dashes the uniform weights.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm, Normalize, TwoSlopeNorm
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from hpcfit.results.planes import Plane, plane_name
from hpcfit.results.run_files import History, SourceWeights

# Drawn colour -> (name, on paper, in the dark). The drawn ones only mark the place in the SVG.
PALETTE = {
    "#101010": ("ink", "#1b2530", "#e6eaee"),
    "#707070": ("soft", "#57636f", "#a3adb8"),
    "#d0d0d0": ("line", "#d5dbe1", "#38424d"),
    "#0072b2": ("blue", "#0072b2", "#5cb8ee"),
    "#d55e00": ("orange", "#c65400", "#f2a359"),
    "#90c0e0": ("pale", "#a9d0ea", "#24506b"),
}
INK, SOFT, LINE, BLUE, ORANGE, PALE = PALETTE
UNMEASURED = "#9a9a9a"
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"
DPI = 130  # of the pixels of maps inside the SVG

STYLE = {
    "svg.hashsalt": "hpcfit", "svg.fonttype": "path", "figure.facecolor": "none", "axes.facecolor": "none",
    "savefig.facecolor": "none", "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "legend.fontsize": 8.5,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "text.color": INK, "axes.labelcolor": INK, "axes.titlecolor": INK,
    "axes.edgecolor": SOFT, "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7, "lines.linewidth": 1.4,
    "lines.markersize": 4, "grid.color": LINE, "grid.linewidth": 0.6, "axes.grid": True, "axes.axisbelow": True,
    "legend.frameon": False, "figure.constrained_layout.use": True, "axes.titlelocation": "left",
}  # fmt: skip

FEW = 60  # points that are drawn one by one
MOST_PANELS = 12  # sources that get a panel of their own
BINS = 400  # of a longer trajectory
FLOOR = 1e-3  # smallest weight x T drawn on a logarithmic axis
LINEAR_UP_TO = 12.0  # largest weight x T drawn on a linear axis


def drawn(draw):
    """A figure function in the style of the report, returning SVG bytes instead of a figure."""

    def wrapper(*args, **kwargs) -> bytes:
        with matplotlib.rc_context(STYLE):
            figure = draw(*args, **kwargs)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="svg", dpi=DPI, metadata={"Date": None, "Creator": "hpcfit"})
            plt.close(figure)
        return _themed(buffer.getvalue().decode()).encode()

    wrapper.__name__, wrapper.__doc__ = draw.__name__, draw.__doc__
    return wrapper


def _themed(svg: str) -> str:
    """Colours of the palette become CSS variables, which the reader's light or dark preference sets."""
    for drawn_colour, (name, _, _) in PALETTE.items():
        svg = svg.replace(drawn_colour, f"var(--{name})")
    light, dark = (" ".join(f"--{entry[0]}: {entry[i]};" for entry in PALETTE.values()) for i in (1, 2))
    css = f"<style>:root {{ {light} }} @media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}</style>"
    start = svg.index(">", svg.index("<svg")) + 1
    return svg[:start] + css + svg[start:]


@drawn
def convergence(history: History, uniform: dict[str, float]):
    """CC, loss, gradient norm and ESS against evaluations; `uniform` holds the baselines that are known."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 5.2), sharex=True)
    x = history["evaluation"]
    marker = "o" if len(history) <= FEW else ""
    for name, label, colour, shape in (("cc", "total", BLUE, "o"), ("cc_anisotropic", "anisotropic", ORANGE, "^")):
        axes[0, 0].plot(x, history[name], color=colour, marker=marker and shape, label=label)
        if uniform.get(name) is not None:
            axes[0, 0].axhline(uniform[name], color=colour, linestyle="--", linewidth=1, label=f"{label}, uniform weights")
    axes[0, 0].legend(ncols=2)
    for axis, name in zip(axes.flat[1:], ("loss", "gradient_norm", "ess"), strict=True):
        axis.plot(x, history[name], color=BLUE, marker=marker)
    if np.any(history["gradient_norm"] > 0):
        axes[1, 0].set_yscale("log")
    if uniform.get("ess") is not None:
        axes[1, 1].axhline(uniform["ess"], color=SOFT, linestyle="--", linewidth=1, label="uniform weights")
        axes[1, 1].legend()
    axes[1, 1].set_ylim(bottom=0)
    for axis, title in zip(axes.flat, ("CC", "loss", "gradient norm", "ESS, frames"), strict=True):
        axis.set_title(title)
    for axis in axes[1]:
        axis.set_xlabel("evaluations (passes over the data)")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


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
    axis.vlines(np.append(low, high[-1]), 0, 0.03, color=SOFT, transform=axis.get_xaxis_transform(), linewidth=0.8)
    axis.set(xlabel="resolution d, Å (axis uniform in 1/d)", ylabel="CC in the shell", xlim=(low[0], high[-1]))
    axis.xaxis.set_major_locator(FixedLocator(_resolution_ticks(low[0], high[-1])))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda s, _: f"{1 / s:.3g}" if s > 0 else "∞"))
    axis.legend(loc="best")
    return figure


def _resolution_ticks(low: float, high: float) -> list[float]:
    """1/d of round values of d, at least a twelfth of the axis apart."""
    if high <= low:
        return [high]
    round_d = [m * 10.0**e for e in range(3, -3, -1) for m in (8, 6, 5, 4, 3.5, 3, 2.5, 2.2, 2, 1.8, 1.6, 1.5, 1.4, 1.3, 1.2, 1.1, 1)]
    ticks = []
    for s in (1 / d for d in round_d):
        if low <= s <= high and (not ticks or s - ticks[-1] >= (high - low) / 12):
            ticks.append(s)
    return ticks or [low, high]


@drawn
def weights(sources: Sequence[SourceWeights], n_frames: int):
    """Weight x T along each source: a panel each, or one strip each when there are many."""
    return _strips(sources, n_frames) if len(sources) > MOST_PANELS else _panels(sources, n_frames)


def _panels(sources: Sequence[SourceWeights], n_frames: int):
    columns = 1 if len(sources) == 1 else 2 if len(sources) <= 4 else 3
    rows = -(-len(sources) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(9, 0.4 + 1.75 * rows), sharey=True, squeeze=False)
    largest = max(source.weight.max() for source in sources) * n_frames
    for axis, source in zip(axes.flat, sources, strict=False):
        _trajectory(axis, source.index, source.weight * n_frames, largest > LINEAR_UP_TO)
        axis.set_title(shortened(_title(source, columns), 2 * 62 // columns))
    for axis in axes.flat[len(sources) :]:
        axis.set_visible(False)
    figure.supxlabel("index of the frame in its source", fontsize=9)
    figure.supylabel("weight × T", fontsize=9)
    return figure


def _title(source: SourceWeights, columns: int) -> str:
    name = shortened(source.name if source.label in ("", source.name) else f"{source.label} · {source.name}", 96 // columns)
    return f"{name}\nΣw = {source.weight.sum():.3g}, ESS {effective(source.weight):.3g} of {len(source.weight)}"


def shortened(name: str, length: int) -> str:
    """The name with its middle left out, if it is longer than that; no mathematics is read into a dollar sign."""
    text = name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[-length // 2 + 1 :]}"
    return text.replace("$", r"\$")


def effective(weight: np.ndarray) -> float:
    """Kish effective sample size of weights that need not sum to 1: (sum w)^2 / sum w^2."""
    square = np.square(weight).sum()
    return float(weight.sum() ** 2 / square) if square > 0 else 0.0


def _trajectory(axis, index: np.ndarray, relative: np.ndarray, logarithmic: bool) -> None:
    """One source: points when few, else the range and mean of bins of frames."""
    shown = np.maximum(relative, FLOOR) if logarithmic else relative
    if len(shown) <= FEW:
        axis.vlines(index, np.minimum(1.0, shown), np.maximum(1.0, shown), color=PALE)
        axis.plot(index, shown, "o", color=BLUE)
    elif len(shown) <= BINS:
        axis.plot(index, shown, color=BLUE, linewidth=0.9)
    else:
        x, low, high, mean = (np.array(row) for row in zip(*map(_summary, *_bins(index, shown)), strict=True))
        axis.fill_between(x, low, high, color=PALE, linewidth=0, rasterized=True)
        axis.plot(x, mean, color=BLUE, linewidth=0.9)
    axis.axhline(1.0, color=SOFT, linestyle="--", linewidth=1)
    axis.set_yscale("log" if logarithmic else "linear")
    axis.margins(x=0.02)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if not logarithmic:
        axis.set_ylim(bottom=0)


def _bins(index: np.ndarray, values: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return np.array_split(index, BINS), np.array_split(values, BINS)


def _summary(index: np.ndarray, values: np.ndarray) -> tuple[float, float, float, float]:
    return index.mean(), values.min(), values.max(), values.mean()


def _strips(sources: Sequence[SourceWeights], n_frames: int):
    """A row per source; along it the mean weight x T of up to 200 bins, logarithmic, white where uniform."""
    from matplotlib.colors import SymLogNorm  # noqa: F401  (kept out of the module: only strips need it)

    figure, axis = plt.subplots(figsize=(9, 1.1 + 0.2 * len(sources)))
    image = np.full((len(sources), 200), np.nan)
    for row, source in enumerate(sources):
        parts = np.array_split(source.weight * n_frames, min(200, len(source.weight)))
        means = np.array([part.mean() for part in parts])
        image[row] = means[np.arange(200) * len(means) // 200]
    log = np.log10(np.maximum(image, FLOOR))
    limit = max(0.3, np.abs(log).max())
    mesh = axis.pcolormesh(np.linspace(0, 100, 201), np.arange(len(sources) + 1), log, cmap="PuOr_r",
                           norm=Normalize(-limit, limit), rasterized=True)  # fmt: skip
    return figure
