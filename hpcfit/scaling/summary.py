"""A scaling series: medians of its measurements, speed-up and efficiency, the cost model fitted to it and beyond it."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from hpcfit.fit.cost import (
    ASSUMED,
    FREE,
    STREAM_SHARE,
    Accelerator,
    Cost,
    Load,
    Machine,
    Message,
    Part,
    fit_network,
    fit_rank,
    sharing_memory,
    step_cost,
)  # fmt: skip
from hpcfit.fit.grid import choose_shape
from hpcfit.scaling.measurement import Measurement

PREDICTED_RANKS = tuple(2**n for n in range(11))  # 1 to 1024
NOISY = 0.1  # spread of repeats that is worth a warning
# 5000 frames x 1e6 reflections in float32 (40 GB), three sums a reflection.
LARGE = ("5000 frames x 1,000,000 reflections, float32", Load(79, 489, 64 * 2048 * 8, 3 * 2048, one_pass=True))

Repeats = Mapping[int, Measurement]  # by number
Timed = TypeVar("Timed", Part, Message)


class Row(NamedTuple):
    """One number of ranks on one grid, medians over the repeats; seconds, bytes per second.

    imbalance: computing of the slowest rank by the mean. speedup, efficiency and stream_speedup are against the first
    row, repeat by repeat; None where ranks shared cores, or where no repeat was measured on both.
    """

    ranks: int
    grid: str
    nodes: int
    frames: int
    blocks: int
    tiles: int
    repeats: int
    oversubscribed: bool
    step: float
    step_fastest: float
    step_slowest: float
    compute: float
    imbalance: float
    reduce: float
    read: float
    other: float
    rate: float
    stream: float
    speedup: float | None
    efficiency: float | None
    stream_speedup: float | None
    predicted: Cost

    @property
    def error(self) -> float:
        """The relative error of the predicted step; the measured one is without reading frames from the disk."""
        return self.predicted.seconds / (self.step - self.read) - 1


class PredictedRow(NamedTuple):
    """A step on the grid that `auto` would choose, and on ranks x 1; efficiency against one rank."""

    ranks: int
    grid: str
    cost: Cost
    frames_only: Cost
    efficiency: float


class Prediction(NamedTuple):
    """Steps of a problem on a machine that is not here, as the cost model predicts them."""

    title: str
    load: Load
    machine: Machine
    rows: list[PredictedRow]


@dataclass(frozen=True)
class Scaling:
    """A series with the model. fitted: what the model of a `rank` and of `messages` was fitted to, in words."""

    mode: str
    summary: dict[str, str]
    load: Load
    rows: list[Row]
    machine: Machine
    fitted: dict[str, str]
    accelerator: Accelerator
    predictions: list[Prediction]
    warnings: list[str]


def summarise(
    mode: str,
    summary: dict[str, str],
    load: Load,
    measured: Sequence[Repeats],
    accelerator: Callable[[float], Accelerator],
) -> Scaling:
    """Put a series together; ``measured``: for each number of ranks and grid its repeats, the fewest ranks first.

    summary: the problem in words; load: of the whole data set; accelerator: given the share of a plain stream's
    bandwidth that the passes over frames reach here, the machine to predict for.
    """
    machine, fitted = _fit(measured, load)
    rows = [_row(repeats, measured[0], machine) for repeats in measured]
    # Without a measured rate of the passes (one rank, and a fit that tells them from the rest) nothing is known of it.
    passes = load.passes((1, 1))
    known = "rank" in fitted and machine.rate(passes) < 1 / FREE
    share = min(1.0, machine.rate(passes) * rows[0].ranks / rows[0].stream) if known else STREAM_SHARE[passes]
    beyond = accelerator(share)
    problems = [(f"this problem, {load.n_blocks} blocks x {load.n_tiles} tiles", load), LARGE]
    predictions = [predict(title, each, beyond.machine(machine)) for title, each in problems]
    return Scaling(mode, summary, load, rows, machine, fitted, beyond, predictions, _warnings(rows, fitted, measured))


def predict(title: str, load: Load, machine: Machine) -> Prediction:
    """The model's steps of a problem on 1 to 1024 ranks of a machine."""
    one = step_cost((1, 1), load, machine).seconds
    rows = []
    for ranks in PREDICTED_RANKS:
        shape = choose_shape(ranks, "auto", "auto", load, machine)
        cost = step_cost((shape.frames, shape.slices), load, machine)
        frames_only = step_cost((ranks, 1), load, machine)
        rows.append(
            PredictedRow(ranks, f"{shape.frames}x{shape.slices}", cost, frames_only, one / cost.seconds / ranks)
        )
    return Prediction(title, load, machine, rows)


