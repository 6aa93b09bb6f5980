"""Trajectories and states of the frames of tables, from a file, or from a store of positions."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpcfit.errors import InputError, check_is_file
from hpcfit.kinds.frame_weights.groups import MOST_LABELS
from hpcfit.kinds.frame_weights.trajectories import Trajectories
from hpcfit.observables.frame_tables import DataTables
from hpcfit.readers.boundary import reading

REMEDY = (
    "give a CSV file with a line for each row of the tables, in their order, and the columns frame (0, 1, ...) and"
    " source, and perhaps label (of a whole source) and state (of a frame)"
)
UNKNOWN = "all frames"


def open_trajectories(path: Path | None, tables: Sequence[DataTables], w0: np.ndarray) -> Trajectories:
    """Those of a file, else of the store of positions that data are computed of, else one of all frames. w0: [T]."""
    stores = [one.frames for one in tables if one.config.positions is not None]
    if path is not None:
        source, label, state = _read(path, len(w0))
    elif stores:
        source, label = stores[0].sources_and_labels()
        state = _few(label)
    else:
        source, label, state = [UNKNOWN] * len(w0), [""] * len(w0), [""] * len(w0)
    return _numbered(source, label, state, w0 > 0)


def _numbered(source: Sequence[str], label: Sequence[str], state: Sequence[str], held: np.ndarray) -> Trajectories:
    """A source without a label is a state of its own."""
    sources, first, number = np.unique(np.array(source)[held], return_index=True, return_inverse=True)
    labels = [label[row] or source[row] for row in np.flatnonzero(held)[first]]
    states = sorted({state[row] for row in np.flatnonzero(held)})
    of_source, of_state = np.full(len(held), -1), np.full(len(held), -1)
    of_source[held] = number
    of_state[held] = np.searchsorted(states, np.array(state)[held])
    return Trajectories(sources.tolist(), of_source, np.array(labels), [one or UNKNOWN for one in states], of_state)


def _read(path: Path, n_frames: int) -> tuple[list[str], list[str], list[str]]:
    """Source, label and state of each frame. Raises InputError that names file and line."""
    what = f"[problem] trajectories = {path}"
    check_is_file(path)
    with reading(f"{what} cannot be read as CSV", REMEDY), path.open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        rows, names = list(table), table.fieldnames or []
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise InputError(f"{what} has two columns {repeated}", remedy=REMEDY)
    missing = [name for name in ("frame", "source") if name not in names]
    if missing:
        raise InputError(f"{what} has the columns {', '.join(names) or 'none'}: no {missing[0]}", remedy=REMEDY)
    if len(rows) != n_frames:
        raise InputError(f"{what} has {len(rows)} frames, the tables have {n_frames}", remedy=REMEDY)
    labels: dict[str, str] = {}
    for number, row in enumerate(rows):
        source, label = row["source"], row.get("label") or ""
        if None in row or None in row.values():
            raise InputError(f"{what}: row {number} has not {len(names)} fields, as the head has", remedy=REMEDY)
        if row["frame"] != str(number):
            raise InputError(f"{what}: row {number} is of frame '{row['frame']}'", remedy=REMEDY)
        if not source:
            raise InputError(f"{what}: frame {number} has no source", remedy=REMEDY)
        if labels.setdefault(source, label) != label:
            raise InputError(
                f"{what}: frame {number} of source '{source}' has label '{label}', frames before it '{labels[source]}'",
                remedy="a label is of a whole trajectory: give the state of each frame in a column named state",
            )
    sources, of_sources = [row["source"] for row in rows], [labels[row["source"]] for row in rows]
    return sources, of_sources, [row["state"] for row in rows] if "state" in names else _few(of_sources)


def _few(labels: Sequence[str]) -> Sequence[str]:
    """The labels of frames as their states; one state of all where they are so many that they are trajectories."""
    return labels if len(set(labels)) <= MOST_LABELS else [""] * len(labels)
