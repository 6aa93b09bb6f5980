"""The report on a fit to tables: outcome, data, parameters, prices, weights, convergence, time."""

from __future__ import annotations

from functools import partial
from typing import Any

from hpcfit.kinds.force_field.files import OBSERVABLES, PARAMETERS, WEIGHTS, ForceFieldRun
from hpcfit.kinds.force_field.sections import (
    cards,
    convergence,
    correlations,
    data_counted,
    deviations,
    fitted_curves,
    parameter_table,
    so_far,
    time,
)
from hpcfit.report.page import (
    Figure,
    Section,
    Table,
    Text,
    near_zero,
    percent,
    plural,
    plus_minus,
    significant,
)
from hpcfit.report.report import Contents
from hpcfit.report.sections import settings

MEANING = {
    "chi2_held_out": ("χ² held out", "over the validation set, which no fit has seen; see χ²"),
    "chi2": ("χ²", "the sum over the fitted data of ((calculated − measured) / σ)², of bounds only beyond them"),
    "kl_weights": ("KL(P‖P_ff), nats", "how far the weights moved from what the force field says, over all ensembles"),
    "kl_force_field": ("KL(P_ff‖P₀), nats", "how far the corrections moved the ensembles from the simulated ones"),
    "curve_change": ("R, Hz²", "mean squared change of the fitted curves over the circle, their sum"),
    "least_ess": ("least ESS, frames", "Kish's effective number of frames, of the ensemble that has the fewest"),
}
FALLS = ", which falls by orders of magnitude where a fit has converged."
ENSEMBLES = "χ² by ensemble, before the fit and after it. A good fit has a χ² of about one a datum."
PARAMETERS_TABLE = (
    "Fitted parameters: corrections in kT, coefficients of curves in Hz. The error of data is from the second "
    "derivative of the loss at its minimum (noise of the measurements, and what the prices leave open); that of "
    "frames is the spread over {resamples} of blocks of frames: how well the simulation sampled. ± is both together."
)
COMBINATIONS = (
    "Combinations of parameters, in units of what prices and priors leave open, the least determined first; "
    "the largest parts are named. Determined: the share of what is known of a combination that the data say; the rest"
    " is their own."
)
PRICES = (
    "χ² a datum of the data left out of each fold (green, mean and standard error over {folds} folds) and of those "
    "fitted (blue). Dashed: the simulated ensembles, the baseline. Each panel shows the best of the other prices. A "
    "ring marks the choice, the least χ² of held-out data."
)
PRICES_TABLE = "All choices of prices, the best on top; last, the simulated ensembles, the baseline."
WEIGHT_FIGURE = (
    "Weight × T of frames, the heaviest first. Dashed: in the simulation, the baseline; dotted: by the corrected "
    "force field; blue: the result. Where few frames carry most of the weight, the result is of these few. Values "
    "below 0.001 are drawn there."
)


def outcome(run: ForceFieldRun) -> Section:
    """The headline numbers beside those before the fit, and the prices."""
    m = run.metrics
    prices = ", ".join(f"{name} = {value:g}" for name, value in m["prices"].items())
    chosen = " (chosen by cross-validation)" if len(m.get("cross_validation", ())) > 2 else ""
    said = (
        f"{plural(len(m['ensembles']), 'ensemble')} with {plural(m['frames'], 'frame')} and"
        f" {data_counted(run)}, by the estimator {m['estimator']}, at"
        f" {prices}{chosen}."
    )
    stopped = f"The fit stopped after {plural(m['steps'], 'step')}: {m['stopped']}."
    return Section("Outcome", [Text(said), cards(MEANING, m["fitted"], m["before"]), Text(stopped)])


def data(run: ForceFieldRun) -> Section:
    """Deviations of all data, and χ² by ensemble."""
    rows = [
        [
            one["name"], str(one["data"]), significant(one["chi2_before"]), significant(one["chi2"]),
            str(one["held_out"] or "–"), *(significant(one[key]) if one["held_out"] else "–" for key in
                                           ("chi2_held_out_before", "chi2_held_out")),
        ]
        for one in run.metrics["ensembles"]
    ]  # fmt: skip
    head = ("ensemble", "fitted data", "χ² before", "χ²", "held out", "χ² before", "χ²")
    return Section("Data", [deviations(run), Table(head, rows, ENSEMBLES)])


def parameters(run: ForceFieldRun) -> Section | None:
    """Values with errors, correlations, and what the data do not determine."""
    m, table = run.metrics, run.metrics["parameters"]
    if not table["names"]:
        return None
    resamples = plural(run.config["problem"]["resamples"], "resample")
    blocks: list[Any] = [parameter_table(table, PARAMETERS_TABLE.format(resamples=resamples))]
    blocks += [*fitted_curves(run), *correlations(table, " of data")]
    rows = [[one["words"], percent(one["determined"])] for one in m["combinations"]]
    return Section("Parameters", [*blocks, Table(("combination", "determined"), rows, COMBINATIONS)])


def prices(run: ForceFieldRun) -> Section | None:
    """The cross-validation, where there was one."""
    from hpcfit.kinds.force_field import figures

    rows, chosen = run.metrics.get("cross_validation"), run.metrics["prices"]
    if rows is None:
        return None
    before, *tried = rows
    shown = [_price_row(row, chosen) for row in [*sorted(tried, key=lambda row: row["held_out"]), before]]
    table = Table((*chosen, "χ² a datum, held out", "fitted"), shown, PRICES_TABLE, text_columns=0)
    if len(tried) == 1:
        return Section("Prices", [table])
    caption = PRICES.format(folds=len(before["by_fold"]))
    return Section("Prices", [Figure(figures.prices(rows, chosen), "χ² against prices", caption), table])


def _price_row(row: dict[str, Any], chosen: dict[str, float]) -> list[Any]:
    values = [significant(row[name]) for name in chosen]
    return [*values, plus_minus(significant(row["held_out"]), row["held_out_error"]), significant(row["fitted"])]


def weights(run: ForceFieldRun) -> Section:
    """The weights, and the numbers of frames that carry the result."""
    from hpcfit.kinds.force_field import figures

    keys = ("kl_force_field", "kl_weights", "ess_force_field", "ess")
    rows = [
        [one["name"], str(one["frames"]), *(near_zero(one[key]) for key in keys)] for one in run.metrics["ensembles"]
    ]
    head = ("ensemble", "frames", "KL(P_ff‖P₀)", "KL(P‖P_ff)", "ESS by the force field", "ESS")
    caption = "Divergences in nats, and Kish's effective numbers of frames, (Σw)²/Σw²."
    svg = figures.weights(run.weights)
    return Section("Weights", [Figure(svg, "weights of frames by ensemble", WEIGHT_FIGURE), Table(head, rows, caption)])


CONTENTS = Contents(
    finished=(outcome, data, parameters, prices, weights, partial(convergence, words=FALLS), time, settings),
    unfinished=(partial(so_far, meaning=MEANING), partial(convergence, words=FALLS), settings),
    files=("config.toml", "environment.json", "history.jsonl", PARAMETERS, OBSERVABLES, WEIGHTS),
    run=ForceFieldRun,
)
