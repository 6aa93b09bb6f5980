"""Sums of a stream: exact to the rounding of their last bit, without order, the same on any number of ranks."""

from fractions import Fraction

import numpy as np
import pytest

from hpcfit.errors import NumericalError
from hpcfit.fit.running_sum import HIGH, LOW, FastRunningSum, ReproducibleRunningSum, running_sum
from hpcfit.ranks import Ranks


def parts(n: int = 400, shape: tuple[int, ...] = (3, 5)) -> np.ndarray:
    """Magnitudes over 16 decades, both signs."""
    random = np.random.default_rng(1)
    return random.normal(size=(n, *shape)) * 10.0 ** random.uniform(-6, 10, size=(n, *shape))


def total_of(arrays, name: str = "reproducible") -> np.ndarray:
    total = running_sum(name, arrays.shape[1:])
    for array in arrays:
        total.add(array)
    return total.total(Ranks())


def test_the_sum_is_exact_to_half_its_last_unit_a_part():
    arrays = parts()
    found = total_of(arrays)
    for place in np.ndindex(found.shape):
        exact = sum(Fraction(float(value)) for value in arrays[(slice(None), *place)])
        rounding = abs(float(exact)) * 2.0**-53  # of the result itself
        assert abs(float(Fraction(float(found[place])) - exact)) <= len(arrays) * 2.0 ** (LOW - 1) + rounding


def test_order_does_not_matter_where_it_does_for_plain_sums():
    arrays = parts()
    orders = [np.random.default_rng(seed).permutation(len(arrays)) for seed in range(4)]
    assert len({total_of(arrays[order]).tobytes() for order in orders}) == 1
    assert len({total_of(arrays[order], "fast").tobytes() for order in orders}) > 1


def test_ranks_add_up_to_the_same_bits():
    class TwoRanks(Ranks):
        """Adds what the other rank has, as an allreduce would."""

        def __init__(self, other):
            super().__init__()
            self._other = iter((np.array([other._magnitude]), other._high, other._low))

        def sum(self, values):
            return values + next(self._other)

    arrays = parts()
    for cut in (0, 7, 200):
        mine, other = ReproducibleRunningSum(arrays.shape[1:]), ReproducibleRunningSum(arrays.shape[1:])
        for number, array in enumerate(arrays):
            (other if number < cut else mine).add(array)
        assert mine.total(TwoRanks(other)).tobytes() == total_of(arrays).tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, 2.0 ** (HIGH + 61)])
def test_what_cannot_be_added_is_an_error(bad):
    total = ReproducibleRunningSum((2,))
    with pytest.raises(NumericalError, match="more than"):
        total.add(np.array([1.0, bad]))


def test_many_large_parts_do_not_overflow_unseen():
    total = ReproducibleRunningSum((1,))
    total.add(np.array([2.0 ** (HIGH + 60)]))
    with pytest.raises(NumericalError):
        total.add(np.array([2.0 ** (HIGH + 60)]))


def test_a_plain_sum_finds_what_is_not_finite():
    total = FastRunningSum((2,))
    with pytest.raises(NumericalError):
        total.add(np.array([1.0, np.nan]))
    for _ in range(2):
        total.add(np.full(2, 1e308))
    with pytest.raises(NumericalError):
        total.total(Ranks())
