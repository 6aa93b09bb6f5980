"""The history of a run, read and checked: one row an evaluation, over all its fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError

AGAIN = "run `hpcfit optimize` again with --resume, then `hpcfit report`"


class History(NamedTuple):
    """One value per evaluation of the loss, ascending; NaN where a quantity was not recorded."""

    columns: dict[str, np.ndarray]  # name -> float64 [evaluations]
    note: str  # what was left out of the file, or ""

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns.get(name, np.full(len(self), np.nan))

    def __len__(self) -> int:
        return len(self.columns["evaluation"])

    @property
    def newest_fit(self) -> int:
        """The number of the fit that the last evaluation belongs to; 0 where the rows do not say."""
        last = self["fit"][-1]
        return 0 if np.isnan(last) else int(last)

    def of_fit(self, number: int) -> History:
        """The evaluations of one fit; all of them where the rows do not say whose they are, as older runs wrote one."""
        if "fit" not in self.columns:
            return self
        chosen = self["fit"] == number
        return History({name: values[chosen] for name, values in self.columns.items()}, self.note)


def read_history(path: Path) -> History:
    """The JSON lines of a history.

    A last line cut by a kill is left out; of an evaluation computed again after a resume the later row counts.
    """
    rows, notes = {}, []
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text: {error}", remedy=AGAIN) from None
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows[int(row["evaluation"])] = row
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                raise InputError(f"{path}, line {number}, is not a row of a history: {error!r}", remedy=AGAIN) from None
            notes.append("The last line of the history was cut off and is left out.")
    if not rows:
        raise InputError(f"{path} holds no evaluation: there is nothing to report yet", remedy=AGAIN)
    repeated = len(lines) - len(notes) - len(rows)
    if repeated:
        notes.append(f"{repeated} evaluations were computed again after a resume; the later values are shown.")
    ordered = [rows[key] for key in sorted(rows)]
    names = {name for row in ordered for name, value in row.items() if not isinstance(value, str)}
    return History({name: _column(ordered, name) for name in names}, " ".join(notes))


def _column(rows: list[dict], name: str) -> np.ndarray:
    values = (row.get(name) for row in rows)
    return np.array([np.nan if value is None else value for value in values], float)
