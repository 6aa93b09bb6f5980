"""Force fields and energies of a basis (``cg_basis``) in frames, and the normal equations of force matching.

    Phi_k(R) = -grad u_k = -sum phi_k'(q) grad q                   F_U = sum_k theta_k Phi_k

Nothing is scattered: for each bead and class there is a list of its terms, so the sums have one order on any device.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.bead_models.basis import Basis, Family
from hpcfit.physics.internal_coordinates import COORDINATES
from hpcfit.physics.periodic import check_cutoff

FRAMES_AT_ONCE = 8
TAPER = 2.0  # over how many steps before the cut-off pair functions fall to 0


class NormalEquations(NamedTuple):
    """Sums over frames, of the force fields Phi [F, N, 3, K] of a basis and one or several forces [F, N, 3, maps].

    All may have leading axes: statistical blocks.
    """

    gram: Any  # Phi^T Phi, [K, K], 1/A^2
    rhs: Any  # Phi^T F, [K, maps], kJ/mol/A^2
    square: Any  # F^T F, [maps], (kJ/mol/A)^2
    coverage: Any  # terms of frames that each function saw, [K]
    rows: Any  # components of forces: 3 N frames


def basis_forces(basis: Basis, R: jax.Array, box: jax.Array | None = None) -> jax.Array:
    """Phi [F, N, 3, K], 1/A: the forces of each function at coefficient 1, in the precision of R [F, N, 3] (A).

    box: [F, 3, 3], A, the vectors of the cell as rows, or None. Raises InputError for a cell narrower than twice the
    cut-off.
    """
    _check_box(basis, box)
    return _all_forces(basis, jnp.asarray(R), None if box is None else jnp.asarray(box, jnp.asarray(R).dtype))


def basis_energies(basis: Basis, R: jax.Array, box: jax.Array | None = None) -> jax.Array:
    """u [F, K]: the energies of each function at coefficient 1; otherwise as ``basis_forces``."""
    _check_box(basis, box)
    return _all_energies(basis, jnp.asarray(R), None if box is None else jnp.asarray(box, jnp.asarray(R).dtype))


def normal_equations(
    basis: Basis, R: jax.Array, F: jax.Array, box: jax.Array | None = None, weights: jax.Array | None = None
) -> NormalEquations:
    """The sums of one block of frames, float64, by products in the precision of R [F, N, 3] (A).

    F: [F, N, 3, maps] or [F, N, 3], kJ/mol/A. weights: [F], 1 for a frame and 0 for padding, whose numbers are not
    looked at.
    """
    _check_box(basis, box, weights)
    R = jnp.asarray(R)
    F = jnp.asarray(F, R.dtype)
    F = F[..., None] if F.ndim == 3 else F
    weights = jnp.ones(len(R), R.dtype) if weights is None else jnp.asarray(weights, R.dtype)
    return _sums(basis, R, F, None if box is None else jnp.asarray(box, R.dtype), weights)


def class_functions(family: Family, number: int, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """phi [Q, functions] of one class at coordinates q [Q], and phi' (1/A or 1/rad)."""
    return _functions(family, np.asarray(q, float), np.full(len(q), number), np)


def _check_box(basis: Basis, box: Any, weights: Any = None) -> None:
    if box is not None and basis.cutoff is not None:
        boxes = np.asarray(box)
        check_cutoff(basis.cutoff, boxes if weights is None else boxes[np.asarray(weights) > 0])


@jax.jit
def _all_forces(basis: Basis, R: jax.Array, box: Any) -> jax.Array:
    return each_frame(lambda r, b: _frame(basis, r, b)[0], R, box)


@jax.jit
def _all_energies(basis: Basis, R: jax.Array, box: Any) -> jax.Array:
    return each_frame(lambda r, b: _frame(basis, r, b)[2], R, box)


@jax.jit
def _sums(basis: Basis, R: jax.Array, F: jax.Array, box: Any, weights: jax.Array) -> NormalEquations:
    """Few frames at a time, whose sums of float32 products are added in float64."""

    def piece(_, frames):
        r, f, b, w = frames
        Phi, seen, _ = jax.vmap(lambda *frame: _frame(basis, *frame))(r, b)
        held = (w > 0)[:, None, None, None]
        Phi = jnp.where(held, Phi, 0).reshape(-1, Phi.shape[-1])
        f = jnp.where(held, f, 0).reshape(-1, f.shape[-1])
        product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
        seen = jnp.sum(jnp.where((w > 0)[:, None], seen, 0), axis=0)
        parts = product(Phi.T, Phi), product(Phi.T, f), jnp.sum(jnp.astype(f, float) ** 2, axis=0), seen
        return None, tuple(part.astype(float) for part in parts)

    _, parts = jax.lax.scan(piece, None, _pieces((R, F, box, weights)))
    rows = 3.0 * basis.n_beads * jnp.sum((weights > 0).astype(float))
    return NormalEquations(*(jnp.sum(part, axis=0) for part in parts), rows)


def each_frame(function: Any, R: jax.Array, box: Any) -> Any:
    """``function(R, box)`` of each frame."""
    found = jax.lax.map(lambda piece: jax.vmap(function)(*piece), _pieces((R, box)))
    return found.reshape(-1, *found.shape[2:])[: len(R)]


