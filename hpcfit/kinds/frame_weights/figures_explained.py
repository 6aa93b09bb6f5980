"""The figures of what weights mean: slopes on numbers of the frames, and free-energy profiles along them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from hpcfit.report.drawing import BLUE, ORANGE, SOFT, drawn, shortened
from hpcfit.report.figures import BASELINE, band, legend_above, legend_over, panels


@drawn
def slopes(alone: Sequence[dict[str, Any]], together: dict[str, Any] | None):
    """Slopes times the spread of their number, kJ/mol, from top to bottom; a mark for each fit."""
    figure, axis = plt.subplots(figsize=(9, 1.0 + 0.36 * len(alone)))
    y = np.arange(len(alone))
    axis.axvline(0, **BASELINE)
    _marks(axis, y, [(one["slopes"][0], one["errors"][0], one["spread"][0]) for one in alone], "o", BLUE, "alone")
    if together:
        rows = list(zip(together["slopes"], together["errors"], together["spread"]))[: len(alone)]
        _marks(axis, y + 0.2, rows, "D", ORANGE, "together")
    axis.set_yticks(y, [shortened(one["names"][0], 36) for one in alone])
    axis.set(ylim=(len(alone) - 0.4, -0.6), xlabel="energy of one standard deviation, kJ/mol")
    legend_over(axis, "right")
    return figure


def _marks(axis: Any, y: np.ndarray, rows: Sequence[tuple], marker: str, colour: str, label: str) -> None:
    """A value with its bar for each row of (slope, its error or None, spread)."""
    value = np.array([slope * spread for slope, _, spread in rows])
    error = np.array([np.nan if error is None else error * spread for _, error, spread in rows])
    axis.errorbar(value, y, xerr=error, fmt=marker, color=colour, markersize=5, capsize=3, label=label)


@drawn
def profiles(found: Sequence[dict[str, Any]]):
    """Free energy of each bin along a number, before and after the fit; a panel a number."""
    figure, axes = panels(len(found), row=2.3, margin=0.5)
    for axis, one in zip(axes, found):
        edges = np.array(one["edges"])
        middle = (edges[1:] + edges[:-1]) / 2
        for when, colour, above in (("before", SOFT, 0), ("after", BLUE, 1)):
            band(axis, middle, _array(one[when]), _array(one[f"{when}_error"]), colour, f"{when} the fit", above)
        axis.set(xlabel=shortened(one["name"], 40))
    axes[0].set_ylabel("−kT ln p, kJ/mol")
    legend_above(figure, axes[0])
    return figure


def _array(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])
