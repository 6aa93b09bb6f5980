"""The pairs of atoms that terms run over: all of them, or lists of neighbours.

Each pair stands once, in the row of one of its atoms: row i has the slots of its partners j, so that the work is that
of half the pairs. All pairs of N atoms are the rows j = i + 1 … i + N/2 (mod N). A list of neighbours holds what is
nearer than cut-off + skin, has as many slots as were made for it, and says when these do not suffice or atoms have
moved too far: energies and forces are then NaN. Lists are made by cells (``cells``) where the box is wide enough, else
of all separations, a few rows at a time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.energies.neighbours import (
    ROUNDING,
    NeighbourList,
    Room,
    Surroundings,
    Table,
    in_row_of_first,
    room_for,
    squared,
)
from hpcfit.errors import InputError
from hpcfit.pytrees import pytree

ALL_PAIRS = 2000  # atoms, up to which all pairs are tabulated


Lists: TypeAlias = dict[str, NeighbourList]  # key of a source of pairs -> its list


@dataclass(frozen=True)
class Frame:
    """positions: [N, 3] nm, virtual sites in their places. box: its vectors as rows, [3, 3] nm, reduced as in OpenMM,
    or None. lists: the lists of neighbours, or None where all pairs are taken.

    known: pairs that a term has asked for, so that other terms share them: derivatives pass through them once.
    """

    positions: jax.Array
    box: jax.Array | None = None
    lists: Lists | None = None
    known: dict[str, Pairs] = field(default_factory=dict)


class Pairs(NamedTuple):
    """Pairs at some positions. r: [N, K] nm, 1 where a slot holds no pair within the cut-off. holds: see
    NeighbourList; and the box is not too small for the cut-off."""

    table: Table
    r: jax.Array
    inside: jax.Array
    holds: jax.Array | bool

    def first(self, values: jax.Array) -> jax.Array:
        """Values [N] of the atom of the row, [N, 1]."""
        return values[:, None]

    def second(self, values: jax.Array) -> jax.Array:
        """Values [N] of the partners, [N, K]."""
        return self.table.partners(values)

    def total(self, values: jax.Array) -> jax.Array:
        """The sum over pairs of values [N, K]; NaN, with NaN derivatives, where the pairs do not hold."""
        return self._or_nan * jnp.sum(jnp.where(self.inside, values, 0.0))

    def by_atom(self, of_first: jax.Array, of_second: jax.Array) -> jax.Array:
        """Sums over the pairs of each atom, [N]: what each pair gives to its first and to its second atom, [N, K]."""
        own = jnp.sum(jnp.where(self.inside, of_first, 0.0), axis=1)
        return self._or_nan * own.at[self.table.index].add(jnp.where(self.inside, of_second, 0.0))

    @property
    def _or_nan(self) -> jax.Array:
        """A factor, since a choice between a value and NaN would have derivatives of 0."""
        return jnp.where(self.holds, 1.0, jnp.nan)


@pytree
@dataclass(frozen=True)
class PairSource:
    """A set of pairs: all but some, within a cut-off. Made by `pair_source`.

    members: [n], the atoms that have pairs, or None for all; pairs are numbered among them, and so are values of atoms.
    excluded: [n, E], the partners left out of each row, -1 where there are fewer. table: of all others, or None for
    more than ALL_PAIRS atoms: these need lists, or ``room`` for one that is made for each frame.
    """

    members: np.ndarray | None
    excluded: np.ndarray
    table: Table | None
    atoms: int = field(metadata={"static": True})
    cutoff: float | None = field(metadata={"static": True})  # nm
    periodic: bool = field(metadata={"static": True})
    orthorhombic: bool = field(metadata={"static": True})
    key: str = field(metadata={"static": True})
    room: Room | None = field(default=None, metadata={"static": True})

    def pairs(self, frame: Frame) -> Pairs:
        """The pairs at the positions of a frame."""
        if self.key not in frame.known:
            frame.known[self.key] = self._pairs(frame)
        return frame.known[self.key]

    def _pairs(self, frame: Frame) -> Pairs:
        positions = self.of_members(frame.positions)
        if frame.lists is not None and self.key in frame.lists:
            listed = frame.lists[self.key]
            table, holds = listed.table, listed.holds(positions, frame.box)
        elif self.table is not None:
            table, holds = self.table, True
        elif self.room is not None:
            listed = self.surroundings(*jax.lax.stop_gradient((frame.positions, frame.box))).listed(self.room)
            table, holds = listed.table, ~listed.full
        else:
            raise InputError(f"{self.atoms} atoms are too many for all pairs", remedy="give the energy its lists")
        places = positions.T  # by component: vectors of 3 numbers would not fill a processor's
        box = frame.box if self.periodic else None
        r_squared = squared(table.partners(places) - places[..., None], box, self.orthorhombic)
        inside = jnp.asarray(table.inside)
        if self.cutoff is not None:
            inside = inside & (r_squared < self.cutoff**2)
            if self.periodic:
                holds = holds & (2 * self.cutoff <= (1 + ROUNDING) * jnp.min(jnp.diagonal(frame.box)))
        return Pairs(table, jnp.sqrt(jnp.where(inside, r_squared, 1.0)), inside, holds)

    def of_members(self, positions: jax.Array) -> jax.Array:
        """The positions of the atoms that have pairs, [n, 3] nm."""
        return jnp.asarray(positions) if self.members is None else jnp.asarray(positions)[self.members]

    def with_room(self, positions, box=None) -> PairSource:
        """The source, where its pairs are too many for a table and have a cut-off, with room for lists at positions
        [n, N, 3] nm."""
        if self.table is not None or self.cutoff is None:
            return self
        return replace(self, room=room_for([self.surroundings(x, box) for x in positions]))

    def surroundings(self, positions, box=None, skin: float = 0.0) -> Surroundings:
        """The atoms that have pairs, at positions [N, 3] of all, for lists of what is nearer than cut-off + skin."""
        box = jnp.asarray(box) if self.periodic else None
        return Surroundings(self.of_members(positions), box, self.excluded, self.cutoff, skin, self.orthorhombic)


def pair_source(
    atoms: int, *, cutoff=None, excluded=(), periodic=False, orthorhombic=False, members=None
) -> PairSource:
    """The pairs of `atoms` atoms but those excluded, [X, 2]; cutoff in nm, or None for all distances.

    members: [n], atoms that alone have pairs.
    """
    place = np.full(atoms, -1)
    members = None if members is None else np.asarray(members, dtype=np.int32)
    place[slice(None) if members is None else members] = np.arange(atoms if members is None else len(members))
    pairs = {tuple(sorted(place[list(pair)])) for pair in np.reshape(excluded, (-1, 2)).astype(int)}
    excluded = np.array(sorted(pair for pair in pairs if min(pair) >= 0), dtype=np.int32).reshape(-1, 2)
    count = atoms if members is None else len(members)
    what = (count, cutoff, periodic, orthorhombic, excluded.tobytes(), None if members is None else members.tobytes())
    key = hashlib.sha256(repr(what).encode()).hexdigest()[:16]
    table = _all_pairs(count, excluded) if count <= ALL_PAIRS else None
    return PairSource(members, _by_row(count, excluded), table, count, cutoff, periodic, orthorhombic, key)


def _by_row(atoms: int, excluded: np.ndarray) -> np.ndarray:
    """The pairs left out as the partners of each row, [N, E], see ``PairSource``."""
    i, j = excluded.T
    row, partner = np.where(in_row_of_first(i, j), excluded.T, excluded.T[::-1])
    order = np.argsort(row, kind="stable")
    row, partner = row[order], partner[order]
    slot = np.arange(len(row)) - np.searchsorted(row, row)
    found = np.full((atoms, slot.max(initial=-1) + 1), -1, dtype=np.int32)
    found[row, slot] = partner
    return found


def _all_pairs(atoms: int, excluded: np.ndarray) -> Table:
    slots = max(atoms // 2, 1)
    row, offset = np.arange(atoms)[:, None], np.arange(1, slots + 1)
    inside = np.broadcast_to(atoms > 1, (atoms, slots)).copy()
    if atoms % 2 == 0:
        inside[atoms // 2 :, -1] = False  # opposite atoms stand once
    for i, j in ((excluded[:, 0], excluded[:, 1]), (excluded[:, 1], excluded[:, 0])):
        ahead = (j - i) % atoms
        there = (ahead > 0) & (ahead <= slots)
        inside[i[there], ahead[there] - 1] = False
    return Table(((row + offset) % atoms).astype(np.int32), inside)


def neighbour_lists(sources, positions, box=None, *, skin: float = 0.1) -> Lists:
    """Lists for sources with a cut-off (name -> source), with room for denser places.

    positions: [N, 3] nm, or [n, N, 3], of which the densest say how many slots there are; the lists are those of the
    first. skin: nm.
    """
    several = jnp.asarray(positions).reshape(-1, *jnp.shape(positions)[-2:])
    found = {}
    for key, source in sources.items():
        if source.cutoff is not None:
            starts = [source.surroundings(x, box, skin) for x in several]
            found[key] = starts[0].listed(room_for(starts))
    return found


def current(sources, lists: Lists, positions, box=None) -> Lists:
    """The lists, renewed where any of them does not hold for the positions; can be compiled."""
    positions, box = jax.lax.stop_gradient((positions, box))
    hold = [listed.holds(sources[key].of_members(positions), box) for key, listed in lists.items()]
    renew = lambda lists: renewed(sources, lists, positions, box)  # noqa: E731
    return jax.lax.cond(jnp.all(jnp.stack(hold)), lambda lists: lists, renew, lists)


def renewed(sources, lists: Lists, positions, box=None) -> Lists:
    """The lists at other positions, with the slots and cells they have; can be compiled."""
    at = lambda key, skin: sources[key].surroundings(positions, box, skin)  # noqa: E731
    return {key: at(key, old.skin).listed(old.room) for key, old in lists.items()}
