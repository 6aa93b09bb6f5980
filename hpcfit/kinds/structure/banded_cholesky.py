"""The Cholesky factor of a sparse symmetric matrix as a band, C C^T = P: neighbours are brought near each other, then
LAPACK factors what is within the band."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse
from scipy.sparse.csgraph import reverse_cuthill_mckee

Array = np.ndarray


def order_of(graph: scipy.sparse.sparray) -> Array:
    """The nodes [n] of a symmetric graph so that neighbours are near each other (reverse Cuthill-McKee)."""
    return np.asarray(reverse_cuthill_mckee(scipy.sparse.csr_matrix(graph), symmetric_mode=True))


@dataclass(frozen=True)
class BandedCholesky:
    """C, lower, as LAPACK keeps a band [width + 1, n]."""

    band: Array

    @classmethod
    def of(cls, matrix: Array) -> BandedCholesky:
        """From the lower half of P, kept as a band [width + 1, n]: matrix[i - j, j] = P_ij."""
        return cls(scipy.linalg.cholesky_banded(matrix, lower=True))

    def transposed_times(self, columns: Array) -> Array:
        """C^T of columns [n, k]."""
        found = np.zeros_like(columns)
        for below, diagonal in enumerate(self.band):  # C^T has C's diagonals, on the other side
            stop = len(diagonal) - below
            found[:stop] += diagonal[:stop, None] * columns[below:]
        return found

    def solved(self, columns: Array, trans: str) -> Array:
        """C ("N") or C^T ("T") solved for columns [n, k]."""
        found, info = scipy.linalg.lapack.dtbtrs(self.band, np.asfortranarray(columns), uplo="L", trans=trans)
        if info:
            raise ArithmeticError(f"dtbtrs ended with {info}: the factor is singular")
        return found
