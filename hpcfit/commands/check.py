"""`hpcfit check`: everything that `optimize` would find out before its first step, and what a step will cost."""

from __future__ import annotations

from hpcfit.commands.session import Session, log_session, open_session
from hpcfit.config import Config
from hpcfit.log import logger
from hpcfit.machine import memory_bandwidth
from hpcfit.ranks import Ranks
from hpcfit.results.run_directory import RunDirectory, check_is_writable

PASSES = 2  # over the frames in a step of the `reverse` gradient


def run_check(config: Config, world: Ranks) -> None:
    """Validate config and inputs and log what a run would be; collective."""
    world.on_root(lambda: check_is_writable(config.run.directory))
    session = open_session(config, world, "check")
    if RunDirectory(config.run.directory).occupied() and world.is_root:
        logger.warning("%s already holds a run: `optimize` will ask for --resume or --overwrite", config.run.directory)
    log_session(session)
    _log_ranks(session)
    _log_step(session)
    logger.info("this config is ready to run")


def _log_ranks(session: Session) -> None:
    device, case, grid = session.device, session.case, session.grid
    rows = session.world.gather((device, case.bytes_held(grid), case.bytes_summed(grid)))
    for rank, (place, held, summed) in enumerate(rows or ()):
        logger.info(
            "rank %-4d    %s, cores %s: %.1f MB of frames and %.1f MB of block sums, of %.1f GB free", rank, place.name,
            list(place.cores), held / 1e6, summed / 1e6, place.memory / 1e9,
        )  # fmt: skip


def _log_step(session: Session) -> None:
    passed = PASSES * session.case.bytes_held(session.grid)
    bandwidth = memory_bandwidth()
    rows = session.world.gather((passed, bandwidth))
    if rows is None:
        return
    most, slowest = max(row[0] for row in rows), min(row[1] for row in rows)
    logger.info("%-12s %.1f MB read by the largest rank in %d passes", "each step", most / 1e6, PASSES)
    logger.info(
        "%-12s %.3g s a step at least, at the measured %.1f GB/s of the slowest rank",
        "predicted",
        max(p / b for p, b in rows),
        slowest / 1e9,
    )
