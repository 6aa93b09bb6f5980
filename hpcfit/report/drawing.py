"""The looks of figures in a report: style, palette, and SVG that follows the light or dark page.

Everywhere: blue filled circles are the fit, orange triangles its anisotropic part, grey dashes the uniform weights. The
colours (Okabe and Ito's) are told apart by colour-blind readers.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from hpcfit.characters import in_one_line, printable

# Drawn colour -> (name, on paper, in the dark). The drawn ones only mark the place in the SVG.
PALETTE = {
    "#101010": ("ink", "#1b2530", "#e6eaee"),
    "#707070": ("soft", "#57636f", "#a3adb8"),
    "#d0d0d0": ("line", "#d5dbe1", "#38424d"),
    "#0072b2": ("blue", "#0072b2", "#5cb8ee"),
    "#d55e00": ("orange", "#c65400", "#f2a359"),
    "#90c0e0": ("pale", "#a9d0ea", "#24506b"),
    "#009e73": ("green", "#008561", "#3fcf9f"),
}
INK, SOFT, LINE, BLUE, ORANGE, PALE, GREEN = PALETTE
SEQUENTIAL, DIVERGING = "viridis", "RdBu_r"  # colour maps
UNMEASURED = "#8c8c8c"
FEW = 60  # points of a curve that are marked one by one
DPI = 130  # of the pixels of maps inside the SVG
PNG_DPI = 200  # of figures on slides

STYLE = {
    "svg.hashsalt": "hpcfit", "svg.fonttype": "path", "figure.facecolor": "none", "axes.facecolor": "none",
    "savefig.facecolor": "none", "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "legend.fontsize": 8.5,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "text.color": INK, "axes.labelcolor": INK, "axes.titlecolor": INK,
    "axes.edgecolor": SOFT, "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.7, "lines.linewidth": 1.4,
    "lines.markersize": 4, "grid.color": LINE, "grid.linewidth": 0.6, "axes.grid": True, "axes.axisbelow": True,
    "legend.frameon": False, "figure.constrained_layout.use": True, "figure.constrained_layout.w_pad": 0.08,
    "axes.titlelocation": "left", "axes.formatter.useoffset": False,
}  # fmt: skip


_as_png = ContextVar("as_png", default=False)


@contextmanager
def as_png() -> Iterator[None]:
    """Figures that are drawn meanwhile are PNG on white paper, for slides."""
    token = _as_png.set(True)
    try:
        yield
    finally:
        _as_png.reset(token)


def drawn(draw: Callable) -> Callable[..., bytes]:
    """A function that draws a figure, made to use the style of the report and to return SVG, or PNG (``as_png``)."""

    @functools.wraps(draw)
    def wrapper(*args, **kwargs) -> bytes:
        with matplotlib.rc_context(STYLE):
            figure = draw(*args, **kwargs)
            buffer = io.BytesIO()
            if _as_png.get():
                figure.savefig(buffer, format="png", dpi=PNG_DPI, facecolor="white", metadata={"Software": None})
                plt.close(figure)
                return buffer.getvalue()
            figure.savefig(buffer, format="svg", dpi=DPI, metadata={"Date": None, "Creator": "hpcfit"})
            plt.close(figure)
        return _themed(printable(buffer.getvalue().decode())).encode()

    return wrapper


def _themed(svg: str) -> str:
    """Colours of the palette become CSS variables, which the reader's light or dark preference sets."""
    for drawn_colour, (name, _, _) in PALETTE.items():
        svg = svg.replace(drawn_colour, f"var(--{name})")
    light, dark = (" ".join(f"--{entry[0]}: {entry[i]};" for entry in PALETTE.values()) for i in (1, 2))
    css = f"<style>:root {{ {light} }} @media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}</style>"
    start = svg.index(">", svg.index("<svg")) + 1
    return svg[:start] + css + svg[start:]


def index_axis(axis, index: np.ndarray) -> None:
    """Whole numbers along x, at least one unit wide."""
    if len(index) and index[0] == index[-1]:
        axis.set_xlim(index[0] - 0.6, index[0] + 0.6)
    else:
        axis.margins(x=0.02)
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))


def shortened(name: str, length: int) -> str:
    """The name with its middle left out, if it is longer than that; no mathematics is read into a dollar sign, and
    escapes stand for control characters."""
    name = in_one_line(name)
    text = name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[-length // 2 + 1 :]}"
    return text.replace("$", r"\$")
