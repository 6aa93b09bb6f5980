"""The figures of a report on structures: energies along the way, where replicas end, and pictures of the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from hpcfit.kinds.structure.files import Trace
from hpcfit.report.drawing import BLUE, GREEN, INK, ORANGE, SOFT, drawn, index_axis, shortened
from hpcfit.report.figures import legend_above, panels

COLOURS = (BLUE, ORANGE, GREEN, INK, SOFT)
LINES = ("-", "--", ":")


def _looks(number: int) -> dict[str, str]:
    """The colour and the line of a method."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": LINES[number // len(COLOURS) % len(LINES)]}


@drawn
def traces(found: Mapping[str, Trace], floor: float, label: str):
    """Medians with quartiles above a floor against gradients, and against CPU seconds."""
    figure, axes = panels(2, columns=2, row=3.2, sharey=True)
    least = _least_above(floor, [one.lower for one in found.values()])
    for number, (name, one) in enumerate(found.items()):
        lower, median, upper = (np.maximum(values - floor, least) for values in (one.lower, one.median, one.upper))
        for axis, x in zip(axes, (one.gradients, np.maximum(one.seconds, 1e-6))):
            axis.fill_between(x, lower, upper, color=_looks(number)["color"], alpha=0.15, linewidth=0)
            axis.plot(x, median, label=shortened(name, 24), **_looks(number))
    for axis, x in zip(axes, ("gradients of a replica", "CPU seconds of a replica")):
        axis.set(xscale="log", yscale="log", xlabel=x)
    axes[0].set_ylabel(label)
    legend_above(figure, axes[0])
    return figure


@drawn
def ends(found: Mapping[str, np.ndarray], floor: float, label: str):
    """The energies above a floor at which replicas end, by method."""
    figure, axis = plt.subplots(figsize=(9, 0.9 + 0.34 * len(found)))
    least = _least_above(floor, list(found.values()))
    for row, energies in enumerate(found.values()):
        spread = np.linspace(-0.28, 0.28, len(energies)) if len(energies) > 1 else np.zeros(1)
        above = np.maximum(np.sort(energies) - floor, least)
        axis.plot(above, row + spread, "o", markersize=3, color=COLOURS[row % len(COLOURS)])
    axis.set_xscale("log")
    axis.set_yticks(range(len(found)), [shortened(name, 28) for name in found])
    axis.invert_yaxis()
    axis.set_xlabel(label)
    return figure


@drawn
def energy_and_rmsd(energies: Mapping[str, np.ndarray], deviations: Mapping[str, np.ndarray], unit: str, length: str):
    """The energy of every replica against its RMSD from a reference structure, by method."""
    figure, [axis] = panels(1, columns=1, row=3.4)
    for number, (name, energy) in enumerate(energies.items()):
        colour = COLOURS[number % len(COLOURS)]
        axis.plot(deviations[name], energy, "o", markersize=4, color=colour, alpha=0.7, label=shortened(name, 24))
    axis.set(xlabel=f"RMSD from the reference, {length}", ylabel="energy" + (f", {unit}" if unit else ""))
    axis.set_xlim(left=0)
    legend_above(figure, axis)
    return figure


def _least_above(floor: float, energies: Sequence[np.ndarray]) -> float:
    """The height at which what is not above the floor is drawn: below all that is."""
    above = np.concatenate([np.ravel(one) for one in energies]) - floor
    above = above[np.isfinite(above) & (above > 1e-9 * max(abs(floor), 1e-300))]
    return 0.5 * float(np.min(above)) if len(above) else 1.0


@drawn
def spectrum(values: np.ndarray, participation: np.ndarray):
    """Eigenvalues of modes, and the number of particles in each."""
    figure, axes = panels(2, columns=2, row=2.4)
    for axis, y, label in zip(axes, (values, participation), ("eigenvalue", "particles that take part")):
        axis.plot(np.arange(1, len(y) + 1), y, "o", color=BLUE)
        axis.set(xlabel="mode", ylabel=label)
        index_axis(axis, np.arange(1, len(y) + 1))
    axes[0].set_ylim(bottom=0)
    return figure
