"""The reproducible sum: the same bits for any split of the parts, and an error within its bound."""

from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest

from hpcfit.fit.grid import Shape, make_grid
from hpcfit.fit.reduction import FastSum, ReproducibleSum
from hpcfit.ranks import Ranks

N = 240


class OneOfSeveral(Ranks):
    """A rank whose partners' contributions are given: maxima and sums as the whole group would have them."""

    def __init__(self, others):
        super().__init__()
        self.others = list(others)

    def max(self, values):
        return np.maximum(values, self.others.pop(0))


@pytest.fixture
def grid():
    return make_grid(Ranks(), Shape(1, 1, ""), N, 1)


@pytest.fixture
def wide():
    """Parts whose magnitudes spread over 12 decades, where the order of a float64 sum shows."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, 50)) * 10 ** rng.uniform(-6, 6, (N, 1))


def test_error_is_within_half_a_unit_of_each_part(grid, wide):
    total = ReproducibleSum(grid)([wide], axis=0, over="frames")
    exact = np.array([float(sum(Fraction(x) for x in column)) for column in wide.T])
    # Every part is rounded to 2^-k with k = 62 - ceil(log2 N) - exponent of the largest: N halves of that, and one of
    # float64.
    unit = 2.0 ** (np.frexp(np.abs(wide).max())[1] + np.ceil(np.log2(N)) - 62)
    assert np.all(np.abs(total - exact) <= N * unit / 2 + np.spacing(np.abs(exact)))
    assert np.any(total != 0)


def test_order_and_grouping_do_not_matter_where_they_do_in_float64(grid, wide):
    add = ReproducibleSum(grid)
    whole = add([wide], axis=0, over="frames")
    shuffled = wide[np.random.default_rng(1).permutation(N)]
    assert np.array_equal(whole, add([shuffled[:7], shuffled[7:100], shuffled[100:]], axis=0, over="frames"))
    assert not np.array_equal(wide.sum(axis=0), shuffled.sum(axis=0))


def test_exponent_comes_from_the_largest_part_on_any_rank(wide):
    lone = make_grid(Ranks(), Shape(1, 1, ""), N, 1)
    partner = make_grid(OneOfSeveral([np.array([1e30])]), Shape(1, 1, ""), N, 1)
    assert not np.array_equal(
        ReproducibleSum(lone)([wide], axis=0, over="frames"), ReproducibleSum(partner)([wide], axis=0, over="frames")
    )


def test_each_quantity_has_its_own_exponent(grid):
    small, large = np.full((N, 3), 1e-20), np.full((N, 3), 1e20)
    total = ReproducibleSum(grid)([{"small": small, "large": large}], axis=0, over="frames")
    np.testing.assert_allclose(total["small"], N * 1e-20, rtol=1e-13)
    np.testing.assert_allclose(total["large"], N * 1e20, rtol=1e-13)


def test_fast_sum_agrees(grid, wide):
    scale = np.abs(wide).sum(axis=0)
    difference = FastSum(grid)([wide], axis=0, over="frames") - ReproducibleSum(grid)([wide], axis=0, over="frames")
    assert np.all(np.abs(difference) <= 1e-12 * scale.max())


def test_no_parts_at_all_are_zero(grid):
    assert np.array_equal(ReproducibleSum(grid)([jnp.zeros((0, 4))], axis=0, over="frames"), np.zeros(4))


@pytest.mark.parametrize("kind", [ReproducibleSum, FastSum])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_quantity_with_a_part_that_is_not_finite_has_no_finite_sum_and_spoils_no_other(grid, kind, bad):
    add = kind(grid)
    total = add([{"bad": np.array([[1.0], [bad]]), "sound": np.array([[1.0], [2.0]])}], axis=0, over="frames")
    assert not np.any(np.isfinite(total["bad"]))
    assert total["sound"] == 3.0
    columns = add.columns(np.array([[1.0, 5.0], [bad, 6.0]]))
    assert not np.isfinite(columns[0])
    assert columns[1] == 11.0


def test_what_is_not_finite_on_one_rank_has_no_sum_on_any(wide):
    partner = make_grid(OneOfSeveral([np.array([np.inf])]), Shape(1, 1, ""), N, 1)
    assert np.all(np.isnan(ReproducibleSum(partner)([wide], axis=0, over="frames")))
