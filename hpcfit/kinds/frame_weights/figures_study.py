"""The figures of the fits beside the final one: from several starts, at several strengths theta of the prior."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from hpcfit.kinds.frame_weights.numbers import Measure
from hpcfit.report import figures
from hpcfit.report.drawing import BLUE, GREEN, INK, LINE, ORANGE, SOFT, drawn, shortened
from hpcfit.report.figures import BASELINE, Scan, legend_over, ring

# Okabe and Ito's colours, those of the palette first: neighbours in a bar are told apart by colour-blind readers.
GROUP_COLOURS = (BLUE, "#e69f00", GREEN, "#cc79a7", "#56b4e9", ORANGE, "#f0e442", SOFT)
MOST_GROUPS = len(GROUP_COLOURS) - 1  # that get a colour; the rest are one
OTHERS = "others"
APART = 0.04  # of the axes' ranges: points nearer than that to a labelled one get no label


@drawn
def starts(rows: Sequence[dict[str, Any]]):
    """A bar for each start, best misfit on top, of the summed weights of the groups."""
    sums = grouped_sums(rows)
    figure, axis = plt.subplots(figsize=(9, 1.1 + 0.34 * len(rows)))
    y, left = np.arange(len(rows)), np.zeros(len(rows))
    for (name, weight), colour in zip(sums.items(), GROUP_COLOURS):
        axis.barh(y, weight, left=left, height=0.72, color=colour, label=shortened(name, 24), edgecolor=LINE)
        left += weight
    axis.set_yticks(y, [shortened(row["start"], 30) for row in rows])
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.set(xlabel="summed weight of each group", ylabel="start", xlim=(0, left.max()))
    legend_over(axis, ncols=4)
    return figure


def grouped_sums(rows: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Summed weight of each group at each start, [starts]; the smallest of too many groups as one."""
    sums = {name: np.array([row["groups"][name] for row in rows]) for name in rows[0]["groups"]}
    if len(sums) <= MOST_GROUPS + 1:
        return sums
    kept = set(sorted(sums, key=lambda name: -sums[name].max())[:MOST_GROUPS])
    rest = np.sum([weight for name, weight in sums.items() if name not in kept], axis=0)
    return {name: weight for name, weight in sums.items() if name in kept} | {OTHERS: rest}


@drawn
def l_curve(rows: Sequence[dict[str, Any]], chosen: float | None, measure: Measure):
    """Measure of the fitted orbits against the KL divergence from the prior: a point a theta, the chosen one ringed."""
    figure, axis = plt.subplots(figsize=(9, 3.6))
    kl, gained = (np.array([row[name] for row in rows], float) for name in ("kl", measure.name))
    axis.plot(kl, gained, "o-", color=BLUE)
    for number in labelled(np.stack([kl, gained], axis=1)):
        at = kl[number], gained[number]
        label = f"{rows[number]['theta']:g}"
        axis.annotate(label, at, (6, -11), textcoords="offset points", fontsize=8, color=INK)
    ringed = np.array([row["theta"] == chosen for row in rows])
    if ringed.any():
        ring(axis, kl[ringed], gained[ringed], f"chosen: theta = {chosen:g}")
        axis.legend(loc="best")
    axis.margins(x=0.08, y=0.12)
    axis.set(xlabel="KL divergence from the prior weights, nats", ylabel=f"{measure.title} of the fitted orbits",
             title="at the points: theta")  # fmt: skip
    return figure


def labelled(points: np.ndarray) -> list[int]:
    """The points [n, 2] whose labels do not lie on each other, in the order given."""
    scaled = points / np.where(np.ptp(points, axis=0) > 0, np.ptp(points, axis=0), 1.0)
    chosen: list[int] = []
    for number, point in enumerate(scaled):
        if all(np.abs(point - scaled[other]).max() >= APART for other in chosen):
            chosen.append(number)
    return chosen


def theta_scan(
    rows: Sequence[dict[str, Any]], curve: Sequence[dict[str, Any]], chosen: float | None, measures: Sequence[Measure]
) -> bytes:
    """A panel for each measure: of held-out orbits with errors, of the fits to all orbits, and of the prior weights.

    rows, curve: of the cross-validation and the L-curve, largest theta first; thetas are drawn evenly spaced.
    """
    prior, *tried = rows[0], *rows[:0:-1]
    fits = {row["theta"]: row for row in curve}
    scans = [_theta_scan(measure, prior, tried, fits, chosen) for measure in measures]
    return figures.scan(scans, ("theta", ""), height=2.9)


def _theta_scan(
    measure: Measure, prior: dict[str, Any], tried: Sequence[dict[str, Any]], fits: dict[float, dict[str, Any]],
    chosen: float | None,
) -> Scan:  # fmt: skip
    thetas, places = [row["theta"] for row in tried], np.arange(len(tried))
    mean, error = (np.array([row[name] for row in tried], float) for name in (measure.free, f"{measure.free}_error"))
    fitted = [fits[theta][measure.name] if theta in fits else np.nan for theta in thetas]
    at = thetas.index(chosen) if chosen in thetas else None
    lines = [
        lambda axis: _prior_level(axis, prior, measure),
        lambda axis: axis.errorbar(places, mean, yerr=error, fmt="s-", color=GREEN, capsize=3, label="held out"),
        lambda axis: axis.plot(places, fitted, "o-", color=BLUE, label="fitted"),
    ]
    return Scan(measure.title, places, [f"{theta:g}" for theta in thetas], lines,
                None if at is None else (at, mean[at], "chosen"))  # fmt: skip


def _prior_level(axis, prior: dict[str, Any], measure: Measure) -> None:
    """The level of the prior weights over the same folds, and its error as a band."""
    level, width = prior[measure.free], prior[f"{measure.free}_error"]
    axis.axhline(level, label="prior weights, held out", **BASELINE)
    axis.axhspan(level - width, level + width, color=LINE, alpha=0.5, linewidth=0)
