"""One loss over the weights of frames, corrections of the force field and the curves that predict data.

    L = sum over ensembles s of [ chi2_s / 2 + alpha KL(P_s || P_ff,s) + beta KL(P_ff,s || P_0,s) ] + gamma R
        + sum over k of (phi_k / prior_k)^2 / 2

    P_ff,t ~ w0_t exp(-sum over k of phi_k f_kt)            phi: in kT, shared by all ensembles
    chi2   = sum over data of ((<g>_P - measured) / sigma)^2
    R      = sum over fitted curves of the mean over the circle of the squared change of the curve

Averages are of numbers of a frame that do not depend on parameters: observables, and cos and cos^2 of torsions, of
which a curve makes couplings. Gilardoni et al. 2024, arXiv 2411.07798; Fröhlking et al. 2023, arXiv 2303.09372.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from hpcfit.fit.problem import Block, Cell, FrameRows, Params, Reduce, Statistics
from hpcfit.observables.averages import Data, deviations, half_chi2, misfits
from hpcfit.observables.curves import mean_square_change
from hpcfit.pytrees import pytree


class Prior(NamedTuple):
    """The numbers of each frame beside its data (``fit.problem.FrameRows.more``), leaves [blocks, width, ...].

    log_w0: ln of the weight in the simulation, whose sum over an ensemble is 1. spread: about w0^(-1/2), the unit in
    which a local parameter moves ln P. terms: [..., K], of the force field, their means over the ensemble taken off.
    ensemble: number.
    """

    log_w0: np.ndarray
    spread: np.ndarray
    terms: np.ndarray
    ensemble: np.ndarray


class WeightSums(NamedTuple):
    """Sums over the frames of each ensemble, [S]: of p ~ P and q ~ P_ff, neither divided by its sum."""

    p: Any
    p_log: Any  # sum p ln(p / q)
    q: Any
    q_tilt: Any  # sum q phi.f
    pp: Any
    qq: Any


class Scales(NamedTuple):
    """Matrices that make the loss equally curved: corrections phi = phi_fixed + corrections @ z, [K, fitted]; each
    fitted curve changes by curves @ z, [3, 3]. placed: [curves, fitted], 1 where a curve is that fitted one."""

    corrections: Any
    curves: Any
    placed: Any


@pytree
@dataclass(frozen=True)
class JointFit:
    """See ``hpcfit.fit.problem.Problem``.

    Local parameters v: ln(P / P_ff) = v spread / sqrt(alpha) + constant; shared ones z of corrections and curves, in
    units of ``scales`` and of their prices, so that the priced terms have the second derivative 1 in each direction.
    prices: alpha, beta, gamma. fixed_phi: [K], coefficients: [curves, 3]. judged: chi2 of held-out data is told.
    precision: [K], 1 / prior^2 of the corrections, 1/kT^2, 0 for none.
    """

    data: Data
    prices: Any
    scales: Scales
    fixed_phi: Any
    coefficients: Any
    n_ensembles: int = field(metadata={"static": True})
    judged: bool = field(metadata={"static": True})
    precision: Any

    @property
    def tiles(self) -> np.ndarray:
        """One tile: the averages of all data together."""
        return np.zeros(1)

    # ---- parameters ------------------------------------------------------------------------------------------------

    def init(self, seed: int, frames: FrameRows) -> Params:
        """The simulated weights, fitted corrections of 0, and the curves as they were given."""
        fitted, curves = self.scales.corrections.shape[1], self.scales.placed.shape[1]
        return Params({"corrections": np.zeros(fitted), "curves": np.zeros((curves, 3))}, np.zeros(frames.ids.shape))

    def gauge(self, params: Params, frames: FrameRows, reduce: Reduce) -> Params:
        """The parameters as they are: the gradient has no part along the change that multiplies all weights."""
        return params

    def phi(self, shared: dict) -> Any:
        """All corrections [K], kT."""
        return self.fixed_phi + self.scales.corrections @ shared["corrections"] / jnp.sqrt(self.prices.beta)

    def curves(self, shared: dict) -> Any:
        """The coefficients of all curves [curves, 3], Hz."""
        return self.coefficients + self.scales.placed @ self._changes(shared)

    def _changes(self, shared: dict) -> Any:
        return shared["curves"] @ self.scales.curves.T / jnp.sqrt(self.prices.gamma)

    def at_prices_of(self, params: Params, other: JointFit) -> Params:
        """The parameters of this problem at which weights, corrections and curves are those of ``params`` of another
        one."""
        alpha, beta, gamma = (np.sqrt(mine / its) for mine, its in zip(self.prices, other.prices))
        shared = {"corrections": params.shared["corrections"] * beta, "curves": params.shared["curves"] * gamma}
        return Params(shared, params.local * alpha)

    # ---- sums over frames ------------------------------------------------------------------------------------------

    def weights(self, params: Params, block: Any) -> tuple[Any, Any, Any, Any]:
        """p, ln(p / q), q and phi.f of the frames of a block or of blocks, 0 where there is no frame."""
        tilt = block.more.terms @ self.phi(params.shared)
        moved = params.local * block.more.spread / jnp.sqrt(self.prices.alpha)
        q = jnp.where(block.ids >= 0, jnp.exp(block.more.log_w0 - tilt), 0.0)
        return q * jnp.exp(moved), moved, q, tilt

    def of_frames(self, params: Params, block: Block) -> WeightSums:
        """The sums of the two distributions and of what their divergences are made of."""
        p, moved, q, tilt = self.weights(params, block)
        sums = jnp.stack([p, p * moved, q, q * tilt, p * p, q * q]) @ self.member(block)
        return WeightSums(*sums)

    def partial(self, params: Params, cell: Cell) -> Any:
        """Sums of p times what data average, [S, F]."""
        p, *_ = self.weights(params, cell)
        return self.member(cell).T @ (p[:, None] * cell.data)

    def member(self, block: Any) -> Any:
        """1 where a frame is of an ensemble, [width, S]."""
        return jnp.where(block.more.ensemble[:, None] == jnp.arange(self.n_ensembles), 1.0, 0.0)

    def summary(self, statistics: Statistics, shared: dict, tile: Any) -> Any:
        """The sums as they are: there is one tile."""
        return statistics.sliced

    # ---- loss ------------------------------------------------------------------------------------------------------

    def loss(self, sums: Any, common: WeightSums, shared: dict) -> Any:
        """See the module."""
        prices, chi2 = self.prices, self.chi2(sums, common, shared)
        from_force_field, from_simulation = self.divergences(common)
        priced = prices.alpha * from_force_field + prices.beta * from_simulation
        held = jnp.sum(self.precision * self.phi(shared) ** 2) / 2
        return jnp.sum(chi2 / 2 + priced) + prices.gamma * self.change_of_curves(shared) + held

    def divergences(self, common: WeightSums) -> tuple[Any, Any]:
        """KL(P || P_ff) and KL(P_ff || P_0) of each ensemble, [S] nats."""
        log_p, log_q = jnp.log(common.p), jnp.log(common.q)
        return common.p_log / common.p - log_p + log_q, -common.q_tilt / common.q - log_q

    def change_of_curves(self, shared: dict) -> Any:
        """R, Hz^2."""
        return mean_square_change(self._changes(shared))

    def averages(self, sums: Any, common: WeightSums) -> Any:
        """The averages that the data of each ensemble are made of, [S, F]."""
        return sums / common.p[:, None]

    def half_chi2(self, averages: Any, curves: Any) -> Any:
        """chi2 / 2 of the fitted data of all ensembles, as a function of what the data are made of."""
        return half_chi2(self.data, averages, curves)

    def deviations(self, sums: Any, common: WeightSums, shared: dict) -> Any:
        """(calculated - measured) / sigma of each datum, [N], with its sign."""
        return deviations(self.data, self.averages(sums, common), self.curves(shared))

    def chi2(self, sums: Any, common: WeightSums, shared: dict, held_out: bool = False) -> Any:
        """chi2 of the data of each ensemble that are fitted, or of those that are held out, [S]."""
        of_data = misfits(self.data, self.deviations(sums, common, shared))
        count = self.data.of_held_out if held_out else self.data.count
        return jnp.zeros(self.n_ensembles).at[self.data.ensemble].add(count * of_data)

    def metrics(self, sums: Any, common: WeightSums, shared: dict) -> dict[str, Any]:
        """chi2 of the fitted data and of those held out, summed over ensembles, and what is priced."""
        from_force_field, from_simulation = self.divergences(common)
        held_out = {"chi2_held_out": jnp.sum(self.chi2(sums, common, shared, held_out=True))} if self.judged else {}
        return {
            "chi2": jnp.sum(self.chi2(sums, common, shared)),
            **held_out,
            "kl_weights": jnp.sum(from_force_field),
            "kl_force_field": jnp.sum(from_simulation),
            "curve_change": self.change_of_curves(shared),
            "least_ess": jnp.min(common.p**2 / common.pp),
        }
