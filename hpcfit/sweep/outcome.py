"""The state of a sweep: points, how far each is, metrics, and means over folds, seeds and bootstrap samples."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hpcfit.errors import InputError
from hpcfit.kinds.table import Metric, kind_named
from hpcfit.runs.files import CONFIG, HISTORY, RunFiles

PLAN = "sweep.json"
LOG, EXIT_CODE = "log.txt", "exit_code"  # of one point: what `hpcfit optimize` said, and how it last ended
# Beside the metrics of the kind; seconds: of all evaluations.
OF_ALL_KINDS = (
    Metric("loss", "loss"),
    Metric("steps", "steps", digits="whole"),
    Metric("seconds", "time", digits="duration"),
)
ERROR_LINES = 8  # of a failed point's log


class Axis(NamedTuple):
    """A key of the config that differs between points. repeat: its values are averaged over."""

    key: str
    repeat: bool


class Point(NamedTuple):
    """One fit of a sweep. values: of the axes, by key; directory: its run directory."""

    values: dict[str, Any]
    directory: Path


class Outcome(NamedTuple):
    """A point as it is now. state: finished, failed, unfinished or not started; quantities: of a finished one."""

    point: Point
    state: str
    quantities: dict[str, float]
    error: str = ""


class Mean(NamedTuple):
    """Points that differ only along repeated axes. outcomes: of the finished ones; deviation: of one, with n - 1."""

    values: dict[str, Any]
    points: int
    outcomes: Sequence[Outcome]
    mean: dict[str, float]
    deviation: dict[str, float]

    @property
    def is_complete(self) -> bool:
        """True where all members are finished: a mean over fewer compares with no other."""
        return len(self.outcomes) == self.points


class Sweep(NamedTuple):
    """A sweep as it is now. metrics: of its kind of problem, and of all kinds."""

    folder: Path
    axes: Sequence[Axis]
    outcomes: Sequence[Outcome]
    metrics: Sequence[Metric]

    def recorded(self) -> list[Metric]:
        """The metrics that some finished point has."""
        found = {name for outcome in self.in_state("finished") for name in outcome.quantities}
        return [metric for metric in self.metrics if metric.name in found]

    def in_state(self, *states: str) -> list[Outcome]:
        """The points in these states."""
        return [outcome for outcome in self.outcomes if outcome.state in states]

    def values(self, key: str) -> list[Any]:
        """The values of an axis, each once."""
        return list({repr(value): value for outcome in self.outcomes for value in [outcome.point.values[key]]}.values())

    def means(self) -> list[Mean]:
        """A row for each combination of the axes that are not repeated."""
        keys = [axis.key for axis in self.axes if not axis.repeat]
        groups: dict[tuple, list[Outcome]] = {}
        for outcome in self.outcomes:
            groups.setdefault(tuple(repr(outcome.point.values[key]) for key in keys), []).append(outcome)
        names = [metric.name for metric in self.metrics]
        return [_mean({key: group[0].point.values[key] for key in keys}, group, names) for group in groups.values()]


def _mean(values: dict[str, Any], group: Sequence[Outcome], names: Sequence[str]) -> Mean:
    finished = [outcome for outcome in group if outcome.state == "finished"]
    known = {
        name: found
        for name in names
        if (found := [outcome.quantities[name] for outcome in finished if name in outcome.quantities])
    }
    return Mean(
        values,
        len(group),
        finished,
        {name: statistics.fmean(found) for name, found in known.items()},
        {name: statistics.stdev(found) for name, found in known.items() if len(found) > 1},
    )


def plan_text(axes: Sequence[Axis], points: Sequence[Point]) -> str:
    """The content of sweep.json."""
    rows = [{"directory": point.directory.name, "values": point.values} for point in points]
    return json.dumps({"axes": [axis._asdict() for axis in axes], "points": rows}, indent=1)


def read_sweep(folder: Path) -> Sweep:
    """The sweep in a folder, as it is now; raises InputError where there is none."""
    path = folder / PLAN
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        axes = [Axis(**axis) for axis in plan["axes"]]
        points = [Point(row["values"], folder / row["directory"]) for row in plan["points"]]
    except FileNotFoundError:
        raise InputError(f"{folder} holds no sweep: it has no {PLAN}", remedy="give the folder of a sweep") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error!r}", remedy="call `hpcfit sweep` again") from None
    metrics = _metrics(points)
    return Sweep(folder, axes, [outcome_of(point, [metric.name for metric in metrics]) for point in points], metrics)


def _metrics(points: Sequence[Point]) -> list[Metric]:
    """The metrics of the kinds that the points are of, each once, and those of all kinds."""
    written = (run for point in points if (run := RunFiles(point.directory)).has(CONFIG))
    kinds = dict.fromkeys(run.config["problem"]["kind"] for run in written)
    metrics = [*(metric for kind in kinds for metric in kind_named(kind).metrics), *OF_ALL_KINDS]
    return list({metric.name: metric for metric in metrics}.values())


def outcome_of(point: Point, names: Sequence[str]) -> Outcome:
    """The outcome of a point: finished with the metrics ``names``, failed with the end of its log, unfinished or not
    started."""
    run = RunFiles(point.directory)
    if run.finished:
        return Outcome(point, "finished", _quantities(run, names))
    code = _text(point.directory / EXIT_CODE).strip()
    if code not in ("", "0", "75"):
        return Outcome(point, "failed", {}, last_words(_text(point.directory / LOG)) or f"ended with exit code {code}")
    return Outcome(point, "unfinished" if run.has(HISTORY) else "not started", {})


def _quantities(run: RunFiles, names: Sequence[str]) -> dict[str, float]:
    found = run.metrics["fitted"] | {name: run.metrics[name] for name in ("loss", "steps") if name in run.metrics}
    if run.evaluated:
        # Of all evaluations, those before a restart too: the phases of metrics.json are those of the last start.
        seconds = sum(float(run.history[f"{part}_seconds"].sum()) for part in ("read", "compute", "reduce"))
    else:
        seconds = sum(phase["seconds"] for phase in run.metrics["phases"])
    return {name: value for name, value in (found | {"seconds": seconds}).items() if name in names}


def shown(value: Any) -> str:
    """A value of an axis in words."""
    if value is None:
        return "not set"
    return f"{value:g}" if isinstance(value, float) else str(value)


def last_words(log: str) -> str:
    """The end of a log that tells of a failure: from hpcfit's last error on, else its last lines."""
    lines = [line for line in log.splitlines() if line.strip()]
    errors = [number for number, line in enumerate(lines) if line.startswith("hpcfit: ")]
    start = errors[-1] if errors else len(lines) - ERROR_LINES
    return "\n".join(lines[max(start, 0) :][:ERROR_LINES])


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
