"""The report on a fit to simulated windows: outcome, data, parameters, rounds, time."""

from __future__ import annotations

from functools import partial

import numpy as np

from hpcfit.kinds.force_field.files import OBSERVABLES, PARAMETERS, ForceFieldRun, data_labels
from hpcfit.kinds.force_field.geometries.report import geometries
from hpcfit.kinds.force_field.outputs import total_errors
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
from hpcfit.kinds.force_field.simulated.gradient import WAYS
from hpcfit.kinds.force_field.simulated.outputs import advice
from hpcfit.report.page import Figure, Section, Table, Text, duration, plural, plus_minus, significant
from hpcfit.report.report import Contents
from hpcfit.report.sections import settings

MEANING = {
    "chi2_held_out": ("χ² held out", "over the data held out, which no round has seen; see χ²"),
    "chi2": ("χ²", "the sum over the fitted data of ((calculated − measured) / σ)², of bounds only beyond them"),
    "prior": ("prior", "the sum over parameters of (change / prior)²"),
    "windows": ("windows", "that did not explode, of the system that has the fewest"),
    "share_of_frames": ("share of frames", "that carries the averages (Kish), of the system that has the least"),
}
NOISE = (
    ". Each round is of a new draw, so that the numbers scatter by the noise of its windows; the gradient does not fall"
    " below it."
)
AVERAGES = (
    "Averages before the fit and after it, the latter of a last draw of windows, with the standard error of their mean"
    " over windows (jackknife)."
)
CURVES = (
    "Averages of many numbers: measured (points with σ), before the fit (dashed, the baseline), after it (blue, with"
    " the band of its standard error over windows)."
)
ALONG = (
    "Deviations of averages from their measurements at each round, in σ, with standard errors over windows; of an"
    " observable of many numbers their root mean square, and what the noise of the windows alone would make of it"
    " (dotted). Green: held out."
)
SPENT = (
    "Time that the parts of the study took in the job that ended the run, compilation included. Windows are simulated"
    " and differentiated in one pass."
)
PARAMETERS_TABLE = (
    "Fitted parameters in units of the energy, coefficients of curves in Hz. The error of data is what the σ of the"
    " measurements and the priors leave open, from the curvature of the loss; that of frames is the noise of the"
    " windows, {rounds}, and of what windows remember of earlier rounds. ± is both together."
)
ROUNDS = (
    "Each parameter at the start of each round, relative to its start, with its error at the end. From the dotted line"
    " on steps are averaged."
)
MEMORY = (
    "What windows forget: C(t) / C(0) of the datum that says most of each parameter, its covariance with the derivative"
    " of the energy a time t before, with standard errors. The pathwise derivative at the end of a window lacks this"
    " share of itself; frames before the dotted line are not averaged."
)
ESTIMATORS = (
    "Derivatives of the data by the parameters at the end, pathwise (filled) and by the fluctuation formula (open), in"
    " units of the latter, with standard errors over windows; those below 5 % of the largest are left out."
    " Orange: windows are too short, by more than 5 % and three errors."
)
GROWTH = (
    "{system}: tangents grow by exp({rate}) in the second half of a window, an estimate of the largest Lyapunov"
    " exponent; variances of pathwise derivatives grow by twice that rate."
)
BY_ESTIMATOR = (
    "The same derivatives. Malliavin: by the likelihood of the noise, a check of both, its bias in its error."
    " Missing: the share that the windows are too short for. Combined: pathwise and fluctuation by inverse variances,"
    " where windows are long enough, with an error from both over the same windows. All are in derivatives.csv."
)
GRADIENT = (
    "The gradient of the loss by each parameter at those found, by every estimator, in units of the least of its"
    " errors. These are standard errors over windows, of the deviations of averages and of their derivatives together."
    " At a minimum the gradient is 0 within its errors and within those that the parameters have of frames."
)
BY_WAY = (
    "The same gradient, in units of the loss by those of the parameters. Near a minimum most of its error is that of"
    " the deviations, which estimators share; the error of derivatives is what each has of its own, with deviations as"
    " constants. Malliavin's bias is in its errors."
)
WINDOWS = (
    "The error of pathwise derivatives, relative to them, against the time along which tangents are carried, for one"
    " simulated time: what they lack, with its own error (dashed, and no less than of any longer window), their noise"
    " (dotted) and both together. Data count as in the fit. The line marks what was used, the point the least error."
)
SIGNALS = (
    "Derivatives of all data by a parameter over their noise in one round, by estimator, and the time along which"
    " tangents by it would be carried best."
)
NO_PATH = (
    "Constant pressure: a change of the volume is accepted or not, which has no derivative along a trajectory. Those"
    " derivatives are by the fluctuation formula alone."
)
OF_GIVEN = (
    "Derivatives of the data by the parameters at the end, by the fluctuation formula of the frames that were given,"
    " with standard errors over windows."
)
FEW = 12  # numbers of an observable that a table lists
LARGE = 0.05  # of the largest derivative by a parameter: what is drawn and listed
LISTED = 24  # derivatives in the table


