"""The figures of force fields of beads: potentials, mean force, neural fits, and free energies of simulations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from hpcfit.kinds.force_map.figures import style
from hpcfit.kinds.force_map.files import Exact, FreeEnergy, Potential, Slow
from hpcfit.report import figures
from hpcfit.report.drawing import BLUE, INK, SEQUENTIAL, SOFT, drawn, shortened
from hpcfit.report.figures import BASELINE, Learning, band, legend_above, panels

COLUMNS = 4
NEAR = 0.7  # of the least residual: from where on a noise floor is drawn
ANGULAR = ("angles", "dihedrals")
MODEL, REFERENCE = (BLUE, "model"), (SOFT, "mapped frames")


@drawn
def potentials(terms: Sequence[Mapping[str, Potential]], exact: Exact | None, limit: float):
    """A panel a term, of each map by its name: U with its error. exact: drawn with terms of pairs; limit: the highest
    energy that is drawn, kJ/mol."""
    columns = COLUMNS if len(terms) > COLUMNS else 2
    figure, axes = panels(len(terms), columns, row=2.2 if columns == COLUMNS else 2.8, margin=0.8)
    for axis, of_map in zip(axes, terms):
        _term(axis, of_map, exact, limit)
    for axis in axes[::columns]:
        axis.set_ylabel("U, kJ/mol")
    legend_above(figure, max(axes, key=lambda axis: len(axis.get_legend_handles_labels()[0])))
    return figure


def _term(axis, of_map: Mapping[str, Potential], exact: Exact | None, limit: float) -> None:
    first = next(iter(of_map.values()))
    for number, (name, one) in enumerate(of_map.items()):
        band(axis, _shown(one), one.U - one.U.min(), one.error, (BLUE, SOFT)[number > 0], name,
              len(of_map) - number)  # fmt: skip
    if exact is not None and first.kind == "pairs":
        axis.plot(exact.r, exact.U - exact.U.min(), color=INK, linestyle="--", linewidth=1, label="exact")
    span = _shown(first)
    highest = min(limit, 1.05 * max(float(np.ptp(one.U)) for one in of_map.values()) or 1.0)
    axis.set(title=shortened(f"{first.kind} {first.label}", 30), xlim=(span.min(), span.max()),
             ylim=(-0.04 * highest, highest), xlabel="degrees" if first.kind in ANGULAR else "Å")  # fmt: skip
    axis.xaxis.set_major_locator(MaxNLocator(5))


def _shown(one: Potential) -> np.ndarray:
    return np.degrees(one.q) if one.kind in ANGULAR else one.q


@drawn
def mean_force(of_map: Mapping[str, Potential], exact: Exact, factor: float, unit: str):
    """Left: the force between two beads of each map's potential and the exact one; right: their differences."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    inside = [(one.q >= exact.r[0]) & (one.q <= exact.r[-1]) for one in of_map.values()]
    for kept, (name, one) in zip(inside, of_map.items()):
        r, f = one.q[kept], -one.dU[kept] * factor
        how = {"color": style(name)["color"], "label": name}
        left.plot(r, f, **how)
        right.plot(r, f - np.interp(r, exact.r, exact.f) * factor, **how)
    left.plot(exact.r, exact.f * factor, color=INK, linestyle="--", linewidth=1, label="exact")
    right.axhline(0.0, color=INK, linestyle="--", linewidth=1)
    shown = [one.q[kept] for kept, one in zip(inside, of_map.values()) if kept.any()]
    low, high = min(r[0] for r in shown), max(r[-1] for r in shown)
    for axis, title in ((left, f"force, {unit}"), (right, f"fitted − exact, {unit}")):
        axis.set(title=title, xlabel="distance, Å", xlim=(low, high))
    within = (exact.r >= low) & (exact.r <= high)
    bottom, top = (of(exact.f[within]) * factor for of in (np.min, np.max))
    left.set_ylim(1.3 * bottom, min(1.15 * top, -1.5 * bottom) if bottom < 0 < top else None)
    legend_above(figure, left)
    return figure


class FitCurve(NamedTuple):
    """A fit of a neural potential. Each [evaluations], in the unit of the report; levels where they are known."""

    name: str
    residual: np.ndarray
    residual_free: np.ndarray
    linear: float | None
    floor: float | None


def fits(curves: Sequence[FitCurve], unit: str) -> bytes:
    """A panel for each fit: residuals of fitted and of held-out frames."""
    return figures.learning([_learning(one) for one in curves], ("evaluations of this fit", f"residual, {unit}"),
                            logarithmic=False)  # fmt: skip


def _learning(one: FitCurve) -> Learning:
    levels = [(one.linear, "linear force field, held out", BASELINE)] if one.linear is not None else []
    if one.floor and one.floor > NEAR * np.nanmin(one.residual):
        levels.append((one.floor, "noise floor", {"color": INK, "linestyle": ":", "linewidth": 1}))
    x = np.arange(1, len(one.residual) + 1)
    return Learning(one.name, x, one.residual, one.residual_free, levels=levels)


@drawn
def profiles(found: Sequence[FreeEnergy]):
    """A panel for each coordinate: free energies of mapped frames and model."""
    figure, axes = panels(len(found), len(found), sharey=True)
    for axis, one in zip(axes, found):
        band(axis, one.x, one.reference, one.reference_error, *REFERENCE)
        band(axis, one.x, one.model, one.model_error, *MODEL)
        axis.set(xlabel=f"{one.label}, Å", title=f"JS = {one.divergence:.3g}")
        axis.set_ylim(bottom=0)
    axes[0].set_ylabel("free energy, kJ/mol")
    legend_above(figure, axes[0])
    return figure


@drawn
def slow(found: Slow):
    """Free energies in two slow coordinates, on one colour scale."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.0), sharex=True, sharey=True)
    known = np.concatenate([F[np.isfinite(F)] for F in (found.reference, found.model)])
    for axis, (F, title) in zip(axes, ((found.reference, REFERENCE[1]), (found.model, MODEL[1]))):
        mesh = axis.pcolormesh(found.edges_x, found.edges_y, np.ma.masked_invalid(F).T, vmin=0, vmax=known.max(),
                               cmap=f"{SEQUENTIAL}_r", rasterized=True)  # fmt: skip
        axis.set(title=title, xlabel="slowest coordinate")
    axes[0].set_ylabel("second slowest coordinate")
    figure.colorbar(mesh, ax=axes, label="free energy, kJ/mol", aspect=24, pad=0.01)
    return figure
