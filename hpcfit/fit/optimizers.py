"""Optimizers: each is an object with ``start`` and ``step``; its state is a NamedTuple that a checkpoint can hold.

A step may evaluate the loss several times; ``evaluate`` counts and records. All ranks take the same decisions, because
losses and inner products are the same numbers on all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np

from hpcfit.config.table import Space
from hpcfit.errors import InputError, nearest
from hpcfit.fit.gradient import NO_ROWS, Evaluation, Gradient
from hpcfit.fit.inner import InnerProduct, combine
from hpcfit.fit.lbfgs import Lbfgs
from hpcfit.fit.problem import Params
from hpcfit.fit.selection import Genetic, Greedy, Selections

Evaluate = Callable[[Params], Evaluation]
Sign = Literal["small gradient", "small change"]  # of the loss
SIGNS: tuple[Sign, ...] = ("small gradient", "small change")


class Optimizer(Protocol):
    """An optimizer, as the loop uses it.

    Every state has ``params``, ``loss``, ``gradient`` and ``stalled`` (why no step is possible, or ""); those of
    optimizers that any problem can take also have the ``rows`` of the evaluation that they accepted.

    space: what it moves. stops_on: which signs of convergence mean something for it; one that judges by itself when it
    ends, or whose losses are noisy, has none.
    """

    space: Space
    stops_on: Sequence[Sign]

    def start(self, params: Params, evaluate: Evaluate) -> Any: ...

    def step(self, state: Any, evaluate: Evaluate) -> Any: ...


class GradientState(NamedTuple):
    """inner: the state of the optax chain, or of the backtracking (its step length)."""

    params: Params
    loss: float
    gradient: Params
    inner: Any
    stalled: str
    rows: Params = NO_ROWS


@dataclass(frozen=True)
class Optax:
    """An elementwise chain of optax.

    Where ``clip_norm`` is given, the gradient is clipped to that norm over all ranks.
    """

    chain: Any
    inner: InnerProduct
    clip_norm: float | None = None
    space: ClassVar[Space] = "vectors"
    stops_on: ClassVar = SIGNS

    def start(self, params: Params, evaluate: Evaluate) -> GradientState:
        """Evaluate at the start."""
        here = evaluate(params)
        return GradientState(params, here.loss, here.gradient, self.chain.init(params), "", here.rows)

    def step(self, state: GradientState, evaluate: Evaluate) -> GradientState:
        """One update and one evaluation."""
        gradient = state.gradient if self.clip_norm is None else self._clipped(state.gradient)
        updates, inner = self.chain.update(gradient, state.inner, state.params)
        params = combine([1.0, 1.0], [state.params, updates])
        here = evaluate(params)
        return GradientState(params, here.loss, here.gradient, inner, "", here.rows)

    def _clipped(self, gradient: Params) -> Params:
        norm = self.inner.norm(gradient)
        return gradient if norm <= self.clip_norm else combine([self.clip_norm / norm], [gradient])


@dataclass(frozen=True)
class ExponentiatedGradient:
    """Multiplicative updates of weights on the simplex, w <- w exp(-eta dL/dw) / Z (Kivinen and Warmuth 1997,
    10.1006/inco.1996.2612), with backtracking: a natural-gradient step in the log-weights. gradient: as in
    ``choose_optimizer``."""

    gradient: Gradient
    inner: InnerProduct
    step_length: float = 1.0
    shrink: float = 0.5
    grow: float = 1.5
    armijo: float = 1e-4
    max_trials: int = 30
    space: ClassVar[Space] = "simplex"
    stops_on: ClassVar = SIGNS

    def __post_init__(self):
        if not (self.step_length > 0 and 0 < self.shrink < 1 and self.grow >= 1 and self.max_trials >= 1):
            raise ValueError("step_length > 0, 0 < shrink < 1, grow >= 1 and max_trials >= 1 are needed")

    def start(self, params: Params, evaluate: Evaluate) -> GradientState:
        """Evaluate at the start."""
        here = evaluate(params)
        return GradientState(here.params, here.loss, here.gradient, self.step_length, "", here.rows)

    def step(self, state: GradientState, evaluate: Evaluate) -> GradientState:
        """One accepted step; its length is remembered for the next."""
        problem = self.gradient.problem
        direction = problem.natural_direction(state.gradient, self.gradient.frames.rows)
        slope = self.inner(state.gradient, direction)
        length = float(state.inner)
        for _ in range(self.max_trials):
            here = evaluate(problem.multiplied(state.params, direction, length))
            if here.loss <= state.loss + self.armijo * length * slope:
                return GradientState(here.params, here.loss, here.gradient, length * self.grow, "", here.rows)
            length *= self.shrink
        if not np.isfinite(here.loss):
            return state._replace(params=here.params, loss=here.loss)
        return state._replace(stalled="no shorter step lowers the loss: this is the precision of the loss")


SELECTING = {"greedy": Greedy, "genetic": Genetic}  # for weights that are 0 or equal
# optax transformations that act on each number alone: others would need norms over all ranks.
ELEMENTWISE = (
    "adabelief", "adagrad", "adam", "adamax", "adamaxw", "adamw", "adan", "amsgrad", "lion", "nadam", "nadamw",
    "radam", "rmsprop", "rprop", "sgd", "sign_sgd", "yogi",
)  # fmt: skip
OWN = {"lbfgs": Lbfgs, "exponentiated-gradient": ExponentiatedGradient, **SELECTING}


MakeOptimizer = Callable[[InnerProduct, Gradient], Optimizer]  # for the gradient of one fit


def choose_optimizer(
    name: str,
    options: dict[str, Any],
    clip_norm: float | None,
    inner: InnerProduct,
    gradient: Gradient | None = None,
) -> Optimizer:
    """The optimizer that the config names, with its options; raises InputError on an unknown name or option.

    gradient: of the problem on this rank's frames, for those that select or multiply weights.
    """
    if name in OWN and clip_norm is not None:
        raise InputError(
            f"[optimizer] clip_norm = {clip_norm} has no effect on '{name}'",
            remedy="remove it: it limits its steps itself",
        )
    if name == "lbfgs":
        return _built(
            Lbfgs, name, options, ("memory", "armijo", "curvature", "max_trials", "noise", "first_step"), inner=inner
        )
    if name == "exponentiated-gradient":
        keys = ("step_length", "shrink", "grow", "armijo", "max_trials")
        return _built(ExponentiatedGradient, name, options, keys, inner=inner, gradient=gradient)
    if name in SELECTING:
        keys = tuple(field.name for field in fields(SELECTING[name]) if field.name != "selections")
        return _built(SELECTING[name], name, options, keys, selections=Selections(gradient))
    if name not in ELEMENTWISE:
        raise InputError(
            f"[optimizer] name = '{name}' is unknown: {nearest(name, (*OWN, *ELEMENTWISE))}",
            remedy="use a name from the list in README",
        )
    return Optax(_optax_chain(name, options), inner, clip_norm)


def check_options(name: str, options: dict[str, Any], clip_norm: float | None) -> None:
    """Raise InputError for an optimizer that would not come to its first step."""
    optimizer = choose_optimizer(name, options, clip_norm, None)
    if not isinstance(optimizer, Optax):
        return
    import jax

    remedy = "correct [optimizer] options"
    try:
        with jax.enable_x64(True):  # as in a fit; this may come before a device is chosen
            updates, _ = optimizer.chain.update(np.ones(2), optimizer.chain.init(np.ones(2)), np.ones(2))
        step = np.asarray(updates, float)
    except Exception as error:  # of optax and JAX, which look at an option when they use it
        said = str(error).splitlines()[0]
        raise InputError(f"'{name}' does not take the options {options}: {said}", remedy=remedy) from None
    if not np.all(np.isfinite(step)):
        raise InputError(f"'{name}' with the options {options} takes steps of {step[0]}", remedy=remedy)


def _optax_chain(name: str, options: dict[str, Any]) -> Any:
    import inspect

    import optax

    factory = getattr(optax, name)
    values = {key: _schedule(value) if isinstance(value, dict) else value for key, value in options.items()}
    values.setdefault("learning_rate", 0.05)
    return _built(factory, name, values, tuple(inspect.signature(factory).parameters))


def _schedule(value: dict[str, Any]) -> Callable:
    """An optax schedule from {schedule = "cosine_decay_schedule", ...}."""
    import inspect

    import optax

    value = dict(value)
    name = value.pop("schedule", "")
    names = [n for n in dir(optax) if n.endswith("_schedule")]
    if name not in names:
        raise InputError(f"schedule = '{name}' is unknown: {nearest(name, names)}", remedy="name a schedule of optax")
    return _built(getattr(optax, name), name, value, tuple(inspect.signature(getattr(optax, name)).parameters))


def _built(factory: Callable, name: str, options: dict[str, Any], keys: tuple[str, ...], **fixed: Any) -> Any:
    for key in options:
        if key not in keys:
            raise InputError(
                f"'{name}' has no option '{key}' = {options[key]!r}: {nearest(key, keys)}",
                remedy="correct [optimizer] options",
            )
        if isinstance(options[key], float) and not np.isfinite(options[key]):
            raise InputError(
                f"'{name}' does not take the option '{key}' = {options[key]}: it must be a finite number",
                remedy="correct [optimizer] options",
            )
    try:
        return factory(**options, **fixed)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"'{name}' does not take the options {options}: {error}", remedy="correct [optimizer] options"
        ) from None
