"""`hpcfit check`: everything that `optimize` would find out before its first step, and what a step will cost."""

from __future__ import annotations

import numpy as np

from hpcfit.commands.rank_map import rank_map
from hpcfit.commands.session import Session, log_session, open_session
from hpcfit.config import Config
from hpcfit.fit.cost import ASSUMED, STREAM_SHARE, step_cost
from hpcfit.kinds.base import InspectedCase, PricedCase, SteppedCase
from hpcfit.log import logger
from hpcfit.machine import memory_bandwidth
from hpcfit.ranks import Ranks
from hpcfit.runs.directory import RunDirectory, check_is_writable


def run_check(config: Config, world: Ranks) -> None:
    """Validate config and inputs and log what a run would be; collective."""
    world.on_root(lambda: check_is_writable(config.run.directory))
    session = open_session(config, world, "check")
    if RunDirectory(config.run.directory).occupied() and world.is_root:
        logger.warning("%s already holds a run: `optimize` will ask for --resume or --overwrite", config.run.directory)
    log_session(session)
    _log_ranks(session)
    if isinstance(session.case, SteppedCase):
        _log_step(session)
    if isinstance(session.case, PricedCase):
        for name, words in session.case.predicted(session.grid).items():
            logger.info("%-12s %s", name, words)
    if isinstance(session.case, InspectedCase):
        for name, words in world.on_root(session.case.inspect).items():
            logger.info("%-12s %s", name, words)
    logger.info("this config is ready to run")


def _log_ranks(session: Session) -> None:
    case, grid = session.case, session.grid
    sizes = {"frames": case.bytes_held(grid), "block sums": case.bytes_summed(grid)}
    columns = {name: f"{size / 1e6:.1f} MB" for name, size in sizes.items()}
    for line in rank_map(session.world, session.device, columns):
        logger.info("%s", line)


def _log_step(session: Session) -> None:
    world, load = session.world, session.case.load()
    shape = (session.grid.shape.frames, session.grid.shape.slices)
    slowest = -float(world.max(np.array([-memory_bandwidth()]))[0])
    passes = load.passes(shape)
    cost = step_cost(shape, load, ASSUMED.at(lambda _: STREAM_SHARE[passes] * slowest))
    if not world.is_root:
        return
    passed = passes * load.largest_share(shape).bytes
    words = "one pass" if passes == 1 else f"{passes} passes"
    logger.info("%-12s %.1f MB read by the largest rank in %s", "each step", passed / 1e6, words)
    logger.info(
        "%-12s %.3g s a step, if the passes reach %.0f %% of the %.1f GB/s measured on the slowest rank",
        "predicted", cost.seconds, 100 * STREAM_SHARE[passes], slowest / 1e9,
    )  # fmt: skip
    parts = ", ".join(f"{name} {1e3 * seconds:.3g} ms" for name, seconds in cost._asdict().items())
    logger.info("%-12s %s; `hpcfit scaling` measures them", "of which", parts)
