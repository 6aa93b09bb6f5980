"""Polarizable multipoles: charges, dipoles and quadrupoles in local frames, and dipoles that they induce (AMOEBA).

    φ_j(r) = q_j A + d_j·r B + r·Q_j·r C,   A = 1/r, B = 1/r³, C = 3/r⁵, D = 15/r⁷, F = 105/r⁹;   Q traceless
    E_perm = C_e Σ_{i<j} m_ij (q_i + d_i·∇ + Q_i:∇∇) φ_j
    E_ind  = −½ C_e Σ_i μ_i·E_i^p,   μ_i/α_i − Σ_j T_ij μ_j = E_i^d

Fields E and tensors T have B, C, D multiplied by Thole's λ3, λ5, λ7 with w = a r³/√(α_i α_j):

    λ3 = 1 − e^{−w},   λ5 = 1 − (1 + w) e^{−w},   λ7 = 1 − (1 + w + 3/5 w²) e^{−w}

(Ren and Ponder 2003, 10.1021/jp027815+; Ponder and others 2010, 10.1021/jp910674d.) The linear system is solved by
conjugate gradients; derivatives are those of its solution, by one more solve. There is no cut-off and no box.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import cg

from hpcfit.energies.columns import Column
from hpcfit.energies.constants import COULOMB
from hpcfit.physics.internal_coordinates import length
from hpcfit.pytrees import pytree

Z_THEN_X, BISECTOR, NO_AXES = 0, 1, 5  # OpenMM's numbers of the sorts of local frames
TOLERANCE = 1e-12  # of the induced dipoles, relative


class Sites(NamedTuple):
    """Multipoles in the frame of the laboratory: charge [N], dipole [N, 3], quadrupole [N, 3, 3]."""

    charge: jax.Array
    dipole: jax.Array
    quadrupole: jax.Array


@pytree
@dataclass(frozen=True, kw_only=True)
class PolarizableMultipoles:
    """charge: [N] e. dipole: N·3 e nm, quadrupole: N·9 e nm², in local frames. polarizability: [N] nm³. thole: [N].

    frame: [N], which sort; axes: [N, 3], the atoms of z, x and y. permanent, direct, induced: [N, N], what interactions
    are multiplied by: between multipoles, of their fields that polarize (d), and of those in the energy (p).
    """

    charge: Column
    dipole: Column
    quadrupole: Column
    polarizability: Column
    thole: Column
    frame: np.ndarray
    axes: np.ndarray
    permanent: np.ndarray
    direct: np.ndarray
    induced: np.ndarray
    tolerance: float = field(default=TOLERANCE, metadata={"static": True})

    def energy(self, frame, parameters) -> jax.Array:
        """The energy of multipoles and induced dipoles, kJ/mol."""
        separation, r = _separations(frame.positions)
        sites = self._sites(frame.positions, parameters)
        α, thole = self.polarizability.values(parameters), self.thole.values(parameters)
        λ = _damping(r, α, jnp.minimum(thole[:, None], thole))
        field_d, field_p = (
            jnp.sum(scale[..., None] * _field(sites, separation, r, λ), axis=1) for scale in (self.direct, self.induced)
        )
        μ = _induced(separation, r, λ, α, field_d, self.tolerance)
        permanent = 0.5 * jnp.sum(self.permanent * _pair_energy(sites, separation, r))
        return COULOMB * (permanent - 0.5 * jnp.sum(μ * field_p))

    def _sites(self, positions, parameters) -> Sites:
        rotation = self._rotations(positions)
        dipole = self.dipole.values(parameters).reshape(-1, 3)
        quadrupole = self.quadrupole.values(parameters).reshape(-1, 3, 3)
        return Sites(
            self.charge.values(parameters),
            jnp.einsum("nax,na->nx", rotation, dipole),
            jnp.einsum("nax,nab,nby->nxy", rotation, quadrupole, rotation),
        )

    def _rotations(self, positions) -> jax.Array:
        """The axes x, y, z of the local frames as rows, [N, 3, 3]."""
        to_z, to_x = (_unit(positions[self.axes[:, k]] - positions, self.frame != NO_AXES) for k in (0, 1))
        z = _unit(jnp.where((self.frame == BISECTOR)[:, None], to_z + to_x, to_z), self.frame != NO_AXES)
        x = _unit(to_x - jnp.sum(to_x * z, axis=-1, keepdims=True) * z, self.frame != NO_AXES)
        axes = jnp.stack([x, jnp.cross(z, x), z], axis=1)
        return jnp.where((self.frame == NO_AXES)[:, None, None], jnp.eye(3), axes)


def _unit(vectors, there) -> jax.Array:
    vectors = jnp.where(there[:, None], vectors, 1.0)
    return vectors / length(vectors)[:, None]


def _separations(positions) -> tuple[jax.Array, jax.Array]:
    """x_i − x_j [N, N, 3] and its length, with 1 for i = j, which all scales multiply by 0."""
    own = jnp.eye(len(positions), dtype=bool)
    separation = jnp.where(own[..., None], jnp.array([1.0, 0.0, 0.0]), positions[:, None] - positions)
    return separation, jnp.sqrt(jnp.sum(separation**2, axis=-1))


def _damping(r, α, thole) -> tuple[jax.Array, jax.Array, jax.Array]:
    """λ3, λ5, λ7; 1 where an atom is not polarizable."""
    product = α[:, None] * α
    there = product > 0
    w = thole * r**3 / jnp.sqrt(jnp.where(there, product, 1.0))
    e = jnp.where(there, jnp.exp(-w), 0.0)
    return 1 - e, 1 - (1 + w) * e, 1 - (1 + w + 0.6 * w**2) * e


def _dot(one, other) -> jax.Array:
    return jnp.sum(one * other, axis=-1)


def _field(sites: Sites, separation, r, λ) -> jax.Array:
    """−∇φ_j at i, damped, [N, N, 3]."""
    b, c, d = λ[0] / r**3, 3 * λ[1] / r**5, 15 * λ[2] / r**7
    q_r = jnp.einsum("jxy,ijy->ijx", sites.quadrupole, separation)
    along = sites.charge * b + _dot(sites.dipole, separation) * c + _dot(q_r, separation) * d
    return along[..., None] * separation - b[..., None] * sites.dipole - 2 * c[..., None] * q_r


def _pair_energy(sites: Sites, separation, r) -> jax.Array:
    """(q_i + d_i·∇ + Q_i:∇∇) φ_j, [N, N]."""
    a, b, c, d, f = 1 / r, 1 / r**3, 3 / r**5, 15 / r**7, 105 / r**9
    charge, dipole, quadrupole = sites
    q_i, q_j = charge[:, None], charge
    d_i, d_j = _dot(dipole[:, None], separation), _dot(dipole, separation)
    qr_i = jnp.einsum("ixy,ijy->ijx", quadrupole, separation)
    qr_j = jnp.einsum("jxy,ijy->ijx", quadrupole, separation)
    rqr_i, rqr_j = _dot(qr_i, separation), _dot(qr_j, separation)
    potential = q_j * a + d_j * b + rqr_j * c
    slope = -d_i * (q_j * b + d_j * c + rqr_j * d) + dipole @ dipole.T * b + 2 * _dot(dipole[:, None], qr_j) * c
    curvature = rqr_i * (q_j * c + d_j * d + rqr_j * f) - 2 * c * _dot(dipole, qr_i) - 4 * d * _dot(qr_i, qr_j)
    curvature = curvature + 2 * c * jnp.einsum("ixy,jxy->ij", quadrupole, quadrupole)
    return q_i * potential + slope + curvature


def _induced(separation, r, λ, α, fields, tolerance: float) -> jax.Array:
    """The induced dipoles [N, 3] e nm, by conjugate gradients with α as preconditioner; 0 where α is 0."""
    off = 1 - jnp.eye(len(α))
    b, c = off * λ[0] / r**3, off * 3 * λ[1] / r**5
    there = (α > 0)[:, None]
    α = jnp.where(there, α[:, None], 1.0)

    def matrix(μ):
        μ = jnp.where(there, μ, 0.0)
        along = jnp.einsum("ijx,jx->ij", separation, μ)
        others = jnp.einsum("ij,ijx->ix", c * along, separation) - b @ μ
        return jnp.where(there, μ / α - others, μ)

    scale = partial(jnp.multiply, jax.lax.stop_gradient(α))
    return cg(matrix, jnp.where(there, fields, 0.0), tol=tolerance, M=scale)[0]
