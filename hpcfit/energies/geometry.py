"""Separations in periodic boxes, angles and dihedrals, with derivatives that stay finite where they vanish.

Angles and dihedrals take vectors by component, [3, ...], which vectorises, and have their derivatives in closed form:
differentiated step by step, XLA would compute what is common to the components once for each of them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.errors import InputError


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


def length(vectors: jax.Array, axis: int = -1) -> jax.Array:
    """|v| of vectors whose x, y and z lie along an axis; its derivative at 0 is 0."""
    return safe_sqrt(jnp.sum(vectors * vectors, axis=axis))


def safe_sqrt(value: jax.Array) -> jax.Array:
    """√x; its derivative at 0 is 0."""
    positive = value > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, value, 1.0)), jnp.where(value == 0, 0.0, jnp.nan))


@jax.custom_jvp
def angle(first: jax.Array, second: jax.Array) -> jax.Array:
    """The angle between vectors [3, ...], 0 to π, as atan2(|u × v|, u · v); where they are parallel its derivative
    is 0."""
    return safe_atan2(length(cross(first, second), axis=0), dot(first, second))


@angle.defjvp
def _(vectors, tangents):
    """∂θ/∂u = u × n/(|u|² |n|),   ∂θ/∂v = n × v/(|v|² |n|),   n = u × v."""
    u, v = vectors
    n = cross(u, v)
    size = length(n, axis=0)
    of_u, of_v = cross(u, n) * _inverse(dot(u, u) * size), cross(n, v) * _inverse(dot(v, v) * size)
    return angle(u, v), dot(of_u, tangents[0]) + dot(of_v, tangents[1])


@jax.custom_jvp
def dihedral(first: jax.Array, second: jax.Array, third: jax.Array) -> jax.Array:
    """The dihedral of three successive bonds [3, ...], −π to π, 0 for cis (IUPAC); where two of them are parallel the
    parts of its derivative that are not defined are 0."""
    before, after = cross(first, second), cross(second, third)
    return safe_atan2(length(second, axis=0) * dot(first, after), dot(before, after))


@dihedral.defjvp
def _(bonds, tangents):
    """∂φ/∂b1 = |b2|/|m|² m,   ∂φ/∂b3 = |b2|/|n|² n,   ∂φ/∂b2 = −(b1·b2/|b2|²) ∂φ/∂b1 − (b3·b2/|b2|²) ∂φ/∂b3, with
    m = b1 × b2 and n = b2 × b3 (Blondel and Karplus 1996, J. Comput. Chem. 17, 1132)."""
    one, two, three = bonds
    before, after, squared = cross(one, two), cross(two, three), dot(two, two)
    size = safe_sqrt(squared)
    of_one = before * (size * _inverse(dot(before, before)))
    of_three = after * (size * _inverse(dot(after, after)))
    along = _inverse(squared)
    of_two = -(dot(one, two) * along) * of_one - (dot(three, two) * along) * of_three
    along_bonds = zip((of_one, of_two, of_three), tangents)
    return dihedral(*bonds), sum(dot(slope, tangent) for slope, tangent in along_bonds)


def dot(u: jax.Array, v: jax.Array) -> jax.Array:
    """u · v of vectors [3, ...]."""
    return jnp.sum(u * v, axis=0)


def cross(u: jax.Array, v: jax.Array) -> jax.Array:
    """u × v of vectors [3, ...]."""
    (a, b, c), (d, e, f) = u, v
    return jnp.stack([b * f - c * e, c * d - a * f, a * e - b * d])


def _inverse(value: jax.Array) -> jax.Array:
    """1/x, and 0 of 0."""
    return jnp.where(value == 0, 0.0, 1 / jnp.where(value == 0, 1.0, value))


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