def outcome(run: ForceFieldRun) -> Section:
    """The headline numbers beside those before the fit."""
    m, choice = run.metrics, run.config["problem"]
    length = f"{choice['window']:g} ps" if "window" in choice else "frames that were given"
    said = (
        f"{plural(len(choice['system']), 'system')} in {plural(m['frames'], 'window')} of {length},"
        f" {data_counted(run)}, by the estimator {m['estimator']}."
    )
    noise = f"Of χ² about {m['noise_of_chi2']:.2g}"
    if any(one.held_out for one in run.observables):
        noise = f"Of χ² of the data held out about {m['noise_of_chi2_held_out']:.2g}, of χ² {m['noise_of_chi2']:.2g}"
    noise += " are noise of the windows of the last round: their averages have errors of their own."
    stopped = f"The fit stopped after {plural(m['steps'], 'step')}: {m['stopped']}."
    errors = {name: m[f"error_of_{name}"] for name in ("chi2", "chi2_held_out")}
    numbers = cards(MEANING, m["fitted"], m["before"], errors)
    return Section("Outcome", [Text(said), numbers, Text(noise), Text(stopped)])


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
    along = {" ".join(name): (rows, run.rounds[name]) for name, rows in by_observable.items() if name in run.rounds}
    if along:
        shown = dict(list(along.items())[:FEW])
        blocks.append(Figure(figures.along_rounds(shown), "averages along the rounds", ALONG))
    listed = [
        _row(one, label)
        for rows in by_observable.values()
        for one, label in zip(rows, data_labels([(one.data, one.column) for one in rows]))
        if len(rows) <= FEW
    ]
    if listed:
        head = ("system", "observable", "measured", "before", "after", "")
        blocks.append(Table(head, listed, AVERAGES, text_columns=2))
    return Section("Data", blocks)


def _row(one, name: str) -> list:
    after = plus_minus(significant(one.after, 4), one.error_after)
    measured = plus_minus(significant(one.measured, 4), one.sigma)
    return [one.ensemble, name, measured, significant(one.before, 4), after, "held out" if one.held_out else one.bound]


def parameters(run: ForceFieldRun) -> Section:
    """Values with errors, correlations, and their way along the rounds."""
    from hpcfit.kinds.force_field import figures

    m, table, choice = run.metrics, run.metrics["parameters"], run.config["problem"]
    rounds = f"of the mean of {plural(m['rounds_of_the_mean'], 'round')}"
    blocks = [parameter_table(table, PARAMETERS_TABLE.format(rounds=rounds))]
    blocks += [*fitted_curves(run), *correlations(table)]
    blocks += [Text(f"The data do not determine {one}.", warning=True) for one in m["undetermined"]]
    history = run.history.of_fit(m["final_fit"])
    settled = choice["rounds"] - m["rounds_of_the_mean"] + 1 if m["rounds_of_the_mean"] > 1 else None
    svg = figures.rounds(history, table["names"], table["start"], total_errors(table), settled)
    return Section("Parameters", [*blocks, Figure(svg, "parameters along the rounds", ROUNDS)])


def derivatives(run: ForceFieldRun) -> Section | None:
    """The derivatives by both estimators, what windows are too short for, and how fast tangents grow."""
    from hpcfit.kinds.force_field import figures

    systems = run.metrics.get("derivatives")
    if not systems:
        return None
    rows = _large([row for one in systems for row in _labelled(one["rows"])])
    if not any("pathwise" in row for row in rows):
        values = [
            [*_names(row), plus_minus(significant(row["fluctuation"], 4), row["fluctuation_error"])] for row in rows
        ]
        table = Table(("datum", "parameter", "derivative"), values[:LISTED], OF_GIVEN, text_columns=2)
        return Section("Derivatives", [table])
    growth = [_growth(one) for one in systems if np.isfinite(one["growth"])]
    memory = [
        (one["system"], part, one["skipped"]) for one in systems for part in _labelled(one["memory"], one["rows"])
    ][:FEW]
    windows = {one["system"]: one["windows"] for one in systems if one["windows"]}
    both = [row for row in rows if np.isfinite(row["pathwise"])]
    blocks = [
        *([Figure(figures.estimators(both), "derivatives by both estimators", ESTIMATORS)] if both else []),
        *([Figure(figures.memory(memory), "what windows forget", MEMORY)] if memory else []),
        *([Text(NO_PATH)] if len(both) < len(rows) else []),
        *growth,
        *(_windows(windows) if windows else []),
    ]
    head = ("datum", "parameter", "pathwise", "fluctuation", "malliavin", "combined", "missing")
    listed = sorted(rows, key=lambda row: row["label"] != row["observable"])[:LISTED]  # single numbers first
    table = Table(head, list(map(_derivative, listed)), BY_ESTIMATOR, text_columns=2)
    return Section("Derivatives", [*blocks, table])


