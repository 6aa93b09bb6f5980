"""The page of a scaling series: measured, compared with the model, and what the model predicts beyond the machine."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from markupsafe import Markup

from hpcfit.report.page import (
    Card,
    Cards,
    Figure,
    Fold,
    Section,
    Table,
    Text,
    duration,
    number,
    percent,
    render,
    significant,
)
from hpcfit.report.terminal import print_table
from hpcfit.scaling.figures import overview, predicted
from hpcfit.scaling.summary import Prediction, Row, Scaling

ORIGIN = Markup("from the measurements beside it; <code>hpcfit scaling</code> with the same options writes it anew")

OVERVIEW = (
    "Bars: a step in its parts, means over the ranks and medians over the repeats; the stroke spans the repeats, "
    "dashes are the model. “reduce” includes the waiting for the slowest rank; “read” is the waiting for frames from "
    "the disk. Lines: the fastest grid of each number of ranks. The baseline is the grey one, a plain read of memory "
    "by the same ranks at the same time: a step cannot be expected to scale better. Hollow circles, and * on the bars: "
    "ranks that shared cores."
)
TIMES = "Medians over the repeats of a step, and of its parts averaged over the ranks."
SPEED = (
    "Speed-up and efficiency are ratios within each repeat, then the median, against the first row (for weak scaling: "
    "of frames passed per second); beside each what a plain stream of memory reached on the same ranks, the baseline. "
    "Imbalance: computing of the slowest rank by the mean."
)
MODEL = (
    "A step costs one pass over the largest share of the frames, or two on a grid with several rows of frames, the "
    "work that is done once a tile, messages, and what no rank can share out. An allreduce of n bytes over p ranks "
    "costs latency × log₂p + 2(p−1)/p × n / bandwidth. Where ranks share a memory, a byte takes as much longer as it "
    "does in the plain stream on the same ranks. Reading from the disk and waiting for others are not in it; the error "
    "is against a measured step without reading."
)
PREDICTED = (
    "PREDICTED by the model, not measured. “ranks × 1”: the same with frames alone dealt out, for comparison. "
    "Efficiency is against one rank of the same machine, whether or not its memory could hold the frames."
)


def page(scaling: Scaling, name: str) -> str:
    """The page as HTML text."""
    sections = [_outcome(scaling), _measured(scaling), _model(scaling), _beyond(scaling), _problem(scaling)]
    return render(f"hpcfit scaling: {name}", f"{scaling.mode} scaling", sections, ORIGIN)


def print_tables(scaling: Scaling) -> None:
    """Print the tables of the page and its warnings."""
    times, speed = _measured_tables(scaling)
    print_table(f"measured, {scaling.mode} scaling (* ranks shared cores)", times)
    print_table("rates, speed-up and efficiency", speed)
    print_table("model against measurement", _model_table(scaling))
    for warning in scaling.warnings:
        sys.stdout.write(f"warning: {warning}\n")
    for prediction in scaling.predictions:
        print_table(f"PREDICTED, not measured: {prediction.title}", _prediction(prediction))


def _outcome(scaling: Scaling) -> Section:
    warnings = [Text(text, warning=True) for text in scaling.warnings]
    return Section("Outcome", [Text(_what(scaling)), _cards(scaling), *warnings])


def _what(scaling: Scaling) -> str:
    sizes = ", ".join(f"{n} on {frames}" for n, frames in dict.fromkeys((r.ranks, r.frames) for r in scaling.rows))
    how = (
        f"the same {scaling.rows[0].frames} frames on every number of ranks"
        if scaling.mode == "strong"
        else f"frames in proportion to the ranks (ranks on frames: {sizes})"
    )
    return f"A step, value and gradient of the loss, with {how}. Reflections: {scaling.summary['reflections']}."


def _cards(scaling: Scaling) -> Cards:
    """The most ranks that had cores of their own, beside the baselines."""
    rows = [row for row in scaling.rows if row.efficiency is not None] or scaling.rows[:1]
    most = min((row for row in rows if row.ranks == rows[-1].ranks), key=lambda row: row.step)
    first = scaling.rows[0]
    ranks = f"{most.ranks} rank{'s' * (most.ranks > 1)}, grid {most.grid}"
    stream = Markup("plain stream: {}").format
    return Cards(
        [
            Card("Step", duration(most.step), Markup("{} on {}").format(duration(first.step), first.ranks), ranks),
            Card("Speed-up", significant(most.speedup), stream(significant(most.stream_speedup)), ranks),
            Card("Efficiency", percent(most.efficiency), stream(percent(_stream_efficiency(most, first))), ranks),
            Card(
                "Rate, GB/s",
                significant(most.rate / 1e9),
                stream(significant(most.stream / 1e9)),
                "frames passed over by all ranks",
            ),
        ]
    )


def _stream_efficiency(row: Row, first: Row) -> float | None:
    return None if row.stream_speedup is None else row.stream_speedup * first.ranks / row.ranks


def _measured(scaling: Scaling) -> Section:
    alt = "Time of a step in its parts, speed-up, efficiency and rates against the number of ranks"
    return Section("Measured", [Figure(overview(scaling), alt, OVERVIEW), *_measured_tables(scaling)])


def _measured_tables(scaling: Scaling) -> tuple[Table, Table]:
    first = scaling.rows[0]
    times = ("ranks", "grid", "nodes", "frames", "repeats", "step", "compute", "reduce", "read", "other")
    speed = ("ranks", "grid", "GB/s", "stream's", "speed-up", "stream's", "efficiency", "stream's", "imbalance")
    return (
        Table(times, [_times(row) for row in scaling.rows], TIMES, 2),
        Table(speed, [_speed(row, first) for row in scaling.rows], SPEED, 2),
    )


def _times(row: Row) -> list[str]:
    seconds = (row.step, row.compute, row.reduce, row.read, row.other)
    counts = (row.nodes, row.frames, row.repeats)
    return [_ranks(row), row.grid, *(str(count) for count in counts), *(duration(value) for value in seconds)]


def _speed(row: Row, first: Row) -> list[str]:
    return [
        _ranks(row), row.grid, significant(row.rate / 1e9), significant(row.stream / 1e9), significant(row.speedup),
        significant(row.stream_speedup), percent(row.efficiency), percent(_stream_efficiency(row, first)),
        significant(row.imbalance),
    ]  # fmt: skip


def _ranks(row: Row) -> str:
    return f"{row.ranks}{'*' * row.oversubscribed}"


def _model(scaling: Scaling) -> Section:
    fitted = "; ".join(scaling.fitted.values()) or "nothing of this series: all of it is assumed"
    said = Text(f"Fitted to {fitted}.")
    return Section("Model against measurement", [said, _machine(scaling), _model_table(scaling)])


def _model_table(scaling: Scaling) -> Table:
    head = ("ranks", "grid", "measured", "model", "error", "passes", "tiles", "messages", "overhead")
    rows = [
        [
            _ranks(row), row.grid, duration(row.step), duration(row.predicted.seconds), _error(row.error),
            *(duration(part) for part in row.predicted),
        ]
        for row in scaling.rows
    ]  # fmt: skip
    return Table(head, rows, MODEL, 2)


def _error(value: float) -> Markup:
    return number(value, f"{100 * value:+.0f} %")


def _machine(scaling: Scaling) -> Table:
    machine = scaling.machine
    rows = [
        ["the pass over frames that is alone, a rank alone", significant(machine.one_pass_bandwidth / 1e9) + " GB/s"],
        ["each of two passes over frames, a rank alone", significant(machine.bandwidth / 1e9) + " GB/s"],
        ["sums of tiles, a rank", significant(machine.sums_bandwidth / 1e9) + " GB/s"],
        ["overhead of a step", duration(machine.overhead)],
        ["latency of a message's stage", significant(1e6 * machine.latency) + " µs"],
        ["bandwidth of messages", significant(machine.network / 1e9) + " GB/s"],
    ]
    return Table(("model", ""), rows, "What the model knows of this machine.")


def _beyond(scaling: Scaling) -> Section:
    beyond = scaling.accelerator
    assumptions = (
        f"Assumed of each GPU: {beyond.memory / 1e9:g} GB/s of memory, of which the passes over frames reach "
        f"{100 * beyond.share:.0f} % (by default what they reach here); {beyond.network / 1e9:g} GB/s and "
        f"{1e6 * beyond.latency:g} µs of network; the work once a tile and the overhead of a step as on one core here. "
        "Give your machine's figures with --memory-bandwidth, --memory-share, --network-bandwidth and --latency."
    )
    alt = "Predicted time of a step against the number of ranks, for this problem and a large one"
    tables = [_prediction(prediction) for prediction in scaling.predictions]
    return Section(
        "Predicted, not measured: up to 1024 GPUs",
        [Text(assumptions, warning=True), Figure(predicted(scaling.predictions), alt, PREDICTED), *tables],
    )


def _prediction(prediction: Prediction) -> Table:
    head = ("GPUs", "grid", "step", "passes", "tiles", "messages", "overhead", "efficiency", "ranks × 1")
    rows = [
        [
            str(row.ranks), row.grid, duration(row.cost.seconds), *(duration(part) for part in row.cost),
            percent(row.efficiency), duration(row.frames_only.seconds),
        ]
        for row in prediction.rows
    ]  # fmt: skip
    return Table(head, rows, f"PREDICTED: {prediction.title}.", 2)


def _problem(scaling: Scaling) -> Section:
    text = "\n".join(f"{name:<12} {value}" for name, value in scaling.summary.items())
    sizes = json.dumps(asdict(scaling.load))
    return Section("Problem", [Fold("What was stepped", f"{text}\n{'load':<12} {sizes}")])
