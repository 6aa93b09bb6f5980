"""`force-field` where frames are simulated or given: the case of either."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hpcfit.config import Config
from hpcfit.errors import InputError
from hpcfit.fit.grid import Grid
from hpcfit.fit.problem import Params
from hpcfit.kinds.force_field.simulated.case import SimulatedCase
from hpcfit.kinds.force_field.simulated.given import drawn_windows
from hpcfit.kinds.force_field.simulated.weighed import Drawn, Given


def open_case(config: Config) -> SimulatedCase:
    """Read and check all inputs."""
    if config.simulate is not None:
        raise InputError(
            "[simulate] is for rounds, in which OpenMM samples the systems of [problem]",
            remedy="call `hpcfit pipeline --rounds`, or leave it out",
        )
    if config.problem.given:
        return GivenCase.open(config)
    if config.problem.window is None:
        raise InputError("missing key 'problem.window'", remedy="give it, ps, or `frames` of each system")
    return SimulatedCase.open(config)


@dataclass(frozen=True)
class GivenCase(SimulatedCase):
    """See ``SimulatedCase``: frames are given, and none is simulated. A window is a run of consecutive ones."""

    steps_of_a_draw = 0
    _settles = False

    @property
    def _length(self) -> str:
        """The length of a window in words."""
        pairs = zip(self.opened, self.ensembles)
        return ", ".join(
            f"{ensemble.frames} of the {one.given.n_frames} frames of {one.name}" for one, ensemble in pairs
        )

    def bytes_held(self, grid: Grid) -> int:
        """Bytes of the frames of this rank's windows."""
        numbers = sum(3 * one.frames * len(one.masses) for one in self.ensembles)
        return 8 * numbers * self.block_frames * len(grid.blocks)

    def predicted(self, grid: Grid) -> dict[str, str]:
        """See ``hpcfit.kinds.base.PricedCase``: no step is simulated."""
        return {}

    @cached_property
    def problem(self) -> Given:
        """The problem of all ensembles."""
        choice = self.config.problem
        return Given(*self._parts, np.array(choice.least_share if choice.estimator == "reweighting" else 0.0))

    def _drawn(self, ids: np.ndarray) -> tuple[Drawn, ...]:
        """The frames of some windows [...] of all systems that are given."""
        places = np.where(ids >= 0, ids, 0)
        return tuple(
            drawn_windows(one.given, ensemble, self.moving.at(self.begin, one.parameters), places, self.n_frames)
            for one, ensemble in zip(self.opened, self.ensembles)
        )

    @property
    def first(self) -> Params:
        """The parameters at which the frames were drawn; rounds have not seen any window before."""
        return Params(self.begin, {"seen": ()})
