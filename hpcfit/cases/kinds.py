"""The kinds of problems there are: the only list."""

from __future__ import annotations

from hpcfit.cases.base import Case
from hpcfit.cases.force_map.case import ForceMapCase
from hpcfit.cases.frame_weights.case import FrameWeightsCase
from hpcfit.config import Config
from hpcfit.ranks import Ranks

KINDS = {
    "frame-weights": FrameWeightsCase,
    "force-map": ForceMapCase,
}


def open_case(config: Config, ranks: Ranks) -> Case:
    """The case that the config describes; every input that root reads is checked, and an error is one on all ranks."""
    return ranks.on_root(lambda: KINDS[config.problem.kind].open(config))
