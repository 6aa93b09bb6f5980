"""The reciprocal lattice of a crystal or of a supercell of it: resolution, Friedel and Laue mates, order, matching.

Reflections are integers `hkl [H, 3]` with `ndiv = (n1, n2, n3)`: the Miller index with respect to the unit cell is
hkl / ndiv, so that every reflection of an n1 x n2 x n3 supercell is an integer. `cell` is always the unit cell.

A reflection is packed in one integer, key = h + B k + B^2 l, with B larger than twice any index. The key is linear
and unique, so Friedel mates are +-key, and a symmetry operation costs one dot product with a transformed (1, B, B^2).
"""

import difflib
import functools

import numpy as np

from hpcfit.errors import InputError

# Reflections whose 1/d^2 differ by less than this (relative) are taken for symmetry mates; rounding gives some 1e-15.
SAME_RESOLUTION = 1e-9

LAUE_CLASSES = {
    "-1": "P -1",
    "2/m": "P 1 2/m 1",
    "mmm": "P m m m",
    "4/m": "P 4/m",
    "4/mmm": "P 4/m m m",
    "-3": "P -3",
    "-3m": "P -3 m 1",
    "-3m1": "P -3 m 1",
    "-31m": "P -3 1 m",
    "6/m": "P 6/m",
    "6/mmm": "P 6/m m m",
    "m-3": "P m -3",
    "m-3m": "P m -3 m",
}


def metric(cell) -> np.ndarray:
    """Metric tensor [3, 3] in A^2 of a cell (a, b, c in A, alpha, beta, gamma in degrees)."""
    lengths, angles = np.asarray(cell[:3], float), np.radians(np.asarray(cell[3:], float))
    cosines = np.eye(3)
    for angle, (i, j) in zip(angles, ((1, 2), (0, 2), (0, 1)), strict=True):
        cosines[i, j] = cosines[j, i] = np.cos(angle)
    g = np.outer(lengths, lengths) * cosines
    if not np.all(lengths > 0) or not np.linalg.det(cosines) > 0:
        raise InputError(
            f"cell {tuple(map(float, cell))} is not a cell: lengths must be positive and angles span a volume",
            remedy="give a, b, c in A and alpha, beta, gamma in degrees",
        )
    return g


def inverse_d2(hkl, ndiv, cell) -> np.ndarray:
    """1/d^2 of each reflection, float64 [H], A^-2: q^T G^-1 q with q = hkl / ndiv and G the metric tensor."""
    q = np.asarray(hkl, float) / np.asarray(ndiv, float)
    return np.einsum("hi,hi->h", q @ np.linalg.inv(metric(cell)), q)


def hemisphere(hkl) -> tuple[np.ndarray, np.ndarray]:
    """One of each Friedel pair, as CCP4's asymmetric unit of P1: l > 0, or l = 0 and h > 0, or l = h = 0 and k >= 0.

    Returns (hkl [H, 3] in the hemisphere, flipped [H] bool); F of a flipped reflection is to be conjugated.
    """
    hkl = np.asarray(hkl, np.int32)
    h, k, ell = hkl.T
    flipped = (ell < 0) | ((ell == 0) & ((h < 0) | ((h == 0) & (k < 0))))
    return np.where(flipped[:, None], -hkl, hkl), flipped


def sphere(cell, ndiv, d_min: float, d_max: float = np.inf) -> np.ndarray:
    """All reflections of the hemisphere with d_min <= d <= d_max (A), without 000, int32 [H, 3], in store order."""
    if not 0 < d_min < d_max:
        raise InputError(
            f"resolution limits d_min = {d_min} and d_max = {d_max} A select nothing",
            remedy="give 0 < d_min < d_max in A",
        )
    # |h| = |a . s| <= a / d holds for any angles, since h is the projection of s = 1/d on the axis a.
    top = np.floor(np.asarray(cell[:3], float) * np.asarray(ndiv) / d_min * (1 + SAME_RESOLUTION)).astype(int)
    planes = [_plane(level, top, cell, ndiv, (d_min, d_max)) for level in range(top[2] + 1)]
    hkl = np.concatenate(planes)
    return hkl[resolution_order(hkl, ndiv, cell)]


def _plane(level: int, top, cell, ndiv, limits) -> np.ndarray:
    """The reflections of `sphere` with l = level, unordered."""
    h, k = np.meshgrid(np.arange(-top[0], top[0] + 1), np.arange(-top[1], top[1] + 1), indexing="ij")
    hkl = np.stack([h.ravel(), k.ravel(), np.full(h.size, level)], axis=1).astype(np.int32)
    if level == 0:
        hkl = hkl[(hkl[:, 0] > 0) | ((hkl[:, 0] == 0) & (hkl[:, 1] > 0))]
    s2, (d_min, d_max) = inverse_d2(hkl, ndiv, cell), limits
    inside = (s2 <= (1 + SAME_RESOLUTION) / d_min**2) & (s2 >= (1 - SAME_RESOLUTION) / d_max**2)
    return hkl[inside]


