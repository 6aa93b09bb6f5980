"""What the commands need to know of a kind of problem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from hpcfit.config import GridConfig
from hpcfit.errors import InputError
from hpcfit.fit.gradient import Gradient
from hpcfit.fit.grid import Grid, Load, Shape
from hpcfit.fit.problem import FrameRows, Params, Problem
from hpcfit.fit.reduction import Sum
from hpcfit.fit.stages import Fits, Result


class Case(Protocol):
    """Opened from a config, the same on every rank; nothing large is read before ``gradient`` and ``study``.

    n_frames: that take part; n_blocks of them, n_tiles of what a frame yields.
    """

    n_frames: int
    n_blocks: int
    n_tiles: int

    def shape(self, size: int, grid: GridConfig) -> Shape:
        """The grid for ``size`` ranks. Raises InputError if the config's numbers do not fit."""

    def identity(self) -> dict[str, str]:
        """What must be the same when a run is continued, by name."""

    def summary(self) -> dict[str, Any]:
        """What `hpcfit check` prints and a run logs: sizes by name."""

    def bytes_held(self, grid: Grid) -> int:
        """Bytes of this rank's share, passed over once or twice in each step."""

    def bytes_summed(self, grid: Grid) -> int:
        """Bytes of the sums that are kept of this rank's cells during a pass."""

    def gradient(self, grid: Grid, memory: int, add: Sum) -> Gradient | None:
        """Value and gradient of the problem on this rank's frames, which are kept in memory if they fit into ``memory``
        bytes and the config does not say otherwise. None where ``study`` itself finds out what is to be fitted."""

    def study(self, fits: Fits) -> dict[str, Any]:
        """Run the fits that the result takes and name the final one; what they found beside it. Collective."""

    def live_weights(
        self, grid: Grid, problem: Problem, frames: FrameRows
    ) -> Callable[[Params], dict[str, Any]] | None:
        """For a monitor: a function of the newest parameters that sums up the weights of this rank's rows, called in a
        thread beside the fit (see ``frame_weights.live_weights``); None where another rank holds the same rows."""

    def undefined_loss(self) -> InputError:
        """Why the loss at the start may not be a number, and what to do."""

    def write_results(self, directory: Any, result: Result | None, facts: dict[str, Any]) -> dict[str, Any]:
        """Write what was found; collective. result: what ``study`` has named the final fit, if it has.

        ``facts`` about the run join the metrics, which are returned on root.
        """

    def headline(self, metrics: dict[str, Any]) -> list[str]:
        """The metrics in a few lines, for the log."""


@runtime_checkable
class SteppedCase(Case, Protocol):
    """A kind whose fits all take the same steps, which can be timed and predicted before."""

    def load(self) -> Load:
        """What the data ask of a grid of ranks in each step."""

    def problem(self, grid: Grid) -> Problem:
        """The problem on this rank's slice."""
