"""The parameters that a fit may move, as functions of the numbers that its optimizer sees.

An entry of a class of parameters is start + scale u, or start exp(scale u); the classes are those of an energy
(``energies.energy``), the numbers u of order 1, shared by all systems that have the class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.errors import InputError, nearest
from hpcfit.kinds.force_field.simulated.config import ParameterConfig
from hpcfit.pytrees import pytree

UNDETERMINED = 1e-6  # of the largest curvature, or below: a combination that the data say nothing of
UNIT = 0.01  # of a start, the scale where neither scale nor prior is given


@pytree
@dataclass(frozen=True)
class Class:
    """The moving entries of one class. entry: [n], their places; start, scale: [n]; logarithmic: [n] bool; precision:
    [n], 1 / prior^2 in units of scale, 0 for none."""

    entry: np.ndarray
    start: np.ndarray
    scale: np.ndarray
    logarithmic: np.ndarray
    precision: np.ndarray

    def values(self, u: Any) -> jax.Array:
        """The values of the entries, [n]."""
        moved = self.scale * u
        return jnp.where(self.logarithmic, self.start * jnp.exp(moved), self.start + moved)


@pytree
@dataclass(frozen=True)
class Moving:
    """All parameters that may move, by class."""

    classes: dict[str, Class]
    labels: tuple[str, ...] = field(metadata={"static": True})

    def init(self) -> dict[str, np.ndarray]:
        """The numbers u at the start: zeros."""
        return {name: np.zeros(len(one.entry)) for name, one in self.classes.items()}

    def at(self, u: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of a system: ``whole``, all classes that it has, with the entries that moved."""
        moved = {
            name: jnp.asarray(whole[name]).at[one.entry].set(one.values(u[name]))
            for name, one in self.classes.items()
            if name in whole
        }
        return dict(whole) | moved

    def values(self, u: Mapping[str, Any]) -> np.ndarray:
        """The values of all that may move, in the order of ``labels``."""
        return np.concatenate([np.asarray(one.values(np.asarray(u[name]))) for name, one in self.classes.items()])

    def named(self, u: Mapping[str, Any]) -> dict[str, Any]:
        """The values of all that may move, by label."""
        values = jnp.concatenate([one.values(u[name]) for name, one in self.classes.items()])
        return dict(zip(self.labels, values))

    def slopes(self, u: Mapping[str, Any]) -> np.ndarray:
        """The derivative of each value by its own u, in the order of ``labels``."""
        parts = []
        for name, one in self.classes.items():
            values = np.asarray(one.values(np.asarray(u[name])))
            parts.append(one.scale * np.where(one.logarithmic, values, 1.0))
        return np.concatenate(parts)

    def priors(self, u: Mapping[str, Any]) -> Any:
        """The deviations from the start in units of the priors; 0 where there is none."""
        return jnp.concatenate([jnp.sqrt(one.precision) * u[name] for name, one in self.classes.items()])


def moving(chosen: Sequence[ParameterConfig], states: Sequence[Any]) -> Moving:
    """The parameters that a config lets move, of systems that have ``parameters``, ``labels`` and ``entries(name)``.

    Raises InputError for a parameter that no system has, or that differs between systems.
    """
    rows: dict[str, dict[int, tuple[float, ParameterConfig]]] = {}
    for one in chosen:
        leaf, places = _found(one.name, states)
        start = _start(leaf, states)
        named = ":" in one.name
        for place in places:
            if one.transform == "log" and start[place] == 0:
                if named:
                    raise InputError(f"parameter '{one.name}' starts at 0, which has no logarithm", remedy=_LINEAR)
                continue  # an epsilon of 0 stands for an atom without a term
            if place in rows.setdefault(leaf, {}):
                raise InputError(f"parameter '{one.name}' is named twice", remedy="leave one of [[problem.parameter]]")
            rows[leaf][place] = float(start[place]), one
        if not rows.get(leaf):
            raise InputError(f"parameter '{one.name}' is 0 everywhere, which has no logarithm", remedy=_LINEAR)
    rows = dict(sorted(rows.items()))  # the order of a pytree
    return Moving({leaf: _class(found) for leaf, found in rows.items()}, tuple(_labels(rows, states)))


_LINEAR = 'set transform = "linear" and a scale'


def _found(name: str, states: Sequence[Any]) -> tuple[str, list[int]]:
    leaf = name.partition(":")[0]
    having = [state for state in states if leaf in state.parameters]
    if not having:
        known = sorted({key for state in states for key in state.parameters})
        raise InputError(
            f"[[problem.parameter]] '{name}': no system has parameters '{leaf}'; {nearest(leaf, known)}",
            remedy=f"the systems have {', '.join(known)}",
        )
    return having[0].entries(name)


def _start(leaf: str, states: Sequence[Any]) -> np.ndarray:
    """The values of a class, which must be the same in all systems that have it."""
    first, *others = (state for state in states if leaf in state.parameters)
    for other in others:
        same = first.labels[leaf] == other.labels[leaf]
        if not same or not np.array_equal(first.parameters[leaf], other.parameters[leaf]):
            raise InputError(
                f"'{leaf}' is {_shown(first, leaf)} in system '{first.name}' and {_shown(other, leaf)} in"
                f" '{other.name}': one fit cannot move both",
                remedy="start from the same force field in all systems that share a parameter",
            )
    return first.parameters[leaf]


def _shown(state: Any, leaf: str) -> str:
    pairs = [f"{label or 'value'} = {value:g}" for label, value in zip(state.labels[leaf], state.parameters[leaf])]
    return ", ".join(pairs[:4]) + (" ..." if len(pairs) > 4 else "")


def _class(found: dict[int, tuple[float, ParameterConfig]]) -> Class:
    entry = sorted(found)
    start = np.array([found[place][0] for place in entry])
    tables = [found[place][1] for place in entry]
    logarithmic = np.array([one.transform == "log" for one in tables])
    scale = np.array([_scale(one, value) for one, value in zip(tables, start)])
    prior = np.array([np.inf if one.prior is None else one.prior for one in tables])
    return Class(np.array(entry), start, scale, logarithmic, (scale / prior) ** 2)


def _scale(one: ParameterConfig, start: float) -> float:
    given = one.scale or one.prior
    if given is None and one.transform == "linear" and start == 0:
        raise InputError(f"parameter '{one.name}' starts at 0", remedy="give its scale: a change that matters little")
    return given or (UNIT if one.transform == "log" else UNIT * abs(start))


def _labels(rows: Mapping[str, Mapping[int, Any]], states: Sequence[Any]) -> list[str]:
    found = []
    for leaf, entries in rows.items():
        labels = next(state.labels[leaf] for state in states if leaf in state.parameters)
        found += [leaf if len(labels) == 1 else f"{leaf}:{labels[place]}" for place in sorted(entries)]
    return found


def in_words(vector: np.ndarray, labels: Sequence[str]) -> str:
    """A combination of parameters in units of their scales: its largest parts."""
    order = np.argsort(-np.abs(vector))[:3]
    parts = [f"{vector[k]:+.2g} {labels[k]}" for k in order if abs(vector[k]) > 0.1]
    return " ".join(parts) + " (in units of their scales)"
