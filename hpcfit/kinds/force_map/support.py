"""The rigid groups that a bead's force may come from, and the classes of their coefficients that symmetry ties.

Groups far from a bead along the bonds only add noise of the fit: on CLN025 a support of 6 bonds (23 of 87 free groups)
predicts new frames better than all groups. In liquids coefficients of one molecule are those of any other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse

from hpcfit.kinds.force_map.bead_choice import Reduced


def support_within(bonds: np.ndarray, reduced: Reduced, distance: int | None) -> np.ndarray:
    """Groups [N, k], ascending and padded with -1, at most so many bonds between groups away from one of the bead.

    bonds: pairs of atoms, [b, 2]; distance: None for the whole molecule. A rigid group is one node: what is constrained
    counts as no distance. The bead's own groups are always there.
    """
    steps = reduced.n_groups if distance is None else distance
    neighbours = _group_graph(bonds, reduced)
    reached = _pattern(scipy.sparse.csr_array(reduced.A))
    for _ in range(steps):
        further = _pattern(reached @ neighbours)
        if further.nnz == reached.nnz:
            break
        reached = further
    return _padded(reached)


def support_in_residue(residue: np.ndarray, reduced: Reduced) -> np.ndarray:
    """Groups [N, k], as ``support_within``, with an atom in a residue that has an atom of the bead.

    residue: [n], the number of each atom's residue.
    """
    real = np.flatnonzero(reduced.group >= 0)
    holds = _incidence(residue[real], reduced.group[real], (int(residue.max()) + 1, reduced.n_groups))
    return _padded(_pattern(scipy.sparse.csr_array(reduced.A) @ holds.T @ holds))


def tied_classes(
    support: np.ndarray,
    reduced: Reduced,
    elements: Sequence[str],
    names: Sequence[str],
    residue: np.ndarray,
    residue_names: Sequence[str],
    bonds: np.ndarray,
) -> np.ndarray:
    """Classes [N, k] of the coefficients on the support, -1 where that is padding, for ``maps.tied_map``.

    Two coefficients are in one class if their beads have residues of one name and the same weights in them, and their
    groups lie equally many residues after the bead and have atoms that correspond. Atoms correspond if refining colours
    along the bonds of a residue cannot tell them apart (Weisfeiler and Leman), as the hydrogens of water; colours start
    from element, weights in the bead and in other beads, and the way to bonded residues. In a residue without bonds
    atoms are told apart by their names. residue: [n], numbered along the chain, residue_names: one each.
    """
    colours = _Colours(reduced, elements, names, np.asarray(residue), residue_names, np.asarray(bonds).reshape(-1, 2))
    order = np.argsort(reduced.group, kind="stable")
    members = np.split(order, np.searchsorted(reduced.group[order], np.arange(reduced.n_groups)))[1:]
    members = [part.tolist() for part in members]
    number: dict[tuple, int] = {}
    classes = np.full(support.shape, -1)
    for bead, groups in enumerate(support):
        of_bead = colours.of_bead(bead)
        for place, group in enumerate(groups):
            if group >= 0:
                key = (of_bead.kind, tuple(sorted(map(of_bead.colour, members[group]))))
                classes[bead, place] = number.setdefault(key, len(number))
    return classes


def _group_graph(bonds: np.ndarray, reduced: Reduced) -> scipy.sparse.csr_array:
    """[m, m]: groups that are one, or that a bond joins."""
    pairs = reduced.group[np.asarray(bonds, int).reshape(-1, 2)]
    pairs = pairs[np.all(pairs >= 0, axis=1)]
    own = np.arange(reduced.n_groups)
    rows, columns = np.concatenate([own, *pairs.T]), np.concatenate([own, *pairs[:, ::-1].T])
    return _incidence(rows, columns, (reduced.n_groups,) * 2)


def _incidence(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> scipy.sparse.csr_array:
    return _pattern(scipy.sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape))


def _pattern(matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    """1 where there is something."""
    matrix = scipy.sparse.csr_array(matrix)
    matrix.eliminate_zeros()
    matrix.data[:] = 1.0
    return matrix


def _padded(pattern: scipy.sparse.csr_array) -> np.ndarray:
    pattern.sort_indices()
    count = np.diff(pattern.indptr)
    found = np.full((len(count), count.max()), -1)
    found[np.arange(count.max()) < count[:, None]] = pattern.indices
    return found


class _OfBead:
    """How the atoms look from one bead."""

    def __init__(self, colours: _Colours, bead: int):
        self.colours = colours
        row = slice(*colours.beads.M.indptr[bead : bead + 2])
        weight = dict(zip(colours.beads.M.indices[row].tolist(), _rounded(colours.beads.M.data[row])))
        self.residue = int(colours.residue[min(weight)])
        self.own = {r: colours.refined(r, weight) for r in {int(colours.residue[atom]) for atom in weight}}
        # own weights are part of the colours
        self.kind = (colours.residue_names[self.residue], tuple(sorted(map(self.colour, weight))))

    def colour(self, atom: int) -> tuple[int, int]:
        """(residues after the bead, colour)."""
        residue = int(self.colours.residue[atom])
        colour = (self.own.get(residue) or self.colours.of_others(residue))[atom]
        return residue - self.residue, colour


class _Colours:
    """Colours of atoms by what is bonded to what, equal numbers for what looks equal in any residue."""

    def __init__(self, reduced: Reduced, elements, names, residue, residue_names, bonds):
        self.beads, self.residue, self.residue_names = reduced.beads, residue, residue_names
        self.elements, self.names = elements, names
        self.number: dict[tuple, int] = {}
        self.others: dict[int, dict[int, int]] = {}
        within = residue[bonds[:, 0]] == residue[bonds[:, 1]]
        self.neighbours = _listed(bonds[within], len(residue))
        self.links = [
            tuple(sorted(int(residue[other] - residue[atom]) for other in linked))
            for atom, linked in enumerate(_listed(bonds[~within], len(residue)))
        ]
        order = np.argsort(residue, kind="stable")
        starts = np.searchsorted(residue[order], np.arange(len(residue_names)))
        self.atoms = [part.tolist() for part in np.split(order, starts)[1:]]
        columns = scipy.sparse.csc_array(reduced.beads.M)
        columns.sum_duplicates()
        self.in_beads = [
            _rounded(columns.data[start:end]) for start, end in zip(columns.indptr[:-1], columns.indptr[1:])
        ]

    def of_bead(self, bead: int) -> _OfBead:
        return _OfBead(self, bead)

    def of_others(self, residue: int) -> dict[int, int]:
        """Colours of the atoms of a residue that has none of the bead."""
        if residue not in self.others:
            self.others[residue] = self.refined(residue, {})
        return self.others[residue]

    def refined(self, residue: int, own: dict[int, float]) -> dict[int, int]:
        """The colour of each atom of a residue, seen from the bead with the weights ``own``."""
        atoms = self.atoms[residue]
        bonded = any(self.neighbours[atom] for atom in atoms)
        colour = {atom: self._numbered(self._start(atom, residue, own, bonded)) for atom in atoms}
        while True:
            finer = {
                atom: self._numbered((colour[atom], tuple(sorted(colour[other] for other in self.neighbours[atom]))))
                for atom in atoms
            }
            if len(set(finer.values())) == len(set(colour.values())):
                return finer
            colour = finer

    def _start(self, atom: int, residue: int, own: dict[int, float], bonded: bool) -> tuple:
        others = sorted(self.in_beads[atom])
        if atom in own:
            others.remove(own[atom])
        label = self.elements[atom] if bonded else self.names[atom]
        return (self.residue_names[residue], label, own.get(atom, 0.0), tuple(others), self.links[atom])

    def _numbered(self, key: tuple) -> int:
        return self.number.setdefault(key, len(self.number))


def _rounded(weights: np.ndarray) -> list[float]:
    """Equal for atoms that differ by rounding alone."""
    return np.round(weights, 9).tolist()


def _listed(bonds: np.ndarray, n_atoms: int) -> list[list[int]]:
    """The partners of each atom."""
    found: list[list[int]] = [[] for _ in range(n_atoms)]
    for i, j in bonds.tolist():
        found[i].append(j)
        found[j].append(i)
    return found
