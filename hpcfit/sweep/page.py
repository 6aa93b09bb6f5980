"""The page of a sweep: what came of it, each quantity against each axis, and every point with a link to its report."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from hpcfit.kinds.table import Metric
from hpcfit.report.page import (
    Card,
    Cards,
    Figure,
    Fold,
    Section,
    Table,
    Text,
    correlation,
    duration,
    grouped,
    number,
    plus_minus,
    render,
    significant,
)
from hpcfit.sweep.outcome import Mean, Outcome, Sweep, shown

STATES = ("finished", "failed", "unfinished", "not started")
NO_HOLD_OUT = (
    "Every agreement here is that with the data fitted, which a freer fit always improves: it cannot choose between"
    " points. Where the kind of problem knows folds, sweep with --folds to compare by data held out."
)
UNFINISHED = "Calling the same `hpcfit sweep` again goes on with what is unfinished."
FORMATS = {
    "correlation": correlation, "duration": duration,
    "whole": lambda n: number(n, "" if n is None else grouped(round(n))),
}  # fmt: skip
BEST = {"more": (max, "highest"), "less": (min, "least")}


def sweep_page(sweep: Sweep) -> str:
    """The page as HTML text."""
    sections = [_outcome(sweep), *_against_axes(sweep), *_means(sweep), _points(sweep), *_failures(sweep)]
    return render(f"hpcfit sweep: {sweep.folder.resolve().name}", ", ".join(axis.key for axis in sweep.axes), sections)


def _outcome(sweep: Sweep) -> Section:
    counts = {state: len(sweep.in_state(state)) for state in STATES}
    cards = [
        Card(state, str(count), "", f"of {len(sweep.outcomes)} points") for state, count in counts.items() if count
    ]
    judge = _judge(sweep)
    said = NO_HOLD_OUT if judge is None else judge.chooses
    left = counts["unfinished"] + counts["not started"]
    unfinished = [Text(UNFINISHED, warning=True)] if left else []
    note = [Text(said, warning=judge is None)] if counts["finished"] else []
    return Section("Outcome", [Cards([*cards, *_best(sweep)]), *note, *unfinished])


def _judge(sweep: Sweep) -> Metric | None:
    """The metric that points can be chosen by."""
    return next((metric for metric in sweep.recorded() if metric.better), None)


def _best(sweep: Sweep) -> list[Card]:
    """The best combination, of those whose points are all finished; nothing where none can be judged."""
    judge = _judge(sweep)
    judged = [mean for mean in sweep.means() if judge and mean.is_complete and judge.name in mean.mean]
    if not judged:
        return []
    extreme, word = BEST[judge.better]
    best = extreme(judged, key=lambda mean: mean.mean[judge.name])
    spread = Markup("± {}").format(significant(best.deviation.get(judge.name), 2)) if best.deviation else ""
    where = ", ".join(f"{key} = {shown(value)}" for key, value in best.values.items()) or "all points"
    return [Card(f"{word} {judge.title}", _written(judge, best.mean[judge.name]), spread, where)]


def _columns(sweep: Sweep) -> list[Metric]:
    """The metrics that some finished point has, as far as the page shows them."""
    return [metric for metric in sweep.recorded() if metric.title]


def _written(metric: Metric, value: float | None) -> Markup:
    """A value of a metric to its digits."""
    if metric.digits in FORMATS:
        return FORMATS[metric.digits](value)
    return significant(value, metric.digits)


def _against_axes(sweep: Sweep) -> list[Section]:
    """A figure for each axis that is not repeated, else for the repeated ones."""
    from hpcfit.sweep import figures as sweep_figures

    figures = []
    for axis in [axis for axis in sweep.axes if not axis.repeat] or sweep.axes:
        values, lines = sweep.values(axis.key), sweep_figures.lines_against(sweep, axis.key)
        if len(values) > 1 and lines:
            svg = sweep_figures.against(axis.key, values, lines, _columns(sweep))
            figures.append(Figure(svg, f"Quantities of the fits against {axis.key}", _caption(sweep, axis.key)))
    return [Section("Against each axis", figures)] if figures else []


def _caption(sweep: Sweep, key: str) -> str:
    repeated = [axis.key for axis in sweep.axes if axis.repeat and axis.key != key]
    bars = f" Points are means over {', '.join(repeated)}, bars one standard deviation." if repeated else ""
    return f"The finished points against {key}.{bars}"


def _means(sweep: Sweep) -> list[Section]:
    """A row for each combination of the axes that are not repeated, where there is something to average."""
    repeated = [axis.key for axis in sweep.axes if axis.repeat]
    keys = [axis.key for axis in sweep.axes if not axis.repeat]
    metrics = _columns(sweep)
    if not repeated or not metrics:
        return []
    rows = [_mean_cells(mean, keys, metrics) for mean in sweep.means()]
    caption = f"Means of the finished points over {', '.join(repeated)}, ± one standard deviation of a point."
    head = (*map(_key, keys), "finished", *(metric.head for metric in metrics))
    return [Section("Means", [Table(head, rows, caption, text_columns=len(keys))])]


def _mean_cells(mean: Mean, keys: Sequence[str], metrics: Sequence[Metric]) -> list[str]:
    return [
        *(shown(mean.values[key]) for key in keys),
        f"{len(mean.outcomes)} of {mean.points}",
        *(_with_spread(mean, metric) for metric in metrics),
    ]


def _with_spread(mean: Mean, metric: Metric) -> Markup:
    return plus_minus(_written(metric, mean.mean.get(metric.name)), mean.deviation.get(metric.name))


def _points(sweep: Sweep) -> Section:
    keys, metrics = [axis.key for axis in sweep.axes], _columns(sweep)
    rows = [_point_cells(outcome, keys, metrics) for outcome in sweep.outcomes]
    caption = "Every point; its directory, named by the hash of its config, leads to its report. The same in sweep.csv."
    head = (*map(_key, keys), "state", "directory", *(metric.head for metric in metrics))
    return Section("Points", [Table(head, rows, caption, text_columns=len(keys) + 2)])


def _point_cells(outcome: Outcome, keys: Sequence[str], metrics: Sequence[Metric]) -> list[str]:
    directory = outcome.point.directory
    report = directory / "report.html"
    link = Markup('<a href="{0}/report.html">{0}</a>').format(directory.name) if report.is_file() else directory.name
    quantities = [_written(metric, outcome.quantities.get(metric.name)) for metric in metrics]
    return [*(shown(outcome.point.values[key]) for key in keys), outcome.state, link, *quantities]


def _failures(sweep: Sweep) -> list[Section]:
    folds = [Fold(_named(outcome), outcome.error) for outcome in sweep.in_state("failed")]
    return [Section("Failed points", folds)] if folds else []


def _named(outcome: Outcome) -> str:
    values = ", ".join(f"{key} = {shown(value)}" for key, value in outcome.point.values.items())
    return f"{outcome.point.directory.name}: {values}"


def _key(key: str) -> Markup:
    """A key of the config that may be broken after its dots."""
    return Markup(".<wbr>").join(key.split("."))
