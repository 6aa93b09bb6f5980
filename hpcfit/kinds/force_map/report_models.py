"""The force fields in a report on kind "force-map": what they leave, their potentials, and a simulation with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from scipy.constants import gas_constant

from hpcfit.kinds.force_map.files import ForceMapRun, Potential
from hpcfit.kinds.force_map.numbers import REFERENCE, ForceUnit, shown_first
from hpcfit.report.page import Figure, Section, Table, Text, number, plural, plus_minus, significant
from hpcfit.runs.files import RunFiles

# In the order that they are drawn.
KINDS = {"bonds": "Bond", "angles": "Angle", "dihedrals": "Dihedral", "pairs": "Pair"}
MOST_TERMS = 12  # of a kind that are drawn
HIGHEST = 15.0  # kT that is drawn
MATCHING = (
    "Force fields of {functions} functions, linear in their coefficients, fitted to the forces of each map. The "
    "residual is the mean squared difference of a force component: error of the force field plus noise of the map. "
    "noise removed: the residual of the basic map, the baseline, minus that of this one; as the mean force is the "
    "same for valid maps, it is noise alone. empty: functions that no frame has seen."
)
RIDGE_OF_FITS = (
    "Residual on held-out blocks against the ridge of the force field; no ridge, the baseline, is drawn at the left "
    "edge. Ringed: the strength taken."
)
POTENTIALS = (
    "{kind} terms of the fitted force fields, each 0 at its minimum and drawn where frames have sampled it; bands: "
    "standard errors by leaving out one statistical block at a time. Blue: the chosen map, '{name}'.{basic}{cut}"
)
BESIDE_BASIC = (
    " Grey: the basic map, the baseline; the narrower band is the gain. Curves of different minima are shifted "
    "against each other."
)
EXACT = " Black, dashed: the exact potential of mean force."
CUT = " Energies above {limit} kJ/mol (15 kT) lie outside the panels."
LEFT_OUT = " Shown are the {shown} of {n} terms with most samples."
MEAN_FORCE = (
    "Force between the two beads of the fitted potentials, −dU/dr, beside the exact mean force (black, dashed), the "
    "baseline, and their difference from it. A valid map lies on it; what an invalid one misses, no number of frames "
    "brings back."
)
NEURAL = (
    "Neural potentials, fitted to the forces of a map. held out: of statistical blocks that were not fitted; the "
    "linear force field of the same map is the baseline. noise floor: what the noise of the forces is at least, which "
    "no potential gets below."
)
LEARNING_OF_FITS = (
    "Residual of the fitted and of the held-out frames at each evaluation. Where the held-out one (green) rises while "
    "the other falls, the network follows noise."
)
LEVELS_OF_FITS = (
    " Dashed: the linear force field on held-out frames, the baseline; dotted: the noise floor, where it is near."
)
SIMULATION = "The {model} model was simulated: {frames}, compared with {reference} of the mapped simulation."
PROFILES = (
    "Free energy of the coarse-grained simulation (blue) and of the mapped frames (grey), the baseline; bands: "
    "standard errors over blocks. JS: Jensen-Shannon divergence of the two distributions, 0 where they are the same, "
    "0.69 where they have nothing in common."
)
SLOW = (
    "Free energy in the two slowest coordinates (TICA of the pair distances, fitted to the mapped frames), on one "
    "colour scale; white: no frame. The mapped frames, the baseline, on the left. Minima should lie at the same "
    "places and be equally deep."
)
DIVERGENCES = "Jensen-Shannon divergence of the distributions of model and mapped frames, nats; ± over walkers."


def matching(run: ForceMapRun) -> Section | None:
    """Linear force fields of each map, their potentials, and neural ones."""
    m = run.metrics
    if not m.get("force_matching"):
        return None
    unit = ForceUnit.of(m)
    blocks = [_residuals(m, unit), *_ridges(m, unit), *_potentials(run), *_mean_force(run, unit)]
    return Section("Force matching", [*blocks, *_neural(m, unit), *_fits(run, unit)])


def _residuals(m: dict[str, Any], unit: ForceUnit) -> Table:
    found = m["force_matching"]
    linear = {row["map"]: row for row in found["linear"]}
    basic = linear.get(REFERENCE)
    invalid = {row["name"] for row in m["maps"] if not row["valid"]}
    removed = (unit.head("noise removed"),) if basic else ()
    head = ("map", "", unit.head("residual fitted"), "held out", *removed, "ridge", "empty")
    rows = []
    for name, row in linear.items():
        said = [word for word, so in (("chosen", name == m["chosen"]), ("INVALID", name in invalid)) if so]
        cells = [_removed(basic, row, unit) if name != REFERENCE and name not in invalid else ""] if basic else []
        rows.append([name, ", ".join(said), unit.shown(row["train"]), unit.shown(*row["held_out"]), *cells,
                     number(row["ridge"], f"{row['ridge']:g}"), number(row["empty"], str(row["empty"]))])  # fmt: skip
    return Table(head, rows, MATCHING.format(functions=found["functions"]), text_columns=2)


def _removed(basic: dict[str, Any], row: dict[str, Any], unit: ForceUnit) -> Markup:
    return unit.shown(basic["held_out"][0] - row["held_out"][0])


def _ridges(m: dict[str, Any], unit: ForceUnit) -> list[Figure]:
    from hpcfit.kinds.force_map import figures

    rows = {row["map"]: row for row in m["force_matching"]["linear"] if len(row["curve"]) > 1}
    shown = {name: rows[name] for name in shown_first(rows, m)}
    if not shown:
        return []
    curves = {name: [(ridge, unit.square(value)) for ridge, value in row["curve"]] for name, row in shown.items()}
    labels = ("ridge of the force field", f"residual, held out, {unit.squared}")
    svg = figures.ridge_curves(curves, {name: row["ridge"] for name, row in shown.items()}, labels)
    return [Figure(svg, "Residual of the force field on held-out blocks against the ridge", RIDGE_OF_FITS)]


def _potentials(run: ForceMapRun) -> list[Figure]:
    """A figure for each kind of terms."""
    found, m = run.potentials, run.metrics
    names = shown_first(found.of_map, m)
    terms = _terms(found.of_map, names)
    limit = HIGHEST * gas_constant / 1000 * m["temperature"]
    of_kinds = {KINDS[kind]: terms[kind] for kind in KINDS if kind in terms}
    if of_kinds and all(len(of_kind) == 1 for of_kind in of_kinds.values()):
        of_kinds = {"All": [of_map for of_kind in of_kinds.values() for of_map in of_kind]}
    return [_drawn_terms(run, title, of_kind, limit) for title, of_kind in of_kinds.items()]


def _terms(of_map: Mapping[str, Mapping[str, Potential]], names: Sequence[str]) -> dict[str, list[dict]]:
    """By kind: each term's potentials by map, those with most samples first."""
    by_kind: dict[str, list[dict[str, Potential]]] = {}
    for term, first in of_map[names[0]].items() if names else ():
        potentials = {name: of_map[name][term] for name in names if term in of_map[name]}
        by_kind.setdefault(first.kind, []).append(potentials)
    return {kind: sorted(of_kind, key=lambda one: -next(iter(one.values())).samples)
            for kind, of_kind in by_kind.items()}  # fmt: skip


