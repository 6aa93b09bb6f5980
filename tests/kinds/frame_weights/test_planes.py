"""Planes drawn from orbits equal an expansion made another way, and the models are put on the scale of the observed."""

from fractions import Fraction

import gemmi
import numpy as np
import pytest

from hpcfit.kinds.frame_weights.figures_map import colour_scales
from hpcfit.kinds.frame_weights.planes import choose_levels, plane, plane_axes, plane_name, scaled_to
from hpcfit.physics.reciprocal import inverse_d2, laue_operations, laue_orbits, sphere

CRYSTALS = [
    ("P -1", (9, 11, 13, 80, 95, 103), (2, 1, 3)),
    ("P 1 2/m 1", (9, 11, 13, 90, 105, 90), (1, 2, 1)),
    ("P 4/m", (12, 12, 9, 90, 90, 90), (2, 2, 3)),
    ("P -3 m 1", (11, 11, 14, 90, 90, 120), (2, 2, 1)),
    ("P 6/m m m", (11, 11, 14, 90, 90, 120), (1, 1, 2)),
    ("F m -3 m", (13, 13, 13, 90, 90, 90), (2, 2, 2)),
]


@pytest.mark.parametrize(("group", "cell", "ndiv"), CRYSTALS, ids=lambda value: str(value).replace(" ", ""))
def test_plane_holds_the_orbit_that_gemmi_finds_for_each_voxel(group, cell, ndiv):
    ndiv, operations = np.array(ndiv), laue_operations(group)
    hkl = sphere(cell, ndiv, 3.0)
    orbit, _ = laue_orbits(hkl, operations, ndiv)
    representatives = hkl[np.unique(orbit, return_index=True)[1]]
    # Independent: gemmi's asymmetric unit, on the lattice of the common multiple, which the group maps to itself.
    common = np.lcm.reduce(ndiv)
    space_group = gemmi.SpaceGroup(group)
    asu = gemmi.ReciprocalAsu(space_group)
    symmorphic = space_group.operations().derive_symmorphic()

    def unique(index):
        scaled = [int(i) for i in np.asarray(index) * common // ndiv]
        return tuple(asu.to_asu(scaled, symmorphic)[0])

    number = {unique(index): i for i, index in enumerate(representatives)}
    assert len(number) == len(representatives)
    for level in choose_levels(representatives, operations, ndiv):
        drawn = plane(representatives, operations, ndiv, level)
        h, k = (np.rint(axis * n).astype(int) for axis, n in zip((drawn.h, drawn.k), ndiv[:2], strict=True))
        expected = np.array([[number.get(unique((i, j, level)), -1) for i in h] for j in k])
        np.testing.assert_array_equal(drawn.orbit, expected)
        # Nothing of the sphere falls off the edges: as many voxels as a count of the full plane gives.
        inside = inverse_d2([(i, j, level) for i in range(-99, 100) for j in range(-99, 100)], ndiv, cell) <= 1 / 9
        assert (drawn.orbit >= 0).sum() == inside.sum() - (level == 0)  # 000 is never measured


def test_levels_are_the_first_ones_of_the_unit_cell_that_have_data():
    operations = laue_operations("-1")
    whole = sphere((20, 20, 20, 90, 90, 90), (1, 1, 1), 4.0)
    assert choose_levels(whole, operations, np.array([1, 1, 1])) == [0, 1, 2]
    halves = sphere((20, 20, 20, 90, 90, 90), (2, 2, 2), 4.0)
    assert choose_levels(halves, operations, np.array([2, 2, 2])) == [0, 1, 2]  # hk0, hk(1/2), hk1
    tenths = sphere((4, 4, 4, 90, 90, 90), (10, 10, 10), 1.5)
    assert choose_levels(tenths, operations, np.array([10, 10, 10])) == [0, 5, 10]
    assert choose_levels(whole[whole[:, 2] != 0], operations, np.array([1, 1, 1])) == [1, 2, 3]
    assert choose_levels(whole[whole[:, 2] == 0], operations, np.array([1, 1, 1])) == [0]


def test_fractional_planes_have_names():
    assert [plane_name(Fraction(n, 2)) for n in range(4)] == ["hk0", "hk(1/2)", "hk1", "hk(3/2)"]


def test_plane_axes_have_the_lengths_of_the_indices():
    cell = (11, 17, 14, 80, 95, 113)
    q = np.array([[1, 0, 0], [0, 1, 0], [3, -2, 0]])
    lengths = np.linalg.norm(q[:, :2] @ plane_axes(cell).T, axis=1)
    reference = [np.sqrt(gemmi.UnitCell(*cell).calculate_1_d2(list(map(int, index)))) for index in q]
    np.testing.assert_allclose(lengths, reference, rtol=1e-12)  # a few roundings of order one quantities


def test_scaling_is_the_weighted_least_squares_line():
    rng = np.random.default_rng(1)
    model, weight = rng.gamma(2, size=200), rng.integers(1, 48, 200)
    observed = 5 - 3 * model + rng.normal(size=200)
    slope, offset = np.polyfit(model, observed, 1, w=np.sqrt(weight))
    np.testing.assert_allclose(scaled_to(observed, model, weight), slope * model + offset, rtol=1e-10)
    flat = scaled_to(observed, np.ones(200), weight)
    np.testing.assert_allclose(flat, np.average(observed, weights=weight), rtol=1e-12)


def test_observed_and_calculated_share_a_scale_and_the_difference_is_centred():
    rng = np.random.default_rng(2)
    ndiv, operations = np.array([1, 1, 1]), laue_operations("-1")
    hkl = sphere((20, 20, 20, 90, 90, 90), ndiv, 4.0)
    observed, calculated = rng.gamma(2, size=len(hkl)), rng.gamma(2, size=len(hkl)) + 1
    maps = {"observed": observed, "calculated": calculated, "difference": observed - calculated}
    scales = colour_scales([plane(hkl, operations, ndiv, level) for level in (0, 1, 2)], maps)
    assert scales["observed"] is scales["calculated"]
    assert scales["difference"].vmin == -scales["difference"].vmax < 0
    assert scales["difference"](0.0) == 0.5
