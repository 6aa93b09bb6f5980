"""What the commands need to know of a kind of problem."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from hpcfit.cases.fits import Fits
from hpcfit.errors import InputError
from hpcfit.fit.gradient import Gradient
from hpcfit.fit.grid import Grid, Load
from hpcfit.fit.reduction import Sum
from hpcfit.problems.base import FrameRows, Params, Problem


class Case(Protocol):
    """Opened from a config, the same on every rank; nothing large is read before ``frames``."""

    def load(self) -> Load:
        """What the data ask of a grid of ranks."""

    def identity(self) -> dict[str, str]:
        """What must be the same when a run is continued, by name."""

    def summary(self) -> dict[str, Any]:
        """What `hpcfit check` prints and a run logs: sizes by name."""

    def bytes_held(self, grid: Grid) -> int:
        """Bytes of this rank's share, passed over once or twice in each step."""

    def bytes_summed(self, grid: Grid) -> int:
        """Bytes of the sums that are kept of this rank's cells during a pass."""

    def problem(self, grid: Grid) -> Problem:
        """The problem on this rank's slice."""

    def gradient(self, grid: Grid, memory: int, add: Sum) -> Gradient:
        """Value and gradient of the problem on this rank's frames, which are kept in memory if they fit into ``memory``
        bytes and the config does not say otherwise."""

    def study(self, fits: Fits) -> dict[str, Any]:
        """Run the fits that the result takes and name the final one; what they found beside it. Collective."""

    def live_weights(
        self, grid: Grid, problem: Problem, frames: FrameRows
    ) -> Callable[[Params], dict[str, Any]] | None:
        """For a monitor: a function of the newest parameters that sums up the weights of this rank's rows, called in a
        thread beside the fit (see ``cases.live_weights``); None where another rank holds the same rows."""

    def undefined_loss(self) -> InputError:
        """Why the loss at the start may not be a number, and what to do."""

    def write_results(
        self, directory: Any, evaluate: Gradient, params: Params, facts: dict[str, Any]
    ) -> dict[str, Any]:
        """Write what the fit found; collective.

        ``facts`` about the run join the metrics, which are returned on root.
        """
