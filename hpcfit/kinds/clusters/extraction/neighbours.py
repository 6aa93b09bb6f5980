"""Pairs of atoms within cut-offs: found by freud in float32, decided in float64."""

from __future__ import annotations

import atexit
import functools
import gc
from typing import Any, NamedTuple

import numpy as np

from hpcfit.errors import InputError

CLOSE = 1e-5  # A: pairs this near to a cut-off are decided in float64


class Pairs(NamedTuple):
    """Pairs of atoms, each once. i, j: [p]; vector: [p, 3] from i to j, A; distance: [p] A."""

    i: np.ndarray
    j: np.ndarray
    vector: np.ndarray
    distance: np.ndarray

    def chosen(self, rows: np.ndarray) -> Pairs:
        """Some of them: [p] bool, or numbers."""
        return Pairs(self.i[rows], self.j[rows], self.vector[rows], self.distance[rows])


@functools.cache
def _freud() -> Any:
    import freud

    freud.set_num_threads(1)  # ranks share the cores
    # A command freezes its objects when it ends (cli.collect_rarely); freud's bindings would report each as a leak.
    atexit.unregister(gc.freeze)
    return freud


def minimum_image(vector: np.ndarray, box: np.ndarray | None) -> np.ndarray:
    """Vectors [..., 3] moved by whole cell vectors, the rows of box [3, 3], to fractions between -1/2 and 1/2: the
    shortest ones, where these are shorter than half the distance of opposite faces."""
    if box is None:
        return vector
    return vector - np.rint(vector @ np.linalg.inv(box)) @ box


def face_distance(box: np.ndarray) -> float:
    """The least distance of opposite faces of a box [3, 3]."""
    return float(1 / np.linalg.norm(np.linalg.inv(box), axis=0).max())


def pairs_within(
    x: np.ndarray, box: np.ndarray | None, cutoff: np.ndarray, kind: np.ndarray, asking: np.ndarray, where: str
) -> Pairs:
    """The pairs of atoms whose distance is at most the cut-off of their kinds.

    x: [n, 3] A. box: [3, 3], rows are cell vectors, None: not periodic. cutoff: [K, K] A, 0: none; kind: [n]. asking:
    [n] bool, whose pairs with all others, and among themselves, are looked for. where: the frame, in words.
    """
    r_max = float(cutoff.max())
    freud = _freud()
    points, cell, largest = _in_freud(x, box, r_max, where)
    tolerance = max(CLOSE, 4 * np.finfo(np.float32).eps * largest)
    query = freud.locality.AABBQuery(cell, points)
    found = query.query(points[asking], {"r_max": r_max + tolerance}).toNeighborList()
    i, j = np.flatnonzero(asking)[found.query_point_indices], found.point_indices.astype(np.int64)
    once = ((i < j) | ~asking[j]) & (found.distances <= cutoff[kind[i], kind[j]] + tolerance)
    i, j = i[once], j[once]
    i, j = np.minimum(i, j), np.maximum(i, j)
    vector = minimum_image(x[j] - x[i], box)
    distance = np.sqrt(np.sum(vector**2, axis=1))
    limit = cutoff[kind[i], kind[j]]
    return Pairs(i, j, vector, distance).chosen((limit > 0) & (distance <= limit))


def _in_freud(x: np.ndarray, box: np.ndarray | None, r_max: float, where: str) -> tuple[np.ndarray, Any, float]:
    """Positions and box as freud takes them, float32 and with a along x; the largest length in the box."""
    freud = _freud()
    if box is None:
        inner = x - 0.5 * (x.max(axis=0) + x.min(axis=0))
        side = float(2 * np.abs(inner).max() + 4 * r_max + 1)  # freud asks for a box: no image comes near
        return inner.astype(np.float32), freud.box.Box.cube(side), side
    if 2 * (r_max + CLOSE) >= face_distance(box):
        raise InputError(
            f"{where}: the largest cut-off is {r_max:g} A, opposite faces of the box are {face_distance(box):g} A"
            " apart",
            remedy="cut-offs must be below half that distance: choose shorter ones, or simulate a larger box",
        )
    # box = upright * turn: distances do not change when all is turned, or mirrored, so that a lies along x
    turn, upright = np.linalg.qr(box.T)
    sign = np.sign(np.diag(upright))
    upright, turn = (upright * sign[:, None]).T, turn * sign
    (a, _, _), (bx, by, _), (cx, cy, cz) = upright
    cell = freud.box.Box(a, by, cz, bx / by, cx / cz, cy / cz)
    turned = minimum_image(x @ turn, upright)
    return turned.astype(np.float32), cell, float(np.abs(upright).max())
