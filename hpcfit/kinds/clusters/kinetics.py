"""Births, deaths and lifetimes of clusters from how many there are in each frame.

Clusters of a label are not told apart: the oldest one dies first. The k-th death then ends the k-th birth, where those
that are there in the first frame are born in it, so that lifetimes are differences of two sorted lists and depend on no
order of work. Those that were there at the beginning, or are at the end, are truncated by the window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.kinds.clusters.axis import Axis
from hpcfit.statistics.blocks import bootstrap_error
from hpcfit.statistics.resampling import blocks_per_source

FEWEST = 3  # completed lifetimes whose mean has an error
ERRORS = ("mean_count", "occupancy", "association_rate", "dissociation_rate", "mean_lifetime")


class Kinetics(NamedTuple):
    """The kinetics of clusters of one kind over all frames T of a window.

    observations: sum of counts; occupied: frames with at least one; mean_count: a frame; occupancy: occupied / T;
    births, deaths: rises and falls of the count; rates: a ps; completed, truncated: lifetimes in fs; mean_lifetime
    and std_lifetime (fs): of the completed ones, None without any; errors: by block bootstrap of ``ERRORS``, NaN
    where unknown.
    """

    frames: int
    observations: int
    occupied: int
    mean_count: float
    occupancy: float
    births: int
    deaths: int
    association_rate: float
    dissociation_rate: float
    completed: np.ndarray
    truncated: np.ndarray
    mean_lifetime: float | None
    std_lifetime: float | None
    errors: Mapping[str, float]


class Lifetimes(NamedTuple):
    """Lifetimes in fs; ends: the frame of its segment in which each completed one is over."""

    completed: np.ndarray
    truncated: np.ndarray
    ends: np.ndarray


def lifetimes(count: np.ndarray, time: np.ndarray, stop: float) -> Lifetimes:
    """The lifetimes of clusters that are not told apart. count: [T] of them; time: [T] fs; stop: of the window, fs."""
    change = np.diff(count)
    frame = np.arange(1, len(count))
    born = np.concatenate([np.zeros(count[0], int), np.repeat(frame, np.maximum(change, 0))])
    died = np.repeat(frame, np.maximum(-change, 0))
    lived = time[died] - time[born[: len(died)]]
    left, dead = int(count[0]), len(died)
    whole = np.arange(dead) >= left
    unended = stop - time[born[dead:]]
    return Lifetimes(lived[whole], np.concatenate([lived[~whole], unended]), died[whole])


def kinetics(counts: np.ndarray, axis: Axis, resamples: int = 0, seed: int = 0) -> list[Kinetics]:
    """The kinetics of each column of counts [T, L], T over all frames of the store; errors by so many resamples of
    blocks of successive frames, 0: none."""
    each = [[_of_segment(counts[one.rows, label], one) for one in axis.segments] for label in range(counts.shape[1])]
    errors = _errors(each, axis, resamples, seed)
    return [_added(parts, axis, {name: float(errors[n, label]) for n, name in enumerate(ERRORS)})
            for label, parts in enumerate(each)]  # fmt: skip


class _OfSegment(NamedTuple):
    """count, births, deaths: [T]; lived: its lifetimes."""

    count: np.ndarray
    births: np.ndarray
    deaths: np.ndarray
    lived: Lifetimes


def _of_segment(count: np.ndarray, segment) -> _OfSegment:
    change = np.diff(count, prepend=count[:1])
    lived = lifetimes(count, segment.time, segment.stop)
    return _OfSegment(count, np.maximum(change, 0), np.maximum(-change, 0), lived)


def _added(parts: Sequence[_OfSegment], axis: Axis, errors: Mapping[str, float]) -> Kinetics:
    count = np.concatenate([one.count for one in parts])
    births, deaths = (int(sum(getattr(one, name).sum() for one in parts)) for name in ("births", "deaths"))
    completed, truncated = (np.concatenate([getattr(one.lived, name) for one in parts]) for name in
                            ("completed", "truncated"))  # fmt: skip
    mean = float(np.mean(completed)) if len(completed) else None
    std = float(np.std(completed)) if len(completed) else None
    occupied = int(np.count_nonzero(count))
    return Kinetics(
        len(count), int(count.sum()), occupied, float(count.sum() / len(count)), occupied / len(count), births, deaths,
        births / axis.duration, deaths / axis.duration, completed, truncated, mean, std, errors,
    )  # fmt: skip


def _errors(each: Sequence[Sequence[_OfSegment]], axis: Axis, resamples: int, seed: int) -> np.ndarray:
    """Standard errors [ERRORS, L] by resampled blocks of frames; a lifetime counts in the block in which it ends."""
    if not each:
        return np.zeros((len(ERRORS), 0))
    sums = np.stack([np.concatenate([_of_blocks(part, edges) for part, edges in zip(parts, blocks(axis))])
                     for parts in each], axis=-1)  # fmt: skip
    a_frame = axis.duration / len(axis.rows)
    errors = resampled(sums, lambda total: ratios(total, a_frame), resamples, seed)
    errors[-1, sums[:, -1].sum(axis=0) < FEWEST] = np.nan
    return errors


def blocks(axis: Axis) -> list[np.ndarray]:
    """The edges of the statistical blocks of each segment, in frames: ten of them, or fewer of two frames at least."""
    return [np.linspace(0, len(one.rows), n + 1).astype(int) for one, n in
            zip(axis.segments, blocks_per_source(axis.source))]  # fmt: skip


def _of_blocks(part: _OfSegment, edges: np.ndarray) -> np.ndarray:
    """Frames, counts, occupied ones, births, deaths, lifetimes and their number in each block, [B, 7]."""
    of_frames = np.stack([np.ones(len(part.count)), part.count, part.count > 0, part.births, part.deaths])
    whole = np.add.reduceat(of_frames, edges[:-1], axis=1).T
    block = np.searchsorted(edges, part.lived.ends, side="right") - 1
    lived = [np.bincount(block, weights, len(edges) - 1) for weights in (part.lived.completed, None)]
    return np.concatenate([whole, np.stack(lived, axis=1)], axis=1)


def ratios(total: np.ndarray, a_frame: float) -> np.ndarray:
    """``ERRORS`` from sums over blocks [7, L]; a_frame: the time of a frame, ps."""
    frames, count, occupied, births, deaths, lived, number = total
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([count / frames, occupied / frames, births / frames / a_frame, deaths / frames / a_frame,
                         lived / number])  # fmt: skip


def resampled(sums: np.ndarray, estimate: Callable[[np.ndarray], np.ndarray], resamples: int, seed: int) -> np.ndarray:
    """Standard errors of an estimate from sums over blocks [B, ...], by bootstrap; NaN without resamples, or with a
    single block. A resample in which an estimate is not defined counts as the whole."""
    whole = estimate(sums.sum(axis=0))
    if resamples < 2 or len(sums) < 2:
        return np.full(whole.shape, np.nan)

    def drawn(times: np.ndarray) -> np.ndarray:
        found = estimate(np.tensordot(times, sums, 1))
        return np.where(np.isfinite(found), found, whole)

    return np.where(np.isfinite(whole), bootstrap_error(drawn, len(sums), resamples, seed), np.nan)


# ---- what is told apart: clusters by their atoms, bonds by their ends ------------------------------------------------


def tracked(keys: Sequence[np.ndarray], group: Sequence[np.ndarray], axis: Axis, gap: int) -> dict[int, Lifetimes]:
    """Lifetimes of things that are told apart, by the group that each was in first.

    keys: a number of each thing in each frame of the store; group: of each. gap: absences of up to so many frames are
    bridged (dwell filter). A thing that is there in the first frame, or in the last, is truncated.
    """
    found: dict[int, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    for segment in axis.segments:
        sizes = [len(keys[row]) for row in segment.rows]
        frame = np.repeat(np.arange(len(sizes)), sizes)
        key, of = (np.concatenate([one[row] for row in segment.rows]) for one in (keys, group))
        order = np.lexsort((frame, key))
        key, of, frame = key[order], of[order], frame[order]
        fresh = np.concatenate([[True], (key[1:] != key[:-1]) | (np.diff(frame) > 1 + gap)])[: len(key)]
        begins = np.flatnonzero(fresh)
        first, last = frame[begins], frame[np.append(begins[1:], len(key)) - 1]
        time = np.append(segment.time, segment.stop)
        lived = time[last + 1] - time[first]
        cut = (first == 0) | (last == len(sizes) - 1)
        for number in np.unique(of[begins]):
            mine = of[begins] == number
            found.setdefault(int(number), []).append((lived[mine & ~cut], lived[mine & cut], last[mine & ~cut] + 1))
    return {number: Lifetimes(*map(np.concatenate, zip(*parts))) for number, parts in found.items()}


# ---- bins of time --------------------------------------------------------------------------------------------------


class Bins(NamedTuple):
    """Counts of L labels in b bins of time. edges: [b + 1] fs; raw: [L, b] sums; fraction: [L, b] of all clusters
    in the bin; mean: [L, b] a frame; frames, total: [b]. Where there is no frame or cluster, 0."""

    edges: np.ndarray
    raw: np.ndarray
    fraction: np.ndarray
    mean: np.ndarray
    frames: np.ndarray
    total: np.ndarray


def time_bins(counts: np.ndarray, axis: Axis, frames_a_bin: int) -> Bins:
    """Counts [T, L] in bins of so many time steps from the start of the window on."""
    start, stop = min(one.start for one in axis.segments), max(one.stop for one in axis.segments)
    width = frames_a_bin * axis.step
    n = int(np.ceil((stop - start) / width - 1e-9))
    if not 0 < n <= 1_000_000:
        raise InputError(
            f"a window of {stop - start:g} fs has {n} bins of {width:g} fs", remedy="correct start_fs, stop_fs, or"
            " frames_per_bin"
        )  # fmt: skip
    edges = start + width * np.arange(n + 1)
    of = np.clip(np.searchsorted(edges, axis.time, side="right") - 1, 0, n - 1)
    raw = np.zeros((n, counts.shape[1]))
    np.add.at(raw, of, counts[axis.rows])
    frames, total = np.bincount(of, minlength=n), raw.sum(axis=1)
    fraction = raw / np.maximum(total, 1)[:, None]
    return Bins(edges, raw.T, fraction.T, (raw / np.maximum(frames, 1)[:, None]).T, frames, total)
