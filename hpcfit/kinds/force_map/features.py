"""Force maps that change with the configuration: a linear map plus functions of distances that no bead notices.

    W_I(r) = c0_I + sum_jk theta_jk phi_k(d_j(r)) z_j,        A z_j = 0,        F_I = W_I f + kT div W_I

z_j changes the coefficient of the free group j by 1 and of some others such that M W^T = 1 holds at every r; d_j is the
distance from the bead to the centre of group j. As W moves whole rigid groups, d_j changes only by the bead, which z_j
does not move, and by the group itself:

    kT div (phi_k(d_j) z_j) = -kT phi_k'(d_j) u_j,        u_j from the centre of the group to the bead

(the divergence of Ciccotti, Kapral and Vanden-Eijnden, 10.1002/cphc.200400669). phi_0 = 1, so that the linear maps are
among these; the others are even in d and thus smooth where a group lies on the bead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.errors import InputError
from hpcfit.kinds.force_map.bead_choice import Reduced
from hpcfit.physics.equality_qp import minimise, solve_equalities
from hpcfit.physics.internal_coordinates import length, separation
from hpcfit.physics.periodic import check_cutoff
from hpcfit.pytrees import pytree


@pytree
@dataclass(frozen=True)
class Features:
    """The functions of one bead (``features_of``). groups: [k], those with a coefficient; c0: [k].

    x[pivots] = -slope x[free] keeps A x = 0. atoms: [k, s], of each group, the first one repeated where there are fewer
    than s; counted: [k, s], 0 for these repetitions, else 1. bead_atoms, bead_weights: the row of M. centres: [basis],
    width and cutoff of the Gaussians, A.
    """

    groups: np.ndarray
    c0: np.ndarray
    pivots: np.ndarray
    free: np.ndarray
    slope: np.ndarray
    atoms: np.ndarray
    counted: np.ndarray
    bead_atoms: np.ndarray
    bead_weights: np.ndarray
    centres: np.ndarray
    width: float = field(metadata={"static": True})
    cutoff: float = field(metadata={"static": True})

    @property
    def n_features(self) -> int:
        """K = free groups x (1 + Gaussians)."""
        return len(self.free) * (1 + len(self.centres))


def features_of(
    bead: int, reduced: Reduced, C: np.ndarray, groups: np.ndarray, n_gaussians: int, cutoff: float
) -> Features:
    """Functions that change the force map C [N, q] of one bead on some groups (a row of a support; -1 is left out).

    n_gaussians: of each distance, equally spaced from 0 to ``cutoff`` (A), where they end; 0: constants only. Raises
    InputError where the map has coefficients on other groups or on slice forces.
    """
    groups = np.sort(groups[groups >= 0])
    if np.any(np.delete(C[bead], groups)):
        raise InputError(
            f"the force map of bead {reduced.beads.described(bead)} has coefficients outside the {len(groups)} groups"
            " whose distances it is to depend on",
            remedy="start from a local map with the same support",
        )
    A = reduced.A[:, groups]
    null = solve_equalities(A[A.any(axis=1)], np.zeros((int(A.any(axis=1).sum()), 1)))
    members = [np.flatnonzero(reduced.group == group) for group in groups]
    largest = max(map(len, members))
    atoms = np.array([np.append(own, np.full(largest - len(own), own[0])) for own in members])
    counted = np.arange(largest) < reduced.sizes[groups, None]
    row = slice(*reduced.beads.M.indptr[bead : bead + 2])
    return Features(
        groups, C[bead, groups], null.pivots, null.free, null.slope, atoms, counted,
        reduced.beads.M.indices[row], reduced.beads.M.data[row],
        cutoff * np.arange(n_gaussians) / max(n_gaussians, 1), cutoff / max(n_gaussians, 1), float(cutoff),
    )  # fmt: skip


def feature_forces(
    features: Features, positions: np.ndarray, forces: np.ndarray, box: np.ndarray | None, kT: float
) -> jax.Array:
    """h [F, 3, 1 + K], kJ/mol/A: the mapped force of c0, then of each feature, with their divergences.

    positions (A), forces: [F, n, 3], of all atoms; box: [F, 3, 3], cell vectors as rows, or None; kT: kJ/mol. In the
    type of ``forces``. Raises InputError for a cut-off beyond half the box.
    """
    _check_box(features, box)
    return _feature_forces(features, positions, forces, box, kT)


def feature_gram(
    features: Features,
    positions: np.ndarray,
    forces: np.ndarray,
    box: np.ndarray | None,
    kT: float,
    held: np.ndarray | None = None,
) -> jax.Array:
    """Products of h (``feature_forces``), summed over frames and components: [1 + K, 1 + K] float64.

    held: [F] bool, which rows are frames.
    """
    _check_box(features, box)
    if held is None:
        held = np.ones(len(positions), bool)
    return _feature_gram(features, positions, forces, box, kT, held)


def solve_features(gram: np.ndarray, ridge: float = 1e-3) -> np.ndarray:
    """theta [K] of the least mean square of c0's force plus theta's.

    gram: sums or means of ``feature_gram``; ridge: times the mean square of a feature times |theta|^2. Without
    one, distances that few frames have get coefficients that new frames pay for; features that no frame tells apart get
    the smallest theta.
    """
    one = np.zeros((1, len(gram)))
    one[0, 0] = 1
    pull = ridge * np.mean(np.diagonal(gram)[1:]) if len(gram) > 1 else 0.0
    nothing = np.zeros((len(gram), 1))
    return minimise(np.asarray(gram), np.ones(len(gram)), solve_equalities(one, one[:, :1]), pull, nothing)[1:, 0]


def feature_mean_square(theta: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """(1, theta) gram (1, theta), [...]: mean |F_I|^2 per component where gram [..., 1 + K, 1 + K] holds means."""
    x = np.concatenate([[1.0], theta])
    return np.einsum("k,...kl,l->...", x, np.asarray(gram), x)


def mapped_forces(
    features: Features,
    theta: np.ndarray,
    positions: np.ndarray,
    forces: np.ndarray,
    box: np.ndarray | None,
    kT: float,
) -> jax.Array:
    """F_I [F, 3] of the bead, as ``feature_forces``."""
    h = feature_forces(features, positions, forces, box, kT)
    return h[..., 0] + jnp.matmul(h[..., 1:], theta.astype(h.dtype), precision=jax.lax.Precision.HIGHEST)


def coefficients_at(features: Features, theta: np.ndarray, positions: np.ndarray, box: np.ndarray | None) -> np.ndarray:
    """W_I(r) on ``features.groups``, [F, k]."""
    phi, _, _ = (np.asarray(part) for part in _radial(features, positions, box))
    change = np.einsum("fjk,jk->fj", phi, theta.reshape(phi.shape[1:]))
    w = np.tile(features.c0, (len(change), 1))
    w[:, features.free] += change
    w[:, features.pivots] -= change @ features.slope.T
    return w


def _check_box(features: Features, box: np.ndarray | None) -> None:
    if box is not None and len(features.centres):
        check_cutoff(features.cutoff, box)


@jax.jit
def _feature_gram(features, positions, forces, box, kT, held) -> jax.Array:
    h = _feature_forces(features, positions, forces, box, kT) * held[:, None, None]
    rows = h.reshape(-1, h.shape[-1])
    return jnp.matmul(rows.T, rows, precision=jax.lax.Precision.HIGHEST).astype(float)


@jax.jit
def _feature_forces(features: Features, positions, forces, box, kT) -> jax.Array:
    forces = jnp.asarray(forces)
    dtype = forces.dtype
    phi, derivative, u = (part.astype(dtype) for part in _radial(features, positions, box))
    g = jnp.sum(forces[:, features.atoms] * features.counted[:, :, None], axis=2)
    # z_j . g
    across = jnp.einsum("rj,frx->fjx", features.slope.astype(dtype), g[:, features.pivots], precision="highest")
    along = g[:, features.free] - across
    h = phi[:, :, :, None] * along[:, :, None, :] - kT * derivative[:, :, :, None] * u[:, :, None, :]
    h0 = jnp.einsum("a,fax->fx", features.c0.astype(dtype), g, precision="highest")
    return jnp.concatenate([h0[:, :, None], jnp.moveaxis(h.reshape(len(g), -1, 3), 1, 2)], axis=2)


@jax.jit
def _radial(features: Features, positions, box) -> tuple[jax.Array, jax.Array, jax.Array]:
    """phi_k(d_j) and phi_k'(d_j), [F, f, 1 + basis], and u_j [F, f, 3]."""

    def of_frame(r, box):
        v = _from_centres(features, r, box)[features.free]
        d = length(v)
        phi, derivative = jax.jvp(partial(_phi, features), (d,), (jnp.ones_like(d),))
        return phi, derivative, v / jnp.where(d > 0, d, 1)[:, None]

    positions = jnp.asarray(positions)
    if box is None:
        return jax.vmap(partial(of_frame, box=None))(positions)
    return jax.vmap(of_frame)(positions, jnp.asarray(box, positions.dtype))


