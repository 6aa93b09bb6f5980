"""Diffuse intensity of motions without structure: what an ensemble must beat before its correlation means anything.

Displacements are isotropic and Gaussian, u the root mean square along one direction (A), B = 8 pi^2 u^2, q = 2 pi / d.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from hpcfit.physics import reciprocal
from hpcfit.physics.scattering import form_factor


def independent_atoms(elements: Sequence[str], inv_d2: np.ndarray, u: float) -> np.ndarray:
    """Einstein's solid: each atom moves alone, x(h) = sum_j f_j^2 (1 - exp(-q^2 u^2)), [H], electrons^2.

    It depends on |h| alone. inv_d2: [H], A^-2; the same u for all atoms.
    """
    f2_h = sum(count * form_factor(element, inv_d2) ** 2 for element, count in Counter(map(str, elements)).items())
    return f2_h * _lost(inv_d2, u)


def rigid_translations(F_mh: np.ndarray, inv_d2: np.ndarray, u: float) -> np.ndarray:
    """Each molecule is shifted as a whole and alone: x(h) = (1 - exp(-q^2 u^2)) sum_m |F_m(h)|^2, [H], electrons^2.

    F_mh: [M, H] complex, the transform of each molecule at rest.
    """
    return np.sum(np.abs(F_mh) ** 2, axis=0) * _lost(inv_d2, u)


class LiquidLikeMotions:
    """Displacements whose correlation falls with the distance of two atoms as exp(-r / gamma), in the whole crystal.

    x(h) = q^2 u^2 exp(-q^2 u^2) sum_h' |F(h')|^2 G(h - h'),  G(s) ~ 1 / (1 + (2 pi s gamma)^2)^2

    to first order (Caspar, Clarage, Salunke and Clarage, 10.1038/332659a0; Wall, Ealick and Gruner,
    10.1073/pnas.94.12.6180): each Bragg reflection has a halo, the transform of the exponential. F is that of the
    crystal at rest. The sum runs over the reflections given, Friedel mates included, and is divided by that of G over
    them, so that the sphere's edge does not show; x therefore has no absolute scale.

    hkl: [H, 3], one hemisphere of integer indices of `cell`, without 000; intensity: |F|^2, [H].
    """

    def __init__(self, hkl: np.ndarray, intensity: np.ndarray, cell: Sequence[float]):
        self._hkl, self._cell = np.asarray(hkl, int), tuple(cell)
        self._inv_d2 = reciprocal.inverse_d2(hkl, (1, 1, 1), cell)
        self._top = np.abs(self._hkl).max(axis=0)
        self._shape = tuple(4 * self._top + 1)  # of a convolution that does not wrap around
        self._intensity, self._there = self._transform(intensity), self._transform(np.ones(len(self._hkl)))

    def __call__(self, u: float, gamma: float) -> np.ndarray:
        """x at the reflections given, [H]. gamma: A."""
        halo = np.fft.rfftn(self._halo(gamma))
        sums, weights = (
            np.fft.irfftn(there * halo, self._shape, (0, 1, 2)) for there in (self._intensity, self._there)
        )
        place = tuple((self._hkl % self._shape).T)
        q2u2 = 4 * np.pi**2 * self._inv_d2 * u**2
        return q2u2 * np.exp(-q2u2) * sums[place] / weights[place]

    def _transform(self, values: np.ndarray) -> np.ndarray:
        grid = np.zeros(self._shape)
        for hkl in (self._hkl, -self._hkl):
            grid[tuple((hkl % self._shape).T)] = values
        return np.fft.rfftn(grid)

    def _halo(self, gamma: float) -> np.ndarray:
        axes = [np.fft.fftfreq(n, 1 / n) for n in self._shape]
        offsets = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        s2 = reciprocal.inverse_d2(offsets, (1, 1, 1), self._cell)
        return (1 / (1 + 4 * np.pi**2 * s2 * gamma**2) ** 2).reshape(self._shape)


def _lost(inv_d2: np.ndarray, u: float) -> np.ndarray:
    """1 - exp(-q^2 u^2): the share of the intensity that the Bragg reflections have lost."""
    return -np.expm1(-4 * np.pi**2 * np.asarray(inv_d2) * u**2)
