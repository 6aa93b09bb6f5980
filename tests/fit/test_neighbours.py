"""Frames that are compared along trajectories: the same cost and gradient, bit for bit, however blocks are dealt out.

What is not proven here is the same under MPI (tests/commands/test_optimize.py).
"""

from functools import lru_cache

import numpy as np
import pytest

from hpcfit.fit.grid import Shape, make_grid
from hpcfit.fit.reduction import ReproducibleSum
from hpcfit.kinds.table import load_config, open_case
from hpcfit.ranks import Ranks
from tests.fit.thread_ranks import on_ranks

T = 300  # two trajectories of 190 and 110 frames: blocks of 64, 64, 62, 64 and 46


@pytest.fixture(scope="module")
def evaluated(two_sources):
    """``evaluated(frames, slices, smoothness)``: loss and gradient [blocks, 64] at a random point, on such a grid."""

    @lru_cache
    def run(frames, slices, smoothness=0.4, gradient="reverse"):
        config = load_config(two_sources, [f"problem.smoothness={smoothness}", f"run.gradient={gradient}"])
        case = open_case(config, Ranks())
        load = case.load()

        def on_rank(world):
            grid = make_grid(world, Shape(frames, slices, ""), load.n_blocks, load.n_tiles)
            evaluate = case.gradient(grid, 1 << 30, ReproducibleSum(grid))
            start = evaluate.problem.random_start(1, evaluate.frames.rows)
            found = evaluate(start)
            return found.loss, found.gradient.local["u"], found.params.local["u"], evaluate.frames.rows

        found = on_ranks(frames * slices, on_rank)[::slices]  # one of each row of frames
        assert len({loss for loss, *_ in found}) == 1
        return found[0][0], *(np.concatenate([rank[n] for rank in found]) for n in (1, 2)), [rank[3] for rank in found]

    return run


@pytest.mark.parametrize(
    "shape",
    [(3, 1), (2, 2), (5, 1), *(pytest.param(shape, marks=pytest.mark.nightly) for shape in ((2, 1), (1, 2)))],
)
def test_the_split_over_ranks_changes_no_bit(evaluated, shape):
    loss, gradient, *_ = evaluated(1, 1)
    there = evaluated(*shape)
    assert there[0] == loss
    assert np.array_equal(there[1], gradient)


def test_tiles_on_other_ranks_change_no_bit_of_one_pass(evaluated):
    one, two = (evaluated(1, slices, gradient="auto") for slices in (1, 2))
    assert two[0] == one[0]
    assert np.array_equal(two[1], one[1])


@pytest.mark.parametrize("shape", [(1, 1), (3, 1)])
def test_the_cost_is_that_of_steps_within_trajectories(evaluated, shape):
    """Across blocks and ranks, but not from the first trajectory to the second."""
    (smooth, with_it, u, rows), (plain, without, *_) = evaluated(*shape), evaluated(*shape, smoothness=0.0)
    ids = np.concatenate([each.ids for each in rows])
    held = ids >= 0
    u_t = u[held]
    assert np.array_equal(ids[held], np.arange(T))
    step = np.diff(np.log(u_t**2))
    step[189] = 0.0
    # Differences of numbers of size 1, of which the sums keep 50 bits.
    assert smooth - plain == pytest.approx(0.4 / T * np.sum(step**2), rel=1e-12)
    expected = 2 * 0.4 / T * (np.r_[0.0, step] - np.r_[step, 0.0]) * 2 / u_t
    np.testing.assert_allclose((with_it - without)[held], expected, atol=1e-13)
    assert np.all(with_it[~held] == 0)
    follows = np.concatenate([each.more.follows for each in rows])[held]
    assert np.array_equal(np.flatnonzero(~follows), [0, 190])
