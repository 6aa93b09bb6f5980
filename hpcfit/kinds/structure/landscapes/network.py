"""An elastic network: equal springs at rest between sites nearer than a cut-off in one structure.

    E = ½ k Σ (|x_i − x_j| − r_ij)²    (Tirion, 10.1103/PhysRevLett.77.1905)

Its ground state is the structure, with energy 0, and so is its mirror image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import csr_array

from hpcfit.errors import InputError
from hpcfit.kinds.structure.landscapes import contact_graph
from hpcfit.kinds.structure.landscapes.landscape import Landscape
from hpcfit.physics.internal_coordinates import length
from hpcfit.pytrees import pytree
from hpcfit.readers.positions import open_positions
from hpcfit.readers.topology import MMCIF, PDB, read_structure
from hpcfit.store.particles import Particles


@pytree
@dataclass(frozen=True)
class Network(Landscape):
    """Springs between sites. Made by ``of`` or ``of_file``. pairs: [p, 2]; rest: [p], their lengths; native: [n, 3];
    stiffness: energy a squared length. named: the sites of a file with names; symbols: the elements of another."""

    pairs: np.ndarray
    rest: np.ndarray
    native: np.ndarray
    stiffness: float
    n: int = field(metadata={"static": True})
    d: int = field(default=3, metadata={"static": True})
    unit: str = field(default="", metadata={"static": True})
    length: str = field(default="A", metadata={"static": True})
    named: Particles | None = field(default=None, metadata={"static": True})
    symbols: tuple[str, ...] = field(default=(), metadata={"static": True})

    @classmethod
    def of(cls, sites: np.ndarray, cutoff: float, stiffness: float = 1.0) -> Network:
        """The network of sites [n, 3] A. Raises InputError for sites without a spring, and for pieces that no spring
        joins."""
        sites = np.asarray(sites, float)
        pairs = contact_graph.pairs_within(sites, cutoff)
        alone = np.setdiff1d(np.arange(len(sites)), pairs)
        if len(alone):
            raise InputError(
                f"{len(alone)} of {len(sites)} sites, the first number {alone[0]}, have no other within {cutoff:g} A",
                remedy="raise the cut-off",
            )
        parts = contact_graph.pieces(len(sites), pairs)
        if parts > 1:
            raise InputError(f"springs within {cutoff:g} A leave {parts} pieces", remedy="raise the cut-off")
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
        rest = contact_graph.distances(sites, pairs)
        if not rest.min() > 0:
            same = pairs[rest.argmin()].tolist()
            raise InputError(f"sites {same[0]} and {same[1]} lie on each other", remedy="leave one of them out")
        return cls(pairs, rest, sites, float(stiffness), len(sites))

    @classmethod
    def of_file(cls, path: Path, cutoff: float, stiffness: float = 1.0, *, atoms: str | None = "name CA") -> Network:
        """The network of a PDB, mmCIF or XYZ file. atoms: a selection of a file with names, None for all atoms."""
        if path.suffix.lower() not in PDB + MMCIF:
            file = open_positions(path, None)
            found = cls.of(next(iter(file.frames(range(1)))).positions, cutoff, stiffness)
            return replace(found, symbols=tuple(file.topology.elements))
        structure = read_structure(path)
        particles = structure.particles
        chosen = np.arange(len(particles)) if atoms is None else np.unique(particles.select(atoms))
        return replace(cls.of(structure.positions[chosen], cutoff, stiffness), named=particles.subset(chosen))

    def particles(self) -> Particles | None:
        """See ``Landscape``."""
        return self.named

    def elements(self) -> Sequence[str]:
        """See ``Landscape``."""
        return self.named.elements if self.named else self.symbols or super().elements()

    def distinguishable(self) -> bool:
        """See ``Landscape``: each has its place in the structure."""
        return True

    def label(self, particle: int) -> str:
        """See ``Landscape``."""
        return self.named.label(particle) if self.named else super().label(particle)

    def energy(self, x: jax.Array, cap: Any = 0.0) -> jax.Array:
        """See ``Landscape``; springs need no cap."""
        r = length(x[self.pairs[:, 0]] - x[self.pairs[:, 1]])
        return 0.5 * self.stiffness * jnp.sum((r - self.rest) ** 2)

    def independent(self, x: np.ndarray) -> float:
        """See ``Landscape``."""
        x = np.asarray(x, np.float64)
        found = 0.0
        for (i, j), rest in zip(self.pairs, self.rest):
            found += 0.5 * self.stiffness * (np.sqrt(((x[i] - x[j]) ** 2).sum()) - rest) ** 2
        return float(found)

    def couplings(self) -> csr_array:
        """See ``Landscape``: 1 of each spring."""
        half = csr_array((np.ones(len(self.pairs)), (self.pairs[:, 0], self.pairs[:, 1])), (self.n, self.n))
        return (half + half.T).tocsr()

    def contacts(self, x: np.ndarray) -> tuple[int, int]:
        """The springs within the limits of a contact, in units of their lengths at rest, and all of them."""
        return int(self._intact(x).sum()), len(self.pairs)

    def pieces(self, x: np.ndarray) -> int:
        """See ``Landscape``."""
        return contact_graph.pieces(self.n, self.pairs[self._intact(x)])

    def _intact(self, x: np.ndarray) -> np.ndarray:
        return contact_graph.in_contact(contact_graph.distances(x, self.pairs), self.rest)

    def reference(self) -> float:
        """The energy of the structure itself, 0."""
        return 0.0
