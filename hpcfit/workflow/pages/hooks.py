"""Pages of hpcfit on Dask's dashboard: put onto any running scheduler, beside Dask's own and in their navigation bar.

This module is also what a scheduler preloads: `dask scheduler --preload hpcfit.workflow.pages.hooks`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
from distributed import Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin

from hpcfit.log import logger
from hpcfit.workflow.pages.collector import Collector
from hpcfit.workflow.pages.guard import ROUTES

PRELOAD = "hpcfit.workflow.pages.hooks"
GUARD = "hpcfit.workflow.pages.guard"
PAGE = "hpcfit"

Draw = Callable[[Scheduler, Any, dict], None]  # scheduler, Bokeh document, the variables of Dask's templates


def add_work_page() -> bool:
    """Have every scheduler that starts in this process collect the progress of tasks and show it at /hpcfit, to nobody
    but this user (``guard``).

    False, logged once, where this version of distributed or bokeh lacks what the page is hung up on.
    """
    preloads = dask.config.get("distributed.scheduler.preload")
    missing = [name for name in (GUARD, PRELOAD) if name not in preloads]
    dask.config.set({"distributed.scheduler.preload": [*preloads, *missing]})
    dask.config.set({"distributed.scheduler.http.routes": ROUTES})
    return _objection() == ""


def dask_setup(scheduler: Scheduler) -> None:
    """Set the scheduler up for the page /hpcfit; Dask calls this function of a module that a scheduler preloads."""
    scheduler.add_plugin(HpcfitPage())


class HpcfitPage(SchedulerPlugin):
    """Collects what the ranks of a fit and the tasks of a workflow report, and shows it at /hpcfit.

    Installed once in a scheduler, before or after it starts; the whole history is kept from then on.
    """

    name = PAGE
    idempotent = True

    def __init__(self):
        self.collector, self._scheduler = Collector(self._unfinished), None

    async def start(self, scheduler: Scheduler) -> None:
        """Dask's hook: the scheduler runs."""
        self._scheduler = scheduler
        add_page(scheduler, PAGE, self._draw)

    def log_event(self, topic: str, msg: Any) -> None:
        """Dask's hook: a worker or a client has logged an event."""
        if isinstance(msg, dict):
            self.collector.event(topic, msg, self._worker(msg.get("worker")))

    def _draw(self, scheduler: Scheduler, document: Any, variables: dict) -> None:
        from hpcfit.workflow.pages.whole_page import draw

        draw(self.collector, document, variables)

    def _unfinished(self) -> int:
        """Tasks that wait for a worker, wait on one, or run there."""
        scheduler = self._scheduler
        if scheduler is None:
            return 0
        on_workers = sum(len(worker.processing) for worker in scheduler.workers.values())
        return len(scheduler.queued) + len(scheduler.unrunnable) + on_workers

    def _worker(self, address: str | None) -> str:
        """The name of the worker at an address: Dask replaces what a task says of its worker by the address."""
        state = self._scheduler.workers.get(address) if self._scheduler else None
        return str(state.name) if state else str(address or "")


def add_page(scheduler: Scheduler, name: str, draw: Draw) -> bool:
    """Show a page at /name on a running scheduler's dashboard; False, logged once, where that cannot be."""
    objection = _objection()
    if not objection:
        try:
            return _add_page(scheduler, name, draw)
        except Exception as error:  # semi-private parts of another version may fail in any way; no page is no harm
            objection = f"{type(error).__name__}: {error}"
    logger.info("no page /%s on the dashboard: %s", name, objection)
    return False


def _add_page(scheduler: Scheduler, name: str, draw: Draw) -> bool:
    """A Bokeh application of one page beside Dask's; the list of pages in Dask's navigation bar is shared by all."""
    from distributed.dashboard.core import BokehApplication
    from distributed.dashboard.scheduler import template_variables
    from tornado.ioloop import IOLoop

    dask_pages = next((app for app in scheduler.http_application.applications if hasattr(app, "prefix")), None)
    if dask_pages is None:  # this scheduler was started without a dashboard
        return False
    variables = template_variables(scheduler)
    page = BokehApplication(
        {f"/{name}": lambda scheduler, variables, document: draw(scheduler, document, variables)},
        scheduler, prefix=dask_pages.prefix, template_variables=variables,
    )  # fmt: skip
    scheduler.http_application.add_application(page)
    page.initialize(IOLoop.current())
    page.start()
    variables["pages"].insert(0, name)
    return True


def _objection() -> str:
    """What this version of Dask's dashboard lacks for a page of our own; "" for nothing."""
    try:
        from distributed.dashboard.components.scheduler import BOKEH_THEME, env  # noqa: F401
        from distributed.dashboard.core import BokehApplication  # noqa: F401
        from distributed.dashboard.scheduler import template_variables  # noqa: F401
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
