"""Hessians of stored frames, and the normal modes of a frame at rest.

A Hessian is made of products with unit vectors, in slabs of columns: [3N, slab] numbers at a time beside the result,
which may be dealt out (``columns``). Modes are those of M^-1/2 H M^-1/2; particles without mass follow others and have
no coordinates of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SLAB = 48  # columns side by side
LIGHT = 2.99792458e-2  # cm/ps


def columns(energy: Callable[[Any], Any], x: Any, numbers: Any) -> jax.Array:
    """Columns of the Hessian, [n, 3N] kJ/mol/nm^2, by their numbers [n], those of 3 atom + axis.

    energy: of positions [N, 3] nm, kJ/mol. Such columns are what may be dealt out to ranks.
    """
    x = jnp.asarray(x)
    _, along = jax.linearize(jax.grad(energy), x)
    unit = lambda number: jnp.zeros(x.size).at[number].set(1.0).reshape(x.shape)  # noqa: E731
    return jax.lax.map(lambda number: along(unit(number)).ravel(), jnp.asarray(numbers), batch_size=SLAB)


@partial(jax.jit, static_argnums=0)
def hessians(energy: Callable[[Any], Any], frames: Any) -> jax.Array:
    """The Hessians of frames [T, N, 3], one after another, [T, 3N, 3N] kJ/mol/nm^2."""
    whole = jnp.arange(np.prod(frames.shape[1:]))
    return jax.lax.map(lambda x: columns(energy, x, whole), frames)


def mass_weighted(hessian: Any, masses: Any) -> np.ndarray:
    """M^-1/2 H M^-1/2 of particles that have a mass, [..., 3n, 3n] 1/ps^2; masses: [N] amu."""
    root = np.repeat(np.sqrt(np.asarray(masses, float)), 3)
    heavy = np.flatnonzero(root)
    return np.asarray(hessian)[..., heavy[:, None], heavy] / np.outer(root[heavy], root[heavy])


class Modes(NamedTuple):
    """frequencies: [K] cm^-1 in their order, negative for imaginary ones; directions: [K, n, 3], mass-weighted
    displacements of length 1 of the n particles with a mass."""

    frequencies: np.ndarray
    directions: np.ndarray


def normal_modes(hessian: Any, masses: Any) -> Modes:
    """The normal modes of a Hessian [3N, 3N] kJ/mol/nm^2; a free molecule has six with frequency 0, a linear one five.

    masses: [N] amu.
    """
    squares, vectors = np.linalg.eigh(mass_weighted(hessian, masses))
    frequencies = np.sign(squares) * np.sqrt(np.abs(squares)) / (2 * np.pi * LIGHT)
    return Modes(frequencies, vectors.T.reshape(len(squares), -1, 3))
