"""`hpcfit optimize --monitor`: a run whose ranks report to a Dask dashboard, on a scheduler of its own or another's."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hpcfit.commands.reporter import Reporter
from hpcfit.commands.run import Run
from hpcfit.config import MonitorConfig
from hpcfit.errors import HpcfitError
from hpcfit.fit.loop import Hook
from hpcfit.log import logger
from hpcfit.ranks import Ranks
from hpcfit.runs.files import MONITOR
from hpcfit.store.files import write_text

if TYPE_CHECKING:
    from hpcfit.workflow.pages.monitor import Place

REPORTS_PER_SECOND = 10.0  # of all ranks but the root: they cost the root, where the scheduler is, 1 % of its time


@contextlib.contextmanager
def monitored(run: Run) -> Iterator[list[Hook]]:
    """The hook that shows a run on a dashboard while the block lasts; none where the config does not ask for it."""
    session = run.session
    chosen, world = session.config.monitor, session.world
    place = _place(chosen, session.config.run.directory, world) if chosen.dask else None
    if place is None:
        yield []
        return
    from hpcfit.workflow.pages.monitor import Monitor

    every = chosen.every if world.is_root else max(chosen.every, world.size / REPORTS_PER_SECOND)
    reporter = Reporter(run, every)
    prefix = f"{session.config.run.directory.name}-" if chosen.address else ""  # beside the ranks of other runs
    monitor = Monitor(
        place, world.rank, name=f"{prefix}rank-{world.rank}", message=reporter.message, every=every,
        cores=session.device.bound,
    )  # fmt: skip
    monitor.start()
    try:
        yield [reporter]
    finally:
        reporter.state = "ended"
        monitor.close()
        if world.is_root:
            (session.config.run.directory / MONITOR).unlink(missing_ok=True)


def _place(chosen: MonitorConfig, directory: Path, world: Ranks) -> Place | None:
    """Where the ranks meet, as root finds it, with the certificates by which they know each other; None, with a
    warning, where there is no such place. Collective."""
    one_node = world.node().size == world.size
    return world.on_root(lambda: _open_place(chosen, directory, one_node))


def _open_place(chosen: MonitorConfig, directory: Path, one_node: bool) -> Place | None:
    from hpcfit.workflow.cluster.addresses import tunnel
    from hpcfit.workflow.cluster.encryption import security_of
    from hpcfit.workflow.pages.monitor import Place, choose_place

    if chosen.address:
        logger.info("reporting to the scheduler %s: page /hpcfit of its dashboard", chosen.address)
        return Place(chosen.address, None, security_of(chosen, "[monitor]"))
    try:
        place = choose_place(chosen.dashboard, one_node=one_node)
        address = {"dashboard": f"http://{place.dashboard}", "tunnel": tunnel(place.dashboard)}
        write_text(directory / MONITOR, json.dumps(address, indent=1))
    except (OSError, HpcfitError) as error:
        logger.warning("no dashboard: [monitor] dashboard = '%s': %s", chosen.dashboard, error)
        return None
    logger.info("dashboard: %s/hpcfit; from elsewhere: %s", address["dashboard"], address["tunnel"])
    return place