def _from_centres(features: Features, r: jax.Array, box: jax.Array | None) -> jax.Array:
    """R_I - X_j of the nearest image, [k, 3], of one frame; groups and the bead may lie across the faces of the box."""
    first = r[features.atoms[:, :1]]
    inside = separation(r[features.atoms], first, box)  # 0 for repetitions of the first
    centres = first[:, 0] + jnp.sum(inside, axis=1) / jnp.sum(features.counted, axis=1)[:, None].astype(r.dtype)
    anchor = r[features.bead_atoms[0]]
    own = separation(r[features.bead_atoms], anchor, box)
    bead = anchor + jnp.einsum("i,ix->x", features.bead_weights.astype(r.dtype), own, precision="highest")
    return separation(bead, centres, box)


def _phi(features: Features, d: jax.Array) -> jax.Array:
    """[..., 1 + basis]: 1, then sums of Gaussians around mu and -mu times (1 - (d / cutoff)^2)^3."""
    d = d[..., None]
    mu = features.centres.astype(d.dtype)
    gaussians = sum(jnp.exp(-(((d - sign * mu) / features.width) ** 2) / 2) for sign in (1, -1))
    window = jnp.maximum(1 - (d / features.cutoff) ** 2, 0) ** 3
    return jnp.concatenate([jnp.ones_like(d), gaussians * window], axis=-1)
