"""The kinds of problems there are: the only list."""

from __future__ import annotations

from hpcfit.config import Config
from hpcfit.kinds.base import Case
from hpcfit.kinds.force_map.case import ForceMapCase
from hpcfit.kinds.frame_weights.case import FrameWeightsCase
from hpcfit.ranks import Ranks

KINDS = {
    "frame-weights": FrameWeightsCase,
    "force-map": ForceMapCase,
}


def open_case(config: Config, ranks: Ranks) -> Case:
    """The case that the config describes; every input that root reads is checked, and an error is one on all ranks."""
    return ranks.on_root(lambda: KINDS[config.problem.kind].open(config))
