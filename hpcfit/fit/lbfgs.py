"""Limited-memory BFGS, of one minimisation or of many at once that share their evaluations.

Each minimisation has its own memory, line search, end and reason. An evaluation serves all of them, each at its own
trial length; one that has ended stays where it is. What a minimisation does is the same, bit for bit, whatever others
do beside it.

The method is that of Liu and Nocedal (1989, 10.1007/BF01589116) with a weak-Wolfe bisection (Lewis and Overton 2013,
10.1007/s10107-012-0514-2) whose decrease is judged by slopes where the loss is all rounding (Hager and Zhang 2005,
10.1137/030601880). The two-loop recursion acts on coefficients of the basis (s, y, gradient), whose Gram matrix is one
message (Chen, Wang and Zhou 2014).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import numpy as np

from hpcfit.config.table import Space
from hpcfit.fit.gradient import NO_ROWS, Evaluation
from hpcfit.fit.inner import InnerProduct
from hpcfit.fit.problem import Params

Array = np.ndarray
GOING, PRECISION, NOT_FINITE, SMALL_GRADIENT, SMALL_CHANGE, MAX_STEPS = range(6)
REASONS = {
    GOING: "",
    PRECISION: "steps no longer lower the loss by more than its rounding: this is the precision of the loss",
    NOT_FINITE: "the loss was finite at no trial of a line search",
    SMALL_GRADIENT: "the gradient is small (optimizer.gradient_tolerance)",
    SMALL_CHANGE: "the loss hardly changes (optimizer.relative_tolerance)",
    MAX_STEPS: "all steps are done (optimizer.max_steps)",
}
NOT_CURVED = 1e-14  # of <y, y>: below it <s, y> is rounding
ROUNDED_STEPS = 3  # in a row: one may be so by chance


class Search(NamedTuple):
    """Line searches, numbers [*each]: from the accepted points along ``direction``, with the trial at ``length``.

    slope: of the loss along the direction, at its begin; low, high: lengths that the next trials lie between; trials:
    so far; finite: whether any of them was; best: the loss at ``low``, inf where that is the begin, with the gradient
    and the rows there.
    """

    direction: Params
    slope: Array
    low: Array
    high: Array
    length: Array
    trials: Array
    finite: Array
    best: Array
    best_gradient: Params
    best_rows: Params


class LbfgsState(NamedTuple):
    """Minimisations, numbers [*each].

    s, y: the last ``memory`` steps and gradient changes, newest last, of which the last ``filled`` are there. search:
    from here on. steps: accepted so far; losses: [memory of them, *each], of the last steps, newest last; rounded: how
    many of the last steps in a row changed the loss by its rounding; status: why each has ended, see ``REASONS``.
    """

    params: Params
    loss: Array
    gradient: Params
    s: tuple[Params, ...]
    y: tuple[Params, ...]
    filled: Array
    search: Search
    steps: Array
    losses: Array
    rounded: Array
    status: Array
    rows: Params = NO_ROWS

    @property
    def going(self) -> Array:
        """Those that have not ended, [*each]."""
        return self.status == GOING

    @property
    def stalled(self) -> str:
        """Why a single minimisation has ended, or ""."""
        return REASONS[int(self.status)]


@dataclass(frozen=True)
class Ends:
    """The ends of many minimisations. Each has ended after so many steps, where the norm of its gradient is small, or
    where its loss changed by less than a relative tolerance in each of its last ``patience`` steps."""

    steps: int
    gradient: float = 0.0
    relative: float = 0.0
    patience: int = 1

    def status(self, steps: Array, norm: Array, losses: Array) -> Array:
        """The end that each has come to, or none [*each]: after ``steps`` steps, with the norm of its gradient, and its
        losses after its last steps, [patience + 1, *each], newest last."""
        with np.errstate(invalid="ignore"):
            changes = np.abs(np.diff(losses, axis=0))
            small = np.all(changes <= self.relative * np.abs(losses[-1]), axis=0) & (steps >= self.patience)
        found = np.where(steps >= self.steps, MAX_STEPS, GOING)
        found = np.where(small, SMALL_CHANGE, found)
        return np.where(norm <= self.gradient, SMALL_GRADIENT, found)


@dataclass(frozen=True)
class Lbfgs:
    """See the module, and ``fit.optimizers.Optimizer``: a step is an accepted one of a single minimisation.

    longest: the norm of the longest first trial of a step, or None. ends: of many; a single one is ended by the hooks
    of the loop.
    """

    inner: InnerProduct
    memory: int = 10
    armijo: float = 1e-4
    curvature: float = 0.9
    max_trials: int = 20
    noise: float = 1e-8  # relative rounding of a loss from float32 kernels
    first_step: float = 1.0  # length of the first step, in the parameters' units
    longest: float | None = None
    ends: Ends | None = None
    space: ClassVar[Space] = "vectors"
    stops_on: ClassVar = ("small gradient", "small change")

    def __post_init__(self):
        if not (isinstance(self.memory, int) and self.memory >= 1 and self.max_trials >= 1):
            raise ValueError("memory and max_trials must be whole numbers of at least 1")
        if not (0 < self.armijo < 0.5 and self.armijo < self.curvature < 1):
            raise ValueError("0 < armijo < 0.5 and armijo < curvature < 1 are needed")
        if not (self.noise >= 0 and self.first_step > 0 and (self.longest is None or self.longest > 0)):
            raise ValueError("noise must not be negative, and first_step and longest must be positive")

    # ---- an optimizer of one minimisation --------------------------------------------------------------------------

    def start(self, params: Params, evaluate: Callable[[Params], Evaluation]) -> LbfgsState:
        """Evaluate at the start."""
        return self.begun(params, evaluate(params))

    def step(self, state: LbfgsState, evaluate: Callable[[Params], Evaluation]) -> LbfgsState:
        """Trials until one is accepted, or there is no lower loss."""
        steps = state.steps
        while state.going and state.steps == steps:
            trial = self.trial(state)
            here = evaluate(trial)
            state = self.told(state, here)
        if state.status == NOT_FINITE:
            return state._replace(params=trial, loss=here.loss)
        return state

    # ---- one evaluation of all -------------------------------------------------------------------------------------

    def begun(self, params: Params, here: Evaluation) -> LbfgsState:
        """The minimisations at their starts, from the evaluation there; collective."""
        inner, zeros = self.inner, np.zeros(self.inner.each)
        nothing = inner.combine([zeros], [params])
        unknown = Search(nothing, zeros, zeros, zeros, zeros, zeros.astype(int), zeros > 0, zeros, nothing, here.rows)
        kept = (nothing,) * self.memory
        loss = np.asarray(here.loss, float)
        losses = np.full((self._remembered, *inner.each), np.inf)
        losses[-1] = loss
        status = np.where(np.isfinite(loss), GOING, NOT_FINITE)
        state = LbfgsState(
            params, loss, here.gradient, kept, kept, zeros.astype(int), unknown, zeros.astype(int), losses,
            zeros.astype(int), status, here.rows,
        )  # fmt: skip
        return self._turned(state, np.ones(inner.each, bool))

    def trial(self, state: LbfgsState) -> Params:
        """The points that are to be evaluated next; of one that has ended, where it is."""
        length = np.where(state.going, state.search.length, 0.0)
        return self.inner.combine([np.ones(self.inner.each), length], [state.params, state.search.direction])

    def told(self, state: LbfgsState, here: Evaluation) -> LbfgsState:
        """All after the evaluation of their trials; collective."""
        going, search = state.going, state.search
        slope = self.inner(here.gradient, search.direction)
        descends = self._descends(state.loss, here.loss, search, slope)
        accepted = going & descends & (slope >= self.curvature * search.slope)
        rounded = np.where(self._is_rounding(state.loss, here.loss, search, slope), state.rounded + 1, 0)
        state = state._replace(rounded=np.where(accepted, rounded, state.rounded))
        search = self._bracketed(search, going & ~accepted, descends, here)
        # Where trials are used up, the best of them that lowered the loss is taken.
        spent = going & ~accepted & (search.trials >= self.max_trials)
        second = spent & np.isfinite(search.best)
        state = self._moved(state._replace(search=search), here, accepted, second)
        lost = spent & ~second
        again = lost & search.finite & (state.filled > 0)
        precise = (lost & ~again) | (accepted & (state.rounded >= ROUNDED_STEPS))
        status = np.where(lost & ~search.finite, NOT_FINITE, np.where(precise, PRECISION, state.status))
        state = state._replace(status=status, filled=np.where(again, 0, state.filled))
        return self._turned(state, accepted | second | again)

    def anew(self, state: LbfgsState, which: Array, params: Params, here: Evaluation) -> LbfgsState:
        """The minimisations with some begun anew, from the evaluation at ``params``; others are as they are."""
        fresh, choose = self.begun(params, here), lambda a, b: np.where(self.inner.along(which, a), a, b)
        mixed = jax.tree.map(choose, fresh._replace(losses=()), state._replace(losses=()))
        return mixed._replace(losses=np.where(which, fresh.losses, state.losses))

    def _descends(self, before: Array, here: Array, search: Search, slope: Array) -> Array:
        """Armijo's condition.

        Where the change of the loss drowns in its rounding, its form in slopes (Hager and Zhang).
        """
        with np.errstate(invalid="ignore"):
            lower = here <= before + self.armijo * search.length * search.slope
            as_low = here <= before + self.noise * np.abs(before)
        return lower | (as_low & (slope <= (2 * self.armijo - 1) * search.slope))

    def _is_rounding(self, before: Array, here: Array, search: Search, slope: Array) -> Array:
        """Whether the change of the loss is one that its rounding may make, and differs from what the slopes at both
        ends of the step say by more than this itself. They are right to third order, so that near a minimum nothing but
        rounding makes such a difference."""
        with np.errstate(invalid="ignore"):
            change, by_slopes = here - before, 0.5 * search.length * (search.slope + slope)
            return (np.abs(change) <= self.noise * np.abs(before)) & (np.abs(change - by_slopes) > np.abs(by_slopes))

    def _bracketed(self, search: Search, which: Array, descends: Array, here: Evaluation) -> Search:
        """The searches after a trial that was not accepted, by doubling and bisection."""
        better = which & descends
        low = np.where(better, search.length, search.low)
        high = np.where(which & ~descends, search.length, search.high)
        with np.errstate(invalid="ignore"):
            next_length = np.where(np.isinf(high), 2 * low, 0.5 * (low + high))
        chosen = self.inner.chosen
        return search._replace(
            low=low, high=high, length=np.where(which, next_length, search.length), trials=search.trials + which,
            finite=search.finite | (which & np.isfinite(here.loss)), best=np.where(better, here.loss, search.best),
            best_gradient=chosen(better, here.gradient, search.best_gradient),
            best_rows=chosen(better, here.rows, search.best_rows),
        )  # fmt: skip

    def _moved(self, state: LbfgsState, here: Evaluation, first: Array, second: Array) -> LbfgsState:
        """Steps to the trial, or to the best point of the search, with what they tell of the curvature."""
        moved = first | second
        if not np.any(moved):
            return state
        inner, search, one = self.inner, state.search, np.ones(self.inner.each)
        length = np.where(first, search.length, np.where(second, search.low, 0.0))
        params = inner.combine([one, length], [state.params, search.direction])
        gradient = inner.chosen(first, here.gradient, inner.chosen(second, search.best_gradient, state.gradient))
        rows = inner.chosen(first, here.rows, inner.chosen(second, search.best_rows, state.rows))
        loss = np.where(first, here.loss, np.where(second, search.best, state.loss))
        s, y = (inner.combine([one, -one], [*both]) for both in ((params, state.params), (gradient, state.gradient)))
        pushed = lambda new, kept: tuple(inner.chosen(moved, n, k) for n, k in zip((*kept[1:], new), kept))  # noqa: E731
        losses = np.where(moved, np.concatenate([state.losses[1:], loss[None]]), state.losses)
        return state._replace(
            params=params, loss=loss, gradient=gradient, rows=rows, s=pushed(s, state.s), y=pushed(y, state.y),
            filled=np.where(moved, np.minimum(state.filled + 1, self.memory), state.filled),
            steps=state.steps + moved, losses=losses,
        )  # fmt: skip

    # ---- directions and ends ---------------------------------------------------------------------------------------

    def _turned(self, state: LbfgsState, which: Array) -> LbfgsState:
        """New directions of these minimisations, as far as they go on; collective where there are any."""
        if not np.any(which):
            return state
        basis = [*state.s, *state.y, state.gradient]
        gram = self.inner.gram(basis)
        state = state._replace(status=self._ended(state, which, np.sqrt(gram[..., -1, -1])))
        coefficients, filled = self._downhill(gram, state.filled)
        slope = _product(gram[..., -1, :], coefficients)
        norm = np.sqrt(np.maximum(_product(_applied(gram, coefficients), coefficients), 0.0))
        flat = which & state.going & ~(slope < 0)
        status = np.where(flat, PRECISION, state.status)
        which = which & (status == GOING)
        found = self.inner.combine(list(np.moveaxis(coefficients, -1, 0)), basis)
        search, nothing = state.search, np.zeros(self.inner.each)
        length = nothing + 1.0 if self.longest is None else np.minimum(1.0, self.longest / np.maximum(norm, 1e-300))
        of_new = {
            "slope": slope, "low": nothing, "high": nothing + np.inf, "length": length, "trials": nothing.astype(int),
            "finite": nothing > 0, "best": nothing + np.inf,
        }  # fmt: skip
        numbers = {name: np.where(which, new, getattr(search, name)) for name, new in of_new.items()}
        direction = self.inner.chosen(which, found, search.direction)
        return state._replace(
            search=search._replace(direction=direction, **numbers), status=status,
            filled=np.where(which, filled, state.filled),
        )  # fmt: skip

    def _downhill(self, gram: Array, filled: Array) -> tuple[Array, Array]:
        """Coefficients of -H g in the basis, [*each, 2 m + 1], and how much of the memory they use: none where what it
        says is not downhill."""
        coefficients = _two_loop(gram, filled)
        plain = np.zeros_like(coefficients)
        plain[..., -1] = -self.first_step / np.maximum(np.sqrt(gram[..., -1, -1]), 1e-300)
        usable = (filled > 0) & (_product(gram[..., -1, :], coefficients) < 0)
        return np.where(usable[..., None], coefficients, plain), np.where(usable, filled, 0)

    def _ended(self, state: LbfgsState, which: Array, norm: Array) -> Array:
        """The status of each after its last step."""
        if self.ends is None:
            return state.status
        found = self.ends.status(state.steps, norm, state.losses)
        return np.where(which & state.going, found, state.status)

    @property
    def _remembered(self) -> int:
        return 1 if self.ends is None else self.ends.patience + 1


def _product(a: Array, b: Array) -> Array:
    """The sums of products along the last axis."""
    return np.sum(a * b, axis=-1)


def _applied(gram: Array, coefficients: Array) -> Array:
    return np.sum(gram * coefficients[..., None, :], axis=-1)


def _two_loop(gram: Array, filled: Array) -> Array:
    """Coefficients of -H g in the basis (s_1 ... s_m, y_1 ... y_m, g), [*each, 2 m + 1], from its Gram matrices; 0
    of the pairs before the last ``filled``, and of those that have no curvature."""
    m = gram.shape[-1] // 2
    c = np.zeros(gram.shape[:-1])
    c[..., -1] = -1.0
    alpha = np.zeros((*gram.shape[:-2], m))
    pairs = np.arange(m)
    sy, yy = gram[..., pairs, m + pairs], gram[..., m + pairs, m + pairs]
    curved = (sy > NOT_CURVED * yy) & (pairs >= m - filled[..., None])
    inverse = np.where(curved, 1 / np.where(curved, sy, 1.0), 0.0)
    scale = np.ones(filled.shape)
    for i in range(m):
        scale = np.where(curved[..., i], sy[..., i] / np.where(curved[..., i], yy[..., i], 1.0), scale)
    for i in reversed(range(m)):
        alpha[..., i] = _product(gram[..., i, :], c) * inverse[..., i]
        c[..., m + i] -= alpha[..., i]
    c *= scale[..., None]
    for i in range(m):
        c[..., i] += alpha[..., i] - _product(gram[..., m + i, :], c) * inverse[..., i]
    return c
