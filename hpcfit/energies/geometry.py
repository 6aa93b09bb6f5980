"""Separations in periodic boxes, angles and dihedrals, whose derivatives by JAX stay finite where they vanish.

Values with gradients in closed form, of beads, are those of ``physics.internal_coordinates``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.errors import InputError
from hpcfit.physics.internal_coordinates import length


def minimum_image(separation: jax.Array, box: jax.Array | None, axis: int = -1) -> jax.Array:
    """The shortest of the periodic images of separations, for lengths up to half the box.

    box: rows a, b, c as OpenMM reduces them: a along x, b in the xy plane, |b_x| ≤ a_x/2, |c_x| ≤ a_x/2, |c_y| ≤ b_y/2.
    axis: which one holds x, y and z.
    """
    if box is None:
        return separation
    for component in (2, 1, 0):
        turns = jnp.round(jnp.take(separation, component, axis) / box[component, component])
        separation = separation - jnp.expand_dims(jax.lax.stop_gradient(turns), axis) * _along(
            box[component], separation, axis
        )
    return separation


def orthorhombic_image(separation: jax.Array, box: jax.Array | None, axis: int = -1) -> jax.Array:
    """`minimum_image` for a box with right angles."""
    if box is None:
        return separation
    widths = _along(jnp.diagonal(box), separation, axis)
    return separation - jax.lax.stop_gradient(jnp.round(separation / widths)) * widths


def _along(vector: jax.Array, array: jax.Array, axis: int) -> jax.Array:
    """A vector [3] as an array that lies along an axis of another."""
    shape = [1] * array.ndim
    shape[axis] = 3
    return vector.reshape(shape)


def angle(first: jax.Array, second: jax.Array) -> jax.Array:
    """The angle between vectors [..., 3], 0 to π, as atan2(|u × v|, u · v)."""
    return safe_atan2(length(jnp.cross(first, second)), jnp.sum(first * second, axis=-1))


def dihedral(first: jax.Array, second: jax.Array, third: jax.Array) -> jax.Array:
    """The dihedral of three successive bonds [..., 3], −π to π, 0 for cis (IUPAC)."""
    before, after = jnp.cross(first, second), jnp.cross(second, third)
    sine = length(second) * jnp.sum(first * after, axis=-1)
    return safe_atan2(sine, jnp.sum(before * after, axis=-1))


def safe_atan2(sine: jax.Array, cosine: jax.Array) -> jax.Array:
    """atan2, with derivative 0 at (0, 0)."""
    nowhere = (sine == 0) & (cosine == 0)
    return jnp.arctan2(sine, jnp.where(nowhere, 1.0, cosine))


def volume(box: jax.Array) -> jax.Array:
    """The volume of a reduced box, nm³."""
    return box[0, 0] * box[1, 1] * box[2, 2]


def require_box(box: np.ndarray | None, cutoff: float, *, source: str = "the system") -> None:
    """Raises InputError for a box that is missing, not reduced, or smaller than twice the cut-off."""
    if box is None:
        raise InputError(f"{source} is periodic, but no box is given", remedy="give its box vectors")
    box = np.asarray(box, dtype=float)
    a, b, c = box
    slack = 1e-9 * a[0]
    lower = np.allclose(np.triu(box, 1), 0.0, atol=slack) and min(a[0], b[1], c[2]) > 0
    reduced = 2 * max(abs(b[0]), abs(c[0])) <= a[0] + slack and 2 * abs(c[1]) <= b[1] + slack
    if not (lower and reduced):
        raise InputError(
            f"the box {box.tolist()} of {source} is not in OpenMM's reduced form",
            remedy="reduce it: a along x, b in the xy plane, |b_x| and |c_x| at most a_x/2, |c_y| at most b_y/2",
        )
    if 2 * cutoff > min(a[0], b[1], c[2]) + slack:
        raise InputError(
            f"the box of {source} is {min(a[0], b[1], c[2]):g} nm wide, less than twice the cut-off of {cutoff:g} nm",
            remedy="take a larger box or a shorter cut-off",
        )
