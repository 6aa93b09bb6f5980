"""The basis against SciPy's splines, its forces against differences of its energies, its sums against NumPy's."""

from functools import partial

import jax
import numpy as np
import pytest
from scipy.interpolate import BSpline

from hpcfit.bead_models.basis import BasisOptions, make_basis, validity_basis
from hpcfit.bead_models.linear import basis_energies, basis_forces, class_functions, normal_equations
from hpcfit.bead_models.ranges import observed_ranges, united
from hpcfit.errors import InputError

TYPES = ["A", "B", "A", "C", "B", "A", "A"]
BONDS = np.array([(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (3, 6)])
BOX = np.array([[24.0, 0, 0], [3.0, 22.0, 0], [-2.0, 4.0, 25.0]])
RANGES = {"pairs": (2.0, 15.0), "bonds": (2.0, 6.0), "angles": (0.2, 3.1)}
CHAIN = np.array([[0, 0, 0], [3.8, 0, 0], [5, 3.5, 0], [8, 4, 2.5], [9, 7, 4.5], [12, 7.5, 3], [9.5, 2, 5.0]])


def frames(n=16, spread=0.4, seed=0):
    """A branched chain whose angles stay away from 0 and pi."""
    return CHAIN + np.random.default_rng(seed).normal(scale=spread, size=(n, *CHAIN.shape))


def basis_of(**options):
    options = {"pair_functions": 9, "bonded_functions": 7, "exclusions": 1} | options
    return make_basis(TYPES, BONDS, BasisOptions(**options), RANGES)


def differences(basis, R, box, step=1e-5):
    """-du/dR [F, N, 3, K], by one step up and one down of each coordinate.

    Errors: step^2 u'''/6 with u''' up to 1e3 / A^3 (a function 0.4 A wide), and rounding 1e-16 u / step: below 1e-7.
    """
    n = R[0].size
    steps = step * np.array([1, -1])[:, None, None, None] * np.eye(n).reshape(1, n, *R.shape[1:])
    moved = (R[:, None, None] + steps).reshape(-1, *R.shape[1:])
    u = basis_energies(basis, moved, None if box is None else np.repeat(box, 2 * n, axis=0))
    u = np.asarray(u).reshape(len(R), 2, n, -1)
    return -((u[:, 0] - u[:, 1]) / (2 * step)).reshape(*R.shape, -1)


@pytest.mark.parametrize(
    ("options", "periodic"),
    [
        pytest.param({"pairs": "gaussian"}, True, id="gaussians, triclinic"),
        pytest.param({"cutoff": 6}, True, id="splines, cut, triclinic"),
        pytest.param({}, False, id="splines", marks=pytest.mark.nightly),
        pytest.param({"pairs": "gaussian", "cutoff": 6}, False, id="gaussians, cut", marks=pytest.mark.nightly),
    ],
)
def test_forces_are_differences_of_energies(options, periodic):
    R, basis = frames(2, spread=0.25), basis_of(**options)
    box = np.broadcast_to(BOX, (2, 3, 3)) if periodic else None
    R[:, 3] += BOX[0] - BOX[2] if periodic else 0  # an image far off
    Phi = np.asarray(basis_forces(basis, R, box))
    np.testing.assert_allclose(Phi, differences(basis, R, box), atol=1e-7)
    assert np.count_nonzero(np.abs(Phi).max(axis=(0, 1, 2))) > basis.size / 3


def test_forces_sum_to_nothing_and_exert_no_torque():
    R = frames()
    Phi = np.asarray(basis_forces(basis_of(), R))
    np.testing.assert_allclose(Phi.sum(axis=1), 0, atol=1e-13)
    np.testing.assert_allclose(np.cross(R[..., None], Phi, axisa=2, axisb=2).sum(axis=1), 0, atol=1e-12)


def test_splines_are_those_of_scipy_and_go_on_straight():
    family, number, _ = next(c for c in basis_of().classes if c[0].kind == "bonds")
    low, high, n = family.low[number], family.high[number], family.functions
    h = (high - low) / (n - 3)
    q = np.linspace(low, high, 50)
    values, slopes = class_functions(family, number, q)
    for k in range(n):
        spline = BSpline.basis_element(low + (k - 3 + np.arange(5)) * h, extrapolate=False)
        np.testing.assert_allclose(values[:, k], np.nan_to_num(spline(q)), atol=1e-12)
        np.testing.assert_allclose(slopes[:, k], np.nan_to_num(spline.derivative()(q)), atol=1e-12)
    outside = np.array([low - 1.0, high + 2.0])
    beyond, its_slopes = class_functions(family, number, outside)
    np.testing.assert_allclose(beyond, values[[0, -1]] + slopes[[0, -1]] * np.array([[-1.0], [2.0]]))
    np.testing.assert_allclose(its_slopes, slopes[[0, -1]])


@pytest.mark.parametrize("shape", ["b-spline", "gaussian"])
def test_cut_functions_end_with_no_force(shape):
    family = basis_of(cutoff=9.0, pairs=shape).families[0]
    # functions that end with two zero derivatives: 1e-4 A before, a force of (1e-4)^2 / h^3
    for part in class_functions(family, 0, np.array([9.0 - 1e-4, 9.0, 9.5])):
        np.testing.assert_allclose(part, 0, atol=1e-6)
        np.testing.assert_allclose(part[1:], 0, atol=1e-20)


def test_dihedral_functions_close_and_constants_give_no_force():
    basis = basis_of()
    family = next(f for f in basis.families if f.kind == "dihedrals")
    one, other = class_functions(family, 0, np.array([-np.pi, np.pi]))
    np.testing.assert_allclose(one[0], one[1], atol=1e-12)
    np.testing.assert_allclose(other[0], other[1], atol=1e-12)
    constants = basis.constants()
    assert len(constants) == len(basis.classes)
    np.testing.assert_allclose(np.asarray(basis_forces(basis, frames())) @ constants.T, 0, atol=1e-12)


def test_equal_steps_have_no_roughness():
    basis = basis_of()
    P = basis.roughness()
    for family, _, columns in basis.classes:
        straight = np.zeros(basis.size)
        straight[columns] = np.arange(family.functions)
        jump = family.functions if family.periodic else 0.0  # a circle comes back with a step up and one down
        assert straight @ P @ straight == pytest.approx(2 * jump**2)


def test_types_make_classes_and_exclusions_leave_pairs_out():
    labels = {f.kind: f.labels for f in basis_of().families}
    assert labels["bonds"] == ("A-B", "A-C", "B-C")
    assert labels["angles"] == ("A-B-A", "A-B-C", "A-C-A", "A-C-B", "B-A-C")
    assert labels["dihedrals"] == ("A-B-A-C", "A-B-C-A", "A-C-A-B", "B-A-C-B")  # two of the second
    whole, few = (basis_of(exclusions=e).families[0] for e in (0, 3))
    assert len(whole.beads) == 21
    assert (0, 3) not in map(tuple, few.beads.tolist())
    assert (0, 4) in map(tuple, few.beads.tolist())


def test_like_pairs_share_columns():
    """A sum over pairs, written out."""
    R = frames()
    i, j = np.triu_indices(7, 1)
    r = np.linalg.norm(R[:, i] - R[:, j], axis=-1)
    expected = np.exp(-0.5 * ((r[..., None] - np.linspace(2, 12, 5)) / 2.5) ** 2).sum(axis=1)
    np.testing.assert_allclose(basis_energies(validity_basis(7, (2.0, 12.0), 5), R), expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normal_equations_are_sums_over_rows(dtype):
    R, basis = frames(), basis_of()
    F = np.random.default_rng(1).normal(size=(16, 7, 3, 2)) * 50
    weights = np.arange(16) < 13
    padded, spoilt = R.copy(), F.copy()
    padded[13:], spoilt[13:] = 0, np.nan  # where angles are none
    sums = normal_equations(basis, padded.astype(dtype), spoilt, None, weights)
    Phi, f = np.asarray(basis_forces(basis, R))[:13].reshape(-1, basis.size), F[:13].reshape(-1, 2)
    # float32: rounding 6e-8 of coordinates of 10 A, through functions 0.5 A wide
    tight = 1e-12 if dtype == np.float64 else 1e-5
    for found, expected in zip(sums, (Phi.T @ Phi, Phi.T @ f, (f**2).sum(axis=0))):
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, atol=tight * np.abs(expected).max())
    assert sums.rows == 13 * 21
    again = normal_equations(basis, padded.astype(dtype), spoilt, None, weights)
    for one, other in zip(sums, again):
        np.testing.assert_array_equal(one, other)


def test_coverage_counts_where_a_function_is_felt():
    R, basis = frames(), basis_of()
    coverage = np.asarray(normal_equations(basis, R, np.zeros((*R.shape, 2))).coverage)
    for kind in ("pairs", "bonds"):
        family, number, columns = next(c for c in basis.classes if c[0].kind == kind)
        beads = family.beads[family.group == number]
        r = np.linalg.norm(R[:, beads[:, 0]] - R[:, beads[:, 1]], axis=-1).ravel()
        values, _ = class_functions(family, number, r)
        np.testing.assert_array_equal(coverage[columns], (values > 0).sum(axis=0))
    assert coverage.min() == 0 < coverage.max()


def test_a_box_below_twice_the_cutoff_and_a_missing_range_are_refused():
    R = frames(2)
    with pytest.raises(InputError, match="half the smallest width"):
        basis_forces(basis_of(cutoff=12.0), R, np.broadcast_to(BOX, (2, 3, 3)))
    with pytest.raises(InputError, match="no range is given for bonds A-B"):
        make_basis(TYPES, BONDS, BasisOptions(cutoff=8.0))


def test_observed_ranges_are_those_of_all_parts():
    R, options = frames(), BasisOptions(exclusions=1)
    parts = [observed_ranges(TYPES, BONDS, options, part) for part in (R[:8], R[8:])]
    found = united(parts)
    r = np.linalg.norm(R[:, 2] - R[:, 3], axis=-1)  # the only ones of their class but 3-6
    other = np.linalg.norm(R[:, 3] - R[:, 6], axis=-1)
    assert found["bonds A-C"] == pytest.approx((min(r.min(), other.min()), max(r.max(), other.max())))
    assert all(low < high for low, high in found.values())


def test_float32_forces_stay_float32():
    assert jax.eval_shape(partial(basis_forces, basis_of()), frames().astype(np.float32)).dtype == np.float32