def _drawn_terms(run: ForceMapRun, title: str, terms: list[dict[str, Potential]], limit: float) -> Figure:
    from hpcfit.kinds.force_map import figures_models as figures

    m, pairs = run.metrics, [one for one in terms if next(iter(one.values())).kind == "pairs"]
    exact = run.potentials.exact if len(pairs) == 1 else None
    svg = figures.potentials(terms[:MOST_TERMS], exact, limit)
    drawn = [one for of_map in terms[:MOST_TERMS] for one in of_map.values()]
    caption = POTENTIALS.format(
        kind=title, name=m["chosen"], basic=BESIDE_BASIC if len(terms[0]) > 1 else "",
        cut=CUT.format(limit=f"{limit:.0f}") if any(np.ptp(one.U) > limit for one in drawn) else "",
    )  # fmt: skip
    caption += EXACT if exact is not None else ""
    caption += LEFT_OUT.format(shown=MOST_TERMS, n=len(terms)) if len(terms) > MOST_TERMS else ""
    return Figure(svg, f"{title} terms of the fitted force fields", caption)


def _mean_force(run: ForceMapRun, unit: ForceUnit) -> list[Figure]:
    """Where the exact one is known and each map has one potential of the pair."""
    from hpcfit.kinds.force_map import figures_models as figures

    found = run.potentials
    pairs = {name: [one for one in terms.values() if one.kind == "pairs"] for name, terms in found.of_map.items()}
    single = {row["name"]: pairs[row["name"]][0] for row in run.metrics["maps"] if len(pairs.get(row["name"], ())) == 1}
    if found.exact is None or not single:
        return []
    svg = figures.mean_force(single, found.exact, unit.factor, unit.name)
    return [Figure(svg, "Force between the beads of each fitted potential, and the exact one", MEAN_FORCE)]