def resolution_order(hkl, ndiv, cell) -> np.ndarray:
    """Permutation [H] that sorts by 1/d^2, symmetry mates (equal to 1e-9 relative) together, then by l, k, h."""
    hkl, s2 = np.asarray(hkl), inverse_d2(hkl, ndiv, cell)
    ascending = np.argsort(s2, kind="stable")
    sorted_s2 = s2[ascending]
    # A new level starts where 1/d^2 rises by more than rounding does; rounding to bins could part two mates.
    rises = np.diff(sorted_s2, prepend=sorted_s2[:1]) > SAME_RESOLUTION * sorted_s2
    level = np.empty(len(s2), np.int64)
    level[ascending] = np.cumsum(rises)
    return np.lexsort((packed(hkl), level))


@functools.lru_cache
def _rotations(name: str) -> tuple:
    """Distinct matrices of `laue_operations` as nested tuples, identity first."""
    import gemmi

    group = gemmi.find_spacegroup_by_name(LAUE_CLASSES.get(name.replace(" ", ""), name))
    if group is None:
        known = list(LAUE_CLASSES) + sorted({g.hm for g in gemmi.spacegroup_table()})
        near = difflib.get_close_matches(name, known, n=4, cutoff=0.3)
        raise InputError(
            f"'{name}' is neither a Laue class nor a space group",
            remedy=f"nearest names: {', '.join(near) or 'none'}; Laue classes: {', '.join(LAUE_CLASSES)}",
        )
    found = {}
    for op in group.operations().sym_ops:
        rotation = np.array(op.rot, int) // op.DEN
        for m in (rotation.T, -rotation.T):
            found.setdefault(tuple(map(tuple, m.tolist())))
    return tuple(found)


def laue_operations(name: str) -> np.ndarray:
    """Operations of a Laue class ("-1", "4/m", "m-3m", ...) or of the Laue class of a space group ("P 41", "P1", ...).

    Returns int64 [n, 3, 3], distinct, inversion included, identity first; the image of a reflection is M @ hkl, with
    M the transposed rotation part, since a phase h . (R x) is (R^T h) . x. Unknown names raise InputError.
    """
    return np.array(_rotations(name), np.int64)


SAME_METRIC = 0.03  # of the reciprocal metric, relative: 1.5 % of a length


def keeps_metric(operations: np.ndarray, cell) -> bool:
    """True if a cell (A, degrees) has the symmetry of operations on hkl: M^T G* M = G*, to SAME_METRIC."""
    g = np.linalg.inv(metric(cell))
    scale = np.sqrt(np.outer(np.diag(g), np.diag(g)))
    moved = np.einsum("nij,ik,nkl->njl", operations, g, operations)
    return bool(np.all(np.abs(moved - g) <= SAME_METRIC * scale))


def check_metric(name: str, cell, what: str) -> None:
    """Raise InputError unless a cell has the symmetry of a Laue class or space group. what: that it is the cell of."""
    if keeps_metric(laue_operations(name), cell):
        return
    fitting = [one for one in LAUE_CLASSES if keeps_metric(laue_operations(one), cell)]
    raise InputError(
        f"'{name}' makes axes equal that the cell of {what} has not: {tuple(round(float(one), 3) for one in cell)}",
        remedy=f"its cell has {', '.join(fitting)}: choose one of them, or correct the cell",
    )


