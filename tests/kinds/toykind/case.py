"""The opened toy: blocks of 4 points, whose data are a tree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from hpcfit.config import Config, GridConfig
from hpcfit.errors import InputError
from hpcfit.fit.by_blocks import Reverse
from hpcfit.fit.gradient import Frames
from hpcfit.fit.grid import Grid, Load, Shape, choose_shape
from hpcfit.fit.problem import FrameRows
from hpcfit.fit.reduction import Sum
from hpcfit.store.stream import Chunk
from toykind.problem import Line

WIDTH = 4


@dataclass(frozen=True)
class ToyCase:
    """See ``hpcfit.kinds.base.SteppedCase``. points: x and y, [T]."""

    config: Config
    points: dict[str, np.ndarray]

    block_frames = WIDTH
    n_tiles = 1

    @classmethod
    def open(cls, config: Config) -> ToyCase:
        parts = []
        for number, series in enumerate(config.series):
            random = np.random.default_rng([config.run.seed, number])
            x = random.random(series.points)
            parts.append((x, series.slope * x + series.noise * random.standard_normal(series.points)))
        return cls(config, dict(zip("xy", map(np.concatenate, zip(*parts)))))

    @property
    def n_frames(self) -> int:
        return len(self.points["x"])

    @property
    def n_blocks(self) -> int:
        return -(-self.n_frames // WIDTH)

    def load(self) -> Load:
        return Load(self.n_blocks, 1, 16 * WIDTH, 4, block_frames=WIDTH)

    def shape(self, size: int, grid: GridConfig) -> Shape:
        return choose_shape(size, grid.frames, grid.slices, self.load())

    def identity(self) -> dict[str, str]:
        series = [one.model_dump_json() for one in self.config.series]
        return {"series": str(series), "problem": self.config.problem.model_dump_json()}

    def summary(self) -> dict[str, Any]:
        return {"points": f"{self.n_frames} in {len(self.config.series)} series"}

    def bytes_held(self, grid: Grid) -> int:
        return 16 * WIDTH * len(grid.blocks)

    def bytes_summed(self, grid: Grid) -> int:
        return 8 * len(grid.blocks)

    def undefined_loss(self) -> InputError:
        return InputError("the points have no finite misfit", remedy="give finite slopes")

    def gradient(self, grid: Grid, memory: int, add: Sum) -> Reverse:
        ids = np.full((self.n_blocks, WIDTH), -1, np.int64)
        ids.ravel()[: self.n_frames] = np.arange(self.n_frames)
        held = ids[grid.blocks.start : grid.blocks.stop]
        data = {name: values[np.maximum(held, 0)][None] for name, values in self.points.items()}
        # Later points are held more firmly: numbers of a point beside its data.
        rows = FrameRows(held, self.n_frames, {"firmness": 1 + np.maximum(held, 0) / self.n_frames})
        return Reverse(Line(self.config.problem.penalty), Frames(rows, partial(_one_chunk, data, len(held))), grid, add)


def _one_chunk(data: dict[str, np.ndarray], n_blocks: int) -> Iterator[Chunk]:
    return iter([Chunk(slice(0, n_blocks), slice(0, 1), data)])
