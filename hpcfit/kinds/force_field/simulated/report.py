"""The report on a fit to simulated windows: outcome, data, parameters, rounds, time."""

from __future__ import annotations

from functools import partial

from hpcfit.kinds.force_field.files import OBSERVABLES, PARAMETERS, ForceFieldRun
from hpcfit.kinds.force_field.sections import (
    cards,
    convergence,
    correlations,
    deviations,
    parameter_table,
    so_far,
    time,
)
from hpcfit.report.page import Figure, Section, Table, Text, plural, plus_minus, significant
from hpcfit.report.report import Contents
from hpcfit.report.sections import settings

MEANING = {
    "chi2": ("χ²", "the sum over the fitted data of ((calculated − measured) / σ)², of bounds only beyond them"),
    "chi2_held_out": ("χ² held out", "the same over the data held out, which no round has seen"),
    "prior": ("prior", "the sum over parameters of (change / prior)²"),
    "windows": ("windows", "that did not explode, of the system that has the fewest"),
}
NOISE = (
    ". Each round is of a new draw, so that the numbers scatter by the noise of its windows; the gradient does not fall"
    " below it."
)
AVERAGES = (
    "Averages before the fit and after it, the latter of a last draw of windows, with the standard error of their mean"
    " over windows (jackknife)."
)
CURVES = "Averages of many numbers: measured (points with σ), before the fit (dashed, the baseline), after it (blue)."
PARAMETERS_TABLE = (
    "Fitted parameters in units of the energy. The error of data is what the σ of the measurements and the priors leave"
    " open, from the curvature of the loss; that of frames is the noise of the windows, {rounds}. ± is both together."
)
ROUNDS = "Each parameter at the start of each round, relative to its start. From the dotted line on steps are averaged."
FEW = 12  # numbers of an observable that a table lists


def outcome(run: ForceFieldRun) -> Section:
    """The headline numbers beside those before the fit, and warnings."""
    m, choice = run.metrics, run.config["problem"]
    said = (
        f"{plural(len(choice['system']), 'system')} in {plural(m['frames'], 'window')} of {choice['window']:g} ps,"
        f" {plural(len(m['averages']), 'datum').replace('datums', 'data')}, by the estimator {m['estimator']}."
    )
    noise = (
        f"Of χ² of the fitted data about {significant(m['noise_of_chi2'])} are noise of the windows of one draw: their"
        " averages have errors of their own."
    )
    stopped = f"The fit stopped after {plural(m['steps'], 'step')}: {m['stopped']}."
    warnings = [Text(text, warning=True) for text in m["warnings"]]
    numbers = cards(MEANING, m["fitted"], m["before"])
    return Section("Outcome", [Text(said), numbers, Text(noise), *warnings, Text(stopped)])


def data(run: ForceFieldRun) -> Section:
    """Deviations of all data; observables of many numbers as curves, others in a table."""
    from hpcfit.kinds.force_field import figures

    by_observable: dict[tuple[str, str], list] = {}
    for one in run.observables:
        by_observable.setdefault((one.ensemble, one.data), []).append(one)
    curves = {" ".join(name): rows for name, rows in by_observable.items() if len(rows) > FEW}
    blocks = [deviations(run)]
    if curves:
        blocks.append(Figure(figures.averages(curves), "averages of many numbers", CURVES))
    listed = [_row(one) for rows in by_observable.values() if len(rows) <= FEW for one in rows]
    if listed:
        head = ("system", "observable", "measured", "before", "after", "")
        blocks.append(Table(head, listed, AVERAGES, text_columns=2))
    return Section("Data", blocks)


def _row(one) -> list:
    after = plus_minus(significant(one.after, 4), one.error_after)
    measured = plus_minus(significant(one.measured, 4), one.sigma)
    name = f"{one.data} {one.column}"
    return [one.ensemble, name, measured, significant(one.before, 4), after, "held out" if one.held_out else one.bound]


def parameters(run: ForceFieldRun) -> Section:
    """Values with errors, correlations, and their way along the rounds."""
    from hpcfit.kinds.force_field import figures

    m, table, choice = run.metrics, run.metrics["parameters"], run.config["problem"]
    rounds = f"of the mean of {plural(m['rounds_of_the_mean'], 'round')}"
    blocks = [parameter_table(table, PARAMETERS_TABLE.format(rounds=rounds)), *correlations(table)]
    blocks += [Text(f"The data do not determine {one}.", warning=True) for one in m["undetermined"]]
    history = run.history.of_fit(m["final_fit"])
    settled = choice["rounds"] - m["rounds_of_the_mean"] + 1 if m["rounds_of_the_mean"] > 1 else None
    svg = figures.rounds(history, table["names"], table["start"], settled)
    return Section("Parameters", [*blocks, Figure(svg, "parameters along the rounds", ROUNDS)])


CONTENTS = Contents(
    finished=(outcome, data, parameters, partial(convergence, words=NOISE), time, settings),
    unfinished=(partial(so_far, meaning=MEANING), partial(convergence, words=NOISE), settings),
    files=("config.toml", "environment.json", "history.jsonl", PARAMETERS, OBSERVABLES),
    run=ForceFieldRun,
)
