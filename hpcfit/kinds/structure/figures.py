"""The figures of a report on structures: energies along the way, where replicas end, and pictures of the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from hpcfit.kinds.structure.files import Trace
from hpcfit.report.drawing import BLUE, GREEN, INK, ORANGE, SEQUENTIAL, SOFT, drawn, shortened
from hpcfit.report.figures import BASELINE, legend_above, panels

COLOURS = (BLUE, ORANGE, GREEN, INK, SOFT)
LINES = ("-", "--", ":")


def _looks(number: int) -> dict[str, str]:
    """The colour and the line of a method."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": LINES[number // len(COLOURS) % len(LINES)]}


@drawn
def traces(found: Mapping[str, Trace], reference: float | None, label: str):
    """Medians with quartiles against gradients, and against CPU seconds."""
    figure, axes = panels(2, columns=2, row=3.2, sharey=True)
    ends = [value for one in found.values() for value in one.upper[-max(len(one.upper) // 2, 1) :]]
    low = min(float(np.min(one.least)) for one in found.values())
    low = low if reference is None else min(low, reference)
    for number, (name, one) in enumerate(found.items()):
        for axis, x in zip(axes, (one.gradients, np.maximum(one.seconds, 1e-6))):
            axis.fill_between(x, one.lower, one.upper, color=_looks(number)["color"], alpha=0.2, linewidth=0)
            axis.plot(x, one.median, label=shortened(name, 24), **_looks(number))
    for axis, x in zip(axes, ("gradients of a replica", "CPU seconds of a replica")):
        if reference is not None:
            axis.axhline(reference, label="known", **BASELINE)
        axis.set(xscale="log", xlabel=x)
    top = max(ends)
    axes[0].set_ylim(low - 0.08 * (top - low), top + 0.25 * (top - low) + 1e-12)
    axes[0].set_ylabel(label)
    legend_above(figure, axes[0])
    return figure


@drawn
def ends(found: Mapping[str, np.ndarray], reference: float | None, label: str):
    """The energies at which replicas end, sorted, by method."""
    figure, axis = plt.subplots(figsize=(9, 0.9 + 0.34 * len(found)))
    for row, energies in enumerate(found.values()):
        spread = np.linspace(-0.28, 0.28, len(energies)) if len(energies) > 1 else np.zeros(1)
        axis.plot(np.sort(energies), row + spread, "o", markersize=3, color=COLOURS[row % len(COLOURS)])
    if reference is not None:
        axis.axvline(reference, **BASELINE)
    axis.set_yticks(range(len(found)), [shortened(name, 28) for name in found])
    axis.invert_yaxis()
    axis.set_xlabel(label)
    return figure


@drawn
def two_sides(structures: Sequence[tuple[str, np.ndarray]], length: str):
    """The best structure of each method from two sides: along its shortest principal axis, and along its longest.

    Particles further away are paler; their colour is their number.
    """
    figure, axes = panels(2 * len(structures), columns=4, row=2.2)
    for number, (name, x) in enumerate(structures):
        centred = x - x.mean(axis=0)
        _, _, directions = np.linalg.svd(centred, full_matrices=False)
        along = centred @ directions.T
        if along.shape[1] < 3:
            along = np.pad(along, ((0, 0), (0, 3 - along.shape[1])))
        for side, (across, up, depth) in enumerate(((0, 1, 2), (1, 2, 0))):
            axis, order = axes[2 * number + side], np.argsort(along[:, depth])
            axis.scatter(
                along[order, across], along[order, up], c=order, cmap=SEQUENTIAL, s=_size(len(x)), linewidths=0
            )
            axis.set_aspect("equal", adjustable="datalim")
            axis.set_title(shortened(name, 22) if side == 0 else "from its end")
    axes[0].set_ylabel(length)
    return figure


def _size(n: int) -> float:
    return float(np.clip(4000 / n, 2, 60))
