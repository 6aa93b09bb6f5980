"""The reciprocal lattice against gemmi, group theory by hand and brute force."""

import gemmi
import numpy as np
import pytest

from hpcfit.errors import InputError
from hpcfit.physics import reciprocal

TRICLINIC = (11.3, 14.7, 19.1, 78.0, 97.0, 112.0)


def full_sphere(n):
    axis = np.arange(-n, n + 1)
    hkl = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    return hkl[np.any(hkl, axis=1)]


def test_resolution_of_a_triclinic_cell_is_that_of_gemmi():
    hkl, cell = full_sphere(3), gemmi.UnitCell(*TRICLINIC)
    expected = [cell.calculate_1_d2(h) for h in hkl.tolist()]
    # Two float64 evaluations of a sum of six terms.
    np.testing.assert_allclose(reciprocal.inverse_d2(hkl, (1, 1, 1), TRICLINIC), expected, rtol=1e-13)


def test_resolution_of_a_supercell_is_that_of_its_unit_cell():
    hkl = full_sphere(2)
    ndiv = np.array([2, 3, 1])
    expected = reciprocal.inverse_d2(hkl, (1, 1, 1), TRICLINIC)
    np.testing.assert_allclose(reciprocal.inverse_d2(hkl * ndiv, ndiv, TRICLINIC), expected, rtol=1e-14)


@pytest.mark.parametrize("cell", [(10, 10, 0, 90, 90, 90), (10, 10, 10, 40, 40, 170)])
def test_an_impossible_cell_is_said(cell):
    with pytest.raises(InputError, match="is not a cell"):
        reciprocal.inverse_d2([[1, 0, 0]], (1, 1, 1), cell)


def test_hemisphere_keeps_one_of_each_friedel_pair():
    hkl = full_sphere(4)
    canonical, flipped = reciprocal.hemisphere(hkl)
    asymmetric_unit = gemmi.ReciprocalAsu(gemmi.SpaceGroup("P 1"))
    assert all(asymmetric_unit.is_in(one) for one in canonical.tolist())
    np.testing.assert_array_equal(np.where(flipped[:, None], -canonical, canonical), hkl)
    assert flipped.sum() == len(hkl) // 2
    assert len(np.unique(canonical, axis=0)) == len(hkl) // 2
    assert not reciprocal.hemisphere([[0, 0, 0]])[1][0]


@pytest.mark.parametrize(
    ("cell", "ndiv", "d_min", "d_max"),
    [
        ((10, 10, 10, 90, 90, 90), (1, 1, 1), 2.0, np.inf),
        (TRICLINIC, (1, 2, 1), 4.0, 12.0),
        ((8, 8, 12, 90, 90, 120), (1, 1, 1), 1.6, np.inf),
    ],
)
def test_sphere_is_what_brute_force_selects(cell, ndiv, d_min, d_max):
    hkl = full_sphere(9)
    d = 1 / np.sqrt(reciprocal.inverse_d2(hkl, ndiv, cell))
    inside = hkl[(d >= d_min * (1 - 1e-9)) & (d <= d_max)]
    found = reciprocal.sphere(cell, ndiv, d_min, d_max)
    np.testing.assert_array_equal(np.unique(found, axis=0), np.unique(reciprocal.hemisphere(inside)[0], axis=0))
    assert len(np.unique(found, axis=0)) == len(found)


def test_sphere_counts_the_lattice_points_of_a_ball():
    # Volume of the ball: (4/3) pi (a/d)^3 points, half of them in the hemisphere; the surface term is O((a/d)^2).
    radius = 40.0
    n = len(reciprocal.sphere((80, 80, 80, 90, 90, 90), (1, 1, 1), 2.0))
    assert abs(n / (2 / 3 * np.pi * radius**3) - 1) < 3 / (4 * radius)


@pytest.mark.parametrize(("d_min", "d_max"), [(0.0, 10.0), (3.0, 2.0)])
def test_limits_that_select_nothing_are_said(d_min, d_max):
    with pytest.raises(InputError, match="select nothing"):
        reciprocal.sphere(TRICLINIC, (1, 1, 1), d_min, d_max)


def test_order_is_by_resolution_with_mates_together_and_independent_of_the_input():
    cell = (9.7, 9.7, 9.7, 90, 90, 90)
    hkl = reciprocal.sphere(cell, (1, 1, 1), 1.0)
    shuffled = hkl[np.random.default_rng(1).permutation(len(hkl))]
    np.testing.assert_array_equal(shuffled[reciprocal.resolution_order(shuffled, (1, 1, 1), cell)], hkl)
    n2 = (hkl**2).sum(axis=1)
    assert np.all(np.diff(n2) >= 0)
    for level in np.unique(n2):
        keys = [tuple(r[::-1]) for r in hkl[n2 == level].tolist()]
        assert keys == sorted(keys)


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("-1", 2),
        ("P1", 2),
        ("2/m", 4),
        ("mmm", 8),
        ("P212121", 8),
        ("4/m", 8),
        ("P 41", 8),
        ("4/mmm", 16),
        ("-3", 6),
        ("-3m1", 12),
        ("-31m", 12),
        ("6/m", 12),
        ("6/mmm", 24),
        ("m-3", 24),
        ("m-3m", 48),
        ("F -4 3 m", 48),
        ("I 41/a", 8),
    ],
)
def test_operations_form_the_laue_group(name, order):
    operations = reciprocal.laue_operations(name)
    members = {m.tobytes() for m in operations}
    assert len(members) == len(operations) == order
    np.testing.assert_array_equal(operations[0], np.eye(3))
    assert (-operations[0]).tobytes() in members
    products = np.einsum("aij,bjk->abik", operations, operations).reshape(-1, 3, 3)
    assert {np.ascontiguousarray(p).tobytes() for p in products} == members


