"""Lists of neighbours: how they are made, and for how long they hold.

A list holds the pairs nearer than cut-off + skin at some positions. It is made by cells (``cells``) where the box is
wide enough, else from all separations, a few rows at a time: memory is that of the list.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.energies.cells import MORE, SPARE, Cells, Filled, cells_for, filled
from hpcfit.energies.geometry import minimum_image, orthorhombic_image
from hpcfit.pytrees import pytree

ROUNDING = 1e-9  # by which a box may be less than twice the cut-off
SIMILAR = 1e-12  # of its width, by which a box may differ from another that was stretched
ROWS = 32  # of a list, that are made at a time


@pytree
@dataclass(frozen=True)
class Table:
    """Pairs. index: [N, K], partners. inside: [N, K], slots that hold a pair."""

    index: np.ndarray
    inside: np.ndarray

    def partners(self, values: jax.Array) -> jax.Array:
        """The values [..., N] of partners, [..., N, K]."""
        return jnp.take(values, self.index, axis=-1, mode="clip")


@dataclass(frozen=True)
class Room:
    """The size of a list. slots: of each row; cells: by which it is made, or None."""

    slots: int
    cells: Cells | None


@pytree
@dataclass(frozen=True)
class NeighbourList:
    """A table of the pairs nearer than ``reach`` at some positions. box: of periodic pairs, else None. reach: nm, the
    cut-off + skin at most. full: its slots, or those of its cells, do not suffice."""

    table: Table
    positions: jax.Array
    box: jax.Array | None
    full: jax.Array
    reach: jax.Array
    cutoff: float = field(metadata={"static": True})
    skin: float = field(metadata={"static": True})
    cells: Cells | None = field(metadata={"static": True})

    @property
    def room(self) -> Room:
        """Its size."""
        return Room(self.table.index.shape[1], self.cells)

    def holds(self, positions: jax.Array, box: jax.Array | None) -> jax.Array:
        """True where every pair within the cut-off is in the list.

        Where the box has been stretched by a factor s, lengths over s are compared with those of the list: pairs within
        cut-off/s are in it as long as no atom has moved by more than (reach − cut-off/s)/2. For s = 1 that is half the
        skin.
        """
        stretch, similar = 1.0, True
        if self.box is not None:
            stretch = box[0, 0] / self.box[0, 0]
            similar = jnp.all(jnp.abs(box - stretch * self.box) <= SIMILAR * box[0, 0])
        most = 0.5 * (self.reach - self.cutoff / stretch)
        moved = jnp.max(jnp.sum((positions / stretch - self.positions) ** 2, axis=-1))
        return similar & ~self.full & (most >= 0) & (moved <= most**2)


@pytree
@dataclass(frozen=True)
class Surroundings:
    """Atoms whose neighbours are to be found. positions: [n, 3] nm; box: of periodic ones, else None; excluded: [n, E],
    partners that are left out of each row, -1 where there are fewer."""

    positions: jax.Array
    box: jax.Array | None
    excluded: np.ndarray
    cutoff: float = field(metadata={"static": True})
    skin: float = field(metadata={"static": True})
    orthorhombic: bool = field(metadata={"static": True})

    @property
    def _numbers(self) -> jax.Array:
        return jnp.arange(len(self.positions))

    def listed(self, room: Room) -> NeighbourList:
        """The list of a given size; can be compiled."""
        return _listed(self, room)

    def most(self, cells: Cells | None) -> int:
        """The largest number of partners that an atom has in its row."""
        return int(_most(self, cells))

    def partners(self, within: Filled | None, atom: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The atoms that may be near an atom, [C], and whether each is a partner in its row."""
        other = self._numbers if within is None else within.candidates(atom)
        places = self.positions.T
        separation = jnp.take(places, other, axis=1, mode="clip") - places[:, atom, None]
        near = squared(separation, self.box, self.orthorhombic) < (self.cutoff + self.skin) ** 2
        own = (other != atom) & (other < len(self.positions)) & in_row_of_first(atom, other)
        return other, near & own & jnp.all(other[:, None] != self.excluded[atom], axis=1)

    def filled(self, cells: Cells | None) -> Filled | None:
        """The atoms in cells."""
        return None if cells is None else filled(cells, self.positions, self.box, self.cutoff + self.skin)

    @property
    def reach(self) -> jax.Array:
        """Cut-off + skin, but no more than the length up to which the images that are taken are the shortest."""
        reach = jnp.asarray(self.cutoff + self.skin)
        if self.box is None or self.orthorhombic:
            return reach
        return jnp.minimum(reach, 0.5 * (1 + ROUNDING) * jnp.min(jnp.diagonal(self.box)))


@partial(jax.jit, static_argnames="room")
def _listed(of: Surroundings, room: Room) -> NeighbourList:
    within, atoms = of.filled(room.cells), len(of.positions)

    def row(atom):
        other, partner = of.partners(within, atom)
        count = jnp.cumsum(partner, dtype=jnp.int32)  # 1 for the first partner
        place = jnp.searchsorted(count, jnp.arange(1, room.slots + 1))
        return jnp.take(other, place, mode="fill", fill_value=atoms), count[-1]

    index, count = jax.lax.map(row, of._numbers, batch_size=ROWS)
    inside = index < atoms
    table = Table(jnp.where(inside, index, of._numbers[:, None]).astype(jnp.int32), inside)
    full = jnp.max(count) > room.slots
    full = full if within is None else full | within.full
    return NeighbourList(table, of.positions, of.box, full, of.reach, of.cutoff, of.skin, room.cells)


@partial(jax.jit, static_argnames="cells")
def _most(of: Surroundings, cells: Cells | None) -> jax.Array:
    within = of.filled(cells)
    counts = jax.lax.map(lambda atom: jnp.sum(of.partners(within, atom)[1]), of._numbers, batch_size=ROWS)
    return jnp.max(counts, initial=0)


def room_for(several: list[Surroundings]) -> Room:
    """Room for the lists of all of these, which differ by their positions alone, and for denser ones."""
    one = several[0]
    cells = cells_for(np.stack([of.positions for of in several]), one.box, one.cutoff + one.skin)
    return Room(int(SPARE * max(of.most(cells) for of in several)) + MORE, cells)


def squared(separation: jax.Array, box: jax.Array | None, orthorhombic: bool) -> jax.Array:
    """The squares of separations [3, ...], nm², those of nearest images where there is a box."""
    image = orthorhombic_image if orthorhombic else minimum_image
    return jnp.sum(image(separation, box, axis=0) ** 2, axis=0)


def in_row_of_first(i, j):
    """True where a list has the pair i, j in the row of i; it is in that of the lower number if i + j is even."""
    return (i < j) == ((i + j) % 2 == 0)