def laue_orbits(hkl, operations, ndiv) -> tuple[np.ndarray, np.ndarray]:
    """Symmetry mates: (orbit [H] int64, size [n_orbits] int64).

    Reflections of one orbit have one number; numbers follow first appearance. `size` counts the distinct images in the
    full sphere (both Friedel mates), whatever part of them is in the list. Operations that do not map the lattice of
    fractional indices to itself (an ndiv that breaks the symmetry) raise InputError.
    """
    hkl, operations = np.asarray(hkl, np.int64), _on_lattice(operations, ndiv)
    largest = (np.abs(operations) @ np.abs(hkl).max(axis=0, initial=0)).max(initial=0)
    weights = _weights(largest)
    own = _keys(hkl, weights)
    best, fixed = np.abs(own), np.zeros(len(hkl), np.int64)
    for operation in operations:
        image = _keys(hkl, weights @ operation)
        np.maximum(best, image, out=best)
        fixed += image == own
    _, first, inverse = np.unique(best, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    # |orbit| = |group| / |stabiliser|
    return rank[inverse], len(operations) // fixed[np.sort(first)]


class Lookup:
    """A list of reflections in which the images of some are looked up, up to Friedel mates."""

    def __init__(self, hkl, ndiv):
        self._hkl, self._ndiv = np.asarray(hkl, np.int64), ndiv
        # An operation has sums of up to three indices.
        self._weights = _weights(3 * _largest(self._hkl))
        keys = np.abs(_keys(self._hkl, self._weights))
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def mates(self, some: np.ndarray, operations) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of a reflection of `some` (numbers in the list) and another one of the list that is an image of it."""
        here, there = [], []
        for operation in _on_lattice(operations, self._ndiv):
            image = np.abs(_keys(self._hkl[some], self._weights @ operation))
            place = np.minimum(np.searchsorted(self._keys, image), len(self._keys) - 1)
            found = (self._keys[place] == image) & (self._order[place] != some)
            here.append(some[found])
            there.append(self._order[place[found]])
        return np.concatenate(here), np.concatenate(there)


def maps_lattice(operations, ndiv) -> bool:
    """True where operations map the lattice of fractional indices hkl / ndiv to itself."""
    n = np.asarray(ndiv, np.int64)
    return not np.any(np.asarray(operations, np.int64) * n[:, None] % n)


def _on_lattice(operations, ndiv) -> np.ndarray:
    """Operations acting on hkl instead of hkl / ndiv: N M N^-1, which must stay integer."""
    operations, n = np.asarray(operations, np.int64), np.asarray(ndiv, np.int64)
    scaled = operations * n[:, None]
    if not maps_lattice(operations, ndiv):
        raise InputError(
            f"a supercell of {tuple(int(i) for i in n)} unit cells breaks the symmetry that was asked for",
            remedy="use the same number of cells along equivalent axes, or a lower Laue class",
        )
    return scaled // n


def match(hkl_a, ndiv_a, hkl_b, ndiv_b) -> tuple[np.ndarray, np.ndarray]:
    """Common reflections of two lists up to Friedel mates, by their index in the unit cell, hkl / ndiv.

    Returns (index_a, index_b): all pairs, ordered by index_a then index_b. A list that holds both Friedel mates (a
    measured map) gives a pair for each of them.
    """
    common = np.lcm(ndiv_a, ndiv_b)
    a = np.asarray(hkl_a, np.int64) * (common // np.asarray(ndiv_a))
    b = np.asarray(hkl_b, np.int64) * (common // np.asarray(ndiv_b))
    weights = _weights(max(_largest(a), _largest(b)))
    keys_a, keys_b = np.abs(_keys(a, weights)), np.abs(_keys(b, weights))
    order = np.argsort(keys_b, kind="stable")
    left, right = (np.searchsorted(keys_b[order], keys_a, side=side) for side in ("left", "right"))
    counts = right - left
    index_a = np.repeat(np.arange(len(a)), counts)
    within = np.arange(len(index_a)) - np.repeat(np.cumsum(counts) - counts, counts)
    return index_a, order[np.repeat(left, counts) + within]


def shells(inv_d2, n: int) -> tuple[np.ndarray, np.ndarray]:
    """n resolution shells of equal volume, uniform in d^-3: (shell [H] int64, edges [n + 1] of 1/d in A^-1)."""
    s3 = np.asarray(inv_d2, float) ** 1.5
    low, high = s3.min(), s3.max()
    # The small shift keeps symmetry mates, equal but for rounding, on one side of an edge they lie on.
    scaled = (s3 - low) / (high - low or 1.0) * n + SAME_RESOLUTION
    return np.clip(scaled.astype(np.int64), 0, n - 1), np.cbrt(np.linspace(low, high, n + 1))


def packed(hkl) -> np.ndarray:
    """One int64 for each reflection, [H]: equal for equal reflections of this list, opposite for Friedel mates."""
    return _keys(hkl, _weights(_largest(hkl)))


def _largest(hkl) -> int:
    return int(np.abs(hkl).max(initial=0))


def _weights(largest: int) -> np.ndarray:
    """(1, B, B^2) of the packed key, unique for |h|, |k|, |l| <= largest."""
    base = 2 * int(largest) + 1
    return np.array([1, base, base**2], np.int64)


def _keys(hkl, weights) -> np.ndarray:
    """Packed reflections, int64 [H]; the sign is that of the last index which is not zero (l, then k, then h)."""
    h, k, ell = np.asarray(hkl, np.int64).T
    return h * weights[0] + k * weights[1] + ell * weights[2]
