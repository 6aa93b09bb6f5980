"""Regression by sums of blocks: NumPy's on all frames, exact lines exactly, nothing where there is nothing."""

import numpy as np
import pytest

from hpcfit.statistics.regression import BlockMoments, moments_by_block, regression

T, B = 400, 20
BLOCK = np.arange(T) * B // T


def moments(x, y, weight=None, resamples=100):
    rng = np.random.default_rng(0)
    sums = moments_by_block(x, y, np.ones(T) if weight is None else weight, BLOCK, B)
    return BlockMoments(sums, np.arange(B) % 10, rng.multinomial(B, np.full(B, 1 / B), size=resamples).astype(float))


def columns(seed=1):
    return np.random.default_rng(seed).standard_normal((T, 3))


def test_slopes_are_those_of_weighted_least_squares():
    x, rng = columns(), np.random.default_rng(2)
    y, weight = x @ [1.0, -2.0, 0.5] + 3 + rng.standard_normal(T), rng.random(T)
    found = regression(moments(x, y, weight), [0, 2])
    root = np.sqrt(weight)[:, None]
    expected = np.linalg.lstsq(root * np.column_stack([np.ones(T), x[:, [0, 2]]]), root[:, 0] * y)[0][1:]
    assert found.slopes == pytest.approx(expected, rel=1e-10)


def test_a_line_is_found_exactly():
    x = columns()
    found = regression(moments(x, x @ [1.0, -2.0, 0.5] + 3), [0, 1, 2])
    assert found.slopes == pytest.approx([1.0, -2.0, 0.5], rel=1e-12)
    assert found.errors == pytest.approx(np.zeros(3), abs=1e-12)
    assert (found.r2, found.r2_held_out) == pytest.approx((1, 1), rel=1e-12)
    assert not found.dependent


def test_the_held_out_share_is_that_of_folds_fitted_one_by_one():
    x, rng = columns(), np.random.default_rng(3)
    y = x[:, 0] + rng.standard_normal(T)
    errors = deviations = 0.0
    for fold in range(10):
        out = np.isin(BLOCK % 10, fold)
        line = np.polyfit(x[~out, 0], y[~out], 1)
        errors += np.sum((y[out] - np.polyval(line, x[out, 0])) ** 2)
        deviations += np.sum((y[out] - y[~out].mean()) ** 2)
    found = regression(moments(x, y), [0])
    assert found.r2_held_out == pytest.approx(1 - errors / deviations, rel=1e-10)
    assert found.r2 == pytest.approx(np.corrcoef(x[:, 0], y)[0, 1] ** 2, rel=1e-10)


def test_errors_by_blocks_are_those_of_the_slope_where_frames_are_independent():
    """sd(slope) = sigma / (sd(x) sqrt(T)); that of 20 blocks by 2000 resamples is known to sqrt(1 / 38) = 16 %."""
    x, rng = columns(), np.random.default_rng(4)
    found = regression(moments(x, rng.standard_normal(T), resamples=2000), [0])
    assert found.errors[0] == pytest.approx(1 / np.sqrt(T), rel=3 * 0.16)


def test_noise_is_not_predicted():
    rng = np.random.default_rng(5)
    found = regression(moments(columns(), rng.standard_normal(T)), [0, 1, 2])
    assert found.r2_held_out < 0 < found.r2
    assert np.all(np.abs(found.slopes) < 4 * found.errors)


def test_columns_that_depend_on_each_other_are_said():
    x = columns()
    x[:, 1] = 2 * x[:, 0]
    found = regression(moments(x, x[:, 0]), [0, 1])
    assert found.dependent
    assert found.slopes[0] + 2 * found.slopes[1] == pytest.approx(1, rel=1e-6)
    assert found.r2 == pytest.approx(1)


def test_a_column_that_varies_in_one_block_alone_has_no_error():
    x = np.where(BLOCK == 3, np.arange(T) % 2, 0.0)[:, None]
    found = regression(moments(x, x[:, 0]), [0])
    assert found.slopes[0] == pytest.approx(1, rel=1e-6)
    assert np.isnan(found.errors[0])


def test_nothing_is_explained_where_nothing_varies():
    found = regression(moments(columns(), np.full(T, 7.0)), [0])
    assert found.slopes[0] == pytest.approx(0, abs=1e-9)
    assert np.isnan([found.r2, found.r2_held_out]).all()
