"""The section of a report on experiments whose data are averages: measured and calculated, before and after the fit."""

from __future__ import annotations

from typing import Any

from hpcfit.kinds.frame_weights.files import ExperimentsRun
from hpcfit.report.page import Figure, Section, Table, near_zero, significant

DEVIATIONS = (
    "Each datum's deviation from its measurement in units of σ: before the fit (grey, the baseline) and after it (blue,"
    " or green where the data were held out). Shaded: within one σ. A bound counts only where it is crossed."
)
DATA = (
    "What was measured (with σ) and what is calculated, adjusted by the factor and the constant of its set, before the"
    " fit (dashed, the baseline) and after it, for sets of many data."
)
SETS = (
    "χ² of each set of data. A good fit has about one a datum. Left out: of data that folds left out of their fits,"
    " summed over the folds, which says what the weights predict; held-out sets were never fitted. Factor and constant"
    " are solved for at the weights."
)
CURVES = "Karplus curves A cos² + B cos + C after the fit, Hz."
MANY = 12  # data of a set that are drawn as a curve


def experiments(run: ExperimentsRun) -> Section | None:
    """Deviations and χ² of all sets; None of a run without."""
    from hpcfit.kinds.frame_weights import figures_experiments

    sets = run.experiments
    if not sets:
        return None
    blocks: list[Any] = [Figure(figures_experiments.deviations(sets), "deviations of data", DEVIATIONS)]
    long = {name: rows for name, rows in sets.items() if len(rows) >= MANY}
    if long:
        blocks.append(Figure(figures_experiments.calculated(long), "measured and calculated data", DATA))
    blocks.append(_sets(run.metrics["experiments"]))
    named = run.config["problem"].get("curve", [])
    if named:
        rows = [
            [one["name"], *(significant(value, 4) for value in values)]
            for one, values in zip(named, run.metrics["curves"])
        ]
        blocks.append(Table(("curve", "A", "B", "C"), rows, CURVES))
    return Section("Experiments", blocks)


def _sets(rows: list[dict[str, Any]]) -> Table:
    keys = ("chi2_before", "chi2", "chi2_left_out_before", "chi2_left_out", "scale", "offset")
    shown = [key for key in keys if any(key in row for row in rows)]
    names = dict(
        zip(keys, ("χ² before", "χ²", "χ² left out, before", "χ² left out", "factor", "constant"), strict=True)
    )
    table = [
        [row["name"] + (", held out" if row["held_out"] else ""), str(row["data"])]
        + [near_zero(row[key]) if key in row else "–" for key in shown]
        for row in rows
    ]
    return Table(("experiment", "data", *(names[key] for key in shown)), table, SETS)
