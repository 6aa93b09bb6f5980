"""The figures of a fitted map: planes of reciprocal space, and observed against calculated intensities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from hpcfit.kinds.frame_weights.planes import Plane, plane_name
from hpcfit.report.drawing import BLUE, DIVERGING, SEQUENTIAL, SOFT, UNMEASURED, drawn

MOST_POINTS = 3000  # orbits that are drawn one by one
BINS = 120  # of the histogram of more orbits, along each axis
CLIPPED = (1, 99)  # percentiles of the observed intensity that the colours span


class Bar(NamedTuple):
    """A colour bar under the maps of columns first ... last - 1, which share one scale."""

    first: int
    last: int
    label: str


TOTAL_BARS = (Bar(0, 2, "intensity, observed scale"), Bar(2, 3, "observed − calculated"))
ANISOTROPIC_BARS = (Bar(0, 2, "intensity − radial curve, observed scale"), Bar(2, 3, "observed − calculated"))


@drawn
def sections(planes: Sequence[Plane], maps: dict[str, np.ndarray], axes_ab: np.ndarray):
    """Rows of planes, columns of maps: "observed" and "calculated" on one colour scale, "difference" centred on 0.

    `maps` has the three maps by orbit [n]; `axes_ab` [2, 2] has a* and b* as columns, A^-1.
    """
    return _grid(planes, maps, axes_ab, (colour_scales(planes, maps), TOTAL_BARS))


@drawn
def anisotropic_sections(planes: Sequence[Plane], maps: dict[str, np.ndarray], axes_ab: np.ndarray):
    """As `sections`, of what a radial curve leaves of the maps: all colours are centred on 0."""
    return _grid(planes, maps, axes_ab, (symmetric_scales(planes, maps), ANISOTROPIC_BARS))


def _grid(planes: Sequence[Plane], maps: dict[str, np.ndarray], axes_ab: np.ndarray, how: tuple[dict, Sequence[Bar]]):
    norms, bars = how
    limits = _limits(planes, axes_ab)
    aspect = (limits[3] - limits[2]) / (limits[1] - limits[0])
    size = (9.2, 0.9 + len(planes) * (0.3 + 2.8 * min(1.6, aspect)))
    figure, grid = plt.subplots(len(planes), len(maps), figsize=size, sharex=True, sharey=True, squeeze=False)
    for row, plane in zip(grid, planes, strict=True):
        for axis, (name, values) in zip(row, maps.items(), strict=True):
            _draw_plane(axis, plane, plane.values(values), (norms[name], axes_ab))
            _frame(axis, limits, axes_ab)
            axis.set_title(f"{plane_name(plane.level)}  {name}")
            axis.label_outer()
    for first, last, label in bars:
        mesh, panels = grid[0, first].collections[0], grid[:, first:last]
        bar = figure.colorbar(
            mesh, ax=panels, location="bottom", extend="both", label=label, aspect=30 * (last - first)
        )
        bar.ax.xaxis.set_major_locator(MaxNLocator(5))
    return figure


def colour_scales(planes: Sequence[Plane], maps: dict[str, np.ndarray]) -> dict[str, Normalize]:
    """The colour scale of each map over all planes; the one of the difference is symmetric about 0."""
    shown = _shown(planes)
    low, high = np.percentile(maps["observed"][shown], CLIPPED)
    same = Normalize(low, high if high > low else low + 1.0)
    return {"observed": same, "calculated": same, "difference": _symmetric(maps["difference"][shown])}


def symmetric_scales(planes: Sequence[Plane], maps: dict[str, np.ndarray]) -> dict[str, Normalize]:
    """As `colour_scales`, all of them symmetric about 0."""
    shown = _shown(planes)
    same = _symmetric(maps["observed"][shown])
    return {"observed": same, "calculated": same, "difference": _symmetric(maps["difference"][shown])}


def _shown(planes: Sequence[Plane]) -> np.ndarray:
    """The orbits that any plane shows."""
    return np.unique(np.concatenate([plane.orbit[plane.orbit >= 0] for plane in planes]))


def _symmetric(values: np.ndarray) -> Normalize:
    limit = np.percentile(np.abs(values), CLIPPED[1]) or 1.0
    return Normalize(-limit, limit)


def _limits(planes: Sequence[Plane], axes_ab: np.ndarray) -> tuple[float, float, float, float]:
    """x and y range (A^-1) of everything measured, half a voxel wider."""
    points = np.concatenate([_measured(plane) @ axes_ab.T for plane in planes])
    half = np.abs(axes_ab) @ np.array([_step(planes[0].h), _step(planes[0].k)]) / 2
    (x_low, y_low), (x_high, y_high) = points.min(axis=0) - half, points.max(axis=0) + half
    return x_low, x_high, y_low, y_high


def _measured(plane: Plane) -> np.ndarray:
    """The (h, k) of the voxels with data [n, 2]."""
    row, column = np.nonzero(plane.orbit >= 0)
    return np.stack([plane.h[column], plane.k[row]], axis=1)


def _draw_plane(axis, plane: Plane, values: np.ndarray, how: tuple[Normalize, np.ndarray]) -> None:
    """A plane in the metric of the reciprocal cell."""
    norm, axes_ab = how
    h, k = np.meshgrid(_edges(plane.h), _edges(plane.k))
    x, y = np.einsum("ij,jkh->ikh", axes_ab, np.stack([h, k]))
    colours = DIVERGING if -norm.vmin == norm.vmax else SEQUENTIAL
    axis.pcolormesh(x, y, np.ma.masked_invalid(values), norm=norm, cmap=colours, rasterized=True)


def _frame(axis, limits: tuple[float, float, float, float], axes_ab: np.ndarray) -> None:
    """Grey where nothing was measured; ticks in unit-cell indices, h along the lower edge, k in horizontal rows."""
    x_low, x_high, y_low, y_high = limits
    (a, b_x), (_, b_y) = axes_ab
    axis.set(xlim=(x_low, x_high), ylim=(y_low, y_high), aspect="equal", facecolor=UNMEASURED, xlabel="h", ylabel="k")
    axis.grid(visible=False)
    _index_ticks(axis.xaxis, (x_low, x_high), (y_low / b_y * b_x, a))
    _index_ticks(axis.yaxis, (y_low, y_high), (0.0, b_y))
    if oblique(axes_ab):
        axis.axline((0, 0), (a, 0), color="black", linewidth=0.5)
        axis.axline((0, 0), (b_x, b_y), color="black", linewidth=0.5)


def oblique(axes_ab: np.ndarray) -> bool:
    """True if a* and b* are not at right angles."""
    return bool(abs(axes_ab[0, 1]) > 1e-6 * axes_ab[1, 1])


def _step(centres: np.ndarray) -> float:
    return centres[1] - centres[0] if len(centres) > 1 else 1.0


def _edges(centres: np.ndarray) -> np.ndarray:
    return np.append(centres - _step(centres) / 2, centres[-1] + _step(centres) / 2)


def _index_ticks(axis, limits: tuple[float, float], line: tuple[float, float]) -> None:
    """Ticks at round unit-cell indices within the limits; an index i lies at start + step * i."""
    start, step = line
    low, high = ((limit - start) / step for limit in limits)
    shown = [i for i in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= i <= high]
    axis.set_major_locator(FixedLocator([start + step * i for i in shown]))
    axis.set_major_formatter(FuncFormatter(lambda at, _: f"{round((at - start) / step, 3) + 0.0:g}".replace("-", "−")))


class Cloud(NamedTuple):
    """The points of one panel of observed against calculated intensities, each [n]."""

    observed: np.ndarray
    calculated: np.ndarray


@drawn
def agreement(clouds: dict[str, Cloud]):
    """Observed against calculated intensities, a panel per cloud; points when few, else a histogram of counts."""
    figure, axes = plt.subplots(1, len(clouds), figsize=(9, 0.6 + 7.6 / len(clouds)), sharex=True, sharey=True)
    low, high = agreement_limits(clouds)
    for axis, name in zip(axes, clouds, strict=True):
        axis.plot([low, high], [low, high], color=SOFT, linestyle="--", linewidth=1)
        axis.set(xlim=(low, high), ylim=(low, high), title=name, xlabel="calculated", ylabel="observed", aspect="equal")
        axis.label_outer()
    if max(len(cloud.observed) for cloud in clouds.values()) <= MOST_POINTS:
        for axis, cloud in zip(axes, clouds.values(), strict=True):
            axis.plot(cloud.calculated, cloud.observed, "o", color=BLUE, markersize=2.5, alpha=0.4, markeredgewidth=0)
    else:
        _histograms(axes, list(clouds.values()), np.linspace(low, high, BINS + 1))
    return figure


def _histograms(axes, clouds: Sequence[Cloud], edges: np.ndarray) -> None:
    """Counts on one logarithmic colour scale for all panels; empty cells stay empty."""
    counts = [np.histogram2d(*cloud, bins=edges)[0] for cloud in clouds]
    norm = LogNorm(1, max(2.0, *(count.max() for count in counts)))
    for axis, count in zip(axes, counts, strict=True):
        shown = np.ma.masked_equal(count, 0)
        mesh = axis.pcolormesh(edges, edges, shown, norm=norm, cmap=SEQUENTIAL, rasterized=True, zorder=0.6)
    axes[0].figure.colorbar(mesh, ax=axes, shrink=0.85, aspect=30, label="orbits per cell")


def agreement_limits(clouds: dict[str, Cloud]) -> tuple[float, float]:
    """The range that holds all but 0.1 % of the values on either side, a little widened."""
    low, high = np.percentile(np.concatenate([values for cloud in clouds.values() for values in cloud]), (0.1, 99.9))
    margin = 0.03 * (high - low) or 1.0
    return low - margin, high + margin


def outside(clouds: dict[str, Cloud]) -> int:
    """The number of points in all panels of `agreement` that lie outside its axes."""
    low, high = agreement_limits(clouds)
    return sum(int(np.sum((np.minimum(*cloud) < low) | (np.maximum(*cloud) > high))) for cloud in clouds.values())
