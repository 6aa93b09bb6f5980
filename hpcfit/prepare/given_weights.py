"""Weights that came with the frames of a store, left beside it as a file that ``[problem] prior`` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpcfit.log import logger
from hpcfit.prepare.sources import FrameSource
from hpcfit.readers.lunus import LunusSource
from hpcfit.store.files import write_text

LUNUS_WEIGHTS = "lunus_weights.csv"


def write_given_weights(folder: Path, sources: Sequence[FrameSource]) -> None:
    """Write ``lunus_weights.csv`` (frame, weight) of all frames whose LUNUS checkpoints have weights, 0 included."""
    ends = np.cumsum([0, *(source.n_frames for source in sources)])
    ids, weights = [], []
    for source, first in zip(sources, ends.tolist()):
        found = source.weights() if isinstance(source, LunusSource) else None
        if found is not None:
            ids += range(first, first + source.n_frames)
            weights += found.tolist()
    if weights:
        rows = [f"{frame},{weight!r}" for frame, weight in zip(ids, weights)]
        write_text(folder / LUNUS_WEIGHTS, "\n".join(["frame,weight", *rows, ""]))
        _report(folder / LUNUS_WEIGHTS, np.array(weights))


def _report(path: Path, weights: np.ndarray) -> None:
    """LUNUS writes its checkpoint before it removes frames: these are not its result."""
    low, high = weights.min(), weights.max()
    logger.info("%s: the weights that LUNUS began with, of %d frames, %g to %g", path, len(weights), low, high)
    if not weights.all():
        logger.warning(
            "%d of %d weights in %s are 0: [problem] prior refuses them until they are replaced by small numbers",
            np.sum(weights == 0), len(weights), path,
        )  # fmt: skip
