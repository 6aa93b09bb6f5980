"""Errors over blocks against closed forms, and correlation in time against an autoregressive process.

Not proven here: that blocks of real trajectories are independent.
"""

import numpy as np
import pytest
import scipy.fft

from hpcfit.statistics.blocks import (
    _fast_length,
    block_mean,
    bootstrap_error,
    effective_frames,
    inefficiency,
    inefficiency_of_spans,
    jackknife_error,
    mean_with_error,
    squares_of_means,
    weighted_error,
)

SPANS = (1, 2, 4, 8, 16, 32, 64)


def autoregressive(phi: float, n: int, seed: int) -> np.ndarray:
    """x_t = phi x_(t-1) + noise, of mean 0 and variance 1, from its stationary distribution."""
    from scipy.signal import lfilter

    noise = np.random.default_rng(seed).normal(size=n) * np.sqrt(1 - phi**2)
    noise[0] /= np.sqrt(1 - phi**2)
    return lfilter([1.0], [1.0, -phi], noise)


def test_blocks_of_one_size_have_the_standard_error_of_a_mean():
    values = np.random.default_rng(1).normal(size=12)
    expected = values.std(ddof=1) / np.sqrt(12)
    found = block_mean(values, np.full(12, 7.0))
    assert found == pytest.approx((values.mean(), expected), rel=1e-12)
    assert mean_with_error(values) == pytest.approx((values.mean(), expected), rel=1e-12)
    assert found.z == pytest.approx(values.mean() / expected, rel=1e-12)
    both = weighted_error(np.stack([values, 3 * values], axis=1), np.full(12, 1 / 12))
    np.testing.assert_allclose(both, [expected, 3 * expected], rtol=1e-12)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(2).normal(size=(9, 4))
    left_out = (values.sum(axis=0) - values) / 8
    np.testing.assert_allclose(jackknife_error(left_out), values.std(axis=0, ddof=1) / 3, rtol=1e-12)


def test_a_single_block_or_value_has_no_error():
    assert np.isnan(jackknife_error(np.ones((1, 3)))).all()
    assert np.isnan(mean_with_error([2.0]).error)


def test_the_bootstrap_of_a_mean_is_its_standard_error_and_a_function_of_the_seed():
    values = np.random.default_rng(3).normal(size=20)
    error = [bootstrap_error(lambda counts: counts @ values / 20, 20, 2000, seed) for seed in (1, 1, 2)]
    assert error[0] == error[1] != error[2]
    # A standard deviation of 2000 Gaussian values is known to 1 / sqrt(4000) of itself: five of these.
    assert error[0] == pytest.approx(values.std() / np.sqrt(20), rel=5 / np.sqrt(4000))


def test_equal_estimates_have_no_spread():
    """To the root of the machine's precision: the variance is a difference of two sums."""
    assert np.all(bootstrap_error(lambda counts: np.ones(2), 5, 10, 0) < 4 * np.sqrt(np.finfo(float).eps))


def test_the_length_of_a_transform_is_that_of_scipy():
    lengths = [*range(1, 300), 99_999, 1_000_003]
    assert [_fast_length(n) for n in lengths] == [scipy.fft.next_fast_len(n, real=True) for n in lengths]


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_the_inefficiency_of_an_autoregressive_process_is_that_of_its_closed_form(phi):
    """C(t) = phi^t, so that g = (1 + phi) / (1 - phi). Its relative variance is 2 (2 M + 1) / T for a window of M
    frames (Madras & Sokal 1988, 10.1007/BF01022990); here M is at most ten correlation times, or the first pair."""
    T, seeds = 40_000, 16
    g = (1 + phi) / (1 - phi)
    found = np.mean([inefficiency(autoregressive(phi, T, seed)) for seed in range(seeds)])
    window = max(2.0, 10 * (g - 1) / 2)
    assert found == pytest.approx(g, rel=5 * np.sqrt(2 * (2 * window + 1) / (T * seeds)))


def test_a_constant_tells_nothing_and_an_anticorrelated_series_is_worth_no_more_than_its_frames():
    assert np.isnan(inefficiency(np.full(50, 3.0)))
    assert np.isnan(inefficiency(1 / 3 + np.finfo(float).eps * np.random.default_rng(0).random(50)))
    assert inefficiency(np.tile([1.0, -1.0], 500)) == 1


def test_effective_frames_are_counted_by_source():
    slow, fast = autoregressive(0.9, 30_000, 1), autoregressive(0.0, 20_000, 2)
    source = np.concatenate([np.full(30_000, 7), np.full(20_000, 3)])
    found = effective_frames(np.concatenate([slow, 100 + fast]), source)  # another mean is no correlation
    assert found.tolist() == [20_000 / inefficiency(fast), 30_000 / inefficiency(slow)]


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_the_inefficiency_of_spans_is_that_of_the_closed_form(phi):
    """s var(mean of s) = (1 + phi) / (1 - phi) - 2 phi (1 - phi^s) / (s (1 - phi)^2) at unit variance."""
    x = np.stack([autoregressive(phi, 1 << 14, seed) for seed in range(64)], axis=1)[:, :, None]
    halves = [squares_of_means(part, SPANS) for part in np.split(x, 2)]
    found = inefficiency_of_spans(sum(halves), SPANS)[0]
    s = np.array(SPANS)
    expected = (1 + phi) / (1 - phi) - 2 * phi * (1 - phi**s) / (s * (1 - phi) ** 2)
    # K values, each worth 1/g of itself, have a mean square with a relative error of sqrt(2 / K).
    known = 64 * (1 << 14) / (s * (1 + phi) / (1 - phi))
    assert found[0] == 1
    assert np.all(np.abs(found / expected - 1) < 5 * np.sqrt(2 / known) + 5 * np.sqrt(2 / known[0]))
