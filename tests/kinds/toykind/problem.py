"""y = slope x + offset of each point: the slope is shared, the offsets are local rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from hpcfit.fit.problem import Block, Cell, FrameRows, Params, Reduce, Statistics
from hpcfit.pytrees import pytree


@pytree
@dataclass(frozen=True)
class Line:
    """See ``hpcfit.fit.problem.Problem``; rows: what is left of each point."""

    penalty: float

    @property
    def tiles(self) -> np.ndarray:
        return np.zeros(1)

    def init(self, seed: int, frames: FrameRows) -> Params:
        return Params({"slope": np.zeros(())}, np.zeros(frames.ids.shape))

    def gauge(self, params: Params, frames: FrameRows, reduce: Reduce) -> Params:
        return params

    def of_frames(self, params: Params, block: Block) -> dict[str, Any]:
        held, price = block.ids >= 0, block.more["firmness"] * params.local**2
        return {"n": jnp.sum(jnp.where(held, 1.0, 0.0)), "price": jnp.sum(jnp.where(held, price, 0.0))}

    def partial(self, params: Params, cell: Cell) -> Any:
        return self.partial_and_rows(params, cell)[0]

    def partial_and_rows(self, params: Params, cell: Cell) -> tuple[Any, dict[str, Any]]:
        left = cell.data["y"] - params.shared["slope"] * cell.data["x"] - params.local
        left = jnp.where(cell.ids >= 0, left, 0.0)
        return jnp.sum(left**2), {"left": left}

    def no_rows(self, frames: FrameRows) -> dict[str, np.ndarray]:
        return {"left": np.zeros(frames.ids.shape)}

    def summary(self, statistics: Statistics, shared: dict, tile: Any) -> Any:
        return statistics.sliced

    def loss(self, sums: Any, common: dict, shared: dict) -> Any:
        return (sums + self.penalty * common["price"]) / common["n"]

    def metrics(self, sums: Any, common: dict, shared: dict) -> dict[str, Any]:
        return {"misfit": sums / common["n"], "spread": common["price"] / common["n"]}
