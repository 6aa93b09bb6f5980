"""Reports of a rank to its monitor: the fit's thread takes notes, the monitor's thread reads and sums them.

After a step the fit's thread leaves a few references behind. All else happens in the monitor's thread, and no rank
waits for another one: a step does not know who watches it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from hpcfit.commands.run import Run
from hpcfit.fit.loop import Step
from hpcfit.fit.problem import Params
from hpcfit.kinds.base import WeighedCase
from hpcfit.runs.files import RunFiles
from hpcfit.runs.live import LiveRun, ends
from hpcfit.workflow.slurm import end_of_job

MAX_POINTS = 50  # of a report: a fit whose steps take a millisecond is shown thinned
MAX_EARLIER = 1000  # points that a continued run shows of what went before
REPORTS_OF_PACE = 20  # that the pace of the steps is measured over
PARTS = ("compute", "reduce", "read")


class Moment(NamedTuple):
    """The note that the fit's thread leaves after a step. time: its clock, s; spent: seconds of all steps by part."""

    step: int
    time: float
    spent: dict[str, float]
    params: Params


class Reporter:
    """A hook that takes note of each step, and the reports that the monitor's thread asks for.

    state: what the dashboard calls the run.
    """

    def __init__(self, run: Run, every: float):
        session = run.session
        self.state = "running"
        self._run, self._every, self._root = run, every, session.world.is_root
        self._weights = _weights_of(run)
        self._latest: Moment | None = None
        self._reported: deque[Moment] = deque(maxlen=REPORTS_OF_PACE)
        self._points: deque[dict[str, float]] = deque(self._earlier() if self._root else (), maxlen=10 * MAX_EARLIER)
        self._started, self._elapsed = time.time(), self._points[-1]["seconds"] if self._points else 0.0
        self._job_end: float | None = None
        if self._root:
            threading.Thread(target=self._ask_slurm, daemon=True).start()

    def __call__(self, step: Step) -> None:
        """After each step, in the fit's thread."""
        recorder = self._run.recorder
        self._latest = Moment(recorder.step - 1, time.time(), dict(recorder.spent), recorder.params)
        if self._root and recorder.last:
            seconds = self._elapsed + self._latest.time - self._started
            at = {"step": recorder.step - 1, "passes": recorder.passed, "seconds": seconds}
            self._points.append(recorder.last | at)

    def message(self) -> dict[str, Any]:
        """A report, in the monitor's thread: plain numbers by name, as ``workflow.pages.collector.Fit`` takes them."""
        session, now = self._run.session, self._latest
        message: dict[str, Any] = {"run": str(session.config.run.directory), "rank": session.world.rank}
        if now is None:
            return message
        if self._weights and now.params is not None:
            message["weights"] = self._weights(now.params)
        if self._root:
            message |= {"about": self._about(), "status": self._status(now), "points": self._new_points()}
            message["begins"] = not self._reported
        if self._reported and now.step > self._reported[-1].step:
            message["seconds"] = _seconds_per_step(self._reported[-1], now)
        self._reported.append(now)
        return message

    def _about(self) -> dict[str, Any]:
        session = self._run.session
        summary = "; ".join(f"{name} {value}" for name, value in list(session.case.summary().items())[:2])
        return {
            "ranks": session.world.size, "frames": session.case.n_frames, "every": self._every,
            "max_steps": session.config.optimizer.max_steps, "summary": summary,
            "metrics": [asdict(metric) for metric in session.kind.metrics],
        }  # fmt: skip

    def _status(self, now: Moment) -> dict[str, Any]:
        config, first = self._run.session.config, self._reported[0] if self._reported else now
        pace = (now.time - first.time) / (now.step - first.step) if now.step > first.step else 0.0
        steps = (config.optimizer.max_steps, now.step, pace)
        found = ends(now.time, *steps, self._started, config.optimizer.wall_clock_minutes, self._job_end)
        files = RunFiles(config.run.directory)
        about = {} if files.study is None else {"study": list(files.study)}
        return {"state": self.state, "checkpoint": files.checkpoint(), "ends": [list(end) for end in found]} | about

    def _new_points(self) -> list[dict[str, float]]:
        rows = [self._points.popleft() for _ in range(len(self._points))]
        limit = MAX_POINTS if self._reported else MAX_EARLIER
        return [_point(row) for row in thinned(rows, limit)]

    def _earlier(self) -> list[dict[str, float]]:
        """What a continued run did before: the last evaluation of each step."""
        rows = LiveRun(self._run.session.config.run.directory).rows
        new = self._run.recorder.last.get("evaluation", float("inf"))  # the first of a run that begins
        of_step = {row.get("step", row["evaluation"]): row for row in rows if row["evaluation"] < new}
        return [_point(row) | {"seconds": row["elapsed"]} for row in of_step.values()]

    def _ask_slurm(self) -> None:
        job = os.environ.get("SLURM_JOB_ID")
        self._job_end = end_of_job(job) if job else None


def _weights_of(run: Run) -> Callable[[Params], dict[str, Any]] | None:
    """Sums up the weights of this rank's frames; None where there are none, or where another rank holds the same."""
    case, grid = run.session.case, run.session.grid
    if not isinstance(case, WeighedCase) or run.evaluate is None or grid.slices.rank > 0:
        return None
    return case.live_weights(grid, run.evaluate.problem, run.evaluate.frames.rows)


def thinned(rows: Sequence[Any], limit: int) -> list[Any]:
    """At most so many rows, evenly chosen, the first and the last among them."""
    if len(rows) <= limit:
        return list(rows)
    return [rows[number] for number in np.linspace(0, len(rows) - 1, limit).round().astype(int)]


def _point(row: dict[str, float]) -> dict[str, float]:
    """Of a row of the history what is drawn."""
    return {name: float(value) for name, value in row.items() if name != "elapsed" and not name.endswith("_seconds")}


def _seconds_per_step(before: Moment, after: Moment) -> dict[str, float]:
    """What a step spent on each of its parts between two moments, and on all else (the optimizer, files), s."""
    steps = after.step - before.step
    parts = {name: (after.spent.get(name, 0.0) - before.spent.get(name, 0.0)) / steps for name in PARTS}
    return parts | {"other": max((after.time - before.time) / steps - sum(parts.values()), 0.0)}
