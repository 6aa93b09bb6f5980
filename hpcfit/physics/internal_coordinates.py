"""Distances, angles and dihedrals of beads with their gradients, and which of them a bond graph has.

    u = R_i - R_j of the nearest images;  r = |u|;  theta = angle(i, j, k);  phi = dihedral(i, j, k, l), in (-pi, pi]

The nearest image is found by rounding fractional coordinates, which is exact in any cell for distances below half its
smallest width between opposite faces: |s_i| = |u . a*_i| <= r / width_i < 1/2. Beyond that a distance comes out at
least as long as the true one, so a cut-off below half the width sees all pairs right, in a triclinic cell too.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse

from hpcfit.errors import InputError


class BondedTerms(NamedTuple):
    """The bonds [b, 2], angles [a, 3] (the middle bead second) and dihedrals [d, 4] of a bond graph, each once."""

    bonds: np.ndarray
    angles: np.ndarray
    dihedrals: np.ndarray


def bonded_terms(n: int, bonds: np.ndarray) -> BondedTerms:
    """All terms of the bonds [b, 2] between n beads, in ascending order of their beads.

    Raises InputError for a bond of a bead that is not there, or of a bead with itself.
    """
    pairs = _sorted_bonds(n, bonds)
    neighbours: list[list[int]] = [[] for _ in range(n)]
    for i, j in pairs:
        neighbours[i].append(int(j))
        neighbours[j].append(int(i))
    angles = [(i, j, k) for j in range(n) for i, k in itertools.combinations(sorted(neighbours[j]), 2)]
    dihedrals = [
        (i, j, k, l)
        for j, k in pairs.tolist()
        for i in sorted(neighbours[j])
        for l in sorted(neighbours[k])
        if i != k and l != j and i != l
    ]  # fmt: skip
    return BondedTerms(pairs, np.array(angles, int).reshape(-1, 3), np.array(dihedrals, int).reshape(-1, 4))


def pairs_beyond(n: int, bonds: np.ndarray, exclude: int) -> np.ndarray:
    """The pairs [p, 2] of n beads that are more than ``exclude`` bonds apart, or not joined at all; i < j."""
    pairs = _sorted_bonds(n, bonds)
    both_ways = np.concatenate([pairs, pairs[:, ::-1]]).T
    adjacent = scipy.sparse.csr_array((np.ones(2 * len(pairs), bool), both_ways), (n, n))
    reached = near = scipy.sparse.eye_array(n, dtype=bool, format="csr")
    for _ in range(exclude):
        reached = reached @ adjacent
        near = near + reached
    i, j = np.triu_indices(n, 1)
    return np.stack([i, j], axis=1)[~near.toarray()[i, j]]


def _sorted_bonds(n: int, bonds: np.ndarray) -> np.ndarray:
    pairs = np.unique(np.sort(np.asarray(bonds, int).reshape(-1, 2), axis=1), axis=0)
    wrong = (pairs[:, 0] < 0) | (pairs[:, 1] >= n) | (pairs[:, 0] == pairs[:, 1])
    if wrong.any():
        raise InputError(
            f"bond {tuple(pairs[wrong][0].tolist())} cannot be among {n} beads",
            remedy="number the beads from 0, and bind each to others only",
        )
    return pairs


# ---- values and gradients of one frame, R [N, 3] -----------------------------------------------------------------


def separation(a: jax.Array, b: jax.Array, box: jax.Array | None) -> jax.Array:
    """a - b of the nearest images, [..., 3]; box: [3, 3] with the cell's vectors as rows, or None."""
    u = a - b
    if box is None:
        return u
    exact = jax.lax.Precision.HIGHEST
    images = jnp.round(jnp.matmul(u, jnp.linalg.inv(box), precision=exact))
    return u - jnp.matmul(jax.lax.stop_gradient(images), box, precision=exact)


def distances(R: jax.Array, beads: np.ndarray, box: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """r [T] of beads [T, 2] and its gradients [T, 2, 3]; 0 for beads on the same place."""
    u = separation(R[beads[:, 0]], R[beads[:, 1]], box)
    r = length(u)
    n = u / _at_least(r, u.dtype)[:, None]
    return r, jnp.stack([n, -n], axis=1)


def angles(R: jax.Array, beads: np.ndarray, box: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """theta [T] in [0, pi] of beads [T, 3] and its gradients [T, 3, 3]; 0 for a straight angle, which has none."""
    a = separation(R[beads[:, 0]], R[beads[:, 1]], box)
    c = separation(R[beads[:, 2]], R[beads[:, 1]], box)
    normal = jnp.cross(a, c)
    theta = jnp.arctan2(length(normal), jnp.sum(a * c, axis=-1))
    n = normal / _at_least(length(normal), R.dtype)[:, None]
    # d theta / d a lies in the plane, at right angles to a, and points away from c.
    of_a = jnp.cross(a, n) / _at_least(jnp.sum(a * a, axis=-1), R.dtype)[:, None]
    of_c = jnp.cross(n, c) / _at_least(jnp.sum(c * c, axis=-1), R.dtype)[:, None]
    return theta, jnp.stack([of_a, -of_a - of_c, of_c], axis=1)


def dihedrals(R: jax.Array, beads: np.ndarray, box: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """phi [T] in (-pi, pi] of beads [T, 4], 0 for cis, and its gradients [T, 4, 3].

    Blondel and Karplus 1996, 10.1002/(SICI)1096-987X(19960715)17:9<1132::AID-JCC5>3.0.CO;2-T.
    """
    i, j, k, l = (R[beads[:, place]] for place in range(4))
    f, g, h = separation(i, j, box), separation(j, k, box), separation(l, k, box)
    a, b, g_length = jnp.cross(f, g), jnp.cross(h, g), length(g)
    phi = jnp.arctan2(jnp.sum(jnp.cross(b, a) * g, axis=-1) / _at_least(g_length, R.dtype), jnp.sum(a * b, axis=-1))
    over = lambda vector: vector / _at_least(jnp.sum(vector * vector, axis=-1), R.dtype)[:, None]  # noqa: E731
    of_i, of_l = -g_length[:, None] * over(a), g_length[:, None] * over(b)
    along = (jnp.sum(f * g, axis=-1) / _at_least(g_length, R.dtype))[:, None] * over(a)
    against = (jnp.sum(h * g, axis=-1) / _at_least(g_length, R.dtype))[:, None] * over(b)
    shift = along - against
    return phi, jnp.stack([of_i, -of_i + shift, -shift - of_l, of_l], axis=1)


def length(vectors: jax.Array, axis: int = -1) -> jax.Array:
    """|v| of vectors whose x, y and z lie along an axis; its derivative at 0 is 0."""
    return safe_sqrt(jnp.sum(vectors * vectors, axis=axis))


def safe_sqrt(value: jax.Array) -> jax.Array:
    """√x; its derivative at 0 is 0."""
    positive = value > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, value, 1.0)), jnp.where(value == 0, 0.0, jnp.nan))


def _at_least(values: jax.Array, dtype: np.dtype) -> jax.Array:
    """Fit to divide by: nothing that is 0."""
    return jnp.maximum(values, jnp.asarray(jnp.finfo(dtype).tiny ** 0.5, dtype))


COORDINATES = {"pairs": distances, "bonds": distances, "angles": angles, "dihedrals": dihedrals}
