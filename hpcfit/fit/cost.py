"""The cost of a step: the one model by which a grid is chosen, `hpcfit check` predicts and `hpcfit scaling` is judged.

    seconds = p b t c / bandwidth         p passes over the largest share: b blocks x t tiles of c bytes a cell
            + 8 k t / sums_bandwidth      what is done once a tile: with its k sums, their summary and its derivative
            + messages                    allreduce(8 k t) over frames, allreduce(8 * width * b) over slices, small ones
            + overhead                    what no rank can share out

    allreduce(n bytes, p ranks) = latency log2 p + 2 (p - 1) / p n / network

A step is one value and gradient with reproducible sums on frames that lie in memory: by ``fit.adjoint.Adjoint``, which
passes over them once, where a rank has all frames of its tiles and the problem allows it, else by ``Reverse`` in two
passes; each has a rate of its own. The optimizer's own vectors (64 b numbers) and the waiting for ranks that are slowed
down by others are not in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from hpcfit.config import BLOCK_FRAMES

# Of a plain stream's bandwidth that one pass, or each of two, reaches on one core (tools/bench_frame_weights.py).
STREAM_SHARE = {1: 0.6, 2: 0.3}
# Collectives of a step with reproducible sums, which need the largest part anywhere before each sum, by passes.
COLLECTIVES = {1: {"world": 8, "frames": 2, "slices": 3}, 2: {"world": 9, "frames": 3, "slices": 3}}
FREE = 1e-15  # seconds a byte that cannot be told from none


@dataclass(frozen=True)
class Load:
    """The load that a data set puts on a grid.

    That is its blocks and tiles, the bytes of one cell, and the numbers that a tile sums over frames. one_pass: whether
    a grid with one row of frames passes over them once. block_frames: of a block.
    """

    n_blocks: int
    n_tiles: int
    cell_bytes: int
    tile_sums: int
    one_pass: bool = False
    block_frames: int = BLOCK_FRAMES

    def passes(self, shape: tuple[int, int]) -> int:
        """Over the frames in a step, on a grid of ``shape`` (frames, slices)."""
        return 1 if self.one_pass and shape[0] == 1 else 2

    def bytes_passed(self, shape: tuple[int, int]) -> int:
        """Bytes that all ranks of a grid together read from memory in a step."""
        return self.passes(shape) * self.bytes

    @property
    def bytes(self) -> int:
        """Bytes of all frames."""
        return self.n_blocks * self.n_tiles * self.cell_bytes

    def largest_share(self, shape: tuple[int, int]) -> Load:
        """The load of the rank that holds most on a grid of frames x slices."""
        f, s = shape
        return replace(self, n_blocks=math.ceil(self.n_blocks / f), n_tiles=math.ceil(self.n_tiles / s))


@dataclass(frozen=True)
class Machine:
    """A machine as the model knows it: rates of one rank, bytes per second, and times, seconds.

    bandwidth: of each of two passes; one_pass_bandwidth: of the pass that is alone. The defaults are those of one core
    of a server of 2024 and of a fast network; `hpcfit scaling` measures them.
    """

    bandwidth: float = 5e9
    one_pass_bandwidth: float = 10e9
    sums_bandwidth: float = 1.5e9
    overhead: float = 0.7e-3
    latency: float = 5e-6
    network: float = 5e9

    def rate(self, passes: int) -> float:
        """Bytes per second of a pass, where there are so many."""
        return self.one_pass_bandwidth if passes == 1 else self.bandwidth

    def at(self, change: Callable[[float], float]) -> Machine:
        """This machine with other rates of its passes."""
        return replace(
            self, bandwidth=change(self.bandwidth), one_pass_bandwidth=change(self.one_pass_bandwidth)
        )  # fmt: skip


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
    over_slices = 8 * load.block_frames * share.n_blocks
    passes = load.passes(shape)
    counts = COLLECTIVES[passes]
    latencies = sum(counts[over] * _stages(p) for over, p in (("world", f * s), ("frames", f), ("slices", s)))
    return Cost(
        passes=passes * share.bytes / machine.rate(passes),
        tiles=sums / machine.sums_bandwidth,
        messages=latencies * machine.latency + (_travels(f) * sums + _travels(s) * over_slices) / machine.network,
        overhead=machine.overhead,
    )


def sharing_memory(machine: Machine, alone: float, shared: float) -> Machine:
    """``machine`` where ranks share a memory: a byte takes as much longer as it does in a plain stream.

    alone, shared: bytes per second of a rank's plain stream when the model was fitted, and among the other ranks.
    """
    longer = 1 / shared - 1 / alone
    return machine if longer <= 0 else machine.at(lambda rate: 1 / (1 / rate + longer))


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
        rates = here.at(lambda _: self.share * self.memory)
        return replace(rates, network=self.network, latency=self.latency)


# ---- fitted to measurements --------------------------------------------------------------------------------------


class Part(NamedTuple):
    """A step of one rank on its own, without messages and reading, on so many blocks and tiles, in so many passes."""

    n_blocks: int
    n_tiles: int
    seconds: float
    passes: int


class Message(NamedTuple):
    """An allreduce of so many bytes over so many ranks."""

    ranks: int
    bytes: int
    seconds: float


def fit_rank(parts: Sequence[Part], load: Load, machine: Machine = ASSUMED) -> Machine:
    """``machine`` with the rates and the overhead that describe the parts best, in relative error.

    A rate of which there are no parts stays. Where all parts have the same number of tiles, what a tile costs cannot be
    told from the overhead: then the rates keep the ratios to that of the sums that they have in ``machine``.
    """
    n = np.array([part.n_blocks * part.n_tiles for part in parts], float)
    passes = np.array([part.passes for part in parts])
    sums = np.array([8.0 * load.tile_sums * part.n_tiles for part in parts])
    seconds, ones = np.array([part.seconds for part in parts]), np.ones(len(parts))
    ways = [way for way in (1, 2) if np.any(passes == way)]
    passed = [np.where(passes == way, way * load.cell_bytes * n, 0.0) for way in ways]
    if np.ptp(sums) > 0:
        *per_byte, per_sum, overhead = _least_squares([*passed, sums, ones], seconds)
    else:
        ratios = [machine.rate(way) / machine.sums_bandwidth for way in ways]
        with_sums = [column + np.where(column > 0, ratio * sums, 0.0) for column, ratio in zip(passed, ratios)]
        *per_byte, overhead = _least_squares([*with_sums, ones], seconds)
        per_sum = ratios[0] * per_byte[0]
    rates = {("one_pass_bandwidth", "bandwidth")[way - 1]: _rate(found) for way, found in zip(ways, per_byte)}
    return replace(machine, sums_bandwidth=_rate(per_sum), overhead=overhead, **rates)


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
