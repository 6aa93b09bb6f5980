"""Null models: against displacements drawn at random, and against sums and integrals written out."""

import numpy as np
import pytest
from scipy.integrate import quad

from hpcfit.physics import reciprocal
from hpcfit.physics.null_models import LiquidLikeMotions, independent_atoms, rigid_translations
from hpcfit.physics.scattering import diffuse_intensity, form_factor

CELL = (10.0, 11.0, 12.0, 90.0, 90.0, 90.0)
HKL = reciprocal.sphere(CELL, (1, 1, 1), 3.0)
INV_D2 = reciprocal.inverse_d2(HKL, (1, 1, 1), CELL)
ELEMENTS = ["C", "S", "O", "C", "H"]
ATOMS = np.random.default_rng(0).random((5, 3))
FRAMES = 4000


def frames(shift_tj):
    """F_th of atoms shifted by so many A, [T, 5, 3]."""
    f_jh = np.array([form_factor(element, INV_D2) for element in ELEMENTS])
    phase_tjh = (ATOMS + shift_tj / CELL[:3]) @ HKL.T
    return np.einsum("jh,tjh->th", f_jh, np.exp(2j * np.pi * phase_tjh))


def sampled(F_th):
    """x(h) and the standard error of it, [H]."""
    squared = np.abs(F_th - F_th.mean(axis=0)) ** 2
    return diffuse_intensity(F_th, np.full(len(F_th), 1 / len(F_th))), squared.std(axis=0) / np.sqrt(len(F_th))


@pytest.mark.parametrize("u", [0.2, 0.8])
def test_independent_atoms_are_what_random_shifts_of_each_give(u):
    x, error = sampled(frames(u * np.random.default_rng(1).standard_normal((FRAMES, 5, 3))))
    # 5 sigma for some 180 reflections; <F> itself is sampled, which takes the share 1 / T away
    assert np.all(np.abs(independent_atoms(ELEMENTS, INV_D2, u) * (1 - 1 / FRAMES) - x) < 5 * error)


@pytest.mark.parametrize("u", [0.2, 0.8])
def test_rigid_molecules_are_what_random_shifts_of_each_give(u):
    shift = u * np.random.default_rng(2).standard_normal((FRAMES, 2, 3))
    x, error = sampled(frames(shift[:, [0, 0, 0, 1, 1]]))
    f_jh = np.array([form_factor(element, INV_D2) for element in ELEMENTS]) * np.exp(2j * np.pi * ATOMS @ HKL.T)
    expected = rigid_translations(np.array([f_jh[:3].sum(axis=0), f_jh[3:].sum(axis=0)]), INV_D2, u)
    assert np.all(np.abs(expected * (1 - 1 / FRAMES) - x) < 5 * error)


def test_small_shifts_scatter_as_their_square():
    # 1 - exp(-t) = t (1 - t / 2 + ...), t = q^2 u^2 < 5e-8 here
    ratio = independent_atoms(ELEMENTS, INV_D2, 1e-4) / independent_atoms(ELEMENTS, INV_D2, 1e-5)
    np.testing.assert_allclose(ratio, 100, rtol=5e-8)


def test_a_halo_is_the_transform_of_the_correlation():
    """Each pair of reflections by itself, the kernel as an integral of exp(-r / gamma) over space."""
    gamma, u = 3.0, 0.3
    hkl = HKL[::20]
    intensity = np.random.default_rng(3).random(len(hkl))
    full, doubled = np.concatenate([hkl, -hkl]), np.tile(intensity, 2)
    difference = (hkl[:, None] - full).reshape(-1, 3)
    s2, inverse = np.unique(reciprocal.inverse_d2(difference, (1, 1, 1), CELL), return_inverse=True)
    halo = np.array([transform(2 * np.pi * np.sqrt(one), gamma) for one in s2])[inverse].reshape(len(hkl), len(full))
    q2u2 = 4 * np.pi**2 * reciprocal.inverse_d2(hkl, (1, 1, 1), CELL) * u**2
    expected = q2u2 * np.exp(-q2u2) * (halo @ doubled) / halo.sum(axis=1)
    # the accuracy of the integrals, absolute 1.5e-8 of 8 pi gamma^3 = 680
    np.testing.assert_allclose(LiquidLikeMotions(hkl, intensity, CELL)(u, gamma), expected, rtol=1e-7)


def transform(q, gamma):
    """4 pi times the integral of r^2 exp(-r / gamma) sin(q r) / (q r)."""
    return 4 * np.pi * quad(lambda r: r**2 * np.exp(-r / gamma) * np.sinc(q * r / np.pi), 0, 40 * gamma, limit=500)[0]


def test_the_limits_of_the_range():
    intensity, u = np.random.default_rng(4).random(len(HKL)), 0.3
    motions, q2u2 = LiquidLikeMotions(HKL, intensity, CELL), 4 * np.pi**2 * INV_D2 * u**2
    # all move together: each keeps its own intensity, the neighbours' share is (2 pi gamma / 12 A)^-4 = 1e-19
    np.testing.assert_allclose(motions(u, 1e5), q2u2 * np.exp(-q2u2) * intensity, rtol=1e-12)
    # none moves with another: nothing of the pattern is left
    np.testing.assert_allclose(motions(u, 0.0), q2u2 * np.exp(-q2u2) * intensity.mean(), rtol=1e-12)
