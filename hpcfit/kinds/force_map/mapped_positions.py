"""Positions of beads, R = M r, in and out of a periodic box.

The atoms of a bead are found from its first atom along bonds within the bead, each at the image nearest to the atom
before, so that a bead may be longer than half the box. What no bond of the bead reaches is taken at the image nearest
to the first atom.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import scipy.sparse

from hpcfit.errors import InputError
from hpcfit.physics.periodic import nearest_image


@dataclass(frozen=True)
class Mapping:
    """M of ``kinds.force_map.bead_choice.Beads`` as a list of its entries.

    anchor: [N], the first atom of each bead. bead, atom, weight: [entries], of the other atoms, those of a bead beside
    each other. before: [entries], the atom that each is nearest to; levels: of entries, each with the entries of the
    atoms before theirs, which are of earlier levels (the first level has none, their atoms are anchors).
    """

    anchor: np.ndarray
    bead: np.ndarray
    atom: np.ndarray
    weight: np.ndarray
    before: np.ndarray
    levels: tuple[tuple[np.ndarray, np.ndarray], ...]

    @classmethod
    def of(cls, M: scipy.sparse.csr_array, bonds: np.ndarray | None = None) -> Mapping:
        """The mapping by a matrix [N, n] whose rows sum to 1; bonds: [b, 2], pairs of atoms."""
        graph = _graph(np.empty((0, 2), int) if bonds is None else np.asarray(bonds))
        rows = [slice(*M.indptr[bead : bead + 2]) for bead in range(M.shape[0])]
        anchor = np.array([M.indices[row][0] for row in rows])
        parts = [(np.full(row.stop - row.start - 1, bead), M.indices[row][1:], M.data[row][1:],
                  *_walked(M.indices[row], graph)) for bead, row in enumerate(rows)]  # fmt: skip
        bead, atom, weight, before, depth = (np.concatenate([part[k] for part in parts]) for k in range(5))
        entry = {(b, a): number for number, (b, a) in enumerate(zip(bead.tolist(), atom.tolist()))}
        levels = []
        for level in range(1, depth.max(initial=0) + 1):
            mine = np.flatnonzero(depth == level)
            levels.append((mine, np.array([entry[int(bead[one]), int(before[one])] for one in mine])))
        return cls(anchor, bead, atom, weight, before, tuple(levels))

    def __call__(self, positions: np.ndarray, box: np.ndarray | None) -> np.ndarray:
        """R [T, N, 3] float64, A, of positions [T, n, 3]; box: [T, 3, 3], rows are the cell vectors, or None.

        Raises InputError for atoms of a bead that follow each other as far apart as half the box: their image is not
        defined.
        """
        R = positions[:, self.anchor].astype(np.float64)
        if not len(self.bead):
            return R
        step = positions[:, self.atom] - positions[:, self.before].astype(np.float64)
        if box is not None:
            step = nearest_image(step, box)
            self._check_size(step, box)
        for mine, before in self.levels:
            step[:, mine] += step[:, before]
        starts = np.flatnonzero(np.diff(self.bead, prepend=-1))
        R[:, self.bead[starts]] += np.add.reduceat(step * self.weight[:, None], starts, axis=1)
        return R

    def _check_size(self, step: np.ndarray, box: np.ndarray) -> None:
        half = 0.5 / np.linalg.norm(np.linalg.inv(box.astype(float)), axis=1).max(axis=1)
        length = np.linalg.norm(step, axis=2)
        if np.all(length < half[:, None]):
            return
        frame, entry = np.argwhere(length >= half[:, None])[0]
        raise InputError(
            f"bead {self.bead[entry]}: its atoms {self.before[entry]} and {self.atom[entry]} are"
            f" {length[frame, entry]:.2f} A apart, half the width of the box is {half[frame]:.2f} A",
            remedy="make beads of fewer atoms, or give a topology with their bonds",
        )


def _graph(bonds: np.ndarray) -> dict[int, list[int]]:
    """The neighbours of each atom, in their order."""
    found: dict[int, list[int]] = {}
    for a, b in np.sort(bonds.reshape(-1, 2), axis=1).tolist():
        found.setdefault(a, []).append(b)
        found.setdefault(b, []).append(a)
    return {atom: sorted(near) for atom, near in found.items()}


def _walked(atoms: np.ndarray, graph: dict[int, list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """For the atoms of a bead but its first: the atom before each on the way from the first along bonds within the
    bead, and how many atoms lie on the way; of those that no bond reaches the first atom, and none. Beyond such an atom
    bonds are followed too."""
    left, before, depth = dict.fromkeys(atoms.tolist()), {}, {}
    first = int(atoms[0])
    while left:
        start = next(iter(left))
        del left[start]
        before[start], depth[start] = first, 0
        queue = deque([start])
        while queue:
            here = queue.popleft()
            for other in graph.get(here, ()):
                if other in left:
                    del left[other]
                    before[other], depth[other] = here, depth[here] + (here != first)
                    queue.append(other)
    others = atoms[1:].tolist()
    return np.array([before[one] for one in others], int), np.array([depth[one] for one in others], int)
