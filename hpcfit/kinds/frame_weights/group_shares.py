"""Populations of groups of frames alone: the shares at which the groups' own diffuse intensities suit the map best.

With prior weights within groups, the limit of large theta, the intensity depends on the shares P_g alone:

    x(h) = sum_g P_g <|F|^2>_g - |sum_g P_g <F>_g|^2

<F>_g is a mean over frames, so that |<F>_g|^2 is too large by its variance S_g, and x too small by sum_g P_g^2 S_g: the
less a group is sampled, the more. S_g is known from the means of successive parts of the group, which are as long as
two independent frames where there are so many. The shares with this term added, beside those without, tell the bias of
finite sampling.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hpcfit.fit.gradient import Gradient
from hpcfit.fit.grid import Shape, make_grid
from hpcfit.kinds.frame_weights.case import FrameWeightsCase
from hpcfit.kinds.frame_weights.problem import FrameWeights
from hpcfit.ranks import Ranks
from hpcfit.statistics.resampling import SPAN

PARTS = 8  # of a group, at most: the variance of its mean is known to sqrt(2 / 7), a half
TINY = 1e-300  # a weight that is 0 beside any other
SHARE_OF_ZERO = 1e-6  # a share of 0 has no logarithm to begin with


class GroupShares(NamedTuple):
    """alone: [G] shares that suit the map best. corrected: the same without the bias of finite sampling."""

    alone: np.ndarray
    corrected: np.ndarray

    @property
    def bias(self) -> np.ndarray:
        """The shares that finite sampling adds, [G]."""
        return self.alone - self.corrected


class GroupMoments:
    """Means over the parts of each group, as a stage (``fit.stages.Work``): a unit is one evaluation, by all ranks."""

    ranks = Ranks()

    def __init__(self, case: FrameWeightsCase, evaluate: Gradient, memory: np.ndarray):
        """memory: [G], the number of successive frames of each group that are worth an independent one."""
        self._evaluate, self._case = evaluate, case
        number, prior = case.groups.number, np.exp(case.prior.log_weights(case.blocks))
        ids = np.stack([block.ids() for block in case.blocks])
        self._units: list[tuple[int, np.ndarray, float]] = []
        for group, frames in enumerate(case.groups.frames):
            of_group, w0 = ids[number == group], prior[number == group]
            order = np.argsort(of_group)
            parts = np.clip(frames // np.ceil(SPAN * memory[group]), min(2, frames), PARTS)
            for rows in np.array_split(order, int(parts)):
                self._units.append((group, of_group[rows], float(w0[rows].sum() / w0.sum())))
        shape = (len(case.groups.names), *evaluate.problem.tiles.share.shape)
        self._sums = {"mean": np.zeros((*shape, 2)), "second": np.zeros(shape), "squares": np.zeros(shape),
                      "shifted": np.zeros((*shape, 2))}  # fmt: skip

    @property
    def n_units(self) -> int:
        """Evaluations."""
        return len(self._units)

    def run(self, units: Sequence[int]) -> Generator[int]:
        """See ``fit.stages.Work``."""
        evaluate = self._evaluate
        rows, sums = evaluate.frames.rows, self._sums
        for unit in units:
            group, ids, omega = self._units[unit]
            w = np.where(np.isin(rows.ids, ids), np.exp(rows.more.log_prior), TINY)
            common, moments = evaluate.value(evaluate.problem.at_weights(w, rows)).statistics
            mean, second = (np.asarray(moment, float) / float(common.w) for moment in moments)
            sums["mean"][group] += omega * mean
            sums["second"][group] += omega * second
            sums["squares"][group] += omega**2 * np.sum(mean**2, axis=-1)
            sums["shifted"][group] += omega**2 * mean
            yield unit

    def kept(self) -> dict[str, np.ndarray]:
        """See ``fit.stages.Work``; of all tiles."""
        grid = self._evaluate.grid
        found = {}
        for name, values in self._sums.items():
            whole = np.zeros((len(values), grid.n_tiles, *values.shape[2:]))
            whole[:, grid.tiles.start : grid.tiles.stop] = values
            found[name] = grid.slices.sum(whole)
        return found

    def take_up(self, kept: Mapping[str, np.ndarray]) -> None:
        """See ``fit.stages.Work``."""
        tiles = self._evaluate.grid.tiles
        self._sums = {name: np.array(values[:, tiles.start : tiles.stop]) for name, values in kept.items()}

    def product(self) -> dict[str, np.ndarray]:
        """The sums of all tiles, [G, tiles, width, ...] (``shares``)."""
        return self.kept()

    def files(self) -> Sequence[Path]:
        """See ``fit.stages.Work``."""
        return ()

    def shares(self, sums: Mapping[str, np.ndarray], start: np.ndarray, shared: Any) -> GroupShares:
        """The best shares, from the product of the stage, beginning at ``start`` [G] and nuisances ``shared``."""
        own = [sum(omega**2 for group, _, omega in self._units if group == g) for g in range(len(start))]
        parts = [sum(group == g for group, _, _ in self._units) for g in range(len(start))]
        case, variances = self._case, []
        for mean, shifted, squares, sum2, n in zip(sums["mean"], sums["shifted"], sums["squares"], own, parts):
            spread = squares - 2 * np.sum(mean * shifted, axis=-1) + sum2 * np.sum(mean**2, axis=-1)
            # of n parts: the variance of the mean, unbiased where parts are alike
            variances.append(spread * n / (n - 1) if n > 1 else 0 * spread)
        grid = make_grid(Ranks(), Shape(1, 1, ""), case.n_blocks, case.n_tiles)
        moments = sums["mean"], sums["second"], np.array(variances)
        return _best_shares(case.problem(grid), moments, case.groups.frames, start, shared)


def _best_shares(
    problem: FrameWeights, moments: tuple[np.ndarray, ...], frames: np.ndarray, start: np.ndarray, shared: Any
) -> GroupShares:
    """moments: <F> [G, tiles, width, 2], <|F|^2> and the variance of the mean [G, tiles, width]. frames: [G]."""
    import jax
    import jax.numpy as jnp
    from jax.flatten_util import ravel_pytree
    from scipy.optimize import minimize

    first = np.log(np.maximum(start, SHARE_OF_ZERO))
    flat, whole = ravel_pytree((jnp.asarray(first - first.max()), shared))
    mean_gh, second_gh, variance_gh = moments

    @jax.jit
    @jax.value_and_grad
    def misfit(parameters, corrected):
        levels, nuisances = whole(parameters)
        P = jax.nn.softmax(levels)
        mean_h, second_h = jnp.tensordot(P, mean_gh, 1), jnp.tensordot(P, second_gh, 1)
        x_h = second_h - jnp.sum(mean_h**2, axis=-1) + corrected * jnp.tensordot(P**2, variance_gh, 1)
        return problem.misfit_at(x_h, 1 / jnp.sum(P**2 / frames), nuisances)

    def shares(corrected: float) -> np.ndarray:
        def value_and_slope(at):
            return [np.asarray(part, float) for part in misfit(at, corrected)]

        found = minimize(value_and_slope, flat, jac=True, method="BFGS")
        return np.asarray(jax.nn.softmax(whole(jnp.asarray(found.x))[0]))

    return GroupShares(shares(0.0), shares(1.0))
