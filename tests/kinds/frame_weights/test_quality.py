"""CC1/2 and CC* of maps with a known signal and known noise: closed forms, both estimators, and their errors."""

import numpy as np
import pytest

from hpcfit.kinds.frame_weights.quality import cc_star, quality_from_halves, quality_from_sigmas

SHELLS = 6
SPREAD = np.linspace(0.5, 2.0, SHELLS)  # of the signal in each shell
NOISE, VOXELS = 2.0, 8  # of a voxel, and how many voxels an orbit has


class Simulated:
    """Orbits of exponential (acentric) or normal signal on a steep radial profile, measured in VOXELS voxels each."""

    def __init__(self, seed, per_shell=400, shape="exponential"):
        rng = np.random.default_rng(seed)
        self.shell = np.repeat(np.arange(SHELLS), per_shell)
        unit = getattr(rng, f"standard_{shape}")(len(self.shell))
        self.signal = 30.0 * (SHELLS - self.shell) + SPREAD[self.shell] * unit
        self.multiplicity = rng.choice([2, 4, 8], len(self.shell), p=[0.1, 0.2, 0.7])
        self.orbit = rng.permutation(np.repeat(np.arange(len(self.shell)), VOXELS))
        self.intensity = self.signal[self.orbit] + NOISE * rng.standard_normal(len(self.orbit))
        self.mean = np.bincount(self.orbit, self.intensity) / VOXELS
        self.sigma = np.full(len(self.mean), NOISE / np.sqrt(VOXELS))

    def from_halves(self):
        voxels = np.argsort(self.orbit, kind="stable").reshape(-1, 2, VOXELS // 2)  # of an orbit in a random order
        halves = self.intensity[voxels].mean(axis=2)
        return quality_from_halves(*halves.T, self.multiplicity, self.shell, SHELLS)

    def from_sigmas(self):
        return quality_from_sigmas(self.mean, self.sigma, self.multiplicity, self.shell, SHELLS)


def true_cc_half(variance):
    return variance / (variance + NOISE**2 / (VOXELS / 2))


@pytest.mark.parametrize("method", ["from_halves", "from_sigmas"])
@pytest.mark.parametrize("shape", ["normal", "exponential"])
def test_both_estimators_find_the_known_precision_within_their_errors(method, shape):
    """100 simulations: their mean is the closed form, and their spread is the error that each of them states."""
    found = [getattr(Simulated(seed, shape=shape), method)() for seed in range(100)]
    for name, expected in (("shells", true_cc_half(SPREAD**2)), ("anisotropic", true_cc_half(np.mean(SPREAD**2)))):
        cc = np.array([getattr(quality, name).cc_half for quality in found])
        error = np.sqrt(np.mean([getattr(quality, name).cc_half_error ** 2 for quality in found], axis=0))
        # The estimators' bias is of the order of CC / n < 0.003; the mean of 100 is known to a tenth of the error.
        np.testing.assert_allclose(cc.mean(axis=0), expected, atol=0.003 + 4 * error.max() / 10)
        # A spread of 100 is known to sqrt(1 / 200) = 7 %. Fisher's z is that of normal values: for exponential ones
        # it is too small, as the class says.
        if (method, shape) != ("from_halves", "exponential"):
            np.testing.assert_allclose(cc.std(axis=0, ddof=1) / error, 1, atol=4 * 0.07 + 0.05)


def test_the_estimators_agree_within_their_errors():
    simulated = Simulated(7)
    for halves, sigmas in zip(simulated.from_halves(), simulated.from_sigmas()):
        combined = np.hypot(halves.cc_half_error, sigmas.cc_half_error)
        assert np.all(np.abs(halves.cc_half - sigmas.cc_half) < 3 * combined)


def test_cc_star_is_the_correlation_with_the_noise_free_signal():
    simulated = Simulated(11, per_shell=5000)
    cc_true = [np.corrcoef(simulated.signal[s], simulated.mean[s])[0, 1] for s in simulated.shell == np.c_[:SHELLS]]
    for quality in (simulated.from_halves(), simulated.from_sigmas()):
        # d CC* / d CC1/2 = 1 / (CC* (1 + CC1/2)^2) < 1.3 here; both sides err by about the stated error at most.
        bound = 4 * 1.3 * quality.shells.cc_half_error
        assert np.all(np.abs(quality.shells.cc_star - cc_true) < bound)


def test_the_total_counts_the_radial_profile_and_the_anisotropic_part_does_not():
    quality = Simulated(3).from_halves()
    assert quality.total.cc_half > 0.999
    assert quality.anisotropic.cc_half < 0.7


def test_a_correlation_is_the_weighted_pearson_of_its_definition():
    rng = np.random.default_rng(5)
    a, b, m = rng.standard_normal(50), rng.standard_normal(50), rng.integers(1, 5, 50)
    quality = quality_from_halves(a, b, m, np.zeros(50, int), 1)
    covariance = np.cov(a, b, fweights=m)  # m copies of each
    expected = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    error = (1 - expected**2) / np.sqrt(m.sum() ** 2 / (m**2).sum() - 3)
    for precision in (quality.total, quality.anisotropic, quality.shells):
        assert precision.cc_half == pytest.approx(expected, rel=1e-12)
        assert precision.cc_half_error == pytest.approx(error, rel=1e-12)


def test_each_shell_mean_that_is_removed_is_a_degree_of_freedom():
    rng = np.random.default_rng(8)
    a, b, shell = rng.standard_normal(12), rng.standard_normal(12), np.repeat([0, 2, 3], 4)
    residual = [v - np.repeat(v.reshape(3, 4).mean(axis=1), 4) for v in (a, b)]
    expected = residual[0] @ residual[1] / np.sqrt((residual[0] @ residual[0]) * (residual[1] @ residual[1]))
    anisotropic = quality_from_halves(a, b, np.full(12, 2), shell, 5).anisotropic
    assert anisotropic.cc_half == pytest.approx(expected, rel=1e-12)
    assert anisotropic.cc_half_error == pytest.approx((1 - expected**2) / np.sqrt(12 - 3 - 2), rel=1e-12)


def test_what_is_undefined_is_nan_and_leaves_the_rest():
    a, b = np.array([1.0, 2.0, 3.0, 5.0, np.nan, 4.0]), np.array([1.1, 2.2, 2.9, 5.3, 3.0, 4.0])
    shell = np.array([0, 0, 0, 0, 0, 2])
    quality = quality_from_halves(a, b, np.ones(6, int), shell, 3)
    assert np.isfinite(quality.shells.cc_half).tolist() == [True, False, False]
    assert quality.shells.cc_half[0] == pytest.approx(np.corrcoef(a[:4], b[:4])[0, 1], rel=1e-12)
    assert np.isfinite(quality.shells.cc_half_error).tolist() == [True, False, False]
    sigmas = quality_from_sigmas(b, np.array([0.1, 0.1, 0.1, 0.1, 0.0, 0.1]), np.ones(6, int), shell, 3)
    assert np.isfinite(sigmas.shells.cc_half).tolist() == [True, False, False]
    assert sigmas.shells.cc_half[0] == pytest.approx((np.var(b[:4], ddof=1) - 0.01) / (np.var(b[:4], ddof=1) + 0.01))
    assert np.isfinite(sigmas.total.cc_half)


def test_cc_star_of_known_values():
    np.testing.assert_allclose(cc_star([1.0, 0.5, 0.0]), [1, np.sqrt(2 / 3), 0], rtol=1e-15)
    assert np.isnan(cc_star(-0.1))
