"""The map matched with the reflections of the frames as the definition says."""

import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.kinds.frame_weights.config import FrameWeightsConfig
from hpcfit.kinds.frame_weights.orbit_choice import folds
from hpcfit.kinds.frame_weights.orbits import match_orbits
from hpcfit.physics.reciprocal import laue_operations, sphere
from hpcfit.readers.maps import DiffuseMap
from hpcfit.store.reference import Reflections

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


def test_copies_of_an_orbit_are_held_out_with_it():
    """A map of P 41 fitted in P1: the four mates of a reflection have one intensity, and must not be parted."""
    cell = (10.0, 10.0, 12.0, 90.0, 90.0, 90.0)
    hkl = sphere(cell, (1, 1, 1), 1.5)
    store = Reflections(hkl, (1, 1, 1), cell, "P 41")
    found = DiffuseMap(hkl, (1, 1, 1), np.arange(len(hkl)) + 1.0, None, cell, "P 41", "a map")
    wanted = choice(laue="P1", folds=4, theta=0.0)
    orbits = match_orbits(store, found, wanted)
    fold = folds(orbits, wanted, 4)
    h, k, l = orbits.hkl.T
    mate = {tuple(index): number for number, index in enumerate(orbits.hkl.tolist())}
    turned = [mate.get(tuple(m), mate.get(tuple(-np.array(m)))) for m in np.stack([-k, h, l], axis=1).tolist()]
    assert None not in turned
    assert np.array_equal(fold[turned], fold)
    assert len(np.unique(fold)) == 4


ORTHORHOMBIC = (9.0, 10.0, 11.0, 90.0, 90.0, 90.0)


@pytest.mark.parametrize("laue", ["4/m", "m-3m", "6/mmm", "P 4", "-3m"])
def test_a_class_that_the_cell_has_not_is_refused_with_those_that_it_has(laue):
    store = reflections(3.0, cell=ORTHORHOMBIC)
    values = measured(store.hkl, np.arange(len(store)), cell=ORTHORHOMBIC)
    with pytest.raises(InputError, match=rf"'{laue}' makes axes equal .*9.0, 10.0, 11.0") as found:
        match_orbits(store, values, choice(laue=laue))
    assert "its cell has -1, 2/m, mmm:" in str(found.value)
    match_orbits(store, values, choice(laue="mmm"))


@pytest.mark.parametrize(
    ("cell", "good", "bad"),
    [
        ((10.0, 10.1, 12.0, 90.0, 90.2, 90.0), "4/mmm", "m-3m"),  # constant pressure: nearly tetragonal
        ((10.0, 10.0, 12.0, 90.0, 90.0, 120.0), "6/mmm", "4/m"),
        ((10.0, 11.0, 12.0, 90.0, 100.0, 90.0), "2/m", "mmm"),
    ],
    ids=["nearly", "hexagonal", "monoclinic"],
)
def test_a_class_fits_a_cell_to_its_own_spread(cell, good, bad):
    store = reflections(4.0, cell=cell)
    values = measured(store.hkl, np.arange(len(store)), cell=cell)
    match_orbits(store, values, choice(laue=good))
    with pytest.raises(InputError, match="makes axes equal"):
        match_orbits(store, values, choice(laue=bad))


@pytest.mark.parametrize("noise", [0.0, 1e-7, 0.1])
def test_mates_of_a_symmetrised_map_without_a_group_are_found_by_their_values(noise, caplog):
    caplog.set_level("INFO", logger="hpcfit")
    store = reflections(3.0)
    random = measured(store.hkl, np.random.default_rng(3).random(len(store)))
    symmetrised = match_orbits(store, random, choice(laue="4/m"))
    values = symmetrised.observed[symmetrised.orbit[np.argsort(symmetrised.column)]]
    values = values + noise * np.random.default_rng(4).normal(size=len(values))
    found = match_orbits(store, measured(store.hkl, values), choice(laue="P1"))
    joined = len(np.unique(found.mates))
    if noise == 0.1:
        assert joined == len(store)
    else:
        assert joined == len(symmetrised.observed)
        assert "equal over the Laue class 4/m" in caplog.text


def test_mates_by_the_group_of_the_store_are_held_out_together():
    store = Reflections(reflections(3.0).hkl, (1, 1, 1), CELL, "P 4")
    found = match_orbits(store, measured(store.hkl, np.random.default_rng(3).random(len(store))), choice(laue="P1"))
    four = match_orbits(store, measured(store.hkl, np.arange(len(store))), choice(laue="4/m"))
    assert len(np.unique(found.mates)) == len(four.observed)
