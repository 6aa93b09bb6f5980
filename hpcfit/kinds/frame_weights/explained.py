"""Explanation of fitted weights: -kT ln(w / w0) regressed on numbers of the frames, and free energies along them.

In the target ensemble p ~ p0 exp(-ΔU / kT) the frames weigh w ~ w0 exp(-ΔU / kT), so that -kT ln(w / w0) is the energy
ΔU that the experiment adds to the simulation, but for a constant (Hummer & Köfinger 2015, 10.1063/1.4937786). Its slope
on a number of the frames says how much of that energy this number carries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from hpcfit.kinds.frame_weights.conclusions import memory
from hpcfit.runs.directory import RunDirectory
from hpcfit.statistics.regression import BlockMoments, Regression, moments_by_block, regression
from hpcfit.statistics.resampling import blocks_of_frames, blocks_per_source, resampled_frames

RESAMPLES = 200  # of blocks of frames: an error is known to 5 %
FOLDS = 10  # at most, of blocks that are left out
SMALLEST = 1e-6  # w / w0: below it the weight is 0 for the map, and its logarithm is where the optimizer stopped
MOST_BINS, FRAMES_PER_BIN = 24, 10
CONSTANT = 1e-12  # relative: rounding of a constant column
EXPLAINED_COLUMNS = (
    *("fit", "number", "slope_kJ_mol_per_unit", "error", "standard_deviation", "slope_kJ_mol_per_standard_deviation"),
    *("r2", "r2_held_out"),
)
PROFILE_COLUMNS = (
    *("number", "from", "to", "frames", "share_before", "share_after"),
    *("before_kJ_mol", "before_error", "after_kJ_mol", "after_error"),
)


class FrameNumbers(NamedTuple):
    """names: of the columns. values: [T, P], any units, in the order of the frames of the fit."""

    names: list[str]
    values: np.ndarray


@dataclass(frozen=True)
class WeighedFrames:
    """w, w0: [T] weights and prior weights. source: [T] number of each frame's source, in the order of time.
    label: [sources], the state that each source samples. kT: kJ/mol."""

    w: np.ndarray
    w0: np.ndarray
    source: np.ndarray
    label: np.ndarray
    kT: float

    @property
    def used(self) -> np.ndarray:
        """True for a frame whose weight has a logarithm that says something, [T]."""
        return self.w > SMALLEST * self.w0

    @property
    def energy(self) -> np.ndarray:
        """-kT ln(w / w0), kJ/mol, [T]; 0 where the frame is not used."""
        return np.where(self.used, -self.kT * np.log(np.where(self.used, self.w / self.w0, 1.0)), 0.0)


class Blocks(NamedTuple):
    """Statistical blocks of frames. of_frame: [T]. counts: [R, B], how often each resample draws each block; no rows
    where nothing can be drawn in another way."""

    of_frame: np.ndarray
    fold: np.ndarray
    counts: np.ndarray


def explain(numbers: FrameNumbers, frames: WeighedFrames) -> dict[str, Any]:
    """Regressions of -kT ln(w / w0) on each number alone and on all together, and free-energy profiles along each.

    Each frame counts with its prior weight. Frames whose weight is 0, or below 1e-6 of their prior weight, take no part
    in regressions, and are counted; they do in profiles. The result goes into metrics.json as it is.
    """
    used, blocks = frames.used, blocks_to_draw(frames)
    mean, deviation = _spread(numbers.values[used], frames.w0[used])
    varying = np.flatnonzero(deviation > 0)
    x = (numbers.values[:, varying] - mean[varying]) / deviation[varying]
    sums = moments_by_block(x, frames.energy, np.where(used, frames.w0, 0.0), blocks.of_frame, len(blocks.fold))
    moments, places = BlockMoments(sums, blocks.fold, blocks.counts), range(len(varying))
    names, spread = [numbers.names[number] for number in varying], deviation[varying]
    alone = [_as_json([names[n]], spread[[n]], regression(moments, [n])) for n in places]
    return {
        "frames": len(used),
        "zero": int(np.sum(frames.w <= 0)),
        "near_zero": int(np.sum(~used & (frames.w > 0))),
        "blocks": len(blocks.fold),
        "resamples": len(blocks.counts),
        "constant": [name for name in numbers.names if name not in names],
        "alone": alone,
        **({"together": _as_json(names, spread, regression(moments, places))} if len(names) > 1 else {}),
        "profiles": [
            _profile(name, x, frames, blocks) for name, x in zip(numbers.names, numbers.values.T) if name in names
        ],
    }


def remarks(found: dict[str, Any]) -> list[str]:
    """Warnings on what ``explain`` found: frames without weight, and columns that say nothing or the same."""
    gone, said = found["zero"] + found["near_zero"], []
    if gone:
        said.append(
            f"explain: {gone} of {found['frames']} frames have less than {SMALLEST:g} of their prior weight, so that"
            " ln(w / w0) says nothing of them: slopes are those of the others; a larger theta leaves all of them some"
        )
    if found["constant"]:
        said.append(f"explain: {' and '.join(map(repr, found['constant']))} does not vary over the frames: left out")
    if found.get("together", {}).get("dependent"):
        said.append("explain: the columns depend linearly on each other: their slopes together are not determined")
    if found["alone"] and all(one["r2"] is None for one in found["alone"]):
        said.append("explain: the weights are the prior ones: there is nothing to explain")
    if not found["resamples"]:
        said.append("explain: no errors of slopes: every source has a label of its own and less than 4 frames")
    return said


def write_explained(directory: RunDirectory, metrics: dict[str, Any]) -> None:
    """Write explained.csv and profiles.csv where the metrics have what was explained."""
    if "explained" not in metrics:
        return
    directory.write_csv("explained.csv", EXPLAINED_COLUMNS, fit_rows(metrics["explained"]))
    directory.write_csv("profiles.csv", PROFILE_COLUMNS, _profile_rows(metrics["explained"]))


def fit_rows(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The rows of explained.csv, whose columns are EXPLAINED_COLUMNS."""
    fits = [("alone", one) for one in found["alone"]]
    fits += [("together", found["together"])] if "together" in found else []
    return [
        (name, one["names"][n], one["slopes"][n], one["errors"][n], one["spread"][n],
         one["slopes"][n] * one["spread"][n], one["r2"], one["r2_held_out"])
        for name, one in fits
        for n in range(len(one["names"]))
    ]  # fmt: skip


