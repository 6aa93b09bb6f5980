"""Beads made of atoms, and the rigid groups whose summed forces are what a force map combines.

A bead is R_I = sum_i M_Ii r_i; of the atoms of a rigid group (``kinds.force_map.rigid_groups``) only the sum of the
forces can enter a mapped force. The q = m + N reduced forces of a frame are the sums over the m groups, then N slice
forces M f.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg
import scipy.sparse

from hpcfit.errors import InputError
from hpcfit.physics.equality_qp import Equalities, solve_equalities

# Rows of M as read from a float32 file, of some thousand atoms at most.
SUM_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Beads:
    """names [N]; M: sparse [N, n], weights of the atoms in each bead, not negative, each row summing to 1."""

    names: tuple[str, ...]
    M: scipy.sparse.csr_array

    def atoms(self, bead: int) -> np.ndarray:
        """The atoms with a weight in a bead."""
        row = slice(*self.M.indptr[bead : bead + 2])
        return np.sort(self.M.indices[row][self.M.data[row] != 0])

    def described(self, bead: int) -> str:
        """Its name and some of its atoms."""
        atoms = self.atoms(bead)
        more = f" and {len(atoms) - 4} more" if len(atoms) > 4 else ""
        return f"'{self.names[bead]}' (atoms {', '.join(map(str, atoms[:4]))}{more})"


@dataclass(frozen=True)
class Reduced:
    """Beads and rigid groups of a system (``reduced``).

    group: [n], -1 for virtual sites. A: [N, m], weight of each group in each bead. sizes: [m], atoms of each group.
    """

    beads: Beads
    group: np.ndarray
    A: np.ndarray
    sizes: np.ndarray

    @property
    def n_beads(self) -> int:
        return len(self.A)

    @property
    def n_groups(self) -> int:
        return len(self.sizes)

    def reduction(self) -> scipy.sparse.csr_array:
        """[q, n]: group sums, then slice forces, from the forces of atoms."""
        return scipy.sparse.vstack([_membership(self.group, self.n_groups), self.beads.M], format="csr")

    def spread(self, C: np.ndarray) -> scipy.sparse.csr_array:
        """W [N, n] of the coefficients C [N, q]."""
        return scipy.sparse.csr_array(scipy.sparse.csr_array(C) @ self.reduction())

    @cached_property
    def equalities(self) -> Equalities:
        """A c_I = e_I for all beads I at once."""
        return solve_equalities(self.A, np.eye(self.n_beads))


def _membership(group: np.ndarray, n_groups: int) -> scipy.sparse.csr_array:
    atoms = np.flatnonzero(group >= 0)
    return scipy.sparse.csr_array((np.ones(len(atoms)), (group[atoms], atoms)), (n_groups, len(group)))


def reduced(beads: Beads, group: np.ndarray) -> Reduced:
    """The system that force maps are sought for.

    Raises InputError naming the beads for weights that are negative, not finite or do not sum to 1, for beads of no
    atoms or of virtual sites, and for beads that no map can tell apart, as two in one rigid group.
    """
    group = np.asarray(group, int)
    _check_weights(beads, group)
    M = scipy.sparse.csr_array(beads.M, dtype=float)
    beads = Beads(beads.names, scipy.sparse.csr_array(scipy.sparse.diags_array(1 / M.sum(axis=1)) @ M))
    n_groups = int(group.max()) + 1
    A = (beads.M @ _membership(group, n_groups).T).toarray()
    found = Reduced(beads, group, A, np.bincount(group[group >= 0], minlength=n_groups).astype(float))
    _check_independent(found)
    return found


def _check_weights(beads: Beads, group: np.ndarray) -> None:
    M = beads.M
    if M.shape != (len(beads.names), len(group)):
        raise InputError(
            f"the weights of {M.shape[0]} beads in {M.shape[1]} atoms do not fit {len(beads.names)} names and"
            f" {len(group)} atoms",
            remedy="make beads and topology from the same system",
        )
    for bead, name in enumerate(beads.names):
        atoms, weights = beads.atoms(bead), M.data[slice(*M.indptr[bead : bead + 2])]
        wrong = weights[~(np.isfinite(weights) & (weights >= 0))]
        if len(wrong):
            raise InputError(
                f"bead {beads.described(bead)} has a weight of {wrong[0]}",
                remedy="give each atom of a bead a positive weight",
            )
        if not len(atoms):
            raise InputError(f"bead '{name}' has no atoms", remedy="correct the selection of its atoms")
        if abs(weights.sum() - 1) > SUM_TOLERANCE:
            raise InputError(
                f"the weights of bead {beads.described(bead)} sum to {weights.sum():g}, not 1",
                remedy="divide them by their sum",
            )
        virtual = atoms[group[atoms] < 0]
        if len(virtual):
            raise InputError(
                f"bead {beads.described(bead)} holds atom {virtual[0]}, which is a virtual site without a force",
                remedy="use the atoms that the site is made of",
            )


def _check_independent(found: Reduced) -> None:
    """That the rows of A are linearly independent."""
    if not np.any(np.count_nonzero(found.A, axis=0) > 1):
        return  # no group is in two beads
    _, R, order = scipy.linalg.qr(found.A.T, mode="economic", pivoting=True)
    diagonal = np.abs(np.diagonal(R))
    rank = int(np.sum(diagonal > max(found.A.shape) * np.finfo(float).eps * diagonal[0]))
    if rank == found.n_beads:
        return
    share = scipy.linalg.solve_triangular(R[:rank, :rank], R[:rank, rank])  # of the others in bead order[rank]
    others = order[:rank][np.abs(share) > 1e-8 * np.abs(share).max()]
    named = ", ".join(found.beads.described(bead) for bead in sorted([*others, order[rank]])[:4])
    where = "lie in one rigid group" if len(others) == 1 else f"({len(others) + 1} in all) depend on each other"
    raise InputError(
        f"beads {named} {where}: no force map tells them apart",
        remedy="leave one of them out, or make one bead of each rigid group",
    )
