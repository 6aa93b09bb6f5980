"""The static structure factor of a periodic box, on the vectors of its reciprocal lattice.

    q = 2 pi (h a* + k b* + l c*),    rho_a(q) = sum over the atoms j of species a of exp(i q . r_j)

    S_ab(q) = Re rho_a(q) rho_b(q)* / sqrt(N_a N_b)
    S(q) = |sum over a of f_a(q) rho_a(q)|^2 / sum over a of N_a f_a(q)^2

S_aa goes to 1 and S_ab to 0 at large q (Ashcroft and Langreth 1967, 10.1103/PhysRev.156.685). At any other q the edges
of the box would scatter; the least q is that of the longest edge, and q = 0 is left out. All is averaged in shells of
|q|.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from hpcfit.observables.pair_moments import pair_indices
from hpcfit.physics import reciprocal

ATOMS_TOGETHER = 4096  # whose phases are held at a time
ON_EDGE = 1e-9  # of a width: vectors so near to the edge of two shells belong to the upper one


class Vectors(NamedTuple):
    """Vectors of the reciprocal lattice, one of each pair q, -q, which scatter alike. hkl: [V, 3] integers; q: [V]
    lengths, 1/A; shell: [V] number of the shell, q / width rounded down."""

    hkl: np.ndarray
    q: np.ndarray
    shell: np.ndarray


def n_shells(q_max: float, width: float) -> int:
    """The number of shells up to q_max, the last of which is that of q_max itself."""
    return int(q_max / width + ON_EDGE) + 1


def lattice_vectors(box: np.ndarray, q_max: float, width: float, most: int) -> Vectors:
    """The vectors of a box up to q_max; of shells that have more than `most` of them an even sample of so many.

    box: [3, 3] A, rows are the cell vectors; q_max, width: 1/A. The sample depends on the box alone.
    """
    lengths = np.linalg.norm(box, axis=1)
    a, b, c = box / lengths[:, None]
    cell = (*lengths, *np.degrees(np.arccos([b @ c, a @ c, a @ b])))
    whole = (1, 1, 1)
    hkl = reciprocal.sphere(cell, whole, 2 * np.pi / q_max)
    q = 2 * np.pi * np.sqrt(reciprocal.inverse_d2(hkl, whole, cell))
    shell = np.minimum((q / width + ON_EDGE).astype(int), n_shells(q_max, width) - 1)
    order = np.lexsort((np.random.default_rng(0).random(len(q)), shell))
    place = np.arange(len(order)) - np.searchsorted(shell[order], shell[order])
    kept = np.sort(order[place < most])
    return Vectors(hkl[kept], q[kept], shell[kept])


def densities(x: np.ndarray, box: np.ndarray, starts: np.ndarray, hkl: np.ndarray) -> np.ndarray:
    """rho_a at vectors of the reciprocal lattice, [S, V] complex128.

    x: [n, 3] A, sorted by species; box: [3, 3] A; starts: [S + 1], where each species begins, and n; hkl: [V, 3].
    """
    fractions = x @ np.linalg.inv(box)
    found = np.zeros((len(starts) - 1, len(hkl), 2))
    top = np.abs(hkl).max(axis=0, initial=0)
    for first in range(0, len(x), ATOMS_TOGETHER):
        own = fractions[first : first + ATOMS_TOGETHER]
        # exp(2 pi i h s) of all h of an axis: a vector's phase is the product of three of them.
        phases = [np.exp(2j * np.pi * np.outer(np.arange(-n, n + 1), s)) for n, s in zip(top, own.T)]
        parts = [np.ascontiguousarray(part) for one in phases for part in (one.real, one.imag)]
        _add_densities(*parts, (hkl + top).astype(np.int64), np.clip(starts - first, 0, len(own)), found)
    return found[..., 0] + 1j * found[..., 1]


@njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _add_densities(xr, xi, yr, yi, zr, zi, row, starts, found):
    """Add the phases of atoms to found [S, V, 2]. xr, xi, ...: [rows, n], real and imaginary part of the phases along
    each axis; row: [V, 3]."""
    for v in range(len(row)):
        h, k, m = row[v]
        for a in range(len(starts) - 1):
            real, imaginary = 0.0, 0.0
            for j in range(starts[a], starts[a + 1]):
                c = xr[h, j] * yr[k, j] - xi[h, j] * yi[k, j]
                s = xr[h, j] * yi[k, j] + xi[h, j] * yr[k, j]
                real += c * zr[m, j] - s * zi[m, j]
                imaginary += c * zi[m, j] + s * zr[m, j]
            found[a, v, 0] += real
            found[a, v, 1] += imaginary


def shell_sums(rho: np.ndarray, atoms: np.ndarray, f: np.ndarray, vectors: Vectors, shells: int) -> np.ndarray:
    """Sums over the vectors of each shell, [P + 3, shells]: S_ab of the P pairs of species (in the order of
    ``pair_indices``), S, q, and 1.

    rho: [S, V] of ``densities``; atoms: [S], N_a; f: [S, V] at the vectors. The sums of frames may be added.
    """
    a, b = pair_indices(len(rho))
    partial = (rho[a] * rho[b].conj()).real / np.sqrt(atoms[a] * atoms[b])[:, None]
    total = np.abs(np.sum(f * rho, axis=0)) ** 2 / (atoms @ f**2)
    rows = [*partial, total, vectors.q, np.ones_like(vectors.q)]
    return np.stack([np.bincount(vectors.shell, row, shells) for row in rows])
