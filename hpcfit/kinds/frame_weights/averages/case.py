"""`frame-weights` without a map: tables of frames and measurements in, the problem on a rank's frames out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpcfit.config import BLOCK_FRAMES, Config, GridConfig
from hpcfit.errors import InputError
from hpcfit.fit.by_blocks import Reverse
from hpcfit.fit.gradient import Frames
from hpcfit.fit.grid import Grid, Load, Shape, choose_shape
from hpcfit.fit.problem import FrameRows
from hpcfit.fit.reduction import Sum
from hpcfit.kinds.frame_weights.averages.problem import AveragesFit, AveragesRows
from hpcfit.kinds.frame_weights.averages.trajectory_table import open_trajectories
from hpcfit.kinds.frame_weights.coordinates import read_coordinates
from hpcfit.kinds.frame_weights.experiments import (
    data_folds,
    experiments_of,
    features_of,
    open_experiments,
    words_of,
)
from hpcfit.kinds.frame_weights.explained import FrameNumbers
from hpcfit.kinds.frame_weights.trajectories import Trajectories
from hpcfit.observables.frame_tables import DataTables, check_alike, given_weights, stores_of
from hpcfit.readers.tables import open_table
from hpcfit.store.files import sha256_of_file


@dataclass(frozen=True)
class AveragesCase:
    """See ``hpcfit.kinds.base.SteppedCase``. w0: [T] prior weights, of sum 1. numbers: what they are explained by."""

    block_frames = BLOCK_FRAMES
    n_tiles = 1

    config: Config
    tables: Sequence[DataTables]
    w0: np.ndarray
    trajectories: Trajectories
    numbers: FrameNumbers | None

    @classmethod
    def open(cls, config: Config) -> AveragesCase:
        """Open and check all tables."""
        choice = config.problem
        tables = open_experiments(choice, 0, "")
        prior = None if choice.prior is None else open_table(choice.prior)
        if prior is not None:
            check_alike([tables[0].frames, prior], "[problem] prior")
        if choice.n_folds:
            data_folds(tables, choice.n_folds, choice.fold_seed)
        w0 = given_weights(prior, tables[0].frames.n_rows)
        trajectories = open_trajectories(choice.trajectories, tables, w0)
        numbers = None
        if choice.explain is not None:
            numbers = FrameNumbers(*read_coordinates(choice.explain, np.flatnonzero(trajectories.held), "explain"))
        return cls(config, tables, w0, trajectories, numbers)

    @property
    def n_frames(self) -> int:
        """Frames, those without a weight among them."""
        return len(self.w0)

    @property
    def n_blocks(self) -> int:
        """Blocks of frames, the last of them padded."""
        return -(-self.n_frames // BLOCK_FRAMES)

    @property
    def width(self) -> int:
        """The numbers of a frame that are averaged."""
        return sum(one.width for one in self.tables)

    def load(self) -> Load:
        """One tile, with a sum for each number that is averaged."""
        return Load(self.n_blocks, 1, 8 * BLOCK_FRAMES * self.width, self.width)

    def shape(self, size: int, grid: GridConfig) -> Shape:
        """All ranks along the frames."""
        return choose_shape(size, grid.frames, grid.slices, self.load())

    def identity(self) -> dict[str, str]:
        """The options of the problem, and what its files hold."""
        choice = self.config.problem
        files = {f"file {key}": sha256_of_file(path)[:16] for key, path in choice.files.items()}
        files |= stores_of(self.tables)
        return {"problem": choice.model_dump_json(), **files, "run": f"seed {self.config.run.seed}"}

    def summary(self) -> dict[str, Any]:
        """Sizes by name."""
        choice = self.config.problem
        folds = f", {len(choice.thetas)} theta x {choice.n_folds} folds" if choice.n_folds else ""
        of = self.trajectories
        counted = {"source": of.sources, "state": of.groups}
        known = "".join(f", {len(names)} {what}s" for what, names in counted.items() if len(names) > 1)
        return {
            "frames": f"{self.n_frames}{known}, without a map",
            "experiments": words_of(self.tables),
            "fits": f"1 for the result{folds}, 2 x {choice.resamples} resamples for errors",
        }

    def bytes_held(self, grid: Grid) -> int:
        """Bytes of this rank's numbers of frames."""
        return 8 * BLOCK_FRAMES * self.width * len(grid.blocks)

    def bytes_summed(self, grid: Grid) -> int:
        """Bytes of the sums of this rank's blocks."""
        return 8 * self.width * len(grid.blocks)

    def undefined_loss(self) -> InputError:
        """The loss at the start is not a number: the numbers of some data are too large."""
        return InputError(
            "chi2 of the frames before any fit is no finite number", remedy="check the units of calculated data"
        )

    def gradient(self, grid: Grid, memory: int, add: Sum) -> Reverse:
        """Value and gradient on this rank's frames, whose tables are read here and kept in memory."""
        rows, nothing = self._rows(grid), np.zeros((1, len(grid.blocks), BLOCK_FRAMES, 1))
        problem = AveragesFit(
            experiments_of(self.config.problem, self.tables), self.config.problem.thetas[0], self.n_frames
        )
        return Reverse(problem, Frames.in_memory(rows, nothing), grid, add)

    def _rows(self, grid: Grid) -> FrameRows:
        number = np.arange(grid.blocks.start * BLOCK_FRAMES, grid.blocks.stop * BLOCK_FRAMES)
        w0 = np.where(number < self.n_frames, self.w0[np.minimum(number, self.n_frames - 1)], 0.0)
        ids = np.where(w0 > 0, number, -1).reshape(-1, BLOCK_FRAMES)
        log_prior = np.log(np.where(w0 > 0, w0, 1.0)).reshape(ids.shape)
        return FrameRows(ids, self.n_frames, AveragesRows(log_prior, features_of(self.tables, ids)))