def _labelled(rows: list[dict], of: list[dict] | None = None) -> list[dict]:
    """Rows of a system with labels of their data. of: all rows of the system, these without them."""
    names = [(row["observable"], str(row["item"])) for row in [*rows, *(of or ())]]
    return [row | {"label": label} for row, label in zip(rows, data_labels(names))]


def _large(rows: list[dict]) -> list[dict]:
    """The derivatives that are not small beside the largest one of their parameter, in units of the datum's error."""
    largest: dict[tuple[str, str], float] = {}
    for row in rows:
        key = row["observable"], row["parameter"]
        largest[key] = max(largest.get(key, 0.0), abs(row["fluctuation"]))
    return [row for row in rows if abs(row["fluctuation"]) > LARGE * largest[row["observable"], row["parameter"]]]


def _growth(one: dict) -> Text:
    rate = f"({one['growth']:.2g} ± {one['growth_error']:.1g}) t / ps".replace("-", "−")
    return Text(GROWTH.format(system=one["system"], rate=rate))


def _windows(windows: dict[str, dict]) -> list:
    """The errors of windows along their length, advice, and signals by parameter."""
    from hpcfit.kinds.force_field import figures

    signals = [
        [name, part["parameter"], significant(part["best"], 3)] + [_signal(part[f"signal_{way}"]) for way in WAYS[:3]]
        for name, one in windows.items()
        for part in one["parameters"]
    ]
    return [
        Figure(figures.windows(windows), "errors of windows along their length", WINDOWS),
        Text(" ".join(advice(name, one) for name, one in windows.items())),
        Table(("system", "parameter", "best, ps", *WAYS[:3]), signals[:LISTED], SIGNALS, text_columns=2),
    ]


def _signal(value: float) -> str:
    return significant(value, 3) if np.isfinite(value) else "–"


def _derivative(row: dict) -> list:
    values = [
        plus_minus(significant(row[key], 4), row[f"{key}_error"]) if np.isfinite(row[key]) else "–" for key in WAYS
    ]
    if not np.isfinite(row["left"]):
        return [*_names(row), *values, "–"]
    missing = f"{100 * row['left']:.0f} ± {100 * row['left_error']:.0f} %".replace("-", "−")
    return [*_names(row), *values, missing + (", too short" if row["too_short"] else "")]


def _names(row: dict) -> list[str]:
    return [row["label"], row["parameter"]]


def gradient(run: ForceFieldRun) -> Section | None:
    """The gradient of the loss at the end by every estimator, with its errors."""
    from hpcfit.kinds.force_field import figures

    rows = run.metrics.get("gradient")
    if not rows:
        return None
    names = list(dict.fromkeys(row["parameter"] for row in rows))[:LISTED]
    rows = [row for name in names for row in rows if row["parameter"] == name]
    drawn = [row for row in rows if row["error"] > 0]
    figure = [Figure(figures.gradients(drawn), "gradient by every estimator", GRADIENT)] if drawn else []
    shown = [
        [
            row["parameter"], row["way"], plus_minus(significant(row["gradient"], 4), row["error"]),
            significant(row["error_of_derivatives"], 2), significant(row["signal_to_noise"], 2),
        ]
        for row in rows
    ]  # fmt: skip
    head = ("parameter", "estimator", "gradient", "error of derivatives", "signal to noise")
    return Section("Gradient", [*figure, Table(head, shown, BY_WAY, text_columns=2)])


def spent(run: ForceFieldRun) -> Section:
    """The time of each phase, and of each part of the study."""
    seconds = run.metrics.get("seconds", {})
    rows = [[name, duration(value)] for name, value in seconds.items()]
    return Section("Time", [*time(run).blocks, *([Table(("part of the study", "time"), rows, SPENT)] if rows else [])])


def rounds(run: ForceFieldRun) -> Section:
    """The way of the fit; frames that were given carry no new noise in each round."""
    return convergence(run, words="." if run.config["problem"]["system"][0].get("frames") else NOISE)


CONTENTS = Contents(
    finished=(outcome, data, geometries, parameters, derivatives, gradient, rounds, spent, settings),
    unfinished=(partial(so_far, meaning=MEANING), rounds, settings),
    files=("config.toml", "environment.json", "history.jsonl", PARAMETERS, OBSERVABLES),
    run=ForceFieldRun,
)
