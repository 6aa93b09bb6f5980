"""Many minimisations at once by first derivatives alone: Adam and FIRE, told of one evaluation at a time.

They are used as ``fit.lbfgs.Lbfgs`` is: ``begun``, and then ``trial`` and ``told`` until none is going. What one does
is the same, bit for bit, whatever others do beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from hpcfit.fit.gradient import Evaluation
from hpcfit.fit.inner import InnerProduct
from hpcfit.fit.lbfgs import GOING, NOT_FINITE, Ends
from hpcfit.fit.problem import Params

Array = np.ndarray


class Descent(Protocol):
    """A method that advances many minimisations; its state has ``params``, ``loss``, ``status``, ``steps`` [*each]."""

    inner: InnerProduct

    def begun(self, params: Params, here: Evaluation): ...

    def trial(self, state) -> Params: ...

    def told(self, state, here: Evaluation): ...


class FirstOrderState(NamedTuple):
    """Minimisations, numbers [*each].

    params, loss: the best points so far; at: where each is, with the gradient there. first, second: moving means of
    the gradient and of its squares (Adam), or velocity and nothing (FIRE). clock: the time step, the mixing and the
    steps since the last uphill one (FIRE), [3, *each]. losses: of the last evaluations, newest last.
    """

    params: Params
    loss: Array
    at: Params
    gradient: Params
    first: Params
    second: Params
    clock: Array
    steps: Array
    losses: Array
    status: Array

    @property
    def going(self) -> Array:
        """Those that have not ended."""
        return self.status == GOING


@dataclass(frozen=True)
class FirstOrder:
    """The half that Adam and FIRE share: they move on from wherever they are, and keep the best point."""

    inner: InnerProduct
    ends: Ends

    def begun(self, params: Params, here: Evaluation) -> FirstOrderState:
        """The minimisations at their starts."""
        zeros = np.zeros(self.inner.each)
        nothing = self.inner.combine([zeros], [params])
        loss = np.asarray(here.loss, float)
        losses = np.full((self.ends.patience + 1, *self.inner.each), np.inf)
        losses[-1] = loss
        status = np.where(np.isfinite(loss), GOING, NOT_FINITE)
        clock = np.stack([zeros + value for value in self._clock])
        return FirstOrderState(
            params, loss, params, here.gradient, nothing, nothing, clock, zeros.astype(int), losses, status
        )

    @property
    def _clock(self) -> tuple[float, float, float]:
        return 0.0, 0.0, 0.0

    def _ended(self, state: FirstOrderState, here: Evaluation) -> FirstOrderState:
        """After a step to ``here``: the best points, and which have ended."""
        going, loss = state.going, np.asarray(here.loss, float)
        finite = np.isfinite(loss)
        better = going & finite & (loss < state.loss)
        losses = np.where(going, np.concatenate([state.losses[1:], loss[None]]), state.losses)
        norm = self.inner.norm(here.gradient)
        steps = state.steps + going
        status = np.where(finite, self.ends.status(steps, norm, losses), NOT_FINITE)
        return state._replace(
            params=self.inner.chosen(better, state.at, state.params), loss=np.where(better, loss, state.loss),
            gradient=self.inner.chosen(going & finite, here.gradient, state.gradient), steps=steps, losses=losses,
            status=np.where(going, status, state.status),
        )  # fmt: skip


@dataclass(frozen=True)
class Adam(FirstOrder):
    """Adam (Kingma and Ba 2015, arXiv 1412.6980); clip: of each number of the gradient, or None."""

    rate: float = 1e-2
    clip: float | None = 0.1
    means: tuple[float, float] = (0.9, 0.999)

    def trial(self, state: FirstOrderState) -> Params:
        """The points that are to be evaluated next; of one that has ended, where it is."""
        return self._moved(state).at

    def told(self, state: FirstOrderState, here: Evaluation) -> FirstOrderState:
        """All after the evaluation of their trials."""
        moved = self._moved(state)
        return self._ended(moved, here)

    def _moved(self, state: FirstOrderState) -> FirstOrderState:
        b1, b2 = self.means
        n = state.steps + 1.0
        scale = np.where(state.going, self.rate * np.sqrt(1 - b2**n) / (1 - b1**n), 0.0)
        clipped = self._clipped(state.gradient)
        first = self.inner.combine([b1, 1 - b1], [state.first, clipped])
        second = self.inner.combine([b2, 1 - b2], [state.second, _each_number(np.square, clipped)])
        down = _each_number(lambda m, v: -m / (np.sqrt(v) + 1e-8), first, second)
        at = self.inner.combine([np.ones(self.inner.each), scale], [state.at, down])
        return state._replace(at=at, first=first, second=second)

    def _clipped(self, gradient: Params) -> Params:
        if self.clip is None:
            return gradient
        return _each_number(lambda g: np.clip(g, -self.clip, self.clip), gradient)


@dataclass(frozen=True)
class Fire(FirstOrder):
    """FIRE (Bitzek and others 2006, 10.1103/PhysRevLett.97.170201): damped dynamics, stopped where it goes uphill.

    first_step, longest_step: of time, masses 1; longest: the norm of a move at most.
    """

    first_step: float = 0.1
    longest_step: float = 1.0
    longest: float = 0.2
    grow: float = 1.1
    shrink: float = 0.5
    mixing: float = 0.1
    fade: float = 0.99
    wait: int = 5  # steps downhill before the time step grows

    @property
    def _clock(self) -> tuple[float, float, float]:
        return self.first_step, self.mixing, 0.0

    def trial(self, state: FirstOrderState) -> Params:
        """The points that are to be evaluated next; of one that has ended, where it is."""
        return self._moved(state).at

    def told(self, state: FirstOrderState, here: Evaluation) -> FirstOrderState:
        """All after the evaluation of their trials."""
        return self._ended(self._moved(state), here)

    def _moved(self, state: FirstOrderState) -> FirstOrderState:
        """Turn the velocity downhill, or stop; then a step of time."""
        inner, one = self.inner, np.ones(self.inner.each)
        time, mixing, downhill = state.clock
        gram = inner.gram([state.first, state.gradient])
        power, speed, slope = -gram[..., 0, 1], np.sqrt(gram[..., 0, 0]), np.sqrt(gram[..., 1, 1])
        ahead = (power > 0) | (state.steps == 0)
        kept = np.where(ahead, 1 - mixing, 0.0)
        turned = np.where(ahead, -mixing * speed / np.maximum(slope, 1e-300), 0.0)
        longer = ahead & (downhill >= self.wait)
        new_time = np.where(longer, np.minimum(time * self.grow, self.longest_step), time)
        new_time = np.where(ahead, new_time, time * self.shrink)
        new_mixing = np.where(ahead, np.where(longer, mixing * self.fade, mixing), self.mixing)
        velocity = inner.combine([kept, turned - new_time], [state.first, state.gradient])
        far = new_time * inner.norm(velocity)
        length = new_time * np.minimum(1.0, self.longest / np.maximum(far, 1e-300))
        at = inner.combine([one, np.where(state.going, length, 0.0)], [state.at, velocity])
        clock = np.stack([new_time, new_mixing, np.where(ahead, downhill + 1, 0.0)])
        return state._replace(at=at, first=velocity, clock=np.where(state.going, clock, state.clock))


def _each_number(function, *vectors: Params) -> Params:
    """A function of numbers, applied to all of vectors with the same leaves."""
    import jax

    return jax.tree.map(function, *vectors)
