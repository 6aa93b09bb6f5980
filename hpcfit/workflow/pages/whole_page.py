"""The page /hpcfit, for one browser window: the tasks of workflows and the fits that a collector knows."""

from __future__ import annotations

from typing import Any

from bokeh.layouts import column
from bokeh.models import Select
from distributed.dashboard.components.scheduler import BOKEH_THEME, env

from hpcfit.workflow.pages.collector import Collector, Fit
from hpcfit.workflow.pages.fit_page import FitSection
from hpcfit.workflow.pages.style import TEMPLATE, fill, follow_theme, heading, text
from hpcfit.workflow.pages.work_page import WorkSection

REFRESH = 1000  # ms
EMPTY = "Nothing has been reported yet: this page fills itself as soon as a task or the second step of a fit reports."


def draw(collector: Collector, document: Any, variables: dict) -> None:
    """Fill a Bokeh document with the page and keep it up to date as long as its window is open."""
    document.template, document.theme = env.from_string(TEMPLATE), BOKEH_THEME
    document.template_variables.update(variables)
    page = Page(collector)
    document.add_root(page.root)
    follow_theme(document, page.root)
    document.add_periodic_callback(page.update, REFRESH)


class Page:
    """Sections come as soon as there is something in them; of several fits the newest is shown, or the chosen one.

    root: what is added to the document; update: to be called again and again.
    """

    def __init__(self, collector: Collector):
        self._collector = collector
        self._works: dict[str, WorkSection] = {}
        self._fit: FitSection | None = None
        self._choice = Select(title="fit", visible=False, width=420)
        waiting = text()
        fill(waiting, heading("hpcfit", EMPTY))
        self.root = column(waiting, sizing_mode="stretch_width")
        self.update()

    def update(self) -> None:
        """Bring what is new."""
        self._collector.count_waiting()
        shown = self._sections()
        for name, work in self._collector.works.items():
            if work.history.length and name not in self._works:
                self._works[name] = WorkSection(work)
        fits = {name: fit for name, fit in self._collector.fits.items() if fit.history.length and fit.timing.length}
        self._choose(fits)
        sections = self._sections()
        if sections != shown:
            self.root.children = [self._choice, *(section.root for section in sections)]
        for section in sections:
            section.update()

    def _sections(self) -> list[FitSection | WorkSection]:
        return [*filter(None, [self._fit]), *self._works.values()]

    def _choose(self, fits: dict[str, Fit]) -> None:
        names = list(fits)
        if names != self._choice.options:
            follows_newest = self._choice.value in ("", *self._choice.options[-1:])
            self._choice.options, self._choice.visible = names, len(names) > 1
            if follows_newest:  # who has chosen an earlier one keeps it
                self._choice.value = names[-1]
        chosen = fits.get(self._choice.value)
        if chosen and (self._fit is None or self._fit.fit is not chosen):
            self._fit = FitSection(chosen)