def _profile_rows(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The rows of profiles.csv, whose columns are PROFILE_COLUMNS."""
    keys = ("frames", "share_before", "share_after", "before", "before_error", "after", "after_error")
    return [
        (one["name"], one["edges"][n], one["edges"][n + 1], *(one[key][n] for key in keys))
        for one in found["profiles"]
        for n in range(len(one["frames"]))
    ]


def blocks_to_draw(frames: WeighedFrames) -> Blocks:
    """The blocks of the frames, their folds, and how often each of 200 resamples draws them: sources within their
    labels first, blocks within sources then."""
    n_blocks = blocks_per_source(frames.source, memory(frames.w, frames.source))
    of_frame = blocks_of_frames(frames.source, n_blocks)
    fold = np.arange(n_blocks.sum()) % min(FOLDS, n_blocks.sum())
    first = np.unique(of_frame, return_index=True)[1]
    counts = [of_frames[first] for of_frames in resampled_frames(frames.source, frames.label, n_blocks, RESAMPLES)]
    return Blocks(of_frame, fold, np.array(counts).reshape(-1, len(fold)))


def _spread(values: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and standard deviation of each column; a deviation of 0 where a column is constant."""
    mean = weight @ values / weight.sum()
    deviation = np.sqrt(weight @ (values - mean) ** 2 / weight.sum())
    return mean, np.where(deviation > CONSTANT * np.abs(values).max(axis=0), deviation, 0.0)


def _as_json(names: list[str], spread: np.ndarray, found: Regression) -> dict[str, Any]:
    """The regression in units of each column; its columns were divided by ``spread``."""
    return {
        "names": names,
        "slopes": (found.slopes / spread).tolist(),
        "errors": [_or_none(error) for error in found.errors / spread],
        "spread": spread.tolist(),
        "r2": _or_none(found.r2),
        "r2_held_out": _or_none(found.r2_held_out),
        "dependent": found.dependent,
    }


def _profile(name: str, x: np.ndarray, frames: WeighedFrames, blocks: Blocks) -> dict[str, Any]:
    """-kT ln of the share of each bin of equal width, before and after the fit; None where a bin has no weight."""
    bins = int(np.clip(len(x) // FRAMES_PER_BIN, 2, MOST_BINS))
    edges = np.linspace(x.min(), x.max(), bins + 1)
    bin_of = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, bins - 1)
    found = {"name": name, "edges": edges.tolist(), "frames": np.bincount(bin_of, minlength=bins).tolist()}
    for when, weight in (("before", frames.w0), ("after", frames.w)):
        share, error = _shares(bin_of, bins, weight, blocks)
        found[f"share_{when}"] = share.tolist()
        found[when] = [float(-frames.kT * np.log(p)) if p > 0 else None for p in share]
        # d(-kT ln p) = -kT dp / p
        found[f"{when}_error"] = [_or_none(frames.kT * e / p) if p > 0 else None for p, e in zip(share, error)]
    return found


def _shares(bin_of: np.ndarray, bins: int, weight: np.ndarray, blocks: Blocks) -> tuple[np.ndarray, np.ndarray]:
    """The share of each bin of the weight, and its standard deviation over resamples; NaN without resamples."""
    n_blocks = len(blocks.fold)
    sums = np.bincount(blocks.of_frame * bins + bin_of, weight, minlength=n_blocks * bins).reshape(n_blocks, bins)
    share = sums.sum(axis=0) / sums.sum()
    drawn = blocks.counts @ sums
    total = drawn.sum(axis=1, keepdims=True)
    if len(drawn) < 2 or np.any(total <= 0):
        return share, np.full(bins, np.nan)
    return share, np.std(drawn / total, axis=0, ddof=1)


def _or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
