"""Modes of a weighted graph: its Laplacian, the lowest eigenvectors of each connected part, and what they are like.

    L = diag(Σ_j w_ij) − w,    L v = λ v

A connected component has one mode with λ = 0, the same at all of its particles: these are known, counted, and left out
of the lowest modes. Components are solved one by one (``eigensolvers``).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
from scipy.optimize import brentq
from scipy.sparse import coo_array, csr_array, diags_array
from scipy.sparse.csgraph import connected_components

from hpcfit.errors import InputError, NumericalError
from hpcfit.kinds.structure.modes import eigensolvers

PROBES = 16  # vectors that traces are estimated with
GOOD = 1e-4  # a residual, in units of the largest degree, above which a mode has not been found


class GraphModes(NamedTuple):
    """values: [k], ascending, none of them of a component as a whole; vectors: [n, k], orthonormal. residuals: [k],
    |L v − λ v| over the largest degree. component: [n], the number of the component of each particle."""

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray
    component: np.ndarray

    @property
    def n_components(self) -> int:
        """The connected components, each of which has one mode with λ = 0 beside these."""
        return int(self.component.max(initial=-1)) + 1

    @property
    def null(self) -> csr_array:
        """The modes with λ = 0, [n, components], orthonormal."""
        n = len(self.component)
        size = np.bincount(self.component)[self.component]
        return csr_array((size**-0.5, (np.arange(n), self.component)), (n, self.n_components))

    @property
    def participation(self) -> np.ndarray:
        """The number of particles that take part in each mode, [k]: 1/Σ v⁴, from 1 to n."""
        return 1 / np.sum(self.vectors**4, axis=0)


def laplacian(weights: csr_array | np.ndarray) -> csr_array:
    """The Laplacian of symmetric weights [n, n], not negative, whose diagonal plays no part."""
    weights = csr_array(weights)
    if weights.shape[0] != weights.shape[1] or abs(weights - weights.T).max() > 1e-9 * abs(weights).max():
        raise InputError(f"weights {list(weights.shape)} are not symmetric", remedy="give one number for both ways")
    if weights.nnz and not weights.data.min() >= 0:
        raise InputError(f"a weight is {weights.data.min()}", remedy="give numbers that are not negative")
    weights = (weights - diags_array(weights.diagonal())).tocsr()
    weights.eliminate_zeros()
    return (diags_array(np.asarray(weights.sum(axis=1)).ravel()) - weights).tocsr()


def lowest_modes(laplacian: csr_array, k: int, solver: str = "auto") -> GraphModes:
    """The k lowest modes of a Laplacian [n, n], without those of whole components. solver: see ``eigensolvers``; by
    "slepc" it is collective.

    Raises InputError where there are fewer, and NumericalError for a mode that was not found to GOOD.
    """
    n, degree = laplacian.shape[0], laplacian.diagonal().max(initial=0.0)
    count, component = connected_components(laplacian, directed=False)
    if not 0 < k <= n - count:
        raise InputError(
            f"{k} slow modes are asked for: {n} particles in {count} connected pieces have {n - count}",
            remedy="ask for fewer, or tie the pieces to each other",
        )
    values, columns = [], []
    for members in _members(component):
        if len(members) > 1:
            part = laplacian[members][:, members]
            found, vectors = eigensolvers.lowest(part, min(k, len(members) - 1), solver)
            values.append(found)
            columns.append(_placed(members, _signed(vectors), n))
    lowest = np.argsort(np.concatenate(values), kind="stable")[:k]
    vectors = scipy.sparse.hstack(columns, format="csc")[:, lowest].toarray()
    found = np.concatenate(values)[lowest]
    residuals = np.linalg.norm(laplacian @ vectors - vectors * found, axis=0) / degree
    if not residuals.max() <= GOOD:
        raise NumericalError(
            f"slow mode {residuals.argmax()} of {k} has a residual of {residuals.max():.1e}",
            remedy="ask for fewer modes, or take another solver ([problem.modes] solver); pyamg helps lobpcg",
        )
    return GraphModes(found, vectors, residuals, component)


def _members(component: np.ndarray) -> list[np.ndarray]:
    """The particles of each component, in the order of components."""
    return np.split(np.argsort(component, kind="stable"), np.cumsum(np.bincount(component))[:-1])


def _placed(members: np.ndarray, vectors: np.ndarray, n: int) -> coo_array:
    rows, columns = np.meshgrid(members, np.arange(vectors.shape[1]), indexing="ij")
    return coo_array((vectors.ravel(), (rows.ravel(), columns.ravel())), (n, vectors.shape[1]))


def _signed(vectors: np.ndarray) -> np.ndarray:
    """Modes [n, k], the largest element of each positive."""
    largest = np.argmax(np.abs(vectors) > 0.999 * np.abs(vectors).max(axis=0), axis=0)
    return vectors * np.where(vectors[largest, np.arange(vectors.shape[1])] < 0, -1.0, 1.0)


def filter_modes(laplacian: csr_array, x: np.ndarray, edge: float, degree: int = 60) -> np.ndarray:
    """The part of x [n, d] in modes with λ below ``edge``, by products with the Laplacian alone.

    A step at the edge as a Chebyshev series of this degree with Jackson's factors, which keep it between 0 and 1
    (Weiße and others 2006, 10.1103/RevModPhys.78.275): its width is about π/degree of half the spectrum.
    """
    top = top_of(laplacian)
    scaled = lambda y: (2 / top) * (laplacian @ y) - y  # noqa: E731
    before, present = np.asarray(x, float), scaled(np.asarray(x, float))
    series = step_series(2 * edge / top - 1, degree)
    found = series[0] * before + series[1] * present
    for factor in series[2:]:
        before, present = present, 2 * scaled(present) - before
        found = found + factor * present
    return found


def top_of(laplacian: csr_array) -> float:
    """A number that no eigenvalue is above: twice the largest degree of a particle."""
    return 2 * float(laplacian.diagonal().max())


def edge_of_share(laplacian: csr_array, share: float, degree: int = 60) -> float:
    """The λ below which a share of all modes is, to about the width of the step of ``filter_modes``.

    The modes below an edge are counted as the trace of the step, by products with PROBES vectors of random signs; the
    relative error of such a trace of the share s is about √(2/(PROBES s n)).
    """
    top = top_of(laplacian)
    scaled = lambda y: (2 / top) * (laplacian @ y) - y  # noqa: E731
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (laplacian.shape[0], PROBES))
    before, present = signs, scaled(signs)
    moments = [1.0, np.mean(signs * present)]
    for _ in range(degree - 1):
        before, present = present, 2 * scaled(present) - before
        moments.append(np.mean(signs * present))
    missing = lambda edge: float(step_series(2 * edge / top - 1, degree) @ moments) - share  # noqa: E731
    return float(brentq(missing, 0.0, top, xtol=1e-6 * top)) if missing(0.0) < 0 else 0.0


def step_series(edge: float, degree: int) -> np.ndarray:
    """Chebyshev coefficients [degree + 1] of the function that is 1 from −1 to the edge and 0 from there to 1, with
    Jackson's factors."""
    n, N = np.arange(degree + 1), degree + 1
    angle = np.arccos(np.clip(edge, -1, 1))
    plain = np.concatenate([[np.pi - angle], -2 * np.sin(n[1:] * angle) / n[1:]]) / np.pi
    q = np.pi / (N + 1)
    return plain * ((N - n + 1) * np.cos(q * n) + np.sin(q * n) / np.tan(q)) / (N + 1)


