"""`hpcfit step`: times the optimizer's step on the ranks that were started, beside their memory and their network."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hpcfit.commands.session import Session, log_session, open_session
from hpcfit.config import Config
from hpcfit.errors import InputError, together
from hpcfit.fit.cost import Load, Part, fit_network
from hpcfit.fit.grid import Grid, Shape, make_grid
from hpcfit.fit.reduction import choose_sum
from hpcfit.kinds.base import stepped
from hpcfit.log import logger
from hpcfit.machine import memory_bandwidth
from hpcfit.ranks import Ranks
from hpcfit.runs.directory import environment
from hpcfit.scaling.measurement import Measurement, identity
from hpcfit.scaling.options import STEPS, at_least_one
from hpcfit.scaling.timing import StepTimes, time_messages, time_steps
from hpcfit.store.files import write_text


def run_step(
    config: Config,
    world: Ranks,
    *,
    steps: int = STEPS,
    blocks: int | None = None,
    parts: Sequence[tuple[int, int]] = (),
    out: Path | None = None,
) -> None:
    """Time steps, messages and a plain stream of memory, and log them; collective.

    ``blocks``: only the leading blocks of frames. ``parts``: grids (frames, slices) of whose largest share each rank
    also times the step alone, without messages; what the cost model is fitted to. ``out``: a JSON file of everything.
    """
    world.on_root(lambda: at_least_one("--steps", steps))
    session = open_session(config, world, "step")
    stepped(session.case, config, "step")
    grid = session.grid if blocks is None else _leading(session, blocks)
    log_session(session)
    times, frames = _time(session, grid, steps)
    measured = Measurement(
        ranks=world.size,
        grid=(grid.shape.frames, grid.shape.slices),
        frames=frames,
        load=replace(session.case.load(), n_blocks=grid.n_blocks),
        per_rank=_per_rank(session, grid, times),
        messages=time_messages(grid),
        parts=[_time_part(session, grid, part, steps) for part in parts],
        identity=identity(config, session.case, steps),
        environment=environment(),
    )
    world.on_root(lambda: _finish(measured, out))


def _finish(measured: Measurement, out: Path | None) -> None:
    seconds = {name: measured.seconds(name) for name in StepTimes._fields}
    parts = ", ".join(f"{name} {1e3 * seconds[name].mean:.3g} ms" for name in StepTimes._fields[1:])
    slowest = seconds["compute"].largest / seconds["compute"].mean
    logger.info("%-12s %.4g ms: %s; slowest rank %.2f x the mean", "step", 1e3 * measured.step, parts, slowest)
    logger.info(
        "%-12s %.3g GB/s over %d ranks, %.1f %% of a plain stream's %.3g GB/s",
        "rate", measured.rate / 1e9, measured.ranks, 100 * measured.rate / measured.stream, measured.stream / 1e9,
    )  # fmt: skip
    for name, messages in measured.messages.items():
        found = fit_network(messages)
        logger.info(
            "%-12s %d ranks over %s: %.3g us a stage and %.3g GB/s",
            "messages", messages[0].ranks, name, 1e6 * found.latency, found.network / 1e9,
        )  # fmt: skip
    if measured.oversubscribed:
        logger.warning("ranks share cores: they wait for each other, and these times say nothing of scaling")
    if out is not None:
        write_text(out, json.dumps(measured.record(), indent=1))


def _leading(session: Session, blocks: int) -> Grid:
    """The grid on the leading blocks of frames alone."""
    grid = session.grid
    if not 1 <= blocks <= grid.n_blocks:
        raise together(
            InputError(
                f"--blocks {blocks}: the data set has {grid.n_blocks} blocks of {session.case.block_frames} frames",
                remedy=f"give a number from 1 to {grid.n_blocks}",
            )
        )
    return replace(grid, n_blocks=blocks)


def _time(session: Session, grid: Grid, steps: int) -> tuple[StepTimes, int]:
    """The times of this rank, and how many frames the grid has; they have left the memory afterwards."""
    add = choose_sum(session.config.run.reductions, grid)
    evaluate = session.case.gradient(grid, session.device.memory, add)
    rows = evaluate.frames.rows
    times = time_steps(evaluate, evaluate.problem.init(session.config.run.seed, rows), steps)
    held = np.array([np.count_nonzero(rows.ids >= 0)])
    return times, int(grid.frames.sum(held)[0])


def _time_part(session: Session, grid: Grid, part: tuple[int, int], steps: int) -> Part:
    """A step on the share of one rank of a grid ``part``, by each rank for itself; the mean over ranks."""
    share = Load(grid.n_blocks, grid.n_tiles, 0, 0).largest_share(part)
    # The shape decides how many passes it takes, as on the grid that the share is of.
    shape = Shape(part[0], 1, "one of its ranks alone")
    alone = make_grid(Ranks(), shape, share.n_blocks, share.n_tiles)
    session.world.barrier()
    times, _ = _time(session, alone, steps)
    mean = session.world.sum(np.array([times.total - times.read]))[0] / session.world.size
    return Part(share.n_blocks, share.n_tiles, float(mean), session.case.load().passes(part))


def _per_rank(session: Session, grid: Grid, times: StepTimes) -> list[dict[str, Any]]:
    """A row for each rank, on root: where it is, its times, the bytes it passes over, and its plain stream."""
    session.world.barrier()
    device = session.device
    row = {
        "host": socket.gethostname(),
        "device": device.name,
        "cores": list(device.cores),
        "seconds": times._asdict(),
        "bytes_passed": session.case.load().passes((grid.shape.frames, grid.shape.slices))
        * session.case.bytes_held(grid),
        "stream_bytes_per_second": memory_bandwidth(),
    }
    return session.world.gather(row) or []
