"""The sections of a report on scattering: traces, components, the fit with its parameters, Guinier, limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hpcfit.kinds.clusters.files import BOX, MIXTURE, PROFILES, TRACES, ClustersRun
from hpcfit.report.page import Card, Cards, Figure, Section, Table, Text, number, plural, plus_minus, significant

MOST = 12  # components that are drawn
NUMBERS = ("start", "value", "bootstrap_error", "posterior_mean", "posterior_error", "posterior_5", "posterior_95")
AVERAGED = (
    "Averaged components are means over all clusters of a label in all frames of the window: their spread is in them,"
    " and no Debye–Waller factor is applied to them. Shells of a cluster scatter with it."
)
OF_BOX = (
    "S(q) of all atoms of the periodic box, without solvent displaced, on the vectors of its reciprocal lattice: total"
    " = ⟨|Σ f exp(iq·r)|²⟩ / Σ f², and partial ones (Ashcroft and Langreth) of pairs of elements, which go to 1 for"
    " like and 0 for unlike ones. Bands: standard errors over blocks of frames. The clusters above are parts of it; the"
    " order between them and of the solvent is here alone."
)
FIT = (
    "Minimised: χ²/2 + prior × KL(w‖w₀) over populations w of sum 1, where w₀ are the counted (and predicted) ones;"
    " scale and the weight of the solvent are not negative."
)
LIMITS = (
    "One S(q) multiplies the mean of all components: sizes, shapes and places are taken to be independent of each other"
    " (the decoupling approximation). Its spheres are an effective description, not the clusters.",
    "Profiles of clusters of about one size are alike, and then their populations are known by the prior alone. The"
    " bootstrap holds the prior: its errors of such populations are too small, those of the posterior are not. The"
    " number of free parameters counts all populations; a prior leaves fewer in effect, so that χ² a degree of freedom"
    " is rather too large.",
    "Solvent between and around clusters is no part of the components, but for shells, and for the volume displaced"
    " where [problem.scattering] asks for it. Where the solvent orders, as at its main peak, a curve of the pure"
    " solvent can only be added with one weight.",
)


def scattering(run: ClustersRun) -> Section | None:
    """Traces and components; None where none were asked for."""
    if not run.has(TRACES):
        return None
    from hpcfit.kinds.clusters.mixture import figures

    m, traces = run.metrics["scattering"], traces_of(run)
    measured = "chi2" in m
    said = (
        f"{plural(m['components'], 'component')}, {m['predicted_components']} of them predicted, at"
        f" {m['points']} points from q = {m['q_min']:.4g} to {m['q_max']:.4g} 1/Å."
    )
    if not measured:
        said += " No curve was given: scale 1, offset 0, nothing is fitted."
    blocks: list[Any] = [Text(f"{said} {AVERAGED}")]
    caption = "Above: measured points with their errors, fits as lines; below: measured less fitted, in σ."
    shown = figures.traces(traces)
    blocks.append(Figure(shown, "scattering curves", caption if measured else "Mean over components by population."))
    blocks.append(_components(run, traces, measured))
    if run.has(BOX):
        blocks.append(_box(run, m["box"]))
    if measured and m["spheres"] != "none":
        one = traces["all"]
        text = f"S(q) of the fit, {m['spheres']} spheres: {_values(m['parameters'], ('radius', 'fraction', 'charge'))}."
        blocks.append(Figure(figures.factor(one["q"], one["structure_factor"]), "structure factor", text))
    return Section("Scattering", blocks)


def traces_of(run: ClustersRun) -> dict[str, dict[str, np.ndarray]]:
    """The columns of each trace."""
    found: dict[str, list[dict[str, str]]] = {}
    for row in run.rows(TRACES):
        found.setdefault(row["trace"], []).append(row)
    return {
        name: {key: np.array([float(row[key] or "nan") for row in rows]) for key in rows[0] if key != "trace"}
        for name, rows in found.items()
    }


def _components(run: ClustersRun, traces: Mapping[str, Mapping[str, np.ndarray]], measured: bool) -> Figure:
    from hpcfit.kinds.clusters.mixture import figures

    column = "contribution" if measured else "intensity"
    values: dict[str, list[float]] = {}
    share: dict[str, float] = {}
    for row in run.rows(PROFILES):
        name = row["label"] + ("" if row["source"] == "averaged" else " (predicted)")
        values.setdefault(name, []).append(float(row[column]))
        share[name] = float(row["population"])
    chosen = sorted(share, key=lambda name: -share[name] * max(values[name]))[:MOST]
    drawn = {name: np.array(values[name]) for name in values if name in chosen}
    trace = traces["all"]
    shown = figures.components(
        trace["q"], drawn, trace["fitted"] if measured else None, "part of the fit" if measured else "I of one cluster"
    )
    more = f" The {MOST} largest of {len(values)}." if len(values) > MOST else ""
    text = "Scale × S(q) × population × intensity of each component." if measured else "Intensity of each component."
    return Figure(shown, "components", text + more)


def _box(run: ClustersRun, m: Mapping[str, Any]) -> Figure:
    from hpcfit.kinds.clusters.mixture import figures

    found: dict[str, list[tuple[float, ...]]] = {}
    for row in run.rows(BOX):
        found.setdefault(row["of"], []).append(tuple(_float(row[key]) for key in ("q", "S", "error")))
    curves = {name: np.array(rows).T for name, rows in found.items()}
    said = (
        f" {m['vectors']:,.0f} vectors a frame in {m['shells']} shells from q = {m['q_min']:.3g} to"
        f" {m['q_max']:.3g} 1/Å; the largest total is {m['peak']:.4g} at {m['peak_q']:.3g} 1/Å."
    )
    return Figure(figures.box(curves), "structure factor of the box", OF_BOX + said)


def mixture(run: ClustersRun) -> Section | None:
    """The fit: its numbers, parameters and errors; None without a curve."""
    if not run.has(MIXTURE):
        return None
    from hpcfit.kinds.clusters.mixture import figures

    m = run.metrics["scattering"]
    rows = run.rows(MIXTURE)
    populations = [row for row in rows if row["kind"] == "population"]
    found = {key: np.array([float(row[key] or "nan") for row in populations]) for key in NUMBERS}
    drawn = figures.intervals([row["name"] for row in populations], found)
    blocks: list[Any] = [_cards(m), Text(_said(m))]
    blocks.append(Figure(drawn, "populations with errors", "Populations: counted or predicted, and fitted."))
    head = ("", "start", "fit ± bootstrap", "posterior", "5 to 95 %")
    table = [[row["name"], _number(row["start"]), plus_minus(_number(row["value"]), _float(row["bootstrap_error"])),
              plus_minus(_number(row["posterior_mean"]), _float(row["posterior_error"])), _interval(row)]
             for row in rows]  # fmt: skip
    blocks.append(Table(head, table, _errors(m)))
    if left := m.get("left_out"):
        folds = [[f"{low:.4g} to {high:.4g}", significant(out), significant(fitted)] for low, high, out, fitted in
                 zip(left["q_min"], left["q_max"], left["chi2"], left["fitted"])]  # fmt: skip
        text = "Each segment of q left out in turn and predicted from the others: χ² a point. Far above the fitted one:"
        blocks.append(Table(("q, 1/Å", "left out", "fitted"), folds, f"{text} the model does not carry over."))
    if m["overlaps"]:
        blocks.append(_overlaps(m["overlaps"]))
    blocks += _guinier(run, m)
    blocks += [Text(one) for one in LIMITS]
    return Section("Mixture fit", blocks)


def _cards(m: Mapping[str, Any]) -> Cards:
    least = m["traces"]["mixture"]["least_squares"]
    return Cards([
        Card("χ² a degree of freedom", f"{m['chi2_red']:.4g}", "1: within the errors", Path(m["curve"]).name),
        Card("free parameters", str(m["free_parameters"]), f"{m['points']} points", "all that were fitted"),
        Card("scale", f"{m['parameters']['scale']:.4g}", f"least squares {least['scale']:.4g}", "of the mean I(q)"),
    ])  # fmt: skip


def _said(m: Mapping[str, Any]) -> str:
    said = [FIT, f"Prior {m['prior']:g}."]
    if (observed := m["traces"].get("observed mixture")) is not None:
        said.append(
            f"With observed labels alone χ² is {observed['chi2']:.5g} ({observed['free_parameters']} free parameters),"
            f" with predicted ones {m['chi2']:.5g} ({m['free_parameters']})."
        )
    least = m["traces"]["mixture"]["least_squares"]
    said.append(
        f"Least squares of scale and offset alone, which heed no errors, leave a root mean square of"
        f" {least['rmse']:.4g} (scale {least['scale']:.4g}, offset {least['offset']:.4g})."
    )
    said.append(f"Solvent: {m['solvent']}." if m["solvent"] else "No curve of the solvent is fitted.")
    return " ".join([*said, f"Ended: {m['stopped']}."])


def _errors(m: Mapping[str, Any]) -> str:
    said = []
    if drawn := m.get("bootstrap"):
        said.append(f"Bootstrap: {drawn} refits of drawn points of q and drawn blocks of frames.")
    if posterior := m.get("posterior"):
        said.append(
            f"Posterior: {posterior['draws']} draws by DREAM, Gelman and Rubin's R up to {posterior['largest_r']:.3g}"
            " (1: chains agree)."
        )
    return " ".join(said) or "No errors were asked for."


def _overlaps(overlaps: list[dict[str, Any]]) -> Table:
    rows = [[Path(one["between"][1]).name, plus_minus(significant(one["scale"], 5), one["error"]),
             number(one["points"], str(one["points"])), significant(one["reduced"]),
             f"{100 * one['deviation']:.2g} %"] for one in overlaps]  # fmt: skip
    head = ("segment", "scale to those before", "points in common", "χ² a degree of freedom", "difference")
    return Table(head, rows, "Segments of detectors where they overlap.")


def _guinier(run: ClustersRun, m: Mapping[str, Any]) -> list[Any]:
    from hpcfit.kinds.clusters.mixture import figures

    fit = m["guinier"]
    if fit is None:
        return [Text(f"Guinier: {m['guinier_why']}.")]
    trace = traces_of(run)["all"]
    shown = figures.guinier(trace["q"], trace["experimental"], trace["sigma"], fit)
    trust = "Nothing stands against it." if not fit["flags"] else "Not to be trusted: " + "; ".join(fit["flags"]) + "."
    text = (
        f"Guinier: Rg {fit['radius']:.4g} ± {fit['radius_error']:.2g} Å from {fit['points']} points up to q Rg ="
        f" {fit['q_rg']:.3g}. {trust}"
    )
    return [Figure(shown, "Guinier plot", text)]


def _values(parameters: Mapping[str, float], names: tuple[str, ...]) -> str:
    units = {"radius": " Å", "charge": " e"}
    return ", ".join(f"{name} {parameters[name]:.4g}{units.get(name, '')}" for name in names if name in parameters)


def _float(text: str) -> float:
    return float(text or "nan")


def _number(text: str) -> Any:
    return significant(float(text), 4) if text else number(None, "")


def _interval(row: Mapping[str, str]) -> str:
    if not row["posterior_5"]:
        return "–"
    return f"{float(row['posterior_5']):.3g} to {float(row['posterior_95']):.3g}"
