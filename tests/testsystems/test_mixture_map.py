"""The map of a mixture: the law of mixing, the statistics of its noise, and what the mask hides."""

import numpy as np
import pytest

from hpcfit.testsystems.mixture_map import OVERLOAD, Detector, State, detect, mixture_intensity, usable


def test_mixing_two_states_adds_their_difference():
    generator = np.random.default_rng(3)
    f_a, f_b = (generator.normal(size=(t, 30)) + 1j * generator.normal(size=(t, 30)) for t in (5, 8))
    p = 0.7
    # Var = p Var_A + (1-p) Var_B + p (1-p) |<F>_A - <F>_B|^2, whatever the numbers of frames.
    expected = p * f_a.var(axis=0) + (1 - p) * f_b.var(axis=0) + p * (1 - p) * abs(f_a.mean(0) - f_b.mean(0)) ** 2
    assert mixture_intensity([State(f_a, p), State(f_b, 1 - p)]) == pytest.approx(expected, rel=1e-12)


def test_sigma_is_the_scatter_of_the_measured_intensity():
    n = 200_000
    intensity = np.repeat([20.0, 100.0, 500.0], n // 3 + 1)[:n]
    use = np.ones(n, bool)
    measured, sigma = detect(Detector(), intensity, use, seed=5)
    for value in (20.0, 100.0, 500.0):
        pull = ((measured - value) / sigma)[intensity == value]
        # The scatter of a standard deviation from m values is 1/sqrt(2m) = 0.3 %. sigma is estimated from counts (at
        # least 38 here, with 1 added), which moves the width of the pulls by up to 1/(2 * 38) + 1/38 = 4 %.
        assert pull.std() == pytest.approx(1, abs=0.04 + 5 / np.sqrt(2 * len(pull)))
    assert measured.mean() == pytest.approx(intensity.mean(), rel=5 * 0.12 / np.sqrt(n))


def test_masked_voxels_hold_an_overload_and_do_not_set_the_scale():
    intensity = np.array([1.0, 2.0, 3.0, 1e9])
    use = np.array([True, True, True, False])
    measured, sigma = detect(Detector(counts=1e8, gain_error=0.0), intensity, use, seed=1)
    assert measured[3] == OVERLOAD
    assert sigma[3] == 0
    assert measured[:3] == pytest.approx(intensity[:3], rel=1e-3)  # 5 sigma of 5e7 counts is 7e-4


def test_the_mask_hides_bragg_peaks_the_beam_stop_and_the_gap():
    detector = Detector(beam_stop=9.0, gap=(0.25, 0.30))
    hkl = np.array([(2, 3, 4), (2, 3, 5), (0, 0, 1), (0, 0, 3), (-5, 1, 1), (6, 1, 1)])
    # cell 9.2, 7.2, 5.2 in 2 x 3 x 4: (001) has d = 20.8 A, (003) 6.9 A; h = 5 lies at 0.272 1/A, h = 6 at 0.326.
    assert usable(detector, hkl, (2, 3, 4), (9.2, 7.2, 5.2, 90, 90, 90)).tolist() == [
        False, True, False, True, False, True]  # fmt: skip
