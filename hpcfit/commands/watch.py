"""`hpcfit watch`: a fit followed by the files of its run directory, as a live table or as plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from hpcfit.characters import in_one_line
from hpcfit.errors import InputError
from hpcfit.kinds.table import kind_named
from hpcfit.log import span
from hpcfit.runs.live import LiveRun, State
from hpcfit.workflow.slurm import end_of_job

BARS = "▁▂▃▄▅▆▇█"
CURVE, NO_TERMINAL = 32, 140  # characters: of a curve, and of a line where no terminal says its width
PARTS = {"compute_seconds": "computing", "reduce_seconds": "reductions", "read_seconds": "reading"}
STYLES = {"finished": "green", "running": "green", "writing": "green", "interrupted": "yellow", "silent": "red"}


def run_watch(path: Path, *, once: bool, every: float) -> None:
    """Show how far a run is, again and again until it is finished; ``once``: now and no longer."""
    if not 0 < every <= 86_400:
        raise InputError(f"--every {every}: seconds are above 0 and at most a day", remedy="try --every 2")
    width = None if sys.stdout.isatty() else NO_TERMINAL
    watched, console = Watched(path), Console(highlight=False, soft_wrap=True, width=width)
    if once:
        console.print(watched.table())
        return
    try:
        (_as_table if console.is_terminal else _as_lines)(watched, console, every)
    except KeyboardInterrupt:
        console.print()


def _as_table(watched: Watched, console: Console, every: float) -> None:
    with Live(watched.table(), console=console, auto_refresh=False) as live:
        for _ in watched.looks(every):
            live.update(watched.table(), refresh=True)


def _as_lines(watched: Watched, console: Console, every: float) -> None:
    """A line where the evaluations or the state are others than in the last one; a log keeps each."""
    for _ in watched.looks(every):
        if watched.has_news():
            console.print(watched.line(), markup=False)


class Watched:
    """A run directory, and the time limit of its Slurm job, for which Slurm is asked once."""

    def __init__(self, path: Path):
        self.run = LiveRun(path)
        job = self.run.environment.get("scheduler", {}).get("SLURM_JOB_ID")
        self._job_end = end_of_job(job) if job and self.run.state().name == "running" else None
        self._told: tuple | None = None
        kind = self.run.config.get("problem", {}).get("kind")
        self._of_kind = kind_named(kind).metrics if kind else ()

    def looks(self, every: float) -> Iterator[State]:
        """Its state, every so many seconds, for the last time when it is finished."""
        while True:
            self.run.update()
            state = self.run.state()
            yield state
            if state.name == "finished":
                return
            time.sleep(every)

    def has_news(self) -> bool:
        """True where rows, fits or state have changed since the last call."""
        news = (len(self.run.rows), self.run.study, self.run.state().name)
        told, self._told = self._told, news
        return news != told

    def table(self) -> Group:
        """Everything that there is to say of the run now."""
        state = self.run.state()
        table = Table(box=None, show_header=False, padding=(0, 3, 0, 0))
        for width in (18, 20, None):
            table.add_column(no_wrap=True, min_width=width)
        for name, value, more in [*self._metrics(), *self._times(), *self._ending(state)]:
            shown = [in_one_line(text) for text in (name, value, more)]
            table.add_row(Text(shown[0], style="dim"), Text(shown[1]), Text(shown[2], style="dim"))
        path, said = in_one_line(str(self.run.path)), in_one_line(state.text)
        return Group(Text.assemble((path, "bold"), "  ", (said, STYLES[state.name])), table)

    def line(self) -> str:
        """The newest evaluation in a line."""
        parts = [f"{name} {value}" for name, value, _ in [*self._metrics(), *self._times()] if name != "checkpoint"]
        state = self.run.state()
        ending = [f"ends {value}" for _, value, _ in self._ending(state)]
        return in_one_line("  ".join([time.strftime("%H:%M:%S"), state.text, *parts, *ending]))

    def _metrics(self) -> Iterator[tuple[str, str, str]]:
        rows, study = self.run.of_fit, self.run.study
        if study is not None:
            yield "fits and stages", f"{study.ended} of {study.total} done", study.running
        if not rows:
            yield "evaluation", "none yet", "the first one compiles"
            return
        last = rows[-1]
        limit = self.run.config.get("optimizer", {}).get("max_steps", "?")
        of = "of the final fit" if self.run.state().name == "finished" else ""
        yield "step", f"{self.run.steps} of at most {limit}", of
        yield "passes", str(last.get("passes", "?")), "over the data"
        of_kind = [metric for metric in self._of_kind if metric.name in last]
        for name in (metric.name for metric in of_kind if metric.digits == "correlation"):
            yield name, f"{last[name]:.6f}", sparkline([row.get(name) for row in rows])
        others = [metric.name for metric in of_kind if metric.digits != "correlation"]
        for name in ("loss", *others, "gradient_norm"):
            if name in last:
                yield name, f"{last[name]:.6g}", ""

    def _times(self) -> Iterator[tuple[str, str, str]]:
        """Of rank 0: what others take is on the dashboard."""
        rows = self.run.rows[-50:]
        if len(rows) > 1:
            parts = {name: median(row.get(key, 0.0) for row in rows) for key, name in PARTS.items()}
            split = ", ".join(f"{name} {span(seconds)}" for name, seconds in parts.items())
            yield "an evaluation", span(self.run.pace()), f"on rank 0: {split}"
        written = self.run.files.checkpoint()
        yield "checkpoint", "none yet" if written is None else f"{span(max(time.time() - written, 1.0))} ago", ""

    def _ending(self, state: State) -> Iterator[tuple[str, str, str]]:
        if state.name != "running":
            return
        for end in self.run.ends(self._job_end)[:1]:
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(end.at))
            yield "ends at the latest", f"in {span(max(end.at - time.time(), 1.0))}", f"{at}: {end.why}"


def sparkline(values: Sequence[float | None]) -> str:
    """The course of a quantity in one line of block characters; the mean of each of its parts."""
    known = [value for value in values if value is not None and value == value]
    if len(known) < 2:
        return ""
    n = min(CURVE, len(known))
    bounds = [len(known) * number // n for number in range(n + 1)]
    means = [sum(known[start:stop]) / (stop - start) for start, stop in pairwise(bounds)]
    low, high = min(means), max(means)
    return "".join(BARS[round((len(BARS) - 1) * (mean - low) / (high - low or 1.0))] for mean in means)
