"""The time axis of frames: from the store, or from a time step and the names of files; the window that is analysed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.log import inputs

NAMED = re.compile(r"frame_(\d+)\.(?:xyz|pdb)$", re.IGNORECASE)
TAGGED = re.compile(r"(?:_t|^t|f)(\d+(?:p\d+)?)fs(?:_|$)")  # of a folder: splitxyz_t497p5fs, and the older f847fs
UNEVEN = 1e-6  # relative, of steps that count as equal


class Segment(NamedTuple):
    """Frames of one trajectory in the window. rows: [n] of all frames; time: [n] fs; start, stop: of the window, fs."""

    rows: np.ndarray
    time: np.ndarray
    start: float
    stop: float

    @property
    def duration(self) -> float:
        """The time that rates are counted over, ps."""
        return (max(self.stop, float(self.time[-1])) - self.start) / 1000


class Axis(NamedTuple):
    """The frames in time. step: between frames, fs; said: where times are from."""

    segments: Sequence[Segment]
    step: float
    said: str

    @property
    def rows(self) -> np.ndarray:
        """The frames of all segments, in order."""
        return np.concatenate([one.rows for one in self.segments])

    @property
    def time(self) -> np.ndarray:
        """Times of all of them, fs."""
        return np.concatenate([one.time for one in self.segments])

    @property
    def source(self) -> np.ndarray:
        """The number of the segment of each."""
        return np.repeat(np.arange(len(self.segments)), [len(one.rows) for one in self.segments])

    @property
    def duration(self) -> float:
        """The time of all segments, ps."""
        return sum(one.duration for one in self.segments)


class Origins(NamedTuple):
    """Frames of one source: file of each, its row there, and its time (ps) as the store has it."""

    name: str
    file: Sequence[str]
    index: np.ndarray
    time: np.ndarray


class Asked(NamedTuple):
    """The keys of the config: time step and start of frames without times, and the window, all fs or None."""

    timestep: float | None
    first: float | None
    start: float | None
    stop: float | None


def axis_of(origins: Sequence[Origins], asked: Asked) -> Axis:
    """The axis of all sources, each a trajectory of its own. Conflicts are warned of.

    Raises InputError for times that do not increase, and for a window without two frames.
    """
    times, said = zip(*(_times(one, asked) for one in origins))
    step = asked.timestep or _step(origins, times)
    segments, before = [], 0
    for one, time in zip(origins, times):
        segments.append(_in_window(one, before + np.arange(len(time)), time, step, asked))
        before += len(time)
    return Axis(segments, step, ", ".join(dict.fromkeys(said)))


def _times(one: Origins, asked: Asked) -> tuple[np.ndarray, str]:
    """Times of a source, fs, and where they are from."""
    if asked.timestep is None:
        time, said = 1000 * np.asarray(one.time, float), "times of the store"
        if len(time) > 1 and np.array_equal(one.time, one.index):
            inputs.warning("%s: its times are the numbers of its frames, in ps; set timestep_fs if it has none",
                           one.name)  # fmt: skip
    else:
        names = [NAMED.search(file) for file in one.file]
        if all(names) and len(set(one.file)) == len(one.file):
            time = asked.timestep * np.array([int(name[1]) for name in names], float)
            said = "frame_<i> of file names x timestep_fs"
        else:
            first = asked.first if asked.first is not None else folder_time(one.file[0])
            time = (first or 0.0) + asked.timestep * np.arange(len(one.file))
            said = "order of frames x timestep_fs"
        _compare_with_store(one, time, asked.timestep)
    if not np.all(np.diff(time) > 0):
        row = int(np.argmin(np.diff(time) > 0))
        files = dict.fromkeys(PurePath(file).name for file in one.file[row : row + 2])
        raise InputError(
            f"{one.name}: frame {row} is at {time[row]:g} fs, frame {row + 1} at {time[row + 1]:g} fs"
            f" ({', '.join(files)})",
            remedy="times must increase: set timestep_fs where the files have none, or correct their names",
        )
    _compare_with_folder(one, time, asked)
    return time, said


def folder_time(file: str) -> float | None:
    """The time (fs) in the name of a file's folder, such as run_t497p5fs; None without one."""
    found = TAGGED.search(PurePath(file).parent.name)
    return None if found is None else float(found[1].replace("p", "."))


def _compare_with_store(one: Origins, time: np.ndarray, step: float) -> None:
    there = 1000 * np.asarray(one.time, float)
    numbered = np.array_equal(one.time, one.index) or np.array_equal(one.time, np.arange(len(there)))
    if not numbered and np.abs(there - time).max() > step / 2:
        row = int(np.argmax(np.abs(there - time) > step / 2))
        inputs.warning("%s: frame %d is at %g fs by timestep_fs, its file says %g fs; leave timestep_fs out for that",
                       one.name, row, time[row], there[row])  # fmt: skip


def _compare_with_folder(one: Origins, time: np.ndarray, asked: Asked) -> None:
    tag = folder_time(one.file[0])
    for what, first in (("its folder is named by", tag), ("first_time_fs says", asked.first)):
        step = asked.timestep or (time[1] - time[0] if len(time) > 1 else 0.0)
        if first is not None and abs(first - time[0]) > step / 2:
            inputs.warning("%s: %s %g fs, the first frame is at %g fs", one.name, what, first, time[0])


def _step(origins: Sequence[Origins], times: Sequence[np.ndarray]) -> float:
    steps = [np.diff(time) for time in times if len(time) > 1]
    if not steps:
        raise InputError(
            f"{origins[0].name} has one frame: nothing is known of the time between frames",
            remedy="set timestep_fs, or give a trajectory",
        )
    step = float(np.median(np.concatenate(steps)))
    for one, found in zip([one for one, time in zip(origins, times) if len(time) > 1], steps):
        if np.abs(found - step).max() > UNEVEN * step:
            inputs.warning("%s: its frames are %g to %g fs apart; lifetimes are counted on its own times",
                           one.name, found.min(), found.max())  # fmt: skip
    return step


def _in_window(one: Origins, rows: np.ndarray, time: np.ndarray, step: float, asked: Asked) -> Segment:
    start = float(time[0]) if asked.start is None else asked.start
    stop = float(time[-1]) + step if asked.stop is None else asked.stop
    inside = (time >= start) & ((time < stop) if asked.stop is None else (time <= stop))
    if len(time) == 1:
        raise InputError(
            f"{one.name} has one frame, at {time[0]:g} fs: births, deaths and lifetimes need two at least",
            remedy="give a trajectory, or all frames of it in one source",
        )
    if inside.sum() < 2:
        raise InputError(
            f"{one.name}: {inside.sum()} of its frames lie between {start:g} and {stop:g} fs; they are at"
            f" {time[0]:g} to {time[-1]:g} fs",
            remedy="correct start_fs and stop_fs",
        )
    return Segment(rows[inside], time[inside], start, stop)
