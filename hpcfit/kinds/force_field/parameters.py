"""The parameters that a fit may move, as functions of the numbers that its optimizer sees.

An entry of a class of parameters is start + scale u, or start exp(scale u), or between bounds a logistic function of u
with the slope ``scale`` at the start; the classes are those of an energy
(``energies.energy``), the numbers u of order 1, shared by all systems that have the class. Some charges have no number
of their own: they follow others, so that net charges stay (``net_charge``). Curves that predict data move beside them
(``curves``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.flatten_util import ravel_pytree

from hpcfit.errors import InputError, check_is_file, nearest
from hpcfit.kinds.force_field.config import MovingCurveConfig, ParameterConfig
from hpcfit.kinds.force_field.net_charge import counts, followed, how_kept
from hpcfit.observables.curves import Curve, curve_of
from hpcfit.pytrees import pytree
from hpcfit.readers.boundary import reading
from hpcfit.store.files import read_csv

UNDETERMINED = 1e-6  # of the largest curvature, or below: a combination that the data say nothing of
SHOWN = 0.25  # least part of a parameter in a combination that is named, of the largest
UNIT = 0.01  # of a start, the scale where neither scale nor prior is given


@pytree
@dataclass(frozen=True)
class Class:
    """The moving entries of one class.

    entry: [n], their places; start, scale: [n]; logarithmic: [n] bool; precision: [n], 1 / prior^2 in units of scale, 0
    for none. bounds: [n, 2], low and high, which are equal where there are none; None where no entry has any. free:
    [k], those that have a number u of their own, of the n; of_free: [n, k], how all of them move with these, in units
    of scale; both None where k = n.
    """

    entry: np.ndarray
    start: np.ndarray
    scale: np.ndarray
    logarithmic: np.ndarray
    precision: np.ndarray
    bounds: np.ndarray | None = None
    free: np.ndarray | None = None
    of_free: np.ndarray | None = None
    unit = ""

    @property
    def count(self) -> int:
        """The numbers u that it has."""
        return len(self.entry if self.free is None else self.free)

    def values(self, u: Any) -> jax.Array:
        """The values of the entries, [n]."""
        moved = self.scale * self._moves(u)
        found = jnp.where(self.logarithmic, self.start * jnp.exp(moved), self.start + moved)
        if self.bounds is None:
            return found
        low, width, bounded = self._bounds
        share = jnp.where(bounded, (self.start - low) / width, 0.5)
        inside = low + width * jax.nn.sigmoid(jax.scipy.special.logit(share) + moved / (width * share * (1 - share)))
        return jnp.where(bounded, inside, found)

    def slopes(self, u: Any) -> np.ndarray:
        """The derivatives of the values by the numbers u, [n, k]."""
        values = np.asarray(self.values(u))
        own = self.scale * np.where(self.logarithmic, values, 1.0)
        if self.bounds is not None:
            low, width, bounded = self._bounds
            room = lambda value: jnp.where(bounded, (value - low) * (low + width - value), 1.0)  # noqa: E731
            own = own * np.asarray(room(values) / room(self.start))
        return np.diag(own) if self.of_free is None else own[:, None] * self.of_free

    def deviations(self, u: Any) -> jax.Array:
        """The changes in units of their priors, [n]; 0 where there is none."""
        return jnp.sqrt(self.precision) * self._moves(u)

    @property
    def _bounds(self) -> tuple[Any, Any, Any]:
        """The lower bound, the width between both (1 where there are none), and where there are bounds, [n]."""
        low, high = jnp.moveaxis(jnp.asarray(self.bounds), -1, 0)
        return low, jnp.where(high > low, high - low, 1.0), high > low

    def _moves(self, u: Any) -> Any:
        return u if self.of_free is None else self.of_free @ u

    def numbers(self, values: np.ndarray) -> np.ndarray:
        """The numbers u of values, [k]."""
        ratio = np.where(self.logarithmic, values / np.where(self.logarithmic, self.start, 1.0), 1.0)
        moved = np.where(self.logarithmic, np.log(ratio), values - self.start)
        if self.bounds is not None:
            low, width, bounded = self._bounds
            now, then = (jnp.where(bounded, (value - low) / width, 0.5) for value in (values, self.start))
            inside = width * then * (1 - then) * (jax.scipy.special.logit(now) - jax.scipy.special.logit(then))
            moved = np.asarray(jnp.where(bounded, inside, moved))
        u = moved / self.scale
        return u if self.free is None else u[self.free]


@pytree
@dataclass(frozen=True)
class Moving:
    """All parameters that may move, by class, and curves behind them. labels: of their values."""

    classes: dict[str, Class | Curve]
    labels: tuple[str, ...] = field(metadata={"static": True})

    @property
    def free(self) -> tuple[str, ...]:
        """The labels of the values that have a number u of their own, in the order of these."""
        ends = np.cumsum([len(one.start) for one in self.classes.values()])
        parts = [self.labels[end - len(one.start) : end] for end, one in zip(ends, self.classes.values())]
        pairs = zip(parts, self.classes.values())
        chosen = [part if one.free is None else [part[place] for place in one.free] for part, one in pairs]
        return tuple(name for part in chosen for name in part)

    def init(self) -> dict[str, np.ndarray]:
        """The numbers u at the start: zeros."""
        return {name: np.zeros(one.count) for name, one in self.classes.items()}

    def at(self, u: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of a system: ``whole``, all classes that it has, with the entries that moved."""
        moved = {
            name: jnp.asarray(whole[name]).at[one.entry].set(one.values(u[name]))
            for name, one in self.classes.items()
            if name in whole
        }
        return dict(whole) | moved

    def curves(self, u: Mapping[str, Any]) -> dict[str, Any]:
        """The coefficients [3] of the curves that move, by their name."""
        return {one.name: one.values(u[key]) for key, one in self.classes.items() if isinstance(one, Curve)}

    @property
    def of_energies(self) -> Moving:
        """The parameters of energies alone."""
        found = {key: one for key, one in self.classes.items() if not isinstance(one, Curve)}
        return Moving(found, self.labels[: sum(len(one.start) for one in found.values())])

    @property
    def units(self) -> list[str]:
        """The unit of each value, empty for those of energies, which have their own."""
        return [one.unit for one in self.classes.values() for _ in one.start]

    def values(self, u: Mapping[str, Any]) -> np.ndarray:
        """The values of all that may move, in the order of ``labels``."""
        return np.concatenate([np.asarray(one.values(np.asarray(u[name]))) for name, one in self.classes.items()])

    def numbers(self, values: Sequence[float]) -> dict[str, np.ndarray]:
        """The numbers u at which ``values`` are these. Raises InputError for values that cannot be."""
        ends = np.cumsum([len(one.start) for one in self.classes.values()])
        parts = np.split(np.array(values), ends[:-1])
        with np.errstate(invalid="ignore", divide="ignore"):
            found = {name: one.numbers(part) for (name, one), part in zip(self.classes.items(), parts)}
        for label, value in zip(self.free, np.concatenate([*found.values()])):
            if not np.isfinite(value):
                raise InputError(
                    f"'{label}' cannot have the value {values[self.labels.index(label)]:g} that is to be begun with",
                    remedy="give one of the sign of its start, and within its bounds",
                )
        return found

    def named(self, u: Mapping[str, Any]) -> dict[str, Any]:
        """The values of all that may move, by label."""
        values = jnp.concatenate([one.values(u[name]) for name, one in self.classes.items()])
        return dict(zip(self.labels, values))

    def slopes(self, u: Mapping[str, Any]) -> np.ndarray:
        """The derivatives of all values by the numbers u, [n, k]."""
        return scipy.linalg.block_diag(*(one.slopes(np.asarray(u[name])) for name, one in self.classes.items()))

    def free_slopes(self, u: Mapping[str, Any]) -> np.ndarray:
        """The derivatives of the free values by the numbers u, [k, k]; others follow them."""
        return self.slopes(u)[[self.labels.index(name) for name in self.free]]

    def own_slopes(self, u: Mapping[str, Any]) -> np.ndarray:
        """The derivative of each free value of energies by its own u, [k]."""
        return np.diag(self.free_slopes(u))

    @property
    def of_priors(self) -> np.ndarray:
        """The curvature of the priors by the numbers u, [k, k]; 0 where there is none."""
        flat, tree = ravel_pytree(self.init())
        J = np.asarray(jax.jacfwd(lambda v: self.priors(tree(v)))(flat))
        return J.T @ J

    def priors(self, u: Mapping[str, Any]) -> Any:
        """The deviations from the start in units of the priors; 0 where there is none."""
        return jnp.concatenate([one.deviations(u[name]) for name, one in self.classes.items()])


