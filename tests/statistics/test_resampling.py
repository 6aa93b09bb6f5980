"""Resamples: whole blocks, sources kept, and the variance of a correlated mean as its closed form says."""

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.statistics.resampling import blocks_per_source, resampled_blocks, resampled_orbits, resampled_sources


@pytest.mark.parametrize(("frames", "blocks"), [(1, 1), (2, 1), (3, 1), (4, 2), (19, 9), (20, 10), (1000, 10)])
def test_blocks_have_two_frames_where_that_is_possible(frames, blocks):
    assert blocks_per_source(np.zeros(frames, int)).tolist() == [blocks]


@pytest.mark.parametrize(
    ("memory", "blocks"),
    [(1.0, 10), (3.0, 10), (5.0, 10), (5.1, 9), (12.0, 4), (25.0, 2), (49.0, 2), (400.0, 2)],
)
def test_blocks_are_two_independent_frames_long_where_two_of_them_are_there(memory, blocks):
    source = np.repeat([0, 1], [100, 3])
    assert blocks_per_source(source, np.array([memory, 1.0])).tolist() == [blocks, 1]


def test_the_variance_of_two_blocks_is_not_too_small():
    """Of sources of two independent frames: the mean variance over resamples is that of the mean of frames."""
    values, n = np.random.default_rng(7).standard_normal((400, 4)), 4
    source = np.zeros(n, int)
    counts = np.array([resampled_blocks(source, 2, seed) for seed in range(200)])
    of_resamples = np.var(values @ counts.T / n, axis=1)
    pairs = values.reshape(-1, 2, 2).mean(axis=2)  # what a block averages has the variance 1/2
    # exact for each source: (half the difference of its blocks)^2, in the share of resamples that are of one block
    np.testing.assert_allclose(of_resamples, ((pairs[:, 0] - pairs[:, 1]) / 2) ** 2, rtol=0.05)
    # their mean over sources: 1/4, to sqrt(2 / 400); n draws of n blocks would give half of it
    assert of_resamples.mean() == pytest.approx(1 / n, rel=4 * 0.071)


def test_each_source_is_resampled_by_whole_blocks_and_keeps_its_frames():
    source = np.repeat([4, 0, 7], [60, 33, 1])
    counts = resampled_blocks(source, blocks_per_source(source), seed=5)
    assert counts[source == 4].sum() == pytest.approx(60)
    assert np.all(counts[source == 4].reshape(10, 6) == counts[source == 4][::6, None])
    # 33 frames in 10 blocks of 3 or 4: nine draws that count 10/9 times have 30 to 40 frames.
    assert 30 <= counts[source == 0].sum() <= 40
    assert np.count_nonzero(np.diff(counts[source == 0])) <= 9
    assert counts[source == 7].tolist() == [1]


def test_frames_of_a_source_need_not_lie_together():
    source = np.repeat([0, 1], 40)
    mixed = np.random.default_rng(0).permutation(source)
    together, apart = (resampled_blocks(s, 8, seed=2) for s in (source, mixed))
    assert all(np.array_equal(together[source == s], apart[mixed == s]) for s in (0, 1))


def test_the_variance_of_a_mean_is_that_of_correlated_frames():
    """AR(1) of coefficient 0.8: frames drawn one by one would give a ninth of the variance of the mean."""
    phi, n_sources, frames, n_blocks = 0.8, 20, 1000, 20
    rng = np.random.default_rng(1)
    values = rng.standard_normal((frames, n_sources))
    for t in range(1, frames):
        values[t] = phi * values[t - 1] + np.sqrt(1 - phi**2) * values[t]
    source, values = np.repeat(np.arange(n_sources), frames), values.T.ravel()
    means = [np.average(values, weights=resampled_blocks(source, n_blocks, seed)) for seed in range(400)]

    lag = np.abs(np.subtract.outer(np.arange(50), np.arange(50)))
    of_block_mean = np.mean(phi**lag)
    expected = of_block_mean / (n_sources * n_blocks)
    # Relative error of a variance: sqrt(2 / 400) from as many blocks, and the same from as many resamples: 10 %.
    assert np.var(means) == pytest.approx(expected, rel=4 * 0.1)
    assert np.var(means) > 4 / len(values)  # four times that of independent frames


def test_a_source_that_is_drawn_twice_has_twice_as_many_blocks():
    source = np.repeat([0, 1, 2], 20)
    counts = resampled_blocks(source, 10, seed=4, times=np.array([2, 0, 1]))
    assert [counts[source == s].sum() for s in range(3)] == pytest.approx([40, 0, 20])
    assert np.all(counts.reshape(-1, 2) == counts[::2, None])


def test_what_is_frozen_in_each_trajectory_varies_from_resample_to_resample():
    """Each of 30 sources has one value: the mean of as many draws has the variance of the values, / 30."""
    label, values = np.repeat(["a", "b"], [30, 1]), np.random.default_rng(2).standard_normal(31)
    draws = np.array([resampled_sources(label, seed) for seed in range(400)])
    assert np.all(draws[:, :30].sum(axis=1) == 30)
    assert np.all(draws[:, 30] == 1)  # a label with one source
    # Relative error of a variance from 400 resamples: sqrt(2 / 400).
    assert np.var(draws[:, :30] @ values[:30] / 30) == pytest.approx(np.var(values[:30]) / 30, rel=4 * 0.07)


def test_the_seed_decides_which_blocks():
    source = np.repeat(np.arange(3), 30)
    assert np.array_equal(resampled_blocks(source, 10, 1), resampled_blocks(source, 10, 1))
    assert not np.array_equal(resampled_blocks(source, 10, 1), resampled_blocks(source, 10, 2))


def test_nothing_to_draw_is_said():
    source = np.arange(6) // 2
    with pytest.raises(InputError, match="6 frames of 3 sources make 3 blocks"):
        resampled_blocks(source, blocks_per_source(source), 0)


def test_orbits_are_drawn_as_for_earlier_results():
    fitted = np.random.default_rng(0).random(3000) > 0.3
    n = fitted.sum()
    counts = resampled_orbits(fitted, 7)
    assert np.array_equal(counts[fitted], np.bincount(np.random.default_rng(7).integers(n, size=n), minlength=n))
    assert np.all(counts[~fitted] == 1)
    # (1 - 1/n)^n = 0.3679 of n = 2100 are not drawn, standard deviation sqrt(n (e^-1 - 2 e^-2)) / n = 0.7 %.
    assert np.mean(counts[fitted] == 0) == pytest.approx(0.3679, abs=4 * 0.007)
