"""The maps in a report on kind "frame-weights": resolution shells, planes, observed against calculated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hpcfit.kinds.frame_weights.files import FrameWeightsRun, Orbits
from hpcfit.kinds.frame_weights.observed import splines
from hpcfit.kinds.frame_weights.planes import (
    Plane,
    anisotropic,
    choose_levels,
    plane,
    plane_axes,
    plane_name,
    scaled_to,
)
from hpcfit.report.page import Figure, Section, Table, Text, change, correlation, grouped, number, plural

PRECISION_COLUMNS = {"cc_free": "CC free", "cc_half": "CC1/2", "cc_star": "CC*"}
SHELLS = (
    "CC in each resolution shell (short strokes: its limits). Grey squares are the baseline, uniform weights. The fit "
    "should lie above it in every shell; a gain at low resolution alone is a better radial profile, not better "
    "structure."
)
SHELLS_FREE = " Green squares: held-out orbits of the shell; below the fitted ones by what the weights follow of noise."
SHELLS_CEILING = (
    " Black: CC*, the correlation of the whole map with the intensity without noise, which no right model exceeds but "
    "by chance, and dotted CC1/2, of halves of the data with each other; both known from the {source} of the map."
)
ABOVE_CEILING = (
    "Above the ceiling: {where} CC of the fitted orbits exceeds CC*, by more than twice its standard error. Weights "
    "that agree with the map better than the truth would follow its noise, or the errors of the map are smaller than "
    "it says."
)


def shells(run: FrameWeightsRun) -> Section:
    """CC per resolution shell, beside what held-out orbits and the precision of the map allow."""
    from hpcfit.kinds.frame_weights import figures

    rows, quality = run.metrics["shells"], run.metrics.get("quality")
    more = {name: title for name, title in PRECISION_COLUMNS.items() if any(row.get(name) is not None for row in rows)}
    head = ("d_max, Å", "d_min, Å", "orbits", "CC fitted", "CC uniform", "gain", *more.values())
    table = Table(head, [_shell_cells(row, list(more)) for row in rows], "CC per resolution shell.", text_columns=0)
    caption = SHELLS + (SHELLS_FREE if "cc_free" in more else "")
    caption += SHELLS_CEILING.format(source=quality["source"]) if quality else ""
    picture = Figure(figures.shells(rows), "CC per resolution shell, fitted and uniform weights", caption)
    return Section("Resolution shells", [*ceiling_warning(run.metrics), picture, table])


def _shell_cells(row: dict[str, Any], more: Sequence[str]) -> list[str]:
    cc, uniform = row["cc"], row["cc_uniform"]
    gain = None if cc is None or uniform is None else cc - uniform
    limits = [number(row[name], f"{row[name]:.2f}") if row[name] else "∞" for name in ("d_max", "d_min")]
    ccs = (correlation(cc), correlation(uniform), change(gain), *(correlation(row.get(name)) for name in more))
    return [*limits, grouped(row["orbits"]), *ccs]


def ceiling_warning(metrics: dict[str, Any]) -> list[Text]:
    """A warning that names where CC of the fit lies above CC*; two standard errors, or some shells would by chance."""
    quality = metrics.get("quality")
    if not quality:
        return []
    fitted = metrics["fitted"]
    where = [name for name, key in (("the total", "cc"), ("the anisotropic", "cc_anisotropic"))
             if _above(fitted[key], quality["total" if key == "cc" else "anisotropic"])]  # fmt: skip
    numbers = [row["shell"] for row in metrics["shells"] if _above(row["cc"], quality["shells"][row["shell"]])]
    where += [f"in {plural(len(numbers), 'shell')} of {len(metrics['shells'])} the"] if numbers else []
    return [Text(ABOVE_CEILING.format(where=" and ".join(where)), warning=True)] if where else []


def _above(cc: float | None, precision: dict[str, float | None]) -> bool:
    """CC* = sqrt(2 c / (1 + c)) with c = CC1/2 has the error d CC* = d c / (CC* (1 + c)^2)."""
    half, error, star = (precision[name] for name in ("cc_half", "cc_half_error", "cc_star"))
    if cc is None or not star:
        return False
    return cc > star + 2 * (error or 0.0) / (star * (1 + half) ** 2)


def sections(run: FrameWeightsRun) -> Section:
    """hk0, hk1, ... of the observed, calculated and difference maps, total and anisotropic."""
    from hpcfit.kinds.frame_weights import figures_map
    from hpcfit.physics.reciprocal import laue_operations

    orbits, operations, axes_ab = run.orbits, laue_operations(run.orbits.laue), plane_axes(run.orbits.cell)
    levels = choose_levels(orbits.hkl, operations, orbits.ndiv)
    planes = [plane(orbits.hkl, operations, orbits.ndiv, level) for level in levels]
    names = ", ".join(plane_name(p.level) for p in planes)
    total = Figure(
        figures_map.sections(planes, total_maps(orbits), axes_ab),
        f"Sections {names} of the observed, calculated and difference maps",
        _sections_caption(names, orbits.laue, orbits.ndiv, figures_map.oblique(axes_ab)),
    )
    return Section("Sections of the maps", [total, _anisotropic_sections(orbits, planes, axes_ab, names)])


def _sections_caption(names: str, laue: str, ndiv: Sequence[int], oblique: bool) -> str:
    """Under the planes of the observed, calculated and difference maps."""
    steps = ", ".join("1" if n == 1 else f"1/{n}" for n in ndiv)
    divisions = "" if all(n == 1 for n in ndiv) else f" Voxels are ({steps}) of an index apart."
    axes = " h is read along the lower edge; the thin lines are h = 0 and k = 0." if oblique else ""
    return (
        f"Planes {names}: observed, calculated and difference intensities, expanded by Laue class {laue}; indices of "
        f"the unit cell, in the metric of the reciprocal lattice.{divisions}{axes} Observed and calculated share one "
        "colour scale (percentiles 1 to 99 of the observed); the calculated map was put on the observed scale by "
        "linear regression (scale and offset). Difference: red where more is observed than calculated, blue where "
        "less; a good fit leaves noise without pattern. Grey: not measured, masked or outside the resolution limits."
    )


def _anisotropic_sections(orbits: Orbits, planes: Sequence[Plane], axes_ab: np.ndarray, names: str) -> Figure:
    from hpcfit.kinds.frame_weights import figures_map

    return Figure(
        figures_map.anisotropic_sections(planes, anisotropic_maps(orbits), axes_ab),
        f"Sections {names} of the anisotropic observed, calculated and difference maps",
        _anisotropic_caption(names, n_shells(orbits)),
    )


def _anisotropic_caption(names: str, shells: int) -> str:
    """Under the same planes of what a smooth radial curve leaves."""
    return (
        f"The same planes {names} of the anisotropic maps, those that the anisotropic CC compares: from observed and "
        f"calculated intensities the best smooth curve in 1/d (a cubic spline, knots at the edges of {shells} shells) "
        "is removed, and the calculated map is put on the observed scale by regression of what is left, which no "
        "solvent or scattering by air can imitate. Red: above the curve, blue: below; observed and calculated share "
        "one colour scale. A good fit shows the same pattern twice, and none in the difference."
    )


def total_maps(orbits: Orbits) -> dict[str, np.ndarray]:
    """By orbit [n], the calculated one put on the observed scale by regression."""
    return _three(orbits.observed, scaled_to(orbits.observed, orbits.calculated, orbits.multiplicity))


def anisotropic_maps(orbits: Orbits) -> dict[str, np.ndarray]:
    """As `total_maps`, of what the smooth radial curve of the anisotropic CC leaves of both; held-out orbits, too, are
    seen against the curve of the fitted ones."""
    radial = splines(orbits.inverse_d, n_shells(orbits) + 3, even_in=3)
    fitted = np.where(orbits.held_out, 0, orbits.multiplicity)
    parts = [anisotropic(x, radial, fitted) for x in (orbits.observed, orbits.calculated)]
    return _three(parts[0], scaled_to(*parts, fitted))


def n_shells(orbits: Orbits) -> int:
    """The last shell holds the orbit of highest resolution."""
    return int(orbits.shell.max()) + 1


def _three(observed: np.ndarray, calculated: np.ndarray) -> dict[str, np.ndarray]:
    return {"observed": observed, "calculated": calculated, "difference": observed - calculated}


def agreement(run: FrameWeightsRun) -> Section:
    """Observed against calculated beside the baseline, and of held-out orbits alone where there are any."""
    from hpcfit.kinds.frame_weights import figures_map

    o = run.orbits
    uniform, fitted = (scaled_to(o.observed, x, o.multiplicity) for x in (o.uniform, o.calculated))
    clouds = {
        "uniform weights (baseline)": figures_map.Cloud(o.observed, uniform),
        "fitted weights": figures_map.Cloud(o.observed, fitted),
    }
    judged = bool(o.held_out.any())
    if judged:
        clouds["held-out orbits"] = figures_map.Cloud(o.observed[o.held_out], fitted[o.held_out])
    caption = _agreement_caption(plural(figures_map.outside(clouds), "point"), judged)
    picture = Figure(figures_map.agreement(clouds), "Observed against calculated intensities", caption)
    return Section("Observed against calculated", [picture])


def _agreement_caption(outside: str, held_out: bool) -> str:
    """Under observed against calculated."""
    free = " On the right: the orbits that the fit did not see; their cloud should be no wider." if held_out else ""
    return (
        "Observed against calculated intensity of each orbit, each model put on the observed scale by linear "
        "regression over all orbits. Dashed: equality. The cloud of the fit should be narrower than that of the "
        f"baseline on the left.{free} Outside the axes: {outside} of all panels."
    )
