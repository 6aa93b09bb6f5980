"""Tiles: every reflection once, orbits whole, and the map matched as the definition says."""

import numpy as np
import pytest

from hpcfit.config import FrameWeightsConfig
from hpcfit.data.experiment import DiffuseMap
from hpcfit.data.reference import Reflections
from hpcfit.errors import InputError
from hpcfit.physics.reciprocal import laue_operations, sphere
from hpcfit.problems.orbits import drawn_orbits, held_out_orbits, make_tiling, match_orbits

CELL = (20.0, 20.0, 20.0, 90.0, 90.0, 90.0)


def reflections(d_min=2.0, ndiv=(1, 1, 1), cell=CELL):
    return Reflections(sphere(cell, ndiv, d_min), ndiv, cell, "P 1")


def measured(hkl, intensity, ndiv=(1, 1, 1), cell=CELL, sigma=None):
    return DiffuseMap(np.asarray(hkl, np.int32), ndiv, np.asarray(intensity, float), sigma, cell, "P 1", "a map")


def choice(**options):
    return FrameWeightsConfig(kind="frame-weights", **options)


def matched(laue="m-3m", **options):
    store = reflections()
    values = np.random.default_rng(0).random(len(store))
    return store, values, match_orbits(store, measured(store.hkl, values), choice(laue=laue, **options))


@pytest.mark.parametrize("laue", ["P1", "4/m", "m-3m"])
def test_orbits_are_whole_in_one_tile_and_nothing_is_lost(laue):
    _, _, orbit_map = matched(laue)
    tiling = make_tiling(orbit_map, np.ones(len(orbit_map.column)))
    held = tiling.columns[tiling.columns >= 0]
    assert sorted(held) == sorted(orbit_map.column)
    assert sorted(tiling.orbits[tiling.orbits >= 0]) == list(range(len(orbit_map.observed)))
    tile_of_column = dict(zip(held, np.nonzero(tiling.columns >= 0)[0], strict=True))
    for orbit in range(len(orbit_map.observed)):
        assert len({tile_of_column[c] for c in orbit_map.column[orbit_map.orbit == orbit]}) == 1
    assert len(tiling.columns) > 1


def test_shares_of_an_orbit_average_its_reflections():
    _, _, orbit_map = matched()
    tiling = make_tiling(orbit_map, np.full(3000, 3.0))
    for places, share, orbit in zip(tiling.orbits, tiling.tiles.share, tiling.tiles.orbit, strict=True):
        sums = np.bincount(orbit, share, minlength=len(places))
        np.testing.assert_allclose(sums[places >= 0], 9.0, rtol=1e-12)


def test_observed_is_the_mean_over_the_orbit():
    store, values, orbit_map = matched()
    operations = laue_operations("m-3m")
    first = orbit_map.hkl[5]
    images = {tuple(image) for image in operations @ first}
    inside = [tuple(h) in images or tuple(-h) in images for h in store.hkl]
    assert orbit_map.observed[5] == pytest.approx(values[inside].mean(), rel=1e-12)
    assert orbit_map.multiplicity[5] == len(images)


def test_a_merged_map_reaches_all_mates():
    store = reflections()
    one_of_each = np.unique(np.sort(np.abs(store.hkl), axis=1), axis=0)
    orbit_map = match_orbits(store, measured(one_of_each, np.arange(len(one_of_each))), choice(laue="m-3m"))
    assert len(orbit_map.column) == len(store)
    assert len(orbit_map.observed) == len(one_of_each)
    only_listed = match_orbits(store, measured(one_of_each, np.arange(len(one_of_each))), choice(laue="P1"))
    assert len(only_listed.column) == len(one_of_each)
    assert only_listed.left_out["reflections not measured"] == len(store) - len(one_of_each)


def test_supercell_store_meets_integer_map():
    store = reflections(2.0, (2, 2, 2), (10.0, 10.0, 10.0, 90.0, 90.0, 90.0))
    bragg = sphere((10.0, 10.0, 10.0, 90.0, 90.0, 90.0), (1, 1, 1), 2.0)
    orbit_map = match_orbits(store, measured(bragg, np.arange(len(bragg)), cell=store.cell), choice())
    assert np.all(store.hkl[orbit_map.column] % 2 == 0)
    assert len(orbit_map.column) == len(bragg)


def test_exclude_bragg_leaves_the_fractional_ones():
    store = reflections(2.0, (2, 2, 2), (10.0, 10.0, 10.0, 90.0, 90.0, 90.0))
    orbit_map = match_orbits(
        store, measured(store.hkl, np.arange(len(store)), (2, 2, 2), store.cell), choice(exclude_bragg=True)
    )
    assert np.all(np.any(store.hkl[orbit_map.column] % 2 != 0, axis=1))
    assert len(orbit_map.column) + orbit_map.left_out["Bragg reflections"] == len(store)


def test_resolution_limits():
    _, _, orbit_map = matched("P1", d_min=3.0, d_max=8.0)
    d = 1 / orbit_map.inverse_d
    assert d.min() >= 3.0 - 1e-6
    assert d.max() <= 8.0 + 1e-6


def test_friedel_mates_of_the_map_are_averaged():
    store = reflections(5.0)
    both = np.concatenate([store.hkl, -store.hkl])
    values = (
        np.r_[np.full(len(store), 1.0), np.full(len(store), 3.0)] + np.r_[np.arange(len(store)), np.arange(len(store))]
    )
    sigma = np.full(len(both), 0.5)
    orbit_map = match_orbits(store, measured(both, values, sigma=sigma), choice())
    np.testing.assert_allclose(orbit_map.observed, 2 + np.arange(len(store)))
    np.testing.assert_allclose(orbit_map.sigma, 0.5 / np.sqrt(2))


def test_nothing_in_common_names_both():
    store = reflections()
    with pytest.raises(InputError, match=r"no reflection in common.*\n.*frames: h -9\.\.10.*\n.*map: +h 50\.\.50"):
        match_orbits(store, measured([[50, 50, 50]], [1.0]), choice())


def test_zero_variance_of_the_map():
    store = reflections()
    with pytest.raises(InputError, match="zero variance"):
        match_orbits(store, measured(store.hkl, np.ones(len(store))), choice())


@pytest.mark.parametrize(("n", "folds"), [(100, 5), (103, 5), (40, 20)])
def test_each_orbit_is_held_out_in_one_fold_and_folds_share_every_resolution(n, folds):
    held = np.array([held_out_orbits(n, folds, fold) for fold in range(folds)])
    assert np.array_equal(held.sum(axis=0), np.ones(n))
    for first in range(0, n - folds + 1, folds):  # one of each run of neighbours in resolution
        assert np.array_equal(held[:, first : first + folds].sum(axis=1), np.ones(folds))
    with pytest.raises(InputError, match="at most 50 folds"):
        held_out_orbits(100, 51, 0)


def test_a_bootstrap_draws_as_many_fitted_orbits_with_replacement_and_leaves_held_out_ones_alone():
    held_out = held_out_orbits(3000, 3, 1)
    drawn = drawn_orbits(held_out, 7)
    assert np.array_equal(drawn[held_out], np.ones(1000))
    assert drawn.sum() == 3000
    # (1 - 1/n)^n = 0.3678 of n = 2000 are not drawn, standard deviation sqrt(n (e^-1 - 2 e^-2)) / n = 0.7 %
    assert np.mean(drawn[~held_out] == 0) == pytest.approx(0.3678, abs=4 * 0.007)
    assert not np.array_equal(drawn, drawn_orbits(held_out, 8))
    assert np.array_equal(drawn_orbits(held_out, 0), np.ones(3000))
