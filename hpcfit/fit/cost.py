"""What a step costs: the one model by which a grid is chosen, `hpcfit check` predicts and `hpcfit scaling` is judged.

    seconds = 2 b t c / bandwidth         two passes over the largest share: b blocks x t tiles of c bytes a cell
            + 8 k t / sums_bandwidth      what is done once a tile: with its k sums, their summary and its derivative
            + messages                    allreduce(8 k t) over frames, allreduce(8 * 64 b) over slices, small ones
            + overhead                    what no rank can share out

    allreduce(n bytes, p ranks) = latency log2 p + 2 (p - 1) / p n / network

A step is one value and gradient by ``fit.gradient.Reverse`` with reproducible sums on frames that lie in memory. The
optimizer's own vectors (64 b numbers) and the waiting for ranks that are slowed down by others are not in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from hpcfit.config import BLOCK_FRAMES

PASSES = 2  # over the frames in a step
STREAM_SHARE = 0.3  # of a plain stream's bandwidth that the passes reach, measured on one core (tools/bench_step)
# Collectives of a step of ``Reverse`` with reproducible sums, which need the largest part anywhere before each sum.
COLLECTIVES = {"world": 9, "frames": 2, "slices": 3}
FREE = 1e-15  # seconds a byte that cannot be told from none


@dataclass(frozen=True)
class Load:
    """What a data set asks of a grid.

    That is its blocks and tiles, the bytes of one cell, and the numbers that a tile sums over frames.
    """

    n_blocks: int
    n_tiles: int
    cell_bytes: int
    tile_sums: int

    @property
    def bytes_passed(self) -> int:
        """Bytes that all ranks together read from memory in a step."""
        return PASSES * self.n_blocks * self.n_tiles * self.cell_bytes

    def largest_share(self, shape: tuple[int, int]) -> Load:
        """The load of the rank that holds most on a grid of frames x slices."""
        f, s = shape
        return Load(math.ceil(self.n_blocks / f), math.ceil(self.n_tiles / s), self.cell_bytes, self.tile_sums)


@dataclass(frozen=True)
class Machine:
    """What the model knows of a machine: rates of one rank, bytes per second, and times, seconds.

    The defaults are those of one core of a server of 2024 and of a fast network; `hpcfit scaling` measures them.
    """

    bandwidth: float = 10e9
    sums_bandwidth: float = 1.5e9
    overhead: float = 0.7e-3
    latency: float = 5e-6
    network: float = 5e9


ASSUMED = Machine()  # where nothing has been measured, as for choosing a grid


class Cost(NamedTuple):
    """The seconds of a step, by what they are spent on."""

    passes: float
    tiles: float
    messages: float
    overhead: float

    @property
    def seconds(self) -> float:
        """All of it."""
        return sum(self)


def step_cost(shape: tuple[int, int], load: Load, machine: Machine = ASSUMED) -> Cost:
    """The cost of a step on a grid of ``shape`` (frames, slices)."""
    f, s = shape
    share = load.largest_share(shape)
    sums = 8 * share.tile_sums * share.n_tiles
    over_slices = 8 * BLOCK_FRAMES * share.n_blocks
    latencies = sum(COLLECTIVES[over] * _stages(p) for over, p in (("world", f * s), ("frames", f), ("slices", s)))
    return Cost(
        passes=share.bytes_passed / machine.bandwidth,
        tiles=sums / machine.sums_bandwidth,
        messages=latencies * machine.latency + (_travels(f) * sums + _travels(s) * over_slices) / machine.network,
        overhead=machine.overhead,
    )


def sharing_memory(machine: Machine, alone: float, shared: float) -> Machine:
    """``machine`` where ranks share a memory: a byte takes as much longer as it does in a plain stream.

    alone, shared: bytes per second of a rank's plain stream when the model was fitted, and among the other ranks.
    """
    longer = 1 / shared - 1 / alone
    return machine if longer <= 0 else replace(machine, bandwidth=1 / (1 / machine.bandwidth + longer))


def _stages(ranks: int) -> float:
    """Messages that follow one another in an allreduce of a few bytes (recursive doubling)."""
    return math.log2(ranks)


def _travels(ranks: Any) -> Any:
    """How often each byte passes a rank's link in an allreduce of many bytes (Rabenseifner's)."""
    return 2 * (ranks - 1) / ranks


@dataclass(frozen=True)
class Accelerator:
    """A machine that is not here, of which only data-sheet figures are known.

    memory: bytes per second that a plain stream reads; share: of it that the passes over frames reach; network: bytes
    per second of a rank's link; latency: seconds of a small message.
    """

    memory: float
    share: float
    network: float
    latency: float

    def machine(self, here: Machine) -> Machine:
        """It as the model sees it, with the host's part of a step (sums of tiles, overhead) as it is ``here``."""
        return replace(here, bandwidth=self.share * self.memory, network=self.network, latency=self.latency)


# ---- fitted to measurements --------------------------------------------------------------------------------------


class Part(NamedTuple):
    """A step of one rank on its own, without messages and reading, on so many blocks and tiles."""

    n_blocks: int
    n_tiles: int
    seconds: float


class Message(NamedTuple):
    """An allreduce of so many bytes over so many ranks."""

    ranks: int
    bytes: int
    seconds: float


def fit_rank(parts: Sequence[Part], load: Load, machine: Machine = ASSUMED) -> Machine:
    """``machine`` with the rates and the overhead that describe the parts best, in relative error.

    Where all parts have the same number of tiles, what a tile costs cannot be told from the overhead: then the two
    rates keep the ratio that they have in ``machine``.
    """
    shares = [Load(part.n_blocks, part.n_tiles, load.cell_bytes, load.tile_sums) for part in parts]
    passed = np.array([float(share.bytes_passed) for share in shares])
    sums = np.array([8.0 * share.tile_sums * share.n_tiles for share in shares])
    seconds, ones = np.array([part.seconds for part in parts]), np.ones(len(parts))
    if np.ptp(sums) > 0:
        per_byte, per_sum, overhead = _least_squares([passed, sums, ones], seconds)
    else:
        ratio = machine.bandwidth / machine.sums_bandwidth
        per_byte, overhead = _least_squares([passed + ratio * sums, ones], seconds)
        per_sum = ratio * per_byte
    return replace(machine, bandwidth=_rate(per_byte), sums_bandwidth=_rate(per_sum), overhead=overhead)


def fit_network(messages: Sequence[Message], machine: Machine = ASSUMED) -> Machine:
    """``machine`` with the latency and bandwidth that describe the messages best, in relative error."""
    ranks, sizes, seconds = (np.array(column, float) for column in zip(*messages, strict=True))
    latency, per_byte = _least_squares([np.log2(ranks), _travels(ranks) * sizes], seconds)
    return replace(machine, latency=latency, network=_rate(per_byte))


def _least_squares(columns: Sequence[np.ndarray], seconds: np.ndarray) -> list[float]:
    """Non-negative coefficients, for the smallest sum of squared relative errors."""
    from scipy.optimize import nnls

    matrix = np.stack(columns, axis=1) / seconds[:, None]
    scale = np.maximum(np.abs(matrix).max(axis=0), np.finfo(float).tiny)
    return (nnls(matrix / scale, np.ones(len(seconds)))[0] / scale).tolist()


def _rate(seconds_per_byte: float) -> float:
    return 1 / max(seconds_per_byte, FREE)
