"""Energies by expressions of bonds, angles, torsions, groups of atoms, places and pairs (OpenMM's custom forces)."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.energies.bonded import Bonded
from hpcfit.energies.columns import Column
from hpcfit.energies.expressions import Expression
from hpcfit.energies.geometry import angle, dihedral, minimum_image, volume
from hpcfit.energies.lists import Pairs, PairSource
from hpcfit.energies.pair_potentials import KindPairs, switch, tail_integral
from hpcfit.energies.tabulated import Tabulated, functions
from hpcfit.physics.internal_coordinates import length
from hpcfit.pytrees import pytree


@pytree
@dataclass(frozen=True, kw_only=True)
class Expressed:
    """An energy by an expression. own: name -> values of the items. common: name -> one value. tables: its
    functions."""

    expression: Expression = field(metadata={"static": True})
    own: dict[str, Column]
    common: dict[str, Column]
    tables: dict[str, Tabulated]

    def own_values(self, parameters) -> dict[str, jax.Array]:
        """The parameters of the items, [T] each."""
        return {name: column.values(parameters) for name, column in self.own.items()}

    def common_values(self, parameters) -> dict[str, jax.Array]:
        """The parameters of the whole system, scalars."""
        return {name: column.values(parameters)[0] for name, column in self.common.items()}


@pytree
@dataclass(frozen=True, kw_only=True)
class CustomBonded(Expressed, Bonded):
    """An expression of r (two atoms) or theta (three or four), or of places p1, x1, … of the atoms (compound)."""

    compound: bool = field(default=False, metadata={"static": True})

    def energy(self, frame, parameters) -> jax.Array:
        """The energy of all items, kJ/mol."""
        values = self.own_values(parameters) | self.common_values(parameters) | self._coordinates(frame)
        found = self.expression(values, functions(self.tables, parameters) | self._of_places(frame))
        return jnp.sum(jnp.broadcast_to(found, len(self.atoms)))

    def _coordinates(self, frame) -> dict[str, jax.Array]:
        if not self.compound:
            name, measure = {2: ("r", self.distances), 3: ("theta", self.angles), 4: ("theta", self.dihedrals)}[
                self.atoms.shape[1]
            ]
            return {name: measure(frame)}
        places = dict(enumerate(self.places(frame), start=1))
        return {f"p{n}": place for n, place in places.items()} | {
            f"{axis}{n}": x for n, place in places.items() for axis, x in zip("xyz", place)
        }

    def _of_places(self, frame) -> dict:
        def image(separation):
            return minimum_image(separation, frame.box if self.periodic else None, axis=0)

        def steps(*points):
            return [image(after - before) for before, after in pairwise(points)]

        of_points = {
            "distance": lambda *points: length(*steps(*points), axis=0),
            "angle": lambda a, b, c: angle(image(a - b), image(c - b)),
            "dihedral": lambda *points: dihedral(*steps(*points)),
        }
        of_numbers = {
            f"point{name}": lambda *x, function=function: function(*map(_point, x[::3], x[1::3], x[2::3]))
            for name, function in of_points.items()
        }
        return of_points | of_numbers


@pytree
@dataclass(frozen=True, kw_only=True)
class CustomExternal(Expressed):
    """An expression of the place x, y, z of each of some atoms [T]."""

    atoms: np.ndarray

    def energy(self, frame, parameters) -> jax.Array:
        """The energy of all atoms, kJ/mol."""
        places = dict(zip("xyz", frame.positions[self.atoms].T))

        def periodicdistance(*x):
            return length(minimum_image(_point(*x[:3]) - _point(*x[3:]), frame.box, axis=0), axis=0)

        values = self.own_values(parameters) | self.common_values(parameters) | places
        found = self.expression(values, functions(self.tables, parameters) | {"periodicdistance": periodicdistance})
        return jnp.sum(jnp.broadcast_to(found, len(self.atoms)))


@pytree
@dataclass(frozen=True, kw_only=True)
class CustomPairs(Expressed):
    """An expression of r and of both atoms' parameters: a1, a2 for a parameter a; symmetric in 1 and 2, as OpenMM asks.

    switch_from: nm, None for a plain cut-off. tail: the pairs of kinds for the long-range correction, or None.
    """

    pairs: PairSource
    switch_from: float | None = field(default=None, metadata={"static": True})
    tail: KindPairs | None = None

    def energy(self, frame, parameters) -> jax.Array:
        """The energy of all pairs with their correction, kJ/mol."""
        pairs, own, common = self.pairs.pairs(frame), self.own_values(parameters), self.common_values(parameters)
        tables = functions(self.tables, parameters)
        u = self.expression(both_atoms(pairs, own) | common | {"r": pairs.r}, tables)
        if self.switch_from is not None:
            u = u * switch(pairs.r, self.switch_from, self.pairs.cutoff)
        total = pairs.total(jnp.broadcast_to(u, pairs.r.shape))
        if self.tail is None:
            return total
        return total + self._correction(own, common, tables) / volume(frame.box)

    def _correction(self, own, common, tables) -> jax.Array:
        def integral(one, two):
            values = {f"{name}1": value[one] for name, value in own.items()} | {
                f"{name}2": value[two] for name, value in own.items()
            }

            def u(r):
                return jnp.broadcast_to(self.expression(values | common | {"r": r}, tables), r.shape)

            return tail_integral(u, self.pairs.cutoff, self.switch_from)

        return self.tail.mean(jax.vmap(integral)(self.tail.first, self.tail.second))


def both_atoms(pairs: Pairs, own) -> dict[str, jax.Array]:
    """Values [N] of atoms as those of the first and second atom of pairs: a -> a1 [N, 1], a2 [N, K]."""
    first = {f"{name}1": pairs.first(value) for name, value in own.items()}
    return first | {f"{name}2": pairs.second(value) for name, value in own.items()}


def _point(x, y, z) -> jax.Array:
    return jnp.stack(jnp.broadcast_arrays(x, y, z))
