"""Fits of kind "force-field" write these alike: rows of parameters.csv, errors, lines for the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


def parameter_table(
    names: Sequence[str], start: np.ndarray, values: np.ndarray, of_data: np.ndarray | None = None,
    of_frames: np.ndarray | None = None, correlations: np.ndarray | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The fitted parameters as metrics have them, with errors of data and of frames; None for what is not known."""
    found = {"start": start, "values": values, "errors_of_data": of_data, "errors_of_frames": of_frames}
    columns = found | {"correlations": correlations}
    return {"names": list(names), **{key: None if one is None else one.tolist() for key, one in columns.items()}}


def total_errors(table: dict[str, Any]) -> list[float]:
    """The errors by data and by frames together, NaN where one that is asked for is not known."""
    of_data, of_frames = (table[key] for key in ("errors_of_data", "errors_of_frames"))
    if of_data is None:
        return [np.nan] * len(table["names"])
    return np.hypot(of_data, 0.0 if of_frames is None else of_frames).tolist()


def parameter_rows(table: dict[str, Any], units: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """A row for each fitted parameter; an error that is not known is empty."""
    nothing = [""] * len(table["names"])
    errors = ((table[key] or nothing) for key in ("errors_of_data", "errors_of_frames"))
    columns = table["names"], units, table["start"], table["values"], total_errors(table), *errors
    for name, unit, start, value, total, *parts in zip(*columns):
        yield name, unit, start, value, "" if np.isnan(total) else total, *parts


def parameter_lines(table: dict[str, Any]) -> list[str]:
    """The fitted parameters with their errors, a line each."""
    return [
        f"{name:16s} {value:.5g}" + ("" if np.isnan(error) else f" +- {error:.2g}")
        for name, value, error in zip(table["names"], table["values"], total_errors(table))
    ]