def values_of_run(path: Path, labels: Sequence[str]) -> list[float]:
    """The values in parameters.csv of a run. Raises InputError unless they are of these parameters."""
    check_is_file(path, remedy="give parameters.csv of a run that has ended")
    with reading(f"{path} cannot be read", "give parameters.csv of a run"):
        found = {row["name"]: float(row["value"]) for row in read_csv(path)}
    if found.keys() != set(labels):
        raise InputError(
            f"{path} has the parameters {', '.join(found)}; this fit has {', '.join(labels)}",
            remedy="start from a run with the same parameters",
        )
    return [found[label] for label in labels]


def moving(
    chosen: Sequence[ParameterConfig], states: Sequence[Any], curves: Sequence[MovingCurveConfig] = ()
) -> Moving:
    """The parameters that a config lets move, of systems that have ``parameters``, ``labels``, ``entries(name)``, and
    ``charges`` of ``molecules`` and ``residues``; and the curves that are fitted.

    Raises InputError for a parameter that no system has, that differs between systems, or that net charges hold.
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
            if one.bounds is not None and not one.bounds[0] < start[place] < one.bounds[1]:
                raise InputError(
                    f"parameter '{one.name}' starts at {start[place]:g}, outside of its bounds = {one.bounds}",
                    remedy="give bounds on either side of the start",
                )
            if place in rows.setdefault(leaf, {}):
                raise InputError(f"parameter '{one.name}' is named twice", remedy="leave one of [[problem.parameter]]")
            rows[leaf][place] = float(start[place]), one
        if not rows.get(leaf):
            raise InputError(f"parameter '{one.name}' is 0 everywhere, which has no logarithm", remedy=_LINEAR)
    classes = {leaf: _class(leaf, found, states) for leaf, found in sorted(rows.items())}  # the order of a pytree
    labels = [label for leaf, one in classes.items() for label in _labels(leaf, one, states)]
    moves = {f"~{one.name}": curve_of(one) for one in curves if one.fitted}  # behind the names of classes
    of_curves = [f"{one.name} {letter}" for _, one in sorted(moves.items()) for letter in "ABC"]
    return Moving(classes | dict(sorted(moves.items())), (*labels, *of_curves))


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


def _class(leaf: str, found: dict[int, tuple[float, ParameterConfig]], states: Sequence[Any]) -> Class:
    entry = sorted(found)
    tables = [found[place][1] for place in entry]
    scale = np.array([_scale(found[place][1], found[place][0]) for place in entry])
    kept = dict(zip(entry, how_kept(leaf, tables, states)))
    counted = counts(leaf, kept, states)
    if not len(counted):
        return _of_entries(found, entry, scale)
    free, of_free = followed(counted, scale)
    moves = np.any(of_free != 0, axis=1)
    for one in tables if not len(free) else [one for one, moved in zip(tables, moves) if not moved and ":" in one.name]:
        raise InputError(
            f"parameter '{one.name}' cannot move: no other charge moves that would keep the net charge",
            remedy="let other charges of the same molecule or residue move too, or set net_charge to 'system' or"
            " 'free'",
        )
    entry = [place for place, moved in zip(entry, moves) if moved]  # an ion's charge is its net charge
    free = np.searchsorted(np.flatnonzero(moves), free)
    return replace(_of_entries(found, entry, scale[moves]), free=free, of_free=of_free[moves])


def _of_entries(found: dict[int, tuple[float, ParameterConfig]], entry: list[int], scale: np.ndarray) -> Class:
    tables = [found[place][1] for place in entry]
    start = np.array([found[place][0] for place in entry])
    logarithmic = np.array([one.transform == "log" for one in tables])
    prior = np.array([np.inf if one.prior is None else one.prior for one in tables])
    bounds = np.array([one.bounds or (0.0, 0.0) for one in tables])
    given = bounds if np.any(bounds) else None
    return Class(np.array(entry), start, scale, logarithmic, (scale / prior) ** 2, given)


def _scale(one: ParameterConfig, start: float) -> float:
    given = one.scale or one.prior
    if given is None and one.transform == "linear" and start == 0:
        raise InputError(f"parameter '{one.name}' starts at 0", remedy="give its scale: a change that matters little")
    return given or (UNIT if one.transform == "log" else UNIT * abs(start))


def _labels(leaf: str, one: Class, states: Sequence[Any]) -> list[str]:
    labels = next(state.labels[leaf] for state in states if leaf in state.parameters)
    return [leaf if len(labels) == 1 else f"{leaf}:{labels[place]}" for place in one.entry]


def little_known(of_data: np.ndarray, of_priors: np.ndarray, labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """The combinations of parameters that neither data nor priors say anything of, and those of which priors say more
    than data do, in units of the parameters' scales; from the curvatures of both, [P, P]."""
    values, vectors = np.linalg.eigh(of_data + of_priors)
    held = np.sum(vectors * (of_priors @ vectors), axis=0) > values / 2
    parts = (values <= UNDETERMINED * values[-1]) & ~held, held
    units = " (in units of their scales)"
    return tuple([in_words(vector, labels, units) for vector in vectors[:, part].T] for part in parts)


def in_words(parts: np.ndarray, names: Sequence[str], units: str = "") -> str:
    """A combination as a sum of the parameters that have a part in it, the largest first; units: said of a sum."""
    parts = parts / np.linalg.norm(parts) * np.sign(parts[np.argmax(np.abs(parts))])
    order = [number for number in np.argsort(-np.abs(parts)) if abs(parts[number]) >= SHOWN * np.max(np.abs(parts))]
    if len(order) == 1:
        return f"'{names[order[0]]}'"
    shown = " ".join(f"{parts[n]:+.2f} '{names[n]}'" for n in order[:6]).removeprefix("+")
    return shown + (" ..." if len(order) > 6 else "") + units
