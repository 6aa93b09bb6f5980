"""Groups of frames in a report on kind "frame-weights": their summed weights, free energies, errors and biases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from hpcfit.kinds.frame_weights.numbers import error_by, error_of, kinds_of_errors, resamples, share
from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.report.page import Figure, Table, bar, change, grouped, near_zero, plus_minus, significant

MOST_SUMS = 40  # rows of a figure of sums; more are in the table alone
GROUP_COLUMNS = ("group", "frames", "prior", "weight", "weight / prior")
SUMS = (
    "Summed weight of each of the {what}. Circles: fitted; bars: standard deviation over {resamples}; grey strokes: "
    "before the fit, the baseline. A population has moved where its stroke lies outside both bars. {errors}"
)
ERRORS_SAY = {
    "frames": "The error by frames says how well the simulation sampled.",
    "orbits": "That by orbits says how far the noise of the map reaches.",
    "data": "That by data says how far their errors reach.",
}
MARKS = " Diamonds: without the bias of finite sampling; crosses: at theta = 0, where nothing pulls to the prior."
GROUPS = (
    "Groups of frames. ΔG = −kT ln(weight / prior) at {temperature:g} K is what the experiment adds to the free energy "
    "of the group in the simulation; 0 is the baseline.{errors}"
)
GROUP_ERRORS = (
    " ± {kinds}: standard deviations over {resamples}; of ΔG both together, as kT times the relative error of the "
    "weight."
)
POPULATIONS = (
    "Populations and what biases them. Total: the fitted share{less}, ± both errors. {sampling}Theta: the fitted share "
    "less that of {free}. Resamples: their mean less the fit.{alone}{undetermined}"
)
LESS = " less the bias of finite sampling"
SAMPLING = (
    "Sampling: means over few frames differ from each other by chance, which reads as diffuse intensity between "
    "groups; it is the difference of the shares that suit the map best with and without the variance of the means, by "
    "successive parts of each group. "
)
ALONE = " Groups alone: the shares where nothing moves within groups, the limit of large theta."
SAMPLING_UNKNOWN = (
    " What finite sampling does to the shares is in the error and the mean of the resamples of frames alone: averages "
    "are not biased by the variance of means as intensities are, so that the bias of all data together is not known."
)
UNDETERMINED = " Not determined: alone {names} agree with the map no better than chance; no errors are given."


def sums_figure(m: Mapping[str, Any], what: str, rows: Sequence[tuple[str, float, float]]) -> Figure:
    """Summed weights of "groups" or "sources" with their errors. rows: name, weight before and after the fit."""
    from hpcfit.report.figures import Value, values_with_errors

    kinds = kinds_of_errors(m)
    errors = [tuple(error_by(m, kind, what, name) for kind in kinds) for name, _, _ in rows]
    populations = [row for row in m.get("populations", []) if row["corrected"] is not None]
    marks = {row["group"]: (row["corrected"], row["without_theta"]) for row in populations}
    marked = bool(marks) and all(name in marks for name, _, _ in rows)
    drawn = [Value(*row, error, marks.get(row[0], ())) for row, error in zip(rows, errors, strict=True)]
    said = " ".join(ERRORS_SAY[kind] for kind in kinds)
    caption = SUMS.format(what=what, resamples=resamples(m), errors=said) + (MARKS if marked else "")
    names = tuple(f"resampling {kind}" for kind in kinds)
    svg = values_with_errors(drawn, names, "summed weight", ("without sampling bias", "theta = 0") if marked else ())
    return Figure(svg, f"Summed weight of each of the {what} with its errors", caption)


def group_table(m: Mapping[str, Any]) -> list[Table]:
    """Sums per group beside those of the prior, with free energies, where there are several groups."""
    rows = m.get("groups", [])
    if len(rows) < 2:
        return []
    kinds = kinds_of_errors(m)
    head = (*GROUP_COLUMNS, *(f"± {kind}" for kind in kinds), "ΔG, kJ/mol", "weight (tick: prior)")
    largest = max(max(row["weight"], row["prior"]) for row in rows)
    said = " and ± ".join(kinds)
    errors = GROUP_ERRORS.format(kinds=said, resamples=resamples(m)) if kinds else ""
    caption = GROUPS.format(temperature=m["temperature"], errors=errors)
    return [Table(head, [_group_cells(m, row, kinds, largest) for row in rows], caption)]


def _group_cells(m: Mapping[str, Any], row: dict[str, Any], kinds: Sequence[str], largest: float) -> list[str]:
    name, prior, weight = row["group"], row["prior"], row["weight"]
    return [
        name, grouped(row["frames"]), share(prior), share(weight), significant(weight / prior if prior > 0 else None),
        *(significant(error_by(m, kind, "groups", name), 2) for kind in kinds),
        _delta_G(m, row), bar(weight, largest, mark=prior),
    ]  # fmt: skip


def _delta_G(m: Mapping[str, Any], row: dict[str, Any]) -> Markup | str:
    """With its error by propagation, kT sd(weight) / weight."""
    if row["delta_G"] is None:
        return "∞" if row["weight"] == 0 else "–"
    error, kT = error_of(m, "groups", row["group"]), GAS_CONSTANT * m["temperature"]
    return plus_minus(near_zero(row["delta_G"]), None if error is None else kT * error / row["weight"])


def population_table(m: Mapping[str, Any], free: str = "theta = 0") -> list[Table]:
    """The shares of each group with their biases, where there are several groups and errors were asked for. free: where
    the shares without theta are from, in words."""
    rows = m.get("populations", [])
    if not rows:
        return []
    kinds = [kind for kind in kinds_of_errors(m) if "bias" in m["errors"][kind]]
    corrected = rows[0]["corrected"] is not None  # of all groups, or of none
    bias, alone = (["sampling"], ["groups alone"]) if corrected else ([], [])
    head = ("group", "total", "fitted", *bias, "theta", *(f"resamples of {kind}" for kind in kinds), *alone)
    table = [_population_cells(m, row, kinds) for row in rows]
    names = " and ".join(f"'{row['group']}'" for row in rows if not row.get("determined", True))
    caption = POPULATIONS.format(
        less=LESS if corrected else "", sampling=SAMPLING if corrected else "", free=free,
        alone=ALONE if corrected else SAMPLING_UNKNOWN, undetermined=UNDETERMINED.format(names=names) if names else "",
    )  # fmt: skip
    return [Table(head, table, caption)]


def _population_cells(m: Mapping[str, Any], row: dict[str, Any], kinds: Sequence[str]) -> list[str]:
    """The total is without the bias of sampling where that is known."""
    name, fitted, corrected = row["group"], row["fitted"], row["corrected"]
    known = corrected is not None
    total = plus_minus(share(corrected if known else fitted), error_of(m, "groups", name))
    return [
        name, total if row.get("determined", True) else "not determined", share(fitted),
        *([change(fitted - corrected)] if known else []), change(fitted - row["without_theta"]),
        *(change(error_by(m, kind, "bias", name)) for kind in kinds),
        *([share(row["groups_alone"])] if known else []),
    ]  # fmt: skip
