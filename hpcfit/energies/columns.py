"""The values that one parameter of a term has for each bond, atom or pair: shared entries of a class, and constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.pytrees import pytree

CONSTANT = -1  # in place of an entry


@pytree
@dataclass(frozen=True)
class Column:
    """The entry of a class of parameters that each item takes, or a constant in its place.

    index: [T], CONSTANT where the item has a value that is not fitted. constant: [T], those values, 0 elsewhere.
    leaf: the class, as `lj.sigma`; empty where all are constants. mixed: some are constants, some are not.
    """

    index: np.ndarray
    constant: np.ndarray
    leaf: str = field(default="", metadata={"static": True})
    mixed: bool = field(default=False, metadata={"static": True})

    def values(self, parameters: Mapping[str, jax.Array]) -> jax.Array:
        """The values of the items, [T]."""
        if not self.leaf:
            return jnp.asarray(self.constant)
        taken = jnp.take(jnp.ravel(parameters[self.leaf]), jnp.maximum(self.index, 0), mode="clip")
        return jnp.where(self.index < 0, self.constant, taken) if self.mixed else taken


def part(column: Column, items: np.ndarray) -> Column:
    """The column of some of the items."""
    index = column.index[items]
    mixed = bool(np.any(index == CONSTANT)) and bool(np.any(index != CONSTANT))
    return Column(index, column.constant[items], column.leaf if np.any(index != CONSTANT) else "", mixed)


def fixed(values) -> Column:
    """A column of constants."""
    values = np.asarray(values, dtype=float)
    return Column(np.full(values.shape, CONSTANT, dtype=np.int32), values)


def entries(leaf: str, index) -> Column:
    """A column of entries of a class."""
    index = np.asarray(index, dtype=np.int32)
    return Column(index, np.zeros(index.shape), leaf)


class Types:
    """Collects the parameters of a system: items of one class with equal values share an entry, which is a type.

    values: class -> the values of its entries. labels: class -> a name an entry, of the first item that has it.
    """

    def __init__(self, names: Sequence[str] | None = None):
        self.names = names
        self.values: dict[str, np.ndarray] = {}
        self.labels: dict[str, list[str]] = {}
        self._prefixes: set[str] = set()
        self._shared: dict[str, Column] = {}

    def prefix(self, wanted: str) -> str:
        """The name for a group of classes: `bond`, or `bond_2` for the second force of its sort."""
        number, name = 1, wanted
        while name in self._prefixes:
            number += 1
            name = f"{wanted}_{number}"
        self._prefixes.add(name)
        return name

    def columns(
        self,
        prefix: str,
        values: Mapping[str, np.ndarray],
        items: np.ndarray | None,
        *,
        constant: Mapping[str, np.ndarray] | None = None,
        beside: Sequence[np.ndarray] = (),
    ) -> dict[str, Column]:
        """Columns for parameters [T] of items; a type is a row of equal values.

        items: [T, n], the atoms of each item, for labels, or None. constant: name -> [T], which are no parameters.
        beside: further numbers [T] that tell types apart, such as periodicities.
        """
        count = len(next(iter(values.values())))
        constant = {name: np.broadcast_to((constant or {}).get(name, False), count) for name in values}
        telling = [column for name, column in values.items() if not constant[name].all()]
        first, kind = _first_occurrences(np.column_stack([*telling, *beside, np.zeros(count)]))
        labels = _distinct([str(row) if items is None else self._label(items[row]) for row in first])
        dot = "." if prefix else ""
        return {
            name: self._column(f"{prefix}{dot}{name}", column, first, kind, constant[name], labels)
            for name, column in values.items()
        }

    def scalar(self, leaf: str, value: float) -> Column:
        """A column of one item, for a parameter that applies to the whole system."""
        self.values[leaf], self.labels[leaf] = np.array([float(value)]), [""]
        return entries(leaf, [0])

    def share(self, name: str, column: Column) -> Column:
        """The column, which other forces may then share under a name."""
        return self._shared.setdefault(name, column)

    def shared(self, name: str, values: np.ndarray) -> Column | None:
        """The column that is shared under a name, if it has just these values; else None."""
        column = self._shared.get(name)
        same = column is not None and np.array_equal(np.asarray(column.values(self.values)), values)
        return column if same else None

    def whole(self, leaf: str, values: np.ndarray) -> Column:
        """A column of an array of which every value is an entry of its own."""
        self.values[leaf] = np.ravel(values).astype(float)
        self.labels[leaf] = [str(place) for place in np.ndindex(np.shape(values))]
        return entries(leaf, np.arange(np.size(values)))

    def _column(self, leaf, values, first, kind, constant, labels) -> Column:
        values = np.asarray(values, dtype=float)
        kept = [number for number, row in enumerate(first) if not constant[row]]
        if not kept:
            return fixed(values)
        entry = np.full(len(first), CONSTANT, dtype=np.int32)
        entry[kept] = np.arange(len(kept))
        self.values[leaf] = values[first[kept]]
        self.labels[leaf] = [labels[number] for number in kept]
        return Column(entry[kind], np.where(constant, values, 0.0), leaf, bool(constant.any()))

    def _label(self, atoms: np.ndarray) -> str:
        return "-".join(str(atom) if self.names is None else self.names[atom] for atom in np.atleast_1d(atoms))


def _first_occurrences(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first row of each kind, in their order, and the kind of each row."""
    _, first, kind = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order], place[kind.ravel()]


def _distinct(labels: list[str]) -> list[str]:
    """The labels, later ones of the same name numbered: CA-CB, CA-CB#2."""
    seen: dict[str, int] = {}
    found = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        found.append(label if seen[label] == 1 else f"{label}#{seen[label]}")
    return found