def _pieces(frames: Any) -> Any:
    """Leaves [F, ...] as [pieces, frames of a piece, ...], with zeros at the end."""
    n = len(jax.tree.leaves(frames)[0])
    at_once = min(FRAMES_AT_ONCE, max(n, 1))
    padded = lambda a: jnp.concatenate([a, jnp.zeros((-n % at_once, *a.shape[1:]), a.dtype)])  # noqa: E731
    return jax.tree.map(lambda a: padded(a).reshape(-1, at_once, *a.shape[1:]), frames)


def _frame(basis: Basis, R: jax.Array, box: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Phi [N, 3, K], how many terms each function saw [K], and u [K] of one frame."""
    parts = [_family(family, basis.n_beads, R, box) for family in basis.families]
    return tuple(jnp.concatenate(part, axis=-1) for part in zip(*parts))


def _family(family: Family, n_beads: int, R: jax.Array, box: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    q, gradient = COORDINATES[family.kind](R, family.beads, box)
    values, slopes = _functions(family, q, family.group)
    size, shape = gradient.shape[1], (len(family.labels), family.functions)
    # A last row of zeros is what padding points to.
    gradient = jnp.concatenate([gradient.reshape(-1, 3), jnp.zeros((1, 3), R.dtype)])[family.slots]
    of_slots = jnp.concatenate([slopes, jnp.zeros((1, family.functions), R.dtype)])[family.slots // size]
    forces = -jnp.einsum("slk,slx->sxk", of_slots, gradient, precision=jax.lax.Precision.HIGHEST)
    Phi = (
        jnp.zeros((n_beads, shape[0], 3, shape[1]), R.dtype)
        .at[family.slot_bead, family.slot_class]
        .set(forces, unique_indices=True)
    )
    member = (family.group == jnp.arange(shape[0])[:, None]).astype(R.dtype)
    of_classes = lambda terms: jnp.matmul(member, terms, precision=jax.lax.Precision.HIGHEST).ravel()  # noqa: E731
    seen = of_classes(_seen(family, q).astype(R.dtype))
    return Phi.swapaxes(1, 2).reshape(n_beads, 3, -1), seen, of_classes(values)


def _seen(family: Family, q: jax.Array) -> jax.Array:
    """[T, functions]: whether a coordinate lies where the function is felt."""
    centres = jnp.asarray(family.centres, q.dtype)[family.group]
    reach = jnp.asarray(family.reach, q.dtype)[family.group][:, None]
    u = _clamped(family, q, family.group)[:, None] - centres
    u = (u + np.pi) % (2 * np.pi) - np.pi if family.periodic else u
    inside = jnp.abs(u) < reach
    return inside & (q < jnp.asarray(family.high, q.dtype)[family.group])[:, None] if family.cut else inside


def _functions(family: Family, q: Any, group: Any, xp: Any = jnp) -> tuple[Any, Any]:
    """phi [T, functions] of terms of these classes, and phi'; xp: NumPy or jax.numpy, whatever q is of."""
    step = xp.asarray(family.step, q.dtype)[group][:, None]
    inside = _clamped(family, q, group, xp)[:, None]
    u = (inside - xp.asarray(family.centres, q.dtype)[group]) / step
    if family.periodic:
        u = (u + family.functions / 2) % family.functions - family.functions / 2
    if family.shape == "b-spline":
        values, slopes = _b_spline(u, xp)
        slopes = slopes / step
        # beyond the range the energy goes on straight
        return values + slopes * (q[:, None] - inside), slopes
    values = xp.exp(-0.5 * (u / family.width) ** 2)
    slopes = -values * u / family.width**2 / step
    if not family.cut:
        return values, slopes
    end = xp.asarray(family.high, q.dtype)[group][:, None]
    taper, its_slope = _taper(q[:, None], end - TAPER * step, end, xp)
    return values * taper, slopes * taper + values * its_slope


def _clamped(family: Family, q: Any, group: Any, xp: Any = jnp) -> Any:
    """The coordinate, or the end of the range that it lies beyond, where functions go on straight."""
    if family.shape == "gaussian" or family.periodic:
        return q
    low, high = (xp.asarray(end, q.dtype)[group] for end in (family.low, family.high))
    return xp.maximum(q, low) if family.cut else xp.clip(q, low, high)


def _b_spline(u: Any, xp: Any) -> tuple[Any, Any]:
    """The cubic B-spline on knots -2, -1, 0, 1, 2, and its derivative."""
    a = xp.abs(u)
    outer = xp.maximum(2 - a, 0)
    values = xp.where(a < 1, 2 / 3 - a * a + a**3 / 2, outer**3 / 6)
    return values, xp.sign(u) * xp.where(a < 1, -2 * a + 1.5 * a * a, -(outer**2) / 2)


def _taper(r: Any, begin: Any, end: Any, xp: Any) -> tuple[Any, Any]:
    """From 1 to 0 with two continuous derivatives, 1 - x^3 (10 - 15 x + 6 x^2), and its derivative."""
    x = xp.clip((r - begin) / (end - begin), 0, 1)
    return 1 - x**3 * (10 - 15 * x + 6 * x * x), -30 * x * x * (1 - x) ** 2 / (end - begin)
