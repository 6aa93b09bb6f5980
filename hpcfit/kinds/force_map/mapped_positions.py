"""Positions of beads, R = M r, in and out of a periodic box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse

from hpcfit.errors import InputError
from hpcfit.physics.periodic import nearest_image


@dataclass(frozen=True)
class Mapping:
    """M of ``kinds.force_map.bead_choice.Beads`` as a list of its entries.

    anchor: [N], the first atom of each bead; the others are taken at their image nearest to it. bead, atom, weight:
    [entries], of the other atoms.
    """

    anchor: np.ndarray
    bead: np.ndarray
    atom: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, M: scipy.sparse.csr_array) -> Mapping:
        """The mapping by a matrix [N, n] whose rows sum to 1."""
        rows = [slice(*M.indptr[bead : bead + 2]) for bead in range(M.shape[0])]
        anchor = np.array([M.indices[row][0] for row in rows])
        parts = [(np.full(row.stop - row.start - 1, bead), M.indices[row][1:], M.data[row][1:])
                 for bead, row in enumerate(rows)]  # fmt: skip
        return cls(anchor, *(np.concatenate([part[k] for part in parts]) for k in range(3)))

    def __call__(self, positions: np.ndarray, box: np.ndarray | None) -> np.ndarray:
        """R [T, N, 3] float64, A, of positions [T, n, 3]; box: [T, 3, 3], rows are the cell vectors, or None.

        Raises InputError for a bead that reaches as far as half the box: its image is not defined.
        """
        R = positions[:, self.anchor].astype(np.float64)
        if not len(self.bead):
            return R
        step = positions[:, self.atom] - R[:, self.bead]
        if box is not None:
            step = nearest_image(step, box)
            self._check_size(step, box)
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
            f"bead {self.bead[entry]}: its atoms {self.anchor[self.bead[entry]]} and {self.atom[entry]} are"
            f" {length[frame, entry]:.2f} A apart, half the width of the box is {half[frame]:.2f} A",
            remedy="make beads of fewer atoms",
        )