def test_an_unknown_group_names_its_neighbours():
    with pytest.raises(InputError, match=r"'m-3n' is neither.*(\n.*)*m-3m"):
        reciprocal.laue_operations("m-3n")


@pytest.mark.parametrize(
    ("reflection", "size"),
    [
        ((1, 2, 3), 48),
        ((1, 1, 2), 24),
        ((1, 2, 0), 24),
        ((1, 1, 0), 12),
        ((1, 1, 1), 8),
        ((1, 0, 0), 6),
        ((0, 0, 0), 1),
    ],
)
def test_orbit_sizes_of_the_cubic_group(reflection, size):
    _, found = reciprocal.laue_orbits([reflection], reciprocal.laue_operations("m-3m"), (1, 1, 1))
    assert found.tolist() == [size]


@pytest.mark.parametrize("name", ["P 41", "-31m", "6/mmm", "m-3", "m-3m"])
def test_orbits_are_the_asu_classes_of_gemmi(name):
    hkl = full_sphere(4)
    group = gemmi.find_spacegroup_by_name(
        {"-31m": "P -3 1 m", "6/mmm": "P 6/m m m", "m-3": "P m -3", "m-3m": "P m -3 m"}.get(name, name)
    )
    asu, operations = gemmi.ReciprocalAsu(group), group.operations()
    expected = [tuple(asu.to_asu(h, operations)[0]) for h in hkl.tolist()]
    orbit, size = reciprocal.laue_orbits(hkl, reciprocal.laue_operations(name), (1, 1, 1))
    assert len(set(zip(expected, orbit.tolist(), strict=True))) == len(set(expected)) == len(size)
    # First appearance numbers the orbits, and sizes count all images: the whole box is closed under cubic groups only.
    _, first = np.unique(orbit, return_index=True)
    assert np.all(np.diff(first) > 0)
    if name.startswith(("P 4", "m")):
        np.testing.assert_array_equal(np.bincount(orbit), size)


def test_orbits_of_a_supercell_follow_the_fractional_index():
    hkl, operations = full_sphere(2) * 2, reciprocal.laue_operations("4/m")
    expected = reciprocal.laue_orbits(hkl // 2, operations, (1, 1, 1))
    for found, wanted in zip(reciprocal.laue_orbits(hkl, operations, (2, 2, 1)), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_supercell_that_breaks_the_symmetry_is_refused():
    with pytest.raises(InputError, match=r"supercell of \(2, 1, 1\).*breaks the symmetry"):
        reciprocal.laue_orbits([[1, 0, 0]], reciprocal.laue_operations("4/m"), (2, 1, 1))


def test_match_finds_friedel_mates_and_fractions():
    store = np.array([[2, 0, 0], [1, 0, 0], [0, 2, 4], [3, 2, 2]])
    measured = np.array([[0, -1, -2], [1, 0, 0], [-1, 0, 0], [5, 5, 5]])
    index_a, index_b = reciprocal.match(store, (2, 2, 2), measured, (1, 1, 1))
    assert list(zip(index_a.tolist(), index_b.tolist(), strict=True)) == [(0, 1), (0, 2), (2, 0)]


def test_match_between_unlike_divisions():
    index_a, index_b = reciprocal.match([[1, 3, 2], [2, 3, 2]], (2, 3, 1), [[3, 2, 2], [6, 2, 2]], (6, 2, 1))
    # (1/2, 1, 2) = (3/6, 2/2, 2) and (1, 1, 2) = (6/6, 2/2, 2)
    assert (index_a.tolist(), index_b.tolist()) == ([0, 1], [0, 1])


def test_no_common_reflection_is_an_empty_match():
    index_a, index_b = reciprocal.match([[1, 0, 0]], (1, 1, 1), [[2, 0, 0]], (1, 1, 1))
    assert index_a.size == index_b.size == 0


def test_shells_hold_equal_numbers_and_never_part_mates():
    cell = (60, 60, 60, 90, 90, 90)
    hkl = reciprocal.sphere(cell, (1, 1, 1), 2.0)
    s2 = reciprocal.inverse_d2(hkl, (1, 1, 1), cell)
    shell, edges = reciprocal.shells(s2, 10)
    counts = np.bincount(shell, minlength=10)
    # Lattice points in a shell of volume V fluctuate with its surface: well under 2 % for 5,600 points.
    assert np.abs(counts / counts.mean() - 1).max() < 0.02
    orbit, _ = reciprocal.laue_orbits(hkl, reciprocal.laue_operations("m-3m"), (1, 1, 1))
    assert np.all(np.bincount(orbit, shell) / np.bincount(orbit) % 1 == 0)
    assert edges[0] == pytest.approx(np.sqrt(s2.min()))
    assert edges[-1] == pytest.approx(0.5, rel=1e-3)
    np.testing.assert_allclose(np.diff(edges**3), np.diff(edges**3).mean(), rtol=1e-9)


def test_one_resolution_is_one_shell():
    shell, edges = reciprocal.shells(np.full(5, 0.25), 3)
    assert shell.tolist() == [0] * 5
    np.testing.assert_allclose(edges, 0.5)
