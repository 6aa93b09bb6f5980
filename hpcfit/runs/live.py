"""A run directory read while the run goes on: the rows of its history as they come, its state and its estimated end."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from hpcfit.errors import InputError
from hpcfit.runs.files import CONFIG, HISTORY, STOPPED, RunFiles
from hpcfit.runs.study import STUDY, StudyProgress

RECENT = 50  # rows that the pace of a run is measured over
SILENT = 60.0  # seconds without a row, or 20 evaluations if that is more, after which a run counts as silent


class End(NamedTuple):
    """The latest end of a run, seconds since 1970, and what ends it then."""

    at: float
    why: str


class State(NamedTuple):
    """name: running, silent, interrupted, writing or finished; text: the same with its reason."""

    name: str
    text: str


class LiveRun:
    """Follows a run directory. A resume that cuts or replaces the history, and a line that is half written, do no harm.

    rows: the evaluations so far, each with `elapsed`, the seconds that all parts of the run spent until then.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        if not any(self.files.has(name) for name in (HISTORY, CONFIG)):
            raise InputError(
                f"{self.path} is no run directory: it has neither {HISTORY} nor {CONFIG}",
                remedy="give the [run] directory of a fit, which `hpcfit optimize` makes when its first step begins",
            )
        self.rows: list[dict[str, Any]] = []
        self._file, self._read = 0, 0
        self.update()

    @property
    def files(self) -> RunFiles:
        """Its files as they are now."""
        return RunFiles(self.path)

    def update(self) -> bool:
        """Read what has been written since the last call; whether there is a new row."""
        before = len(self.rows), self.rows[-1:]
        try:
            with open(self.path / HISTORY, "rb") as file:
                found = os.fstat(file.fileno())
                if found.st_ino != self._file or found.st_size < self._read:
                    self._file, self._read, self.rows = found.st_ino, 0, []
                file.seek(self._read)
                whole, _, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return False
        if whole:
            self._read += len(whole) + 1
            for line in whole.split(b"\n"):
                self._add(line)
        return (len(self.rows), self.rows[-1:]) != before

    def _add(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            seconds, evaluation = float(row["seconds"]), int(row["evaluation"])
        except (ValueError, KeyError, TypeError):  # cut by a kill: a resume writes the history anew
            return
        while self.rows and self.rows[-1]["evaluation"] >= evaluation:
            self.rows.pop()  # done again after a resume
        last = self.rows[-1] if self.rows else {"seconds": 0.0, "elapsed": 0.0}
        # The clock of a continued run starts again at 0.
        spent = seconds - last["seconds"] if seconds >= last["seconds"] else seconds
        self.rows.append(row | {"elapsed": last["elapsed"] + spent})

    @property
    def of_fit(self) -> list[dict[str, Any]]:
        """The rows of the present fit; of a run that is finished, those of the fit that is its result."""
        result = _so_far(lambda: self.files.metrics).get("final_fit") if self.files.finished else None
        number = self.rows[-1].get("fit") if result is None and self.rows else result
        return [row for row in self.rows if row.get("fit") == number] or self.rows

    @property
    def steps(self) -> int:
        """The steps of that fit so far: those in the history count through all fits."""
        rows = self.of_fit
        before = rows[0].get("step", 0) if rows and rows[0].get("fit") else 0
        return rows[-1].get("step", 0) - before if rows else 0

    @property
    def config(self) -> dict[str, Any]:
        """The tables of its config; empty where there is none yet."""
        return _so_far(lambda: self.files.config)

    @property
    def environment(self) -> dict[str, Any]:
        """The environment it runs in; empty where that is not written yet."""
        return _so_far(lambda: self.files.environment)

    @property
    def study(self) -> StudyProgress | None:
        """The progress of its fits and stages; None where the run says nothing of them."""
        return self.files.study

    @property
    def written(self) -> float:
        """The time at which the run has last written of its progress, seconds since 1970."""
        times = []
        for name in (HISTORY, STUDY):
            with contextlib.suppress(OSError):
                times.append((self.path / name).stat().st_mtime)
        return max(times, default=time.time())

    def pace(self) -> float:
        """Seconds of an evaluation, the median of the last ones; NaN where there are too few."""
        seconds = [row["elapsed"] for row in self.rows[-RECENT:]]
        gaps = [after - before for before, after in pairwise(seconds)]
        return statistics.median(gaps) if gaps else float("nan")

    def state(self) -> State:
        """Its state: running, silent, interrupted, writing or finished."""
        if self.files.finished:
            return State("finished", "finished")
        stopped = _so_far(lambda: self.files.json(STOPPED))
        if stopped.get("interrupted"):
            return State("interrupted", f"interrupted: {stopped['reason']}; `--resume` continues it")
        if stopped:
            return State("writing", f"writes its results: {stopped['reason']}")
        silent = time.time() - self.written
        pace = self.pace() if len(self.rows) > 1 else 0.0
        if silent > max(SILENT, 20 * pace):
            return State("silent", f"silent since {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(self.written))}")
        return State("running", "running")

    def ends(self, job_end: float | None = None) -> list[End]:
        """The events that may end it, with their times; a fit may converge before. job_end: of its Slurm job."""
        if not self.rows:
            return []
        optimizer, last = self.config.get("optimizer", {}), self.rows[-1]
        steps = (optimizer.get("max_steps", 0), self.steps, self._seconds_per_step())
        return ends(self.written, *steps, self.written - last["seconds"], optimizer.get("wall_clock_minutes"), job_end)

    def _seconds_per_step(self) -> float:
        recent = self.rows[-RECENT:]
        steps = recent[-1].get("step", 0) - recent[0].get("step", 0)
        evaluations = len(recent) - 1
        return self.pace() * evaluations / steps if steps > 0 else float("nan")


def _so_far(read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The content of a file; empty where it is not there yet, or half written."""
    try:
        return read()
    except (InputError, OSError):
        return {}


def ends(
    now: float, max_steps: int, step: int, seconds_per_step: float, started: float, wall_clock_minutes: float | None,
    job_end: float | None,
) -> list[End]:  # fmt: skip
    """The events that end a run at the latest, with their times: steps at this pace, the wall clock, the Slurm job."""
    found = []
    if seconds_per_step > 0:
        left = max(max_steps - step, 0) * seconds_per_step
        found.append(End(now + left, f"{max_steps} steps (optimizer.max_steps)"))
    if wall_clock_minutes is not None:
        found.append(End(started + 60 * wall_clock_minutes, "wall clock (optimizer.wall_clock_minutes)"))
    if job_end is not None:
        found.append(End(job_end, "time limit of the Slurm job"))
    return sorted(found)
