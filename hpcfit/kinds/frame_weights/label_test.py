"""Can the map tell the labels of the frames apart? Each label alone, and equal parts of it, against the measured map.

Weights summed over a label look like a population whatever the map knows of it. They mean something where the map
prefers one label to another by more than it prefers one half of a label to the other half, and every part of one to
every part of the other. Parts have the same number of frames in all labels, because CC rises with the number of frames
that are averaged. Both conditions are necessary for a population to be read off, and neither is sufficient.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcfit.fit.gradient import Evaluation, Gradient
from hpcfit.fit.grid import Grid
from hpcfit.ranks import Ranks

MAX_LABELS, MAX_PARTS = 8, 5  # a pass over the frames for each part
MIN_FRAMES = 4  # of a label: it is cut into two parts at least, and one frame alone has no diffuse intensity
ROUNDING = 1e-5  # a hundred units of float32
NO_BETTER = 3.0  # standard deviations of a CC of unrelated numbers
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
        """True if the frames of the label and its parts differ: those of a rigid state have no diffuse intensity."""
        return bool(np.all(np.isfinite((self.cc, *self.cc_halves, *self.cc_parts))))


class LabelTest:
    """The fit of each label alone, as a stage (``fit.stages.Work``): a unit is one evaluation, made by all ranks.

    blocks, labels: of every block of the fit. criterion: the metric of the problem that is compared. There are no units
    where there is one label, or more than 8, or one of 3 frames.
    """

    ranks = Ranks()

    def __init__(self, evaluate: Gradient, blocks: Sequence[Any], labels: Sequence[str], criterion: str):
        self._evaluate, self._criterion = evaluate, criterion
        of_label: dict[str, np.ndarray] = {}
        for block, label in zip(blocks, labels):
            of_label[label] = np.append(of_label.get(label, np.zeros(0, np.int64)), block.ids()[: block.frames])
        smallest = min(map(len, of_label.values()))
        compared = 1 < len(of_label) <= MAX_LABELS and smallest >= MIN_FRAMES
        self._part = smallest // 2
        self._parts = [_Parts.of(label, ids, self._part) for label, ids in of_label.items()] if compared else []
        self._chosen = [ids for parts in self._parts for ids in parts.all()]
        self._cc = np.full(len(self._chosen), np.nan)

    @property
    def n_units(self) -> int:
        """Evaluations."""
        return len(self._chosen)

    def run(self, units: Sequence[int]) -> Generator[int]:
        """See ``fit.stages.Work``."""
        rows = self._evaluate.frames.rows
        for unit in units:
            ids = self._chosen[unit]
            w = np.where(np.isin(rows.ids, ids), 1 / len(ids), TINY)
            evaluation = self._evaluate.value(self._evaluate.problem.at_weights(w, rows))
            if _differ(evaluation, self._evaluate.grid):
                self._cc[unit] = self._evaluate.metrics(evaluation)[self._criterion]
            yield unit

    def kept(self) -> dict[str, np.ndarray]:
        """See ``fit.stages.Work``."""
        return {"cc": self._cc}

    def take_up(self, kept: Mapping[str, np.ndarray]) -> None:
        """See ``fit.stages.Work``."""
        self._cc = np.array(kept["cc"])

    def product(self) -> dict[str, np.ndarray]:
        """The CC of each evaluation (``fits``)."""
        return {"cc": self._cc}

    def files(self) -> Sequence[Path]:
        """See ``fit.stages.Work``."""
        return ()

    def fits(self, cc: np.ndarray) -> list[LabelFit]:
        """The fit of each label, from the CC of all evaluations."""
        values, found = iter(np.asarray(cc, float).tolist()), []
        for parts in self._parts:
            halves = next(values), next(values)
            of_parts = tuple(next(values) for _ in parts.equal)
            found.append(LabelFit(parts.label, len(parts.ids), next(values), halves, self._part, of_parts))
        return found


class _Parts(NamedTuple):
    """The ids of the frames of a label, in two halves and in equal parts."""

    label: str
    ids: np.ndarray
    halves: list[np.ndarray]
    equal: list[np.ndarray]

    @classmethod
    def of(cls, label: str, ids: np.ndarray, n: int) -> _Parts:
        return cls(label, ids, np.array_split(ids, 2), [ids[start : start + n] for start in _starts(len(ids), n)])

    def all(self) -> list[np.ndarray]:
        return [*self.halves, *self.equal, self.ids]


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


def undetermined(fits: Sequence[LabelFit], n_orbits: int) -> list[str]:
    """The labels whose shares no correlation can find, in order; none, or at least two.

    Of two states that fluctuate alike any mixture has the intensity a + b |F_A - F_B|^2, whose correlation with a map
    does not depend on the shares. Alone, such states agree with the map no better than chance: a correlation of n
    unrelated orbits has a standard deviation of n^-1/2, of which three are allowed.
    """
    chance = NO_BETTER / np.sqrt(n_orbits)
    mute = [fit.label for fit in fits if fit.defined and abs(fit.cc) < chance]
    return mute if len(mute) > 1 else []


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
