"""The part of the page /hpcfit that shows the tasks of simulate, prepare and sweep: how far each is, and how fast."""

from __future__ import annotations

import math

from bokeh.layouts import column, row
from bokeh.models import NumeralTickFormatter

from hpcfit.report.page import duration, significant
from hpcfit.workflow.pages.collector import Task, Work
from hpcfit.workflow.pages.feed import Feed
from hpcfit.workflow.pages.style import COLORS, bar, cards, chart, fill, heading, table, text, with_legend

SHOWN_TASKS = 40
SECONDS = "time since the first report, s"


class WorkSection:
    """Cards, figures and a table of one command's tasks for one browser window; ``update`` brings what is new."""

    def __init__(self, work: Work):
        self.work, self._head, self._table = work, text(), text()
        self._history = Feed(work.history)
        self.figures = [self._done(), self._rates()]
        self.root = column(
            self._head, row(*self.figures, sizing_mode="stretch_width"), self._table, sizing_mode="stretch_width"
        )
        self.update()

    def update(self) -> None:
        """Send what has changed since the last call."""
        self._history.update()
        fill(self._head, heading(self.work.name, self._note()), cards(self._cards()))
        fill(self._table, self._tasks())

    def _done(self):
        made = chart(f"{self.work.counted} so far, all tasks", SECONDS, self.work.counted)
        made.line("seconds", "done", source=self._history.source, line_width=2, color=COLORS[0])
        made.y_range.start, made.yaxis.formatter = 0, NumeralTickFormatter(format="0,0")
        return made

    def _rates(self):
        made = chart("rates, all running tasks together", SECONDS, "rate")
        measured = f"{self.work.counted}/s"
        units = [name for name in self.work.history.values if name not in ("seconds", "done", "per_second", measured)]
        for unit, color in zip(["per_second", *units], COLORS):
            label = measured if unit == "per_second" else unit
            made.line("seconds", unit, source=self._history.source, line_width=2, color=color, legend_label=label)
        made.y_range.start = 0
        with_legend(made)
        return made

    def _note(self) -> str:
        workers = {task.worker for task in self.work.tasks.values() if task.running}
        return f"{sum(task.running for task in self.work.tasks.values())} tasks running on {len(workers)} workers"

    def _cards(self) -> list[tuple[str, str, str]]:
        work = self.work
        (ended, tasks), left = work.ended(), work.seconds_left()
        shown = [
            ("tasks", f"{ended} of {tasks}", "ended"),
            (work.counted, f"{whole(work.done)} of {whole(work.total)}", "of the tasks that have begun"),
            (f"{work.counted}/s", significant(work.per_second()), "all tasks, last seconds"),
        ]
        rates = {unit: rate for unit, rate in work.rates().items() if unit != f"{work.counted}/s"}
        shown += [(unit, significant(rate), "running tasks") for unit, rate in rates.items()]
        if left == 0:
            return [*shown, ("left", "done", "")]
        return [*shown, ("left", "–" if math.isnan(left) else duration(left), "at this pace")]

    def _tasks(self) -> str:
        order = {"": 0, "quiet": 1, "done": 2}
        tasks = sorted(self.work.tasks.values(), key=lambda task: (order[state(task)], -task.heard))
        rows = [_row(task) for task in tasks[:SHOWN_TASKS]]
        more = len(tasks) - len(rows)
        note = f"and {more} more: {sum(task.finished for task in tasks[SHOWN_TASKS:])} of them ended" if more else ""
        return table(("task", "", self.work.counted, "rate", "worker", "for"), rows) + heading("", note)


def state(task: Task) -> str:
    """The state that a task's bar is drawn in: running, done, or quiet, which waits or was lost."""
    return "done" if task.finished else "" if task.running else "quiet"


def whole(value: float) -> str:
    """A count in groups of three."""
    return f"{value:,.0f}".replace(",", "\u202f")


def _row(task: Task) -> list[str]:
    rate = f"{significant(task.rate).striptags()} {task.unit}"
    return [
        task.name, bar(task.done / task.total if task.total else 1.0, state(task)),
        f"{whole(task.done)} of {whole(task.total)}", rate if task.running else "ended" if task.finished else "silent",
        task.worker, duration(task.heard - task.begun),
    ]  # fmt: skip
