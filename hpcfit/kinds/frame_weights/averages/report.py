"""The report on a fit of frame weights to averages: outcome, experiments, theta, weights, convergence, time."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from markupsafe import Markup

from hpcfit.kinds.frame_weights.files import AVERAGES_WEIGHT_COLUMNS, EXPERIMENTS, ExperimentsRun
from hpcfit.kinds.frame_weights.report_experiments import experiments
from hpcfit.kinds.frame_weights.report_explained import explained
from hpcfit.kinds.frame_weights.report_groups import MOST_SUMS, group_table, population_table, sums_figure
from hpcfit.report.page import (
    Card,
    Cards,
    Figure,
    Section,
    Table,
    Text,
    near_zero,
    plural,
    plus_minus,
    significant,
)
from hpcfit.report.report import Contents
from hpcfit.report.sections import phases, settings, study

MEANING = {
    "chi2": ("χ²", "the sum over the fitted data of ((calculated − measured) / σ)², of bounds only beyond them"),
    "ess": ("ESS, frames", "Kish effective sample size (Σw)²/Σw²: about how many frames carry the fit"),
    "kl": ("KL from prior", "Σw ln(w/w⁰), nats: how far the weights moved"),
}
THETA = (
    "χ²/2 of left-out data, times all data for each of these (green, mean and standard error over {folds} folds), and"
    " of fitted data (blue). Dashed: the prior weights, the baseline. Chosen is the largest theta whose left-out χ² is"
    " the best one to one standard error of their differences over the folds."
)
PRIOR_CHOSEN = (
    "No strength theta made left-out data agree better than the prior weights do: the result is the prior weights"
    " themselves, and its numbers are those of no fit."
)
WEIGHTS = "Where few frames carry most of the weight, the result is of these few. Dashed: the prior, the baseline."
CONVERGENCE = "At the right end of a converged fit the loss is flat and the gradient has fallen by orders of magnitude."
UNFINISHED = "This run is not finished: {directory} has no metrics.json. Below is its history so far."


class AveragesRun(ExperimentsRun):
    """The files of a run, and those that only this variant writes."""

    @functools.cached_property
    def weights(self) -> np.ndarray:
        """Prior weight and weight of each frame, [T, 2]."""
        rows = self.checked_rows("weights.csv", AVERAGES_WEIGHT_COLUMNS)
        return np.array([[float(text) for text in row[1:3]] for row in rows])


def outcome(run: AveragesRun) -> Section:
    """The headline numbers beside those at the prior weights, theta, and warnings."""
    m = run.metrics
    errors = {name: _error(m, name) for name in MEANING}
    cards = [
        Card(
            title, plus_minus(near_zero(m["fitted"][name]), errors[name]),
            Markup("prior weights: {}").format(near_zero(m["before"][name])), words,
        )
        for name, (title, words) in MEANING.items()
    ]  # fmt: skip
    sets = plural(len(m["experiments"]), "set")
    said = [Text(f"Weights of {plural(m['frames'], 'frame')} were fitted to {sets} of averages, without a map.")]
    if m["theta"] is None:
        said.append(Text(PRIOR_CHOSEN, warning=True))
    else:
        chosen = ", chosen by left-out data among those tried" if len(m.get("cross_validation", ())) > 2 else ""
        said.append(Text(f"Strength of the divergence from the prior: theta = {m['theta']:g}{chosen}."))
    warnings = [Text(text, warning=True) for text in m["warnings"]]
    stopped = Text(f"The fit stopped after {plural(m['steps'], 'step')}: {m['stopped']}.")
    return Section("Outcome", [*said, Cards(cards), *warnings, stopped])


def _error(m: dict[str, Any], name: str) -> float | None:
    found = [one["metrics"][name] for one in m.get("errors", {}).values()]
    return float(np.sqrt(np.sum(np.square(found)))) if found else None


def theta(run: AveragesRun) -> Section | None:
    """Left-out data at each theta, where there were folds."""
    from hpcfit.kinds.frame_weights import figures_experiments

    rows, m = run.metrics.get("cross_validation"), run.metrics
    if rows is None:
        return None
    caption = THETA.format(folds=len(rows[0]["folds"]))
    table = [
        ["prior" if row["theta"] is None else f"{row['theta']:g}", "chosen" if row["theta"] == m["theta"] else "",
         plus_minus(significant(row["misfit_free"]), row["misfit_free_error"]), significant(row["misfit"]),
         significant(row["ess"])]
        for row in rows
    ]  # fmt: skip
    shown = Table(("theta", "", "χ²/2, left out", "χ²/2, fitted", "ESS, frames"), table, "", text_columns=2)
    figure = Figure(figures_experiments.thetas(rows, m["theta"]), "χ² against theta", caption)
    return Section("How the strength theta was chosen", [figure, shown] if len(rows) > 2 else [shown])


def weights(run: AveragesRun) -> Section:
    """The weights of the frames, and the shares of states with errors and biases."""
    from hpcfit.kinds.frame_weights import figures_experiments

    m, svg = run.metrics, figures_experiments.weights(*run.weights.T)
    rows = [(row["group"], row["prior"], row["weight"]) for row in m.get("groups", [])]
    drawn = [sums_figure(m, "groups", rows)] if "errors" in m and 1 < len(rows) <= MOST_SUMS else []
    tables = [*group_table(m), *population_table(m, "a hundredth of theta")]
    return Section("Weights", [Figure(svg, "weights of the frames", WEIGHTS), *drawn, *tables])


def convergence(run: AveragesRun) -> Section | None:
    """The final fit's way, or the newest one's while there is none."""
    from hpcfit.kinds.frame_weights import figures_experiments

    number = run.metrics["final_fit"] if run.finished else run.history.newest_fit
    history = run.history.of_fit(number or 0)
    if not len(history):
        return None
    caption = f"{CONVERGENCE} {history.note}"
    return Section("Convergence", [Figure(figures_experiments.convergence(history), "the fit's way", caption)])


def so_far(run: AveragesRun) -> Section:
    """The head of a run that has no results yet."""
    return Section("Outcome", [Text(UNFINISHED.format(directory=run.directory), warning=True)])


def time(run: AveragesRun) -> Section:
    """The time that each phase took."""
    return Section("Time", [*study(run), phases(run)])


CONTENTS = Contents(
    finished=(outcome, experiments, theta, weights, explained, convergence, time, settings),
    unfinished=(so_far, convergence, settings),
    files=("config.toml", "environment.json", "history.jsonl", EXPERIMENTS, "weights.csv"),
    run=AveragesRun,
)