def subspace_angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The principal angles between the spaces of two sets of modes [n, k], rad, largest first."""
    return scipy.linalg.subspace_angles(first, second)


class Overlap(NamedTuple):
    """share: |V'W|²/k of k orthonormal modes V and as many or more W, 1 where all of V is in the space of W; chance:
    that of random modes."""

    share: float
    chance: float


def overlap(first: np.ndarray, second: np.ndarray) -> Overlap:
    """The share of the space of orthonormal modes [n, k] that is in that of others, [n, k or more]."""
    n, k = first.shape
    return Overlap(float(np.sum((first.T @ second) ** 2) / k), second.shape[1] / n)


def moving(x: np.ndarray, vector: np.ndarray, amplitude: float, frames: int) -> np.ndarray:
    """Frames [T, n, d] in which a configuration [n, d] swings along a mode [n], for viewing: what the mode has of it
    grows and shrinks, by ``amplitude`` as root mean square over particles."""
    own = np.outer(vector, vector @ (x - x.mean(axis=0)))
    size = np.sqrt(np.mean(np.sum(own**2, axis=1)))
    if size == 0:
        raise InputError("the configuration has no part along this mode", remedy="view it from another configuration")
    phase = np.sin(2 * np.pi * np.arange(frames) / frames)
    return x + amplitude / size * phase[:, None, None] * own
