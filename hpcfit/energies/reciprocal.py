"""The reciprocal part of Ewald's sum: on a mesh (smooth particle-mesh Ewald), or over its waves.

    E = C/(2π V) Σ_{m ≠ 0} exp(−π² |m|²/α²)/|m|² B(m) |S(m)|²      m = h a* + k b* + l c*, 1/nm

S(m) is the Fourier transform of the charges spread by cardinal B-splines M_5 along each axis, and
B(m) = Π_axes 1/|Σ_k M_5(k + 1) e^{2πi m k/K}|²  (Essmann and others 1995, 10.1063/1.470117). Energies are without C.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from hpcfit.energies.geometry import volume
from hpcfit.pytrees import pytree

ORDER = 5  # of the B-splines, as OpenMM's


@pytree
@dataclass(frozen=True)
class Mesh:
    """Smooth particle-mesh Ewald. moduli: 1/B along each axis. size: points of the mesh along a, b and c."""

    moduli: tuple[np.ndarray, np.ndarray, np.ndarray]
    size: tuple[int, int, int] = field(metadata={"static": True})

    def energy(self, positions, charge, box, alpha: float) -> jax.Array:
        """The energy of charges [N] e, divided by C."""
        inverse = jnp.linalg.inv(box)
        spread = jnp.fft.rfftn(self._spread(positions @ inverse, charge))
        m_squared = self._squared(inverse)
        there = m_squared > 0
        m_squared = jnp.where(there, m_squared, 1.0)
        influence = jnp.where(there, jnp.exp(-((np.pi / alpha) ** 2) * m_squared) / m_squared, 0.0)
        along = np.arange(spread.shape[2])
        twice = np.where((along == 0) | (2 * along == self.size[2]), 1.0, 2.0)  # l and −l
        a, b, c = self.moduli
        influence = influence * (twice / c[: len(along)]) / (a[:, None, None] * b[:, None])
        return jnp.sum(influence * (spread.real**2 + spread.imag**2)) / (2 * np.pi * volume(box))

    def _squared(self, inverse) -> jax.Array:
        """|m|² of the half of the mesh, [K1, K2, K3/2 + 1]."""
        h, k = (jnp.fft.fftfreq(size, 1 / size) for size in self.size[:2])
        l = jnp.arange(self.size[2] // 2 + 1)
        waves = h[:, None, None, None] * inverse[:, 0] + k[:, None, None] * inverse[:, 1] + l[:, None] * inverse[:, 2]
        return jnp.sum(waves**2, axis=-1)

    def _spread(self, fractional, charge) -> jax.Array:
        """The charges on the mesh, [K1, K2, K3]."""
        size = np.array(self.size)
        place = (fractional - jax.lax.stop_gradient(jnp.floor(fractional))) * size
        cell = jax.lax.stop_gradient(jnp.floor(place))
        weights = b_spline(place - cell)  # [N, 3, ORDER]
        point = (cell[..., None].astype(int) + np.arange(ORDER)) % size[:, None]
        x, y, z = jnp.moveaxis(point, 1, 0)
        wx, wy, wz = jnp.moveaxis(weights, 1, 0)
        flat = (x[:, :, None, None] * size[1] + y[:, None, :, None]) * size[2] + z[:, None, None, :]
        amount = charge[:, None, None, None] * wx[:, :, None, None] * wy[:, None, :, None] * wz[:, None, None, :]
        return jnp.zeros(math.prod(self.size)).at[flat.ravel()].add(amount.ravel()).reshape(self.size)


def mesh(size: tuple[int, int, int]) -> Mesh:
    """A mesh of so many points along a, b and c."""
    return Mesh(tuple(_moduli(points) for points in size), tuple(size))


def b_spline(fraction: jax.Array) -> jax.Array:
    """M_5(u), … at the points at and after a place: [..., ORDER], by the fraction [...] of the place in its cell.

    M_n(u) = (u M_{n−1}(u) + (n − u) M_{n−1}(u − 1))/(n − 1).
    """
    values = [1 - fraction, fraction]  # M_2(u) at points 0 and 1 after the place
    for order in range(3, ORDER + 1):
        before, after = [jnp.zeros_like(fraction), *values], [*values, jnp.zeros_like(fraction)]
        values = [
            ((fraction + order - 1 - j) * b + (1 - fraction + j) * a) / (order - 1)
            for j, (b, a) in enumerate(zip(before, after))
        ]
    return jnp.stack(values, axis=-1)


def _moduli(points: int) -> np.ndarray:
    """|Σ_k M_5(k + 1) e^{2πi m k/K}|² for each m; where it vanishes, the mean of its neighbours."""
    knots = np.zeros(points)
    knots[:ORDER] = [1 / 24, 11 / 24, 11 / 24, 1 / 24, 0][:ORDER]
    found = np.abs(np.fft.fft(knots)) ** 2
    mean = 0.5 * (np.roll(found, 1) + np.roll(found, -1))
    return np.where(found < 1e-7, mean, found)


@pytree
@dataclass(frozen=True)
class Waves:
    """Ewald's sum itself, for few charges. waves: [W, 3], integers h, k, l of one half of the waves."""

    waves: np.ndarray

    def energy(self, positions, charge, box, alpha: float) -> jax.Array:
        """The energy of charges [N] e, divided by C."""
        inverse = jnp.linalg.inv(box)
        phase = 2 * np.pi * (positions @ inverse) @ self.waves.T
        m_squared = jnp.sum((self.waves @ inverse.T) ** 2, axis=-1)
        amplitude = (charge @ jnp.cos(phase)) ** 2 + (charge @ jnp.sin(phase)) ** 2
        influence = 2 * jnp.exp(-((np.pi / alpha) ** 2) * m_squared) / m_squared
        return jnp.sum(influence * amplitude) / (2 * np.pi * volume(box))


def waves(most: tuple[int, int, int]) -> Waves:
    """The waves with |h|, |k|, |l| at most as given, without 0 and one of each pair ±."""
    grid = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in most), indexing="ij"), axis=-1).reshape(-1, 3)
    half = [tuple(wave) > (0, 0, 0) for wave in grid.tolist()]
    return Waves(grid[half].astype(float))
