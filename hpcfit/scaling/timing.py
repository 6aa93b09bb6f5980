"""Times of steps and of messages on a grid of ranks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hpcfit.fit.cost import Message
from hpcfit.fit.gradient import Gradient
from hpcfit.fit.grid import Grid
from hpcfit.fit.problem import Params
from hpcfit.ranks import Ranks

WARM_UP = 2  # evaluations; the first compiles
MESSAGE_BYTES = (8, 512, 8 << 10, 64 << 10, 1 << 20, 8 << 20)
MESSAGE_REPEATS = 11


class StepTimes(NamedTuple):
    """Medians over steps on one rank, seconds.

    other: what is none of the rest, such as the gauge of the parameters and the loss.
    """

    total: float
    compute: float
    reduce: float
    read: float
    other: float


def time_steps(evaluate: Gradient, params: Params, steps: int) -> StepTimes:
    """Time ``steps`` evaluations of value and gradient after the warm-up; collective."""
    for _ in range(WARM_UP):
        evaluate(params)
    rows = [_time_step(evaluate, params) for _ in range(steps)]
    return StepTimes(*(statistics.median(column) for column in zip(*rows)))


def _time_step(evaluate: Gradient, params: Params) -> StepTimes:
    evaluate.grid.world.barrier()
    start = time.perf_counter()
    seconds = evaluate(params).seconds
    total = time.perf_counter() - start
    compute, reduce, read = (seconds.get(name, 0.0) for name in ("compute", "reduce", "read"))
    return StepTimes(total, compute, reduce, read, total - compute - reduce - read)


def time_messages(grid: Grid, sizes: Sequence[int] = MESSAGE_BYTES) -> dict[str, list[Message]]:
    """Time sums of int64, as a step has them, over each group of several ranks; collective.

    All groups of a name work at the same time, as in a step; the slowest rank's median counts. Sizes in bytes.
    """
    groups = {name: grid.ranks(name) for name in ("frames", "slices", "world")}
    if 1 in (grid.frames.size, grid.slices.size):
        del groups["world"]  # the same ranks as the other group that has several
    return {
        name: [Message(group.size, size, _message_seconds(grid.world, group, size)) for size in sizes]
        for name, group in groups.items()
        if group.size > 1
    }


def _message_seconds(world: Ranks, group: Ranks, size: int) -> float:
    values = np.ones(size // 8, np.int64)
    times = [_time_sum(world, group, values) for _ in range(MESSAGE_REPEATS)]
    return float(world.max(np.array([statistics.median(times)]))[0])


def _time_sum(world: Ranks, group: Ranks, values: np.ndarray) -> float:
    world.barrier()
    start = time.perf_counter()
    group.sum(values)
    return time.perf_counter() - start
