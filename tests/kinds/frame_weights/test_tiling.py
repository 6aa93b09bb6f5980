"""Tiles and strips: every reflection once, orbits whole, and a layout that depends on the data set alone."""

import numpy as np
import pytest

from hpcfit.kinds.frame_weights.one_pass import LANES
from hpcfit.kinds.frame_weights.orbits import OrbitMap
from hpcfit.kinds.frame_weights.tiling import make_tiling, tile_width


def orbit_map(sizes):
    """Orbits of these sizes, their reflections in disorder among the columns of a store."""
    orbit = np.repeat(np.arange(len(sizes)), sizes)
    column = np.random.default_rng(0).permutation(2 * len(orbit))[: len(orbit)]
    shuffled = np.random.default_rng(1).permutation(len(orbit))
    none = np.zeros(len(sizes))
    hkl = np.zeros((len(sizes), 3), int)
    zeros = none.astype(int)
    return OrbitMap(column[shuffled], orbit[shuffled], none, None, None, none, zeros, hkl, none, zeros, {})


SIZES = {
    "single": np.ones(3000, int),
    "mixed": np.random.default_rng(2).integers(1, 25, 400),
    "of 48": np.full(100, 48),
    "larger than a tile": np.full(30, 100),
}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize(("frames", "itemsize"), [(100, 4), (20_000, 4), (20_000, 2)])
def test_nothing_is_lost_and_orbits_are_whole_in_one_strip(name, frames, itemsize):
    orbits = orbit_map(SIZES[name])
    tiling = make_tiling(orbits, frames, itemsize)
    held = tiling.columns >= 0
    assert sorted(tiling.columns[held]) == sorted(orbits.column)
    assert sorted(tiling.orbits[tiling.orbits >= 0]) == list(range(len(SIZES[name])))
    tile, at = np.nonzero(held)
    orbit = tiling.orbits[tile, tiling.place[held]]  # of each reflection, by its place
    assert np.array_equal(orbit, of_columns(orbits)[tiling.columns[held]])
    strip = tile * (tiling.width // tiling.strip) + at // tiling.strip
    first, last = (extreme(strip, orbit, len(SIZES[name])) for extreme in (lowest, highest))
    assert np.array_equal(first, last)


def of_columns(orbits):
    """The orbit of each column of the store, -1 where it has none."""
    found = np.full(orbits.column.max() + 1, -1)
    found[orbits.column] = orbits.orbit
    return found


def lowest(values, group, n):
    found = np.full(n, values.max() + 1)
    np.minimum.at(found, group, values)
    return found


def highest(values, group, n):
    found = np.full(n, -1)
    np.maximum.at(found, group, values)
    return found


@pytest.mark.parametrize("name", SIZES)
def test_widths_suit_the_kernels(name):
    """Moments add 64 real numbers side by side, the pass 16 reflections; strips cut a tile without a remainder."""
    for frames in (64, 1000, 100_000):
        tiling = make_tiling(orbit_map(SIZES[name]), frames, 4)
        assert tiling.width % 32 == 0
        assert tiling.strip % LANES == 0
        assert tiling.width % tiling.strip == 0
        assert tiling.strip >= SIZES[name].max()


def test_tiles_are_as_wide_as_allowed_but_leave_enough_to_deal_out():
    assert tile_width(1_000_000, 8) == 2048
    assert tile_width(16 * 640, 8) == 640
    assert tile_width(100, 8) == 64
    assert tile_width(100, 100) == 128
    assert len(make_tiling(orbit_map(SIZES["single"]), 1000, 4).columns) >= 15


def test_values_come_to_their_places():
    orbits = orbit_map(SIZES["mixed"])
    tiling = make_tiling(orbits, 100, 4)
    of_orbit = np.arange(400) + 0.5
    placed = tiling.of_orbits(of_orbit, -7.0)
    assert np.array_equal(np.sort(placed[placed != -7.0]), of_orbit)
    by_reflection = np.take_along_axis(placed, tiling.place, axis=1)  # each reflection's orbit
    of_column = tiling.of_columns(np.concatenate([of_orbit, [0] * 20_000])[of_columns(orbits)])
    held = tiling.columns >= 0
    assert np.array_equal(by_reflection[held], of_column[held])
    assert np.all(of_column[~held] == 0)
    pairs = tiling.of_columns(np.arange(40_000.0).reshape(-1, 2))
    assert np.array_equal(pairs[held][:, 0], 2.0 * tiling.columns[held])