def _neural(m: dict[str, Any], unit: ForceUnit) -> list[Table]:
    rows = m["force_matching"].get("neural") or ()
    linear = {row["map"]: row for row in m["force_matching"]["linear"]}
    counts, levels = ("steps", "evaluations"), ("held out", "linear, held out", "noise floor")
    head = ("map", "stopped", unit.head("residual fitted"), *levels, *counts)
    cells = [
        [row["map"], row["stopped"], unit.shown(row["residual"]), unit.shown(row["residual_free"]),
         unit.shown(*linear[row["map"]]["held_out"]) if row["map"] in linear else "", unit.shown(row["noise_floor"]),
         *(number(row[count], str(row[count])) for count in counts)]
        for row in rows
    ]  # fmt: skip
    return [Table(head, cells, NEURAL, text_columns=2)] if cells else []


def _fits(run: RunFiles, unit: ForceUnit) -> list[Figure]:
    """Residuals of each fit of the history, beside the levels that the metrics know."""
    from hpcfit.kinds.force_map import figures_models as figures

    if not run.evaluated:
        return []
    names = run.metrics.get("fits", []) if run.finished else []
    known = run.metrics["force_matching"] if run.finished else {}
    linear = {f"neural {row['map']}": row["held_out"][0] for row in known.get("linear", ())}
    floor = {f"neural {row['map']}": row["noise_floor"] for row in known.get("neural") or ()}
    curves = []
    for fit in np.unique(run.history["fit"]).astype(int):
        history = run.history.of_fit(fit)
        name = names[fit] if fit < len(names) else f"fit {fit + 1}"
        levels = (unit.square(level.get(name)) for level in (linear, floor))
        curves.append(figures.FitCurve(name, *(unit.square(history[key]) for key in ("residual", "residual_free")),
                                       *levels))  # fmt: skip
    levels = LEVELS_OF_FITS if run.finished else ""
    caption = " ".join(filter(None, [LEARNING_OF_FITS + levels, run.history.note]))
    return [Figure(figures.fits(curves, unit.squared), "Residuals of neural potentials at each evaluation", caption)]


def fits_so_far(run: RunFiles) -> Section | None:
    """The residuals of a run that is not finished, in kJ/mol/Å: its metrics are not there to say another unit."""
    pictures = _fits(run, ForceUnit("kJ/mol/Å", 1.0))
    return Section("Neural potentials", pictures) if pictures else None


def simulation(run: ForceMapRun) -> Section | None:
    """Free energies of a simulation of the beads beside those of the mapped frames."""
    from hpcfit.kinds.force_map import figures_models as figures

    known = (run.metrics.get("force_matching") or {}).get("simulation")
    if not known:
        return None
    found, blocks = run.simulation, []
    if found.profiles:
        blocks.append(Figure(figures.profiles(found.profiles), "Free energies of simulation and mapped frames",
                             PROFILES))  # fmt: skip
    if found.slow is not None:
        blocks.append(Figure(figures.slow(found.slow), "Free energies in two slow coordinates", SLOW))
    rows = [[one.label, plus_minus(significant(one.divergence), one.error)] for one in found.profiles]
    if found.slow is not None:
        rows.append(["two slowest coordinates", plus_minus(significant(found.slow.divergence), found.slow.error)])
    tables = [Table(("along", "JS"), rows, DIVERGENCES)] if rows else []
    reference = plural(known["reference_frames"], "frame")
    said = SIMULATION.format(model=known["model"], frames=plural(known["frames"], "frame"), reference=reference)
    return Section("Coarse-grained simulation", [Text(said), *blocks, *tables])
