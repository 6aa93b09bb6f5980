"""The functions and operators of OpenMM's expressions, with derivatives that are 0 where they would not be finite."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import erf, erfc

from hpcfit.energies.geometry import safe_atan2


class Function(NamedTuple):
    """A function of so many arguments."""

    arguments: int
    apply: Callable


def _finite(value):
    return jnp.where(jnp.isfinite(value), value, 0.0)


def _guarded(function: Callable, *slopes: Callable) -> Callable:
    """The function, with derivatives by its arguments that count as 0 where they are not finite, to any order."""

    @jax.custom_jvp
    def guarded(*arguments):
        return function(*arguments)

    @guarded.defjvp
    def _(arguments, tangents):
        value = guarded(*arguments)
        along = [tangent * _finite(slope(*arguments)) for tangent, slope in zip(tangents, slopes)]
        return value, jnp.broadcast_to(sum(along), value.shape)

    return lambda *arguments: guarded(*(jnp.asarray(argument, dtype=float) for argument in arguments))


divide = _guarded(jnp.divide, lambda a, b: divide(1.0, b), lambda a, b: -divide(divide(a, b), b))
multiply = _guarded(jnp.multiply, lambda a, b: b, lambda a, b: a)
sqrt = _guarded(jnp.sqrt, lambda x: divide(0.5, sqrt(x)))
log = _guarded(jnp.log, lambda x: divide(1.0, x))
exp = _guarded(jnp.exp, lambda x: exp(x))
acos = _guarded(jnp.arccos, lambda x: divide(-1.0, sqrt(1 - x * x)))
asin = _guarded(jnp.arcsin, lambda x: divide(1.0, sqrt(1 - x * x)))
power = _guarded(jnp.power, lambda x, y: y * power(x, y - 1), lambda x, y: multiply(log(x), power(x, y)))


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def _integer_power(x, n: int):
    return jnp.asarray(x, dtype=float) ** n


@_integer_power.defjvp
def _(n, arguments, tangents):
    (x,), (tangent,) = arguments, tangents
    slope = n * _integer_power(x, n - 1) if n else jnp.zeros_like(x)
    return _integer_power(x, n), tangent * _finite(slope)


def integer_power(x, n: int):
    """xⁿ."""
    return _integer_power(jnp.asarray(x, dtype=float), n)


FUNCTIONS = {
    "+": Function(2, lambda a, b: a + b),
    "-": Function(2, lambda a, b: a - b),
    "*": Function(2, lambda a, b: a * b),
    "/": Function(2, divide),
    "^": Function(2, power),
    "integer power": Function(2, integer_power),
    "negative": Function(1, lambda x: -x),
    "sqrt": Function(1, sqrt),
    "exp": Function(1, jnp.exp),
    "log": Function(1, log),
    "sin": Function(1, jnp.sin),
    "cos": Function(1, jnp.cos),
    "tan": Function(1, jnp.tan),
    "sec": Function(1, lambda x: divide(1.0, jnp.cos(x))),
    "csc": Function(1, lambda x: divide(1.0, jnp.sin(x))),
    "cot": Function(1, lambda x: divide(1.0, jnp.tan(x))),
    "asin": Function(1, asin),
    "acos": Function(1, acos),
    "atan": Function(1, jnp.arctan),
    "atan2": Function(2, lambda y, x: safe_atan2(jnp.asarray(y, dtype=float), jnp.asarray(x, dtype=float))),
    "sinh": Function(1, jnp.sinh),
    "cosh": Function(1, jnp.cosh),
    "tanh": Function(1, jnp.tanh),
    "erf": Function(1, erf),
    "erfc": Function(1, erfc),
    "step": Function(1, lambda x: jnp.where(jnp.asarray(x) >= 0, 1.0, 0.0)),
    "delta": Function(1, lambda x: jnp.where(jnp.asarray(x) == 0, 1.0, 0.0)),
    "square": Function(1, lambda x: x * x),
    "cube": Function(1, lambda x: x * x * x),
    "recip": Function(1, lambda x: divide(1.0, x)),
    "abs": Function(1, jnp.abs),
    "floor": Function(1, jnp.floor),
    "ceil": Function(1, jnp.ceil),
    "min": Function(2, jnp.minimum),
    "max": Function(2, jnp.maximum),
    "select": Function(3, lambda which, one, other: jnp.where(jnp.asarray(which) != 0, one, other)),
}
# What stands in their place below a select, where values may be infinite.
GUARDED = {
    "*": Function(2, multiply),
    "exp": Function(1, exp),
    "square": Function(1, lambda x: multiply(x, x)),
    "cube": Function(1, lambda x: multiply(multiply(x, x), x)),
}
