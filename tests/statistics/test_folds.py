"""Hold-out: orbits whole, every resolution tested, cubes whole, and the folds of earlier results unchanged."""

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.physics.reciprocal import inverse_d2, laue_operations, laue_orbits, sphere
from hpcfit.statistics.folds import cubes, folds_of, held_out_orbits

CELL = (20.0, 20.0, 20.0, 90.0, 90.0, 90.0)
HKL = sphere(CELL, (2, 2, 2), 4.0)


def chosen(by, fraction=0.1, seed=3, block=4, hkl=HKL):
    return held_out_orbits(hkl, by=by, fraction=fraction, seed=seed, block=block)


def folded(by, folds=5, block=4, hkl=HKL, **seed):
    return folds_of(hkl, by=by, folds=folds, block=block, **seed)


@pytest.mark.parametrize("fraction", [0.07, 0.1, 0.3, 0.5, 0.8])
def test_single_orbits_are_one_of_each_run_of_neighbours(fraction):
    test = chosen("orbits", fraction)
    assert test.sum() == round(fraction * len(HKL))
    # Between two of them lie at most two runs less two orbits; a run has at most ceil(1 / fraction) orbits.
    assert np.diff(np.flatnonzero(test)).max() <= 2 * np.ceil(1 / fraction) - 1
    # Any stretch of orbits holds its fraction to one of the runs it cuts at either end.
    stretch = np.cumsum(test)
    assert np.abs(stretch - fraction * np.arange(1, len(HKL) + 1)).max() <= 1.5


def test_blocks_are_whole_cubes_and_reach_the_fraction_to_half_a_cube():
    test, cube = chosen("blocks"), cubes(HKL, 4)
    held, size = np.bincount(cube, test), np.bincount(cube)
    assert np.all((held == 0) | (held == size))
    assert abs(test.sum() - 0.1 * len(HKL)) <= size.max() / 2


def test_cubes_have_the_edge_that_was_asked_for():
    axis = np.arange(-6, 6)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    cube = cubes(grid, 3)
    assert np.array_equal(np.bincount(cube), np.full(4**3, 27))
    assert all(np.ptp(grid[cube == number], axis=0).tolist() == [2, 2, 2] for number in range(4**3))


def test_blocks_hold_out_neighbours_together():
    """The share of the orbits beside one held out (along h) that are held out too, against chance."""
    place = {tuple(h): i for i, h in enumerate(HKL.tolist())}
    beside = np.array([(i, place[h + 1, k, l]) for (h, k, l), i in place.items() if (h + 1, k, l) in place])

    def together(by):
        test = chosen(by, fraction=0.2, block=5)
        return test[beside[:, 1]][test[beside[:, 0]]].mean()

    # Of 5 orbits in a row of a cube 4 have their neighbour within; cubes cut by the sphere, and chance, add some.
    assert together("blocks") > 0.75
    assert together("orbits") < 0.3


@pytest.mark.parametrize("by", ["orbits", "blocks"])
@pytest.mark.parametrize("laue", ["-1", "4/m", "m-3m"])
def test_mates_of_what_is_held_out_are_held_out(by, laue):
    operations = laue_operations(laue)
    orbit, _ = laue_orbits(HKL, operations, (2, 2, 2))
    representative = HKL[np.unique(orbit, return_index=True)[1]]
    test = chosen(by, hkl=representative)
    held = {tuple(image) for h in representative[test] for image in (operations @ h).tolist()}
    assert not held & {tuple(image) for h in representative[~test] for image in (operations @ h).tolist()}


@pytest.mark.parametrize("by", ["orbits", "blocks"])
def test_the_seed_decides(by):
    assert np.array_equal(chosen(by), chosen(by))
    assert not np.array_equal(chosen(by), chosen(by, seed=4))
    assert np.array_equal(folded(by), folded(by, seed=0))
    assert not np.array_equal(folded(by), folded(by, seed=1))


def test_nothing_or_everything_held_out_is_said():
    n = len(HKL)
    with pytest.raises(InputError, match=f"0.0001 of {n} orbits holds out 0, and leaves {n}"):
        chosen("orbits", 1e-4)
    with pytest.raises(InputError, match=f"0.9999 of {n} orbits holds out {n}, and leaves 0"):
        chosen("orbits", 0.9999)
    # The hemisphere l >= 0 lies in 4 cubes; the smaller ones (h, k >= 0) still hold more than a tenth each.
    with pytest.raises(InputError, match=f"0.05 of {n} orbits in 4 cubes of 100 reflections a side holds out 0"):
        chosen("blocks", 0.05, block=100)


@pytest.mark.parametrize(("n", "folds"), [(100, 5), (103, 5), (40, 20)])
def test_folds_of_single_orbits_are_those_of_earlier_results(n, folds):
    groups = np.tile(np.arange(folds), (-(-n // folds), 1))
    before = np.random.default_rng(folds).permuted(groups, axis=1).ravel()[:n]
    fold = folded("orbits", folds, hkl=HKL[:n])
    assert np.array_equal(fold, before)
    for first in range(0, n - folds + 1, folds):
        assert sorted(fold[first : first + folds]) == list(range(folds))


def test_folds_of_blocks_are_whole_cubes_of_about_one_size():
    fold, cube = folded("blocks"), cubes(HKL, 4)
    assert all(len(set(fold[cube == number])) == 1 for number in range(cube.max() + 1))
    sizes = np.bincount(fold, minlength=5)
    # The last cube a fold got went to the smallest fold of its time.
    assert np.ptp(sizes) <= np.bincount(cube).max()


def test_folds_of_blocks_are_filled_with_the_largest_cubes_first():
    sizes = (2, 4, 3, 3)
    hkl = np.concatenate([[(10 * cube + i, 0, 0) for i in range(size)] for cube, size in enumerate(sizes)])
    for seed in range(10):  # 4 + 2 and 3 + 3; any other order can end in 5 and 7
        assert np.bincount(folded("blocks", 2, block=10, hkl=hkl, seed=seed)).tolist() == [6, 6]


def test_folds_of_blocks_reach_every_resolution():
    inverse_d = np.sqrt(inverse_d2(HKL, (2, 2, 2), CELL))
    thirds = np.searchsorted(np.quantile(inverse_d, [1 / 3, 2 / 3]), inverse_d)
    counts = np.array([np.bincount(folded("blocks")[thirds == third], minlength=5) for third in range(3)])
    assert counts.min() > 0


def test_too_many_folds_are_said():
    with pytest.raises(InputError, match=r"folds = 51 for 100 orbits\n.*at most 50"):
        folded("orbits", 51, hkl=HKL[:100])
    with pytest.raises(InputError, match=rf"folds = 5 for {len(HKL)} orbits in 4 cubes of 100.*\n.*at most 4"):
        folded("blocks", 5, block=100)
