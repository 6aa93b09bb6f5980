"""The pairs of atoms that terms run over: all of them, or lists of neighbours.

Each pair stands once, in the row of one of its atoms: row i has the slots of its partners j, so that the work is that
of half the pairs. All pairs of N atoms are the rows j = i + 1 … i + N/2 (mod N). A list of neighbours holds what is
nearer than cut-off + skin, has as many slots as were made for it, and says when these do not suffice or an atom has
moved by more than half the skin: energies and forces are then NaN. Lists are made from all N² separations, which is
cheap beside the steps between two lists up to some thousand atoms.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.energies.geometry import minimum_image, orthorhombic_image
from hpcfit.errors import InputError
from hpcfit.pytrees import pytree

ALL_PAIRS = 2000  # atoms, up to which all pairs are tabulated
ROUNDING = 1e-9  # by which a box may be less than twice the cut-off
SPARE = 1.2  # slots made for a list, over those that it takes at first


@pytree
@dataclass(frozen=True)
class Table:
    """Pairs. index: [N, K], partners. inside: [N, K], slots that hold a pair."""

    index: np.ndarray
    inside: np.ndarray

    def partners(self, values: jax.Array) -> jax.Array:
        """The values [..., N] of partners, [..., N, K]."""
        return jnp.take(values, self.index, axis=-1, mode="clip")


@pytree
@dataclass(frozen=True)
class NeighbourList:
    """A table of the pairs nearer than cut-off + skin at some positions. full: its slots do not suffice."""

    table: Table
    positions: jax.Array
    box: jax.Array | None
    full: jax.Array
    skin: float = field(metadata={"static": True})

    def holds(self, positions: jax.Array, box: jax.Array | None) -> jax.Array:
        """True where every pair within the cut-off is in the list: enough slots, no atom moved by more than skin/2."""
        moved = jnp.max(jnp.sum((positions - self.positions) ** 2, axis=-1))
        same_box = True if box is None else jnp.all(box == self.box)
        return same_box & ~self.full & (moved <= (0.5 * self.skin) ** 2)


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
    excluded: [X, 2], pairs left out. table: of all others, or None for more than ALL_PAIRS atoms, which need lists.
    """

    members: np.ndarray | None
    excluded: np.ndarray
    table: Table | None
    atoms: int = field(metadata={"static": True})
    cutoff: float | None = field(metadata={"static": True})  # nm
    periodic: bool = field(metadata={"static": True})
    orthorhombic: bool = field(metadata={"static": True})
    key: str = field(metadata={"static": True})

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
        else:
            raise InputError(f"{self.atoms} atoms are too many for all pairs", remedy="give the energy its lists")
        places = positions.T  # by component: vectors of 3 numbers would not fill a processor's
        squared = self.squared(table.partners(places) - places[..., None], frame.box)
        inside = jnp.asarray(table.inside)
        if self.cutoff is not None:
            inside = inside & (squared < self.cutoff**2)
            if self.periodic:
                holds = holds & (2 * self.cutoff <= (1 + ROUNDING) * jnp.min(jnp.diagonal(frame.box)))
        return Pairs(table, jnp.sqrt(jnp.where(inside, squared, 1.0)), inside, holds)

    def of_members(self, positions: jax.Array) -> jax.Array:
        """The positions of the atoms that have pairs, [n, 3] nm."""
        return jnp.asarray(positions) if self.members is None else jnp.asarray(positions)[self.members]

    def squared(self, separation: jax.Array, box: jax.Array | None) -> jax.Array:
        """The squares of separations [3, ...], nm², those of nearest images where the source is periodic."""
        image = orthorhombic_image if self.orthorhombic else minimum_image
        return jnp.sum(image(separation, box if self.periodic else None, axis=0) ** 2, axis=0)


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
    return PairSource(members, excluded, table, count, cutoff, periodic, orthorhombic, key)


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
            most = max(int(_most(source, x, box, skin)) for x in several)
            found[key] = _list(source, several[0], box, skin, int(SPARE * most) + 4)
    return found


@jax.jit
def _most(source: PairSource, positions, box, skin) -> jax.Array:
    """The largest number of partners that an atom has in its row."""
    return jnp.max(jnp.sum(_near(source, source.of_members(positions), box, skin), axis=1))


def current(sources, lists: Lists, positions, box=None) -> Lists:
    """The lists, renewed where any of them does not hold for the positions; can be compiled."""
    positions = jax.lax.stop_gradient(positions)
    hold = [listed.holds(sources[key].of_members(positions), box) for key, listed in lists.items()]
    renew = lambda lists: renewed(sources, lists, positions, box)  # noqa: E731
    return jax.lax.cond(jnp.all(jnp.stack(hold)), lambda lists: lists, renew, lists)


def renewed(sources, lists: Lists, positions, box=None) -> Lists:
    """The lists at other positions, with the slots they have; can be compiled."""
    return {key: _list(sources[key], positions, box, old.skin, old.table.index.shape[1]) for key, old in lists.items()}


def _near(source: PairSource, positions, box, skin: float) -> jax.Array:
    """[N, N]: the pair stands in the row of i. Of i and j the row is the lower one's if i + j is even."""
    number, places = jnp.arange(source.atoms), positions.T

    def row(i):
        near = source.squared(places - places[:, i, None], box) < (source.cutoff + skin) ** 2
        return near & (number != i) & (((i + number) % 2 == 0) == (i < number))

    near = jax.lax.map(row, number)
    first, second = source.excluded.T
    return near.at[first, second].set(False).at[second, first].set(False)


def _list(source: PairSource, positions, box, skin: float, slots: int) -> NeighbourList:
    positions = source.of_members(positions)
    place = jnp.cumsum(_near(source, positions, box, skin), axis=1, dtype=jnp.int32)  # 1 for the first partner
    index = jax.vmap(lambda row: jnp.searchsorted(row, jnp.arange(1, slots + 1)))(place)
    inside = index < source.atoms
    table = Table(jnp.where(inside, index, jnp.arange(source.atoms)[:, None]).astype(jnp.int32), inside)
    box = None if box is None else jnp.asarray(box)
    return NeighbourList(table, positions, box, jnp.max(place[:, -1]) > slots, skin)
