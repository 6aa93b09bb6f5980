"""Parameters that several molecules share: an entry of a class of the same name is one parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import jax.numpy as jnp
import numpy as np

from hpcfit.errors import InputError, nearest
from hpcfit.kinds.force_field.parameters import Moving
from hpcfit.kinds.force_field.simulated.opened import Opened

Places = dict[str, tuple[np.ndarray, np.ndarray]]  # class -> entries of a molecule, and the same of all


@dataclass(frozen=True)
class Shared:
    """All entries of the classes of several molecules, each once, those of the first molecule first.

    charges: the entries that the charges of all particles take, by class, -1 for a constant; molecules: their atoms;
    residues: those of residues, of the molecules that have a topology.
    """

    parameters: dict[str, np.ndarray]
    labels: dict[str, list[str]]
    charges: dict[str, np.ndarray]
    molecules: tuple[tuple[int, ...], ...]
    residues: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, opened: Sequence[Opened]) -> Shared:
        """The entries of these molecules; one that differs between them has its value in the first."""
        values: dict[str, dict[str, float]] = {}
        for one in opened:
            for leaf, labels in one.labels.items():
                known = values.setdefault(leaf, {})
                for label, value in zip(labels, one.parameters[leaf]):
                    known.setdefault(label, float(value))
        labels = {leaf: [*of] for leaf, of in values.items()}
        parameters = {leaf: np.array([*of.values()]) for leaf, of in values.items()}
        first = np.cumsum([0, *(len(one.masses) for one in opened)])
        molecules, residues = (
            tuple(tuple(begin + atom for atom in part) for begin, one in zip(first, opened) for part in parts(one))
            for parts in (attrgetter("molecules"), attrgetter("residues"))
        )
        leaves = {leaf for one in opened for leaf in one.charges}
        charges = {leaf: np.concatenate([_charges(one, leaf, labels[leaf]) for one in opened]) for leaf in leaves}
        return cls(parameters, labels, charges, molecules, residues)

    def entries(self, name: str) -> tuple[str, list[int]]:
        """The class and the entries of a parameter: `lj.sigma`, or `lj.sigma:HOH.O`."""
        leaf, colon, label = name.partition(":")
        if colon and label not in self.labels[leaf]:
            raise InputError(f"{leaf} has no entry {label}", remedy=nearest(label, self.labels[leaf]))
        return leaf, [self.labels[leaf].index(label)] if colon else list(range(len(self.labels[leaf])))

    def places(self, moving: Moving, one: Opened) -> Places:
        """The moving entries that a molecule has. Raises InputError where it starts from another value."""
        found: Places = {}
        for leaf in sorted(moving.classes.keys() & one.labels.keys()):
            mine = {label: place for place, label in enumerate(one.labels[leaf])}
            theirs = [entry for entry in moving.classes[leaf].entry.tolist() if self.labels[leaf][entry] in mine]
            pairs = [(mine[self.labels[leaf][entry]], entry) for entry in theirs]
            for here, there in pairs:
                value, other = one.parameters[leaf][here], self.parameters[leaf][there]
                if value != other:
                    raise InputError(
                        f"'{leaf}:{self.labels[leaf][there]}' is {value:g} in molecule '{one.name}' and {other:g} in"
                        " another: one fit cannot move both",
                        remedy="start from the same force field, or give their residues or atoms different names",
                    )
            if pairs:
                found[leaf] = tuple(np.array(column) for column in zip(*pairs))
        return found


def _charges(one: Opened, leaf: str, labels: list[str]) -> np.ndarray:
    """The entries of a molecule's charges among those of all."""
    if leaf not in one.charges:
        return np.full(len(one.masses), -1)
    places = np.array([*(labels.index(label) for label in one.labels[leaf]), -1])
    return places[np.asarray(one.charges[leaf])]


def placed(whole: Mapping[str, Any], all_moved: Mapping[str, Any], places: Places) -> dict[str, Any]:
    """The parameters of a molecule: ``whole``, all classes that it has, with the entries that moved."""
    found = dict(whole)
    for leaf, (mine, theirs) in places.items():
        found[leaf] = jnp.asarray(whole[leaf]).at[mine].set(all_moved[leaf][theirs])
    return found
