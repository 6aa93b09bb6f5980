"""The known truth is what it says: its size, the profile of its weights, its statistics, and the noise of its map.

That a fit finds the weights again is for the tests of fits.
"""

import numpy as np
import pytest
from scipy.special import i0

from hpcfit.config import ExperimentConfig
from hpcfit.physics.reciprocal import sphere
from hpcfit.physics.scattering import diffuse_intensity
from hpcfit.readers.maps import read_map
from hpcfit.store.reference import Reflections
from hpcfit.store.structure_factors import open_store
from hpcfit.testsystems import known_truth
from hpcfit.testsystems.argyrodite import all_frames

D_MIN = 5.0  # 3,600 reflections


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("known_truth")
    truth = known_truth.write_known_truth(folder, noise=0.1, d_min=D_MIN, options="laue = '-1'\n")
    return truth, open_store(folder / "frames.store"), read_map(ExperimentConfig(file=folder / "map.npz"))


def populations(seed=0):
    hkl = sphere(known_truth.CELL, (1, 1, 1), D_MIN)
    return known_truth.population_frames(Reflections(hkl, (1, 1, 1), known_truth.CELL, "P 1"), seed)


def test_at_full_size_there_are_fifty_thousand_reflections():
    assert len(sphere(known_truth.CELL, (1, 1, 1), known_truth.D_MIN)) >= 50_000


def test_the_weights_are_smooth_and_have_the_effective_sample_size_of_their_formula():
    w_t = known_truth.true_weights(200)
    assert w_t.sum() == pytest.approx(1, rel=1e-14)
    # A smooth periodic function's sum over 200 points is its integral to rounding.
    assert 1 / np.sum(w_t**2) == pytest.approx(200 * i0(1.61) ** 2 / i0(3.22), rel=1e-12)
    assert 1 / np.sum(w_t**2) == pytest.approx(106, abs=0.5)
    assert np.max(np.abs(np.diff(np.log(w_t)))) <= 1.61 * 2 * np.pi / 200


def test_frames_remember_and_populations_lie_apart():
    F_pth = np.array(populations())
    centred = F_pth - F_pth.mean(axis=1, keepdims=True)
    variance_h = np.mean(np.abs(centred) ** 2, axis=(0, 1))
    product = np.mean((centred[:, 1:] * centred[:, :-1].conj()).real, axis=(0, 1)) / variance_h
    lag = np.abs(np.subtract.outer(np.arange(50), np.arange(50)))
    of_mean = np.mean(0.8**lag)  # variance of the mean of 50 frames, in units of that of one
    # Removing that mean lowers both: (0.8 - of_mean) / (1 - of_mean), but for what the ends of the runs add (1 / 50);
    # the average over 3,600 independent reflections is known to better than that.
    assert product.mean() == pytest.approx((0.8 - of_mean) / (1 - of_mean), abs=0.02)
    apart = np.var(F_pth.mean(axis=1), axis=0, ddof=1) / (variance_h / (1 - of_mean))
    # sum |.|^2 / 3 of 4 complex normal values has a relative spread of sqrt(1 / 3).
    assert apart.mean() == pytest.approx(0.7**2 + of_mean, rel=4 / np.sqrt(3 * len(apart)) + 0.02)


def test_the_map_is_the_truth_to_its_sigma(written):
    truth, store, measured = written
    x = diffuse_intensity(all_frames(store), truth.w_t)
    np.testing.assert_allclose(measured.sigma, 0.1 * x, rtol=5e-3)  # float16 frames: 5e-4 each, twice in a square
    chi2 = np.mean(((measured.intensity - x) / measured.sigma) ** 2)
    assert chi2 == pytest.approx(1, abs=4 * np.sqrt(2 / len(x)))
    equal = diffuse_intensity(all_frames(store), np.full(200, 1 / 200))
    assert np.mean(((measured.intensity - equal) / measured.sigma) ** 2) > 5


def test_frames_come_in_the_order_of_the_weights_and_the_config_names_them(written):
    truth, store, _ = written
    assert [shard.label for shard in store.shards] == [f"population {n}" for n in range(4)]
    assert [shard.first_id for shard in store.shards] == [0, 50, 100, 150]
    assert truth.w_t.shape == (store.n_frames,)
    assert "laue = '-1'" in truth.config.read_text()


def test_the_seed_decides_the_frames():
    assert all(np.array_equal(a, b) for a, b in zip(populations(3), populations(3)))
    assert not np.array_equal(populations(3)[0], populations(4)[0])
