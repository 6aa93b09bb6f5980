"""The page of a sweep: what came of it, each quantity against each axis, and every point with a link to its report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial as bind

from markupsafe import Markup

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
COLUMNS: dict[str, tuple[str, Callable[[float | None], Markup]]] = {
    "cc": ("CC", correlation), "cc_anisotropic": ("CC, anisotropic", correlation), "cc_free": ("CC free", correlation),
    "ess": ("ESS", significant), "kl": ("KL, nats", significant),
    "held_out": ("mean |F|², held out, (kJ/mol/Å)²", bind(significant, digits=5)),
    "train": ("mean |F|², fitted", bind(significant, digits=5)),
    "steps": ("steps", lambda n: number(n, "" if n is None else grouped(round(n)))), "seconds": ("time", duration),
}  # fmt: skip
NO_HOLD_OUT = (
    "Every CC here is that of the data fitted, which a lower price of leaving the prior always improves: it cannot"
    " choose between points. Sweep with --folds to compare by the CC of held-out orbits."
)
UNFINISHED = "Calling the same `hpcfit sweep` again goes on with what is unfinished."
HELD_OUT = (
    "CC free is that of the orbits held out of the fit: it can choose between points, CC of the fitted ones cannot."
)
HELD_OUT_BLOCKS = (
    "The mean square of the mapped forces on blocks of frames that a map was not fitted to: the noise of a valid map"
    " above that of others. It can choose between points, that of the fitted frames cannot."
)
# What points are chosen by: whether more of it is better, and the title of its card.
JUDGES = {"cc_free": (True, "highest CC free"), "held_out": (False, "least held-out mean |F|²")}


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
    said = {"cc_free": HELD_OUT, "held_out": HELD_OUT_BLOCKS}.get(judge, NO_HOLD_OUT)
    left = counts["unfinished"] + counts["not started"]
    unfinished = [Text(UNFINISHED, warning=True)] if left else []
    note = [Text(said, warning=judge is None)] if counts["finished"] else []
    return Section("Outcome", [Cards([*cards, *_best(sweep)]), *note, *unfinished])


def _judge(sweep: Sweep) -> str | None:
    """The quantity that points can be chosen by."""
    return next((name for name in JUDGES if name in _recorded(sweep)), None)


def _best(sweep: Sweep) -> list[Card]:
    """The best combination, of those whose points are all finished; nothing where none can be judged."""
    judge = _judge(sweep)
    judged = [mean for mean in sweep.means() if mean.is_complete and judge in mean.mean]
    if not judged:
        return []
    more, title = JUDGES[judge]
    best = (max if more else min)(judged, key=lambda mean: mean.mean[judge])
    spread = Markup("± {}").format(significant(best.deviation.get(judge), 2)) if best.deviation else ""
    where = ", ".join(f"{key} = {shown(value)}" for key, value in best.values.items()) or "all points"
    return [Card(title, COLUMNS[judge][1](best.mean[judge]), spread, where)]


def _recorded(sweep: Sweep) -> list[str]:
    """The quantities that some finished point has, in the order of the columns."""
    found = {name for outcome in sweep.in_state("finished") for name in outcome.quantities}
    return [name for name in COLUMNS if name in found]


def _against_axes(sweep: Sweep) -> list[Section]:
    """A figure for each axis that is not repeated, else for the repeated ones."""
    from hpcfit.sweep import figures as sweep_figures

    figures = []
    for axis in [axis for axis in sweep.axes if not axis.repeat] or sweep.axes:
        values, lines = sweep.values(axis.key), sweep_figures.lines_against(sweep, axis.key)
        if len(values) > 1 and lines:
            svg = sweep_figures.against(axis.key, values, lines)
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
    names = _recorded(sweep)
    if not repeated or not names:
        return []
    rows = [_mean_cells(mean, keys, names) for mean in sweep.means()]
    caption = f"Means of the finished points over {', '.join(repeated)}, ± one standard deviation of a point."
    head = (*map(_key, keys), "finished", *(COLUMNS[name][0] for name in names))
    return [Section("Means", [Table(head, rows, caption, text_columns=len(keys))])]


def _mean_cells(mean: Mean, keys: Sequence[str], names: Sequence[str]) -> list[str]:
    return [
        *(shown(mean.values[key]) for key in keys),
        f"{len(mean.outcomes)} of {mean.points}",
        *(_with_spread(mean, n) for n in names),
    ]


def _with_spread(mean: Mean, name: str) -> Markup:
    return plus_minus(COLUMNS[name][1](mean.mean.get(name)), mean.deviation.get(name))


def _points(sweep: Sweep) -> Section:
    keys, names = [axis.key for axis in sweep.axes], _recorded(sweep)
    rows = [_point_cells(outcome, keys, names) for outcome in sweep.outcomes]
    caption = "Every point; its directory, named by the hash of its config, leads to its report. The same in sweep.csv."
    head = (*map(_key, keys), "state", "directory", *(COLUMNS[name][0] for name in names))
    return Section("Points", [Table(head, rows, caption, text_columns=len(keys) + 2)])


def _point_cells(outcome: Outcome, keys: Sequence[str], names: Sequence[str]) -> list[str]:
    directory = outcome.point.directory
    report = directory / "report.html"
    link = Markup('<a href="{0}/report.html">{0}</a>').format(directory.name) if report.is_file() else directory.name
    quantities = [COLUMNS[name][1](outcome.quantities.get(name)) for name in names]
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
