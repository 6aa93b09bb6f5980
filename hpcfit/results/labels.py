"""Can the map tell the labels of the frames apart? Each label alone, and its halves, against the measured map.

Weights summed over a label look like a population whatever the map knows of it. They mean something where the map
prefers one label to another by more than it prefers one half of the frames of a label to the other half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hpcfit.fit.gradient import Reverse
from hpcfit.problems.base import Params

MIN_FRAMES = 4  # of a label: each half needs two, since one frame alone has no diffuse intensity
MAX_LABELS = 12  # three passes over the frames each
ABSENT = -1e4  # a log-weight whose exponential is 0


class LabelFit(NamedTuple):
    """CC of uniform weights on the frames of one label, and on each half of them."""

    label: str
    frames: int
    cc: float
    cc_halves: tuple[float, float]


def label_fits(evaluate: Reverse, blocks: Sequence[Any], labels: Sequence[str], criterion: str) -> list[LabelFit]:
    """The fit of each label alone; collective. Empty where there is one label, or more than 12.

    ``labels``: of every block of the fit, ``blocks`` likewise; ``criterion``: which of the problem's metrics.
    """
    names = list(dict.fromkeys(labels))
    of_label = {
        name: np.concatenate([b.ids()[: b.frames] for b, text in zip(blocks, labels) if text == name]) for name in names
    }
    if not 1 < len(names) <= MAX_LABELS or min(map(len, of_label.values())) < MIN_FRAMES:
        return []

    def cc(ids: np.ndarray) -> float:
        u = np.where(np.isin(evaluate.frames.rows.ids, ids), 0.0, ABSENT)
        return evaluate.metrics(evaluate.value(Params({}, {"u": u})))[criterion]

    return [
        LabelFit(name, len(ids), cc(ids), tuple(cc(half) for half in np.array_split(ids, 2)))
        for name, ids in of_label.items()
    ]


def inseparable(fits: Sequence[LabelFit]) -> list[str]:
    """A sentence for each pair of labels whose CC differ by less than those of the halves of either do."""
    sentences = []
    for n, a in enumerate(fits):
        for b in fits[n + 1 :]:
            noise = max(abs(a.cc_halves[0] - a.cc_halves[1]), abs(b.cc_halves[0] - b.cc_halves[1]))
            if not abs(a.cc - b.cc) > noise:
                sentences.append(
                    f"the map does not tell '{a.label}' from '{b.label}': alone they reach CC {a.cc:.4f} and"
                    f" {b.cc:.4f}, while two halves of one label differ by {noise:.4f};"
                    " do not read their summed weights as populations"
                )
    return sentences
