"""A scaling series on the terminal: what was measured, what to know of it, and what the model predicts."""

from __future__ import annotations

from typing import Any

from hpcfit.scaling.summary import Prediction, Scaling

WIDTH = 128  # columns that the tables need


def print_tables(scaling: Scaling) -> None:
    """Print the measured rows, the warnings and the predictions."""
    from rich.console import Console

    console = Console()
    console = Console(width=max(console.width, WIDTH))
    console.print(_measured(scaling))
    for warning in scaling.warnings:
        console.print(f"warning: {warning}", highlight=False, markup=False)
    for prediction in scaling.predictions:
        console.print(_predicted(prediction))


def _measured(scaling: Scaling) -> Any:
    heads = (
        "ranks", "grid", "frames", "ms: step", "compute", "reduce", "read", "model", "error",
        "GB/s", "stream's", "speed-up", "stream's", "efficiency",
    )  # fmt: skip
    table = _table(heads, f"\nmeasured, {scaling.mode} scaling (* ranks shared cores)")
    for row in scaling.rows:
        table.add_row(
            str(row.ranks) + "*" * row.oversubscribed, row.grid, str(row.frames),
            *(_ms(seconds) for seconds in (row.step, row.compute, row.reduce, row.read, row.predicted.seconds)),
            f"{100 * row.error:+.0f} %", f"{row.rate / 1e9:.1f}", f"{row.stream / 1e9:.1f}",
            _ratio(row.speedup), _ratio(row.stream_speedup), _percent(row.efficiency),
        )  # fmt: skip
    return table


def _predicted(prediction: Prediction) -> Any:
    machine = prediction.machine
    heads = ("GPUs", "grid", "ms: step", "passes", "tiles", "messages", "overhead", "ranks x 1", "efficiency")
    table = _table(
        heads,
        f"\nPREDICTED, not measured: {prediction.title}\n"
        f"  on GPUs that pass over {machine.one_pass_bandwidth / 1e9:.0f} GB/s,"
        f" network {machine.network / 1e9:.3g} GB/s and {1e6 * machine.latency:.3g} us",
    )
    for row in prediction.rows:
        parts = (row.cost.seconds, *row.cost, row.frames_only.seconds)
        table.add_row(str(row.ranks), row.grid, *(_ms(seconds) for seconds in parts), _percent(row.efficiency))
    return table


def _table(heads: tuple[str, ...], title: str) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1), pad_edge=False)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    return table


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}" if seconds < 1 else f"{1e3 * seconds:.0f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"
