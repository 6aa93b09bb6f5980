"""Can the map tell the labels of the frames apart? Each label alone, and equal parts of it, against the measured map.

Weights summed over a label look like a population whatever the map knows of it. They mean something where the map
prefers one label to another by more than it prefers one half of a label to the other half, and every part of one to
every part of the other. Parts have the same number of frames in all labels, because CC rises with the number of frames
that are averaged. Both conditions are necessary for a population to be read off, and neither is sufficient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hpcfit.fit.gradient import Evaluation, Gradient
from hpcfit.fit.grid import Grid

MAX_LABELS, MAX_PARTS = 8, 5  # a pass over the frames for each part
MIN_FRAMES = 4  # of a label: it is cut into two parts at least, and one frame alone has no diffuse intensity
ROUNDING = 1e-5  # a hundred units of float32
TINY = 1e-300  # a weight that is 0 beside any other


class LabelFit(NamedTuple):
    """CC of uniform weights on the frames of one label, on its halves, and on parts of ``part_frames`` frames each."""

    label: str
    frames: int
    cc: float
    cc_halves: tuple[float, float]
    part_frames: int
    cc_parts: tuple[float, ...]

    @property
    def defined(self) -> bool:
        """Whether the frames of the label differ at all: those of a rigid state have no diffuse intensity."""
        return bool(np.all(np.isfinite((self.cc, *self.cc_halves, *self.cc_parts))))


def label_fits(evaluate: Gradient, blocks: Sequence[Any], labels: Sequence[str], criterion: str) -> list[LabelFit]:
    """The fit of each label alone; collective. Empty where there is one label, or more than 8, or one of 3 frames.

    ``labels``: of every block of the fit, ``blocks`` likewise; ``criterion``: which of the problem's metrics.
    """
    of_label: dict[str, np.ndarray] = {}
    for block, label in zip(blocks, labels):
        of_label[label] = np.append(of_label.get(label, np.zeros(0, np.int64)), block.ids()[: block.frames])
    smallest = min(map(len, of_label.values()))
    if not 1 < len(of_label) <= MAX_LABELS or smallest < MIN_FRAMES:
        return []

    def cc(ids: np.ndarray) -> float:
        rows = evaluate.frames.rows
        w = np.where(np.isin(rows.ids, ids), 1 / len(ids), TINY)
        evaluation = evaluate.value(evaluate.problem.at_weights(w, rows))
        return evaluate.metrics(evaluation)[criterion] if _differ(evaluation, evaluate.grid) else np.nan

    n = smallest // 2
    fits = []
    for label, ids in of_label.items():
        halves = tuple(cc(half) for half in np.array_split(ids, 2))
        parts = tuple(cc(ids[start : start + n]) for start in _starts(len(ids), n))
        fits.append(LabelFit(label, len(ids), cc(ids), halves, n, parts))
    return fits


def _differ(evaluation: Evaluation, grid: Grid) -> bool:
    """Whether <|F|^2> - |<F>|^2 is more than what float32 leaves of it when all frames are the same."""
    common, moments = evaluation.statistics
    mean = np.asarray(moments.wF) / float(common.w)
    second = np.asarray(moments.wFF) / float(common.w)
    variance, total = grid.slices.sum(np.array([np.sum(second - (mean**2).sum(axis=-1)), np.sum(second)]))
    return bool(variance > ROUNDING * total)


def _starts(frames: int, n: int) -> list[int]:
    """Where the parts of n frames begin: as many as fit, at most MAX_PARTS, spread evenly."""
    whole = frames // n
    return [int(part) * n for part in np.unique(np.linspace(0, whole - 1, min(whole, MAX_PARTS)).round())]


def inseparable(fits: Sequence[LabelFit]) -> list[str]:
    """A sentence for each pair of labels that fails one of the two conditions."""
    defined = [fit for fit in fits if fit.defined]
    pairs = [(a, b) for n, a in enumerate(defined) for b in defined[n + 1 :]]
    return [
        f"the map does not tell '{a.label}' from '{b.label}': {why}; do not read their summed weights as populations"
        for a, b in pairs
        if (why := _noise(a, b) or _overlap(a, b))
    ]


def _noise(a: LabelFit, b: LabelFit) -> str:
    noise = max(abs(fit.cc_halves[0] - fit.cc_halves[1]) for fit in (a, b))
    if abs(a.cc - b.cc) > noise:
        return ""
    return f"alone they reach CC {a.cc:.4f} and {b.cc:.4f}, while two halves of one label differ by {noise:.4f}"


def _overlap(a: LabelFit, b: LabelFit) -> str:
    (low_a, high_a), (low_b, high_b) = ((min(fit.cc_parts), max(fit.cc_parts)) for fit in (a, b))
    if low_a > high_b or low_b > high_a:
        return ""
    ranges = f"{low_a:.4f} to {high_a:.4f} and {low_b:.4f} to {high_b:.4f}"
    return f"parts of {a.part_frames} frames alone reach CC {ranges}"
