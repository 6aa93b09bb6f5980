"""Fits that share their passes over the frames: each gets the numbers that it would get alone, bit for bit.

How a study of them goes on after an interruption, and under MPI, is in tests/commands/test_study.py.
"""

from dataclasses import replace

import numpy as np
import pytest

from hpcfit.fit.grid import Shape, make_grid
from hpcfit.fit.many import Many, metrics_at, share_frames, side_by_side
from hpcfit.fit.reduction import FastSum, ReproducibleSum
from hpcfit.kinds.frame_weights.orbit_choice import folds
from hpcfit.kinds.frame_weights.study import _drawn
from hpcfit.kinds.table import load_config, open_case
from hpcfit.ranks import Ranks
from tests.fit.thread_ranks import on_ranks

FITS = 4


def on_grid(case, slices, function, add=ReproducibleSum):
    """``function(gradients, starts)`` on each of so many ranks, of fits that differ in theta, orbits and frames: all
    orbits, one fold held out, a resample of frames, a resample of orbits."""
    load = case.load()

    def on_rank(world):
        grid = make_grid(world, Shape(1, slices, ""), load.n_blocks, load.n_tiles)
        evaluate = case.gradient(grid, 1 << 30, add(grid))
        rows, problem = evaluate.frames.rows, evaluate.problem
        held_out = case.chosen.without(folds(case.orbits, case.config.problem, 3) == 1)
        counts = np.random.default_rng(4).integers(0, 3, rows.ids.shape).astype(float)
        of_fits = [
            (problem, None), (case.with_orbits(problem, held_out, grid), None), (problem, _drawn(rows, counts)),
            (case.with_orbits(problem, case.chosen.resampled(2), grid), None),
        ]  # fmt: skip
        gradients = [
            evaluate.of(replace(one, regularisers=replace(one.regularisers, theta=0.01 * n)), own)
            for n, (one, own) in enumerate(of_fits)
        ]
        return function(gradients, [problem.random_start(n, rows) for n in range(FITS)])

    return on_ranks(slices, on_rank)


@pytest.fixture(scope="module")
def case(two_sources):
    return open_case(load_config(two_sources, ["problem.smoothness=0.3"]), Ranks())


def at_once(gradients, starts, which=range(FITS)):
    """Losses, gradients and metrics of some of the fits."""
    which = np.isin(np.arange(len(gradients)), list(which))
    together = Many(gradients)
    found = together(side_by_side(starts), which)
    return found.loss, found.gradient.local["u"], together.metrics(found, which)


@pytest.fixture(scope="module")
def together(case):
    [found] = on_grid(case, 1, at_once)
    return found


def test_each_has_the_loss_the_gradient_and_the_metrics_of_its_own(case, together):
    losses, gradients, metrics = together
    [alone] = on_grid(case, 1, lambda own, starts: [(one(at), one) for one, at in zip(own, starts)])
    for n, (found, one) in enumerate(alone):
        assert losses[n] == pytest.approx(found.loss, rel=1e-12)
        own = found.gradient.local["u"]
        np.testing.assert_allclose(gradients[..., n], own, rtol=1e-9, atol=1e-12 * np.max(np.abs(own)))
        assert metrics[n] == pytest.approx(one.metrics(found), rel=1e-9)
    assert "cc_free" in metrics[1]
    assert "cc_free" not in metrics[0]


@pytest.mark.parametrize("which", [[0], [3, 1]])
def test_company_changes_no_bit(case, together, which):
    """Whether others have ended, or were never there."""
    [among] = on_grid(case, 1, lambda own, starts: at_once(own, starts, which))
    some = lambda of_all: [of_all[n] for n in which]  # noqa: E731
    [apart] = on_grid(case, 1, lambda own, starts: at_once(some(own), some(starts), range(len(which))))
    for place, n in enumerate(which):
        assert together[0][n] == among[0][n] == apart[0][place]
        assert np.array_equal(together[1][..., n], among[1][..., n])
        assert np.array_equal(together[1][..., n], apart[1][..., place])
        assert together[2][n] == among[2][n] == apart[2][place]
    rest = [n for n in range(FITS) if n not in which]
    assert np.isnan(among[0][rest]).all()
    assert not among[1][..., rest].any()


@pytest.mark.parametrize("slices", [2, pytest.param(3, marks=pytest.mark.nightly)])
def test_ranks_change_no_bit(case, together, slices):
    for losses, gradients, metrics in on_grid(case, slices, at_once):
        assert np.array_equal(losses, together[0])
        assert np.array_equal(gradients, together[1])
        assert metrics == together[2]


def test_sums_in_any_order_agree(case, together):
    for losses, gradients, _ in on_grid(case, 2, at_once, FastSum):
        np.testing.assert_allclose(losses, together[0], rtol=1e-12)
        np.testing.assert_allclose(gradients, together[1], atol=1e-12 * np.max(np.abs(together[1])))


def test_a_fit_whose_loss_is_not_finite_does_not_touch_the_others(case, together):
    def spoilt(gradients, starts):
        starts[1].local["u"][0, 3] = np.nan
        return at_once(gradients, starts)

    [(losses, gradients, _)] = on_grid(case, 1, spoilt)
    assert np.isnan(losses[1])
    assert not gradients[..., 1].any()
    assert np.array_equal(losses[[0, 2, 3]], together[0][[0, 2, 3]])
    assert np.array_equal(gradients[..., [0, 2, 3]], together[1][..., [0, 2, 3]])


def test_fits_that_take_two_passes_are_evaluated_one_by_one(two_sources):
    case = open_case(load_config(two_sources, ["run.gradient=reverse"]), Ranks())
    [(shared, found, own)] = on_grid(
        case, 1, lambda of, starts: (share_frames(of), metrics_at(of, starts), of[1].metrics(of[1].value(starts[1])))
    )
    assert not shared
    assert found[1] == own
