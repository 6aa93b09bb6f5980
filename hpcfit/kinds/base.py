"""The interface of an opened problem of any kind: protocols, each as narrow as who asks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hpcfit.config import Config, GridConfig, SimulateConfig
from hpcfit.errors import InputError, together
from hpcfit.fit.gradient import Gradient
from hpcfit.fit.grid import Grid, Load, Shape
from hpcfit.fit.problem import FrameRows, Params, Problem
from hpcfit.fit.reduction import Sum


class Case(Protocol):
    """A problem opened from a config, the same on every rank; nothing large has been read.

    n_frames: that take part, in n_blocks blocks of block_frames rows; n_tiles: of what a frame yields.
    """

    n_frames: int
    n_blocks: int
    n_tiles: int
    block_frames: int

    def shape(self, size: int, grid: GridConfig) -> Shape:
        """The grid for ``size`` ranks. Raises InputError if the config's numbers do not fit."""

    def identity(self) -> dict[str, str]:
        """The facts, by name, that must not change when a run is continued."""

    def summary(self) -> dict[str, Any]:
        """Sizes by name, which `hpcfit check` prints and a run logs."""

    def bytes_held(self, grid: Grid) -> int:
        """Bytes of this rank's share, passed over once or twice in each step."""

    def bytes_summed(self, grid: Grid) -> int:
        """Bytes of the sums that are kept of this rank's cells during a pass."""

    def undefined_loss(self) -> InputError:
        """Why the loss at the start of a fit may not be a number, and what to do."""


@runtime_checkable
class SteppedCase(Case, Protocol):
    """A kind whose fits all take the same steps over its frames, which can be timed and predicted before.

    The study of another kind finds out itself what is to be fitted, if anything is.
    """

    def load(self) -> Load:
        """The load that the data put on a grid of ranks in each step."""

    def gradient(self, grid: Grid, memory: int, add: Sum) -> Gradient:
        """Value and gradient of the problem on this rank's frames, which are kept in memory if they fit into ``memory``
        bytes and the config does not say otherwise."""


@runtime_checkable
class PricedCase(Case, Protocol):
    """A kind whose frames are simulated while it fits: what they cost is measured before."""

    def predicted(self, grid: Grid) -> dict[str, str]:
        """The time that a fit takes, in lines by name that `hpcfit check` prints; collective."""


@runtime_checkable
class WeighedCase(Case, Protocol):
    """A kind that weighs frames: a monitor shows the weights while they are fitted."""

    def live_weights(self, grid: Grid, problem: Problem, frames: FrameRows) -> Callable[[Params], dict[str, Any]]:
        """A function of the newest parameters that sums up the weights of this rank's rows, called in a thread beside
        the fit (see ``frame_weights.live_weights``)."""


@runtime_checkable
class InspectedCase(Case, Protocol):
    """A kind whose data can be looked at before a fit, for little: `hpcfit check` does."""

    def inspect(self) -> dict[str, str]:
        """Lines by name that `hpcfit check` prints of the data; what is wrong with them is logged as a warning."""


class Rounds(Protocol):
    """A fit in rounds, counted from 1, each of a simulation by `hpcfit pipeline` and a run on what it made."""

    def check(self) -> None:
        """Raise InputError for a config that has no rounds."""

    def folder(self, number: int) -> Path:
        """The run directory of a round."""

    def fit(self, number: int) -> Config:
        """The config of its fit."""

    def simulations(self, number: int) -> list[SimulateConfig]:
        """The simulations for it, all in one folder, once the round before has ended."""

    def row(self, number: int) -> dict[str, Any]:
        """The numbers of a round that has ended, by name; ``round`` is its own."""


def stepped(case: Case, config: Config, command: str) -> SteppedCase:
    """The case, whose steps are to be timed. Raises InputError, on all ranks, for a kind that has no such step."""
    if not isinstance(case, SteppedCase):
        raise together(
            InputError(
                f"`hpcfit {command}` times the steps of a fit, and [problem] kind = '{config.problem.kind}' has none"
                " that are known before it runs",
                remedy="`hpcfit optimize` says in its log and its report what each part took",
            )
        )
    return case