def _fit(measured: Sequence[Repeats], load: Load) -> tuple[Machine, dict[str, str]]:
    """The model fitted to what there is; what there is not stays as it is assumed elsewhere."""
    machine, fitted = ASSUMED, {}
    everything = [m for repeats in measured for m in repeats.values() if not m.oversubscribed]
    if parts := _medians(part for m in everything if m.ranks == 1 for part in (m.whole, *m.parts)):
        machine = fit_rank(parts, load, machine)
        fitted["rank"] = f"steps of one rank on all and on {len(parts) - 1} parts of the problem"
    if messages := _medians(message for m in everything for found in m.messages.values() for message in found):
        machine = fit_network(messages, machine)
        fitted["messages"] = f"sums of 8 bytes to {max(m.bytes for m in messages) >> 20} MiB over groups of ranks"
    return machine, fitted


def _medians(timed: Iterable[Timed]) -> list[Timed]:
    """One for each that differs in more than its seconds."""
    seconds = defaultdict(list)
    for each in timed:
        seconds[each._replace(seconds=0.0)].append(each.seconds)
    return [each._replace(seconds=statistics.median(found)) for each, found in seconds.items()]


def _row(repeats: Repeats, base: Repeats, machine: Machine) -> Row:
    found = list(repeats.values())
    first, steps = found[0], [m.step for m in found]
    seconds = {
        name: statistics.median(m.seconds(name).mean for m in found) for name in ("compute", "reduce", "read", "other")
    }
    stream = statistics.median(m.stream for m in found)
    crowded = any(m.oversubscribed for m in (*found, *base.values()))
    speedup = None if crowded else _paired(repeats, base, lambda m: m.load.n_blocks / m.step)
    alone = statistics.median(m.stream / m.ranks for m in base.values())
    here = sharing_memory(machine, alone, shared=stream / first.ranks)
    return Row(
        ranks=first.ranks,
        grid=f"{first.grid[0]}x{first.grid[1]}",
        nodes=first.nodes,
        frames=first.frames,
        blocks=first.load.n_blocks,
        tiles=first.load.n_tiles,
        repeats=len(found),
        oversubscribed=any(m.oversubscribed for m in found),
        step=statistics.median(steps),
        step_fastest=min(steps),
        step_slowest=max(steps),
        imbalance=statistics.median(m.seconds("compute").largest / m.seconds("compute").mean for m in found),
        rate=statistics.median(m.rate for m in found),
        stream=stream,
        speedup=speedup,
        efficiency=None if speedup is None else speedup * next(iter(base.values())).ranks / first.ranks,
        stream_speedup=None if crowded else _paired(repeats, base, lambda m: m.stream),
        predicted=step_cost(first.grid, first.load, here),
        **seconds,
    )


def _paired(repeats: Repeats, base: Repeats, speed: Callable[[Measurement], float]) -> float | None:
    """The median over the repeats of how many times faster, each against the same repeat of the base."""
    ratios = [speed(repeats[number]) / speed(base[number]) for number in repeats if number in base]
    return statistics.median(ratios) if ratios else None


def _warnings(rows: Sequence[Row], fitted: dict[str, str], measured: Sequence[Repeats]) -> list[str]:
    """What a reader of the figures must know."""
    processors = {m.environment["processor"] for repeats in measured for m in repeats.values()}
    mixed = [f"the series was measured on different processors: {', '.join(sorted(processors))}"]
    return [*_of_points(rows), *(mixed if len(processors) > 1 else []), *_of_model(rows, fitted)]


def _of_points(rows: Sequence[Row]) -> Iterator[str]:
    if crowded := [f"{row.ranks} on {row.grid}" for row in rows if row.oversubscribed]:
        yield f"ranks shared cores ({', '.join(crowded)}): such a point says nothing of scaling and has no efficiency"
    if noisy := [row for row in rows if row.step_slowest > (1 + NOISY) * row.step_fastest]:
        worst = 100 * max(row.step_slowest / row.step_fastest - 1 for row in noisy)
        yield (
            f"repeats of {len(noisy)} of {len(rows)} points differ by up to {worst:.0f} %: other work disturbed them;"
            " measure again on a quiet machine"
        )
    if above := [f"{row.ranks} on {row.grid}" for row in rows if (row.efficiency or 0.0) > 1 + NOISY / 2]:
        yield (
            f"faster than ideal: {', '.join(above)}: the run on {rows[0].ranks} was disturbed, or smaller shares fit"
            " into a cache"
        )


def _of_model(rows: Sequence[Row], fitted: dict[str, str]) -> Iterator[str]:
    if rows[0].ranks == 1 and rows[0].predicted.passes < 0.5 * rows[0].predicted.seconds:
        yield (
            "less than half of a step on one rank is passing over frames: this problem is too small for its figures to"
            " say much of large ones"
        )
    if "rank" not in fitted:
        yield "no point of 1 rank without shared cores: the model of a rank is assumed, not fitted"
    if "messages" not in fitted:
        yield "no point of several ranks without shared cores: the model of messages is assumed, not fitted"
    elif all(row.nodes == 1 for row in rows):
        yield "all ranks were on one node: messages between nodes were not measured"
