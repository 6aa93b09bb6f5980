"""The files of a sweep: sweep.csv with a row a point, sweep_means.csv where axes are repeated, and sweep.html."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hpcfit.log import in_columns, logger
from hpcfit.store.files import write_csv, write_text
from hpcfit.sweep.outcome import PLAN, Mean, Outcome, Sweep


def is_sweep(folder: Path) -> bool:
    """True where a folder is that of a sweep."""
    return (folder / PLAN).is_file()


def write_sweep(sweep: Sweep) -> Path:
    """Write table and page of a sweep as it is now; the page's path."""
    from hpcfit.sweep.page import sweep_page

    keys, names = [axis.key for axis in sweep.axes], [metric.name for metric in sweep.metrics]
    columns = [*keys, *names, "state", "directory", "error"]
    _write_table(sweep.folder / "sweep.csv", columns, map(_row, sweep.outcomes))
    if any(axis.repeat for axis in sweep.axes):
        keys = [axis.key for axis in sweep.axes if not axis.repeat]
        statistics = [f"{name}_{kind}" for name in names for kind in ("mean", "deviation")]
        columns = [*keys, "finished", "points", *statistics]
        _write_table(sweep.folder / "sweep_means.csv", columns, map(_mean_row, sweep.means()))
    page = sweep.folder / "sweep.html"
    write_text(page, sweep_page(sweep))
    logger.info("table %s, page %s", sweep.folder / "sweep.csv", page)
    return page


def print_table(sweep: Sweep) -> None:
    """A line a point on standard output: its values, state and main quantities."""
    shown = [metric.name for metric in sweep.metrics if metric.brief]
    head = [*(axis.key for axis in sweep.axes), "state", *shown, "directory"]
    rows = [[_text(_row(outcome).get(name)) for name in head] for outcome in sweep.outcomes]
    sys.stdout.writelines(f"{line}\n" for line in in_columns([head, *rows]))


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _row(outcome: Outcome) -> dict[str, Any]:
    point = outcome.point
    about = {"state": outcome.state, "directory": point.directory.name, "error": outcome.error}
    return {**point.values, **outcome.quantities, **about}


def _mean_row(mean: Mean) -> dict[str, Any]:
    means = {f"{name}_mean": value for name, value in mean.mean.items()}
    deviations = {f"{name}_deviation": value for name, value in mean.deviation.items()}
    return {**mean.values, "finished": len(mean.outcomes), "points": mean.points, **means, **deviations}


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]) -> None:
    """A column that a row lacks is empty."""
    write_csv(path, columns, ([row.get(name) for name in columns] for row in rows))
