"""Weights of frames such that averages over them agree with experiments, and stay near what they were before.

    L = theta KL(w || w0) + chi2 / 2 of all data + gamma R of fitted curves

Bayesian inference by maximum entropy (Hummer & Köfinger 2015, 10.1063/1.4937786; Bottaro, Bengtsen & Lindorff-Larsen
2020, 10.1007/978-1-0716-0270-6_15), whose theta this is: the same as BME's and BioEn's. At the minimum ln(w / w0) is
linear in what the data average.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

from hpcfit.fit.problem import Block, Cell, FrameRows, Params, Reduce, Statistics
from hpcfit.kinds.frame_weights.experiments import Experiments
from hpcfit.kinds.frame_weights.weight_kinds import Simplex
from hpcfit.pytrees import pytree


class AveragesRows(NamedTuple):
    """The numbers of each frame (``fit.problem.FrameRows.more``): ln of the prior weight [blocks, 64], whose sum over
    all ranks is 1, and what data average, [blocks, 64, F]."""

    log_prior: Any
    features: Any


class AverageSums(NamedTuple):
    """Sums over frames, of weights w that need not sum to 1."""

    w: Any
    ww: Any  # sum w^2
    wl: Any  # sum w ln(w / w0)
    features: Any  # sum w g, [F]


@pytree
@dataclass(frozen=True)
class AveragesFit:
    """See ``hpcfit.fit.problem.Problem``. Local parameters: u of each frame, w = w0 u^2; total: frames of all ranks."""

    experiments: Experiments
    theta: Any
    total: int = field(metadata={"static": True})
    kind: ClassVar = Simplex()

    @property
    def tiles(self) -> np.ndarray:
        """One tile, which has nothing: all sums are those of frames."""
        return np.zeros(1)

    def init(self, seed: int, frames: FrameRows) -> Params:
        """The prior weights, and the curves as they were given."""
        return self.at_weights(np.exp(frames.more.log_prior), frames)

    def at_weights(self, w: np.ndarray, frames: FrameRows) -> Params:
        """The parameters at weights w [blocks, 64]."""
        return Params(self.experiments.start(), {"u": self.kind.parameters(w, frames)})

    def weights_of(self, params: Params, frames: FrameRows) -> np.ndarray:
        """w at gauged parameters, [blocks, 64]."""
        return np.asarray(self.kind.weights(params.local["u"], frames.ids, frames.more.log_prior, self.total))

    def gauge(self, params: Params, frames: FrameRows, reduce: Reduce) -> Params:
        """Divide u so that the weights sum to 1."""
        return Params(params.shared, {"u": self.kind.gauge(np.asarray(params.local["u"]), frames, reduce)})

    def of_frames(self, params: Params, block: Block) -> AverageSums:
        """The sums over a block of frames."""
        u = params.local["u"]
        w = self.kind.weights(u, block.ids, block.more.log_prior, self.total)
        features = jnp.sum(w[:, None] * block.more.features, axis=0)
        return AverageSums(jnp.sum(w), jnp.sum(w * w), jnp.sum(w * self.kind.level(u)), features)

    def partial(self, params: Params, cell: Cell) -> Any:
        """Nothing: there are no data beside the rows."""
        return jnp.zeros(())

    def summary(self, statistics: Statistics, shared: dict, tile: Any) -> Any:
        """Nothing."""
        return statistics.sliced

    def loss(self, sums: Any, common: AverageSums, shared: dict) -> Any:
        """See the module."""
        return self.theta * self.divergence(common) + self.experiments.loss(self.averages(common), shared)

    def averages(self, common: AverageSums) -> Any:
        """The averages that data are made of, [F]."""
        return common.features / common.w

    def divergence(self, common: AverageSums) -> Any:
        """KL(w || w0), nats."""
        return common.wl / common.w - jnp.log(common.w)

    def metrics(self, sums: Any, common: AverageSums, shared: dict) -> dict[str, Any]:
        """chi2 / 2 and chi2 of each set, Kish's effective number of frames, and the divergence."""
        averages = self.averages(common)
        found = {"misfit": self.experiments.misfit(averages, shared)}
        if self.experiments.judged:
            found["misfit_free"] = self.experiments.misfit_free(averages, shared)
        of_weights = {"ess": common.w**2 / common.ww, "kl": jnp.maximum(self.divergence(common), 0.0)}
        return found | self.experiments.metrics(averages, shared) | of_weights
