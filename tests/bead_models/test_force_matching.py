"""Linear force matching and the comparison of maps: closed forms, direct regressions, made-up data with a known truth,
and two rigid waters whose exact mean force is known (shared data; the numbers are those of shared/reference/force_map).
"""

import itertools

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from hpcfit.bead_models.basis import validity_basis
from hpcfit.bead_models.force_matching import chi2, compare_maps, decomposition, fit_forces, stacked
from hpcfit.bead_models.linear import NormalEquations, basis_forces, normal_equations
from hpcfit.errors import InputError

B, ROWS, K = 10, 300, 6


def made_up(noise=(1.0,), bias=(0.0,), seed=0, blocks=B, rows=ROWS):
    """Blocks of rows Phi [rows, K], a truth theta, and forces of several maps: Phi theta + bias Phi_0 + noise."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=K)
    Phi = rng.normal(size=(blocks, rows, K)) @ (np.eye(K) + 0.4)
    F = Phi @ theta
    maps = [F + b * Phi[..., 0] + s * rng.normal(size=F.shape) for s, b in zip(noise, bias)]
    return theta, Phi, np.stack(maps, axis=-1)


def sums_of(Phi, F):
    return stacked([
        NormalEquations(p.T @ p, p.T @ f, (f**2).sum(axis=0), (p != 0).sum(axis=0), float(len(p)))
        for p, f in zip(Phi, F)
    ])  # fmt: skip


def test_the_fit_is_a_ridge_regression():
    _, Phi, F = made_up()
    ridge = 0.3
    fit = fit_forces(sums_of(Phi, F), ridges=[ridge])
    rows, forces = Phi.reshape(-1, K), F.reshape(-1)
    strength = ridge * np.mean(np.sum(rows**2, axis=0))
    more = np.vstack([rows, np.sqrt(strength) * np.eye(K)])
    expected = np.linalg.lstsq(more, np.append(forces, np.zeros(K)))[0]
    np.testing.assert_allclose(fit.coefficients, expected, rtol=1e-10)
    assert fit.fitted == pytest.approx(np.mean((forces - rows @ expected) ** 2), rel=1e-10)


def test_held_out_residuals_are_those_of_fits_without_the_block():
    _, Phi, F = made_up()
    fit = fit_forces(sums_of(Phi, F), ridges=[0.0])
    left = []
    for b in range(B):
        rest = np.arange(B) != b
        theta = np.linalg.lstsq(Phi[rest].reshape(-1, K), F[rest].reshape(-1))[0]
        np.testing.assert_allclose(fit.left_out[b], theta, rtol=1e-9)
        left.append(np.mean((F[b, :, 0] - Phi[b] @ theta) ** 2))
    assert fit.test.value == pytest.approx(np.mean(left))
    assert fit.test.error == pytest.approx(np.std(left, ddof=1) / np.sqrt(B))


def test_coefficients_have_the_errors_of_least_squares():
    """Over 60 data sets: deviations in units of the errors have variance 1 (t with 9 degrees: 9/7)."""
    deviations = []
    for seed in range(60):
        theta, Phi, F = made_up(noise=(2.0,), seed=seed)
        fit = fit_forces(sums_of(Phi, F), ridges=[0.0])
        deviations.append((fit.coefficients - theta) / fit.errors)
    # 360 numbers of variance 9/7 and kurtosis 3 + 6/5: the s.d. of their mean square is sqrt(3.2 / 360) 9/7 = 0.12,
    # and those of one data set are correlated: twice that, three times
    assert np.mean(np.square(deviations)) == pytest.approx(9 / 7, abs=3 * 2 * 0.12)


def test_the_residual_is_that_of_optimism():
    """train = s2 (1 - K/n), test = s2 (1 + K/n'): here K/n is 1/50, and s2 is known to 0.8 %."""
    many = [fit_forces(sums_of(*made_up(noise=(3.0,), rows=30, seed=s)[1:]), ridges=[0.0]) for s in range(100)]
    train, test = np.mean([fit.fitted for fit in many]), np.mean([fit.test.value for fit in many])
    error = 3 * 9 * np.sqrt(2 / (100 * B * 30))
    assert train == pytest.approx(9 * (1 - K / 300), abs=error)
    assert test == pytest.approx(9 * (1 + K / 270), abs=error)


def test_cross_validation_chooses_the_ridge():
    rng = np.random.default_rng(1)
    Phi = rng.normal(size=(B, 4, 30))  # 40 rows, 30 columns: much to overfit
    F = (Phi @ rng.normal(scale=0.1, size=30) + rng.normal(size=(B, 4)))[..., None]
    fit = fit_forces(sums_of(Phi, F), ridges=[0.0, 1e-3, 3.0, 1e4])
    assert fit.ridge == 3.0
    assert fit.test.value == min(fit.scores)
    assert fit.scores[0] > 2 * fit.test.value


def test_functions_without_samples_stay_zero_and_are_reported():
    theta, Phi, F = made_up(noise=(0.0,))
    F = F - (Phi[..., 2] * theta[2])[..., None]
    Phi = Phi.copy()
    Phi[..., 2] = 0
    fit = fit_forces(sums_of(Phi, F), ridges=[0.0])
    assert fit.empty.tolist() == [False, False, True, False, False, False]
    assert fit.coefficients[2] == fit.errors[2] == 0
    np.testing.assert_allclose(np.delete(fit.coefficients, 2), np.delete(theta, 2), rtol=1e-9)


def test_constants_are_set_to_nothing_and_change_no_force():
    _, Phi, F = made_up()
    Phi = Phi - Phi.mean(axis=-1, keepdims=True)  # the same coefficient for all functions gives no force
    sums = sums_of(Phi, F)
    fit = fit_forces(sums, ridges=[0.0], constants=np.ones((1, K)))
    assert fit.coefficients.sum() == pytest.approx(0, abs=1e-10)
    free = fit_forces(sums, ridges=[0.0])
    assert fit.fitted == pytest.approx(free.fitted, rel=1e-12)
    assert np.all(fit.errors < 1)


def test_smoothness_makes_coefficients_straight():
    _, Phi, F = made_up()
    D = np.diff(np.eye(K), 2, axis=0)
    fit = fit_forces(sums_of(Phi, F), ridges=[0.0], roughness=D.T @ D, smoothness=1e9)
    # a straight line fitted to all the forces
    line = np.stack([np.ones(K), np.arange(K)], axis=1)
    expected = line @ np.linalg.lstsq(Phi.reshape(-1, K) @ line, F.reshape(-1))[0]
    np.testing.assert_allclose(fit.coefficients, expected, rtol=1e-5)


def test_blocks_without_frames_and_a_basis_without_samples_are_refused():
    _, Phi, F = made_up()
    sums = sums_of(Phi, F)
    with pytest.raises(InputError, match="9 of 10 statistical blocks"):
        fit_forces(sums._replace(rows=np.where(np.arange(B) == 3, 0, ROWS)))
    with pytest.raises(InputError, match="1 of 1"):
        fit_forces(NormalEquations(*(leaf[:1] for leaf in sums)))
    with pytest.raises(InputError, match="no function"):
        fit_forces(sums_of(0 * Phi, F))


# ---- comparing maps ------------------------------------------------------------------------------------------------


def test_valid_maps_are_rarely_called_invalid():
    """Maps that differ in noise alone: at a doubt of 0.01, 200 of them give 2 false alarms; 9 have probability 2e-4."""
    found = [compare_maps(sums_of(*made_up(noise=(1.0, 4.0), bias=(0, 0), seed=seed)[1:]))[1] for seed in range(200)]
    assert sum(not each.agrees for each in found) < 9
    assert np.mean([each.doubt < 0.2 for each in found]) < 0.2 + 3 * np.sqrt(0.2 * 0.8 / 200)
    # the statistics are in units of their errors: t with 9 degrees of freedom has a mean square of 9/7
    z = np.array([[*(each.fields / each.errors), each.cross.z] for each in found])
    assert np.mean(z**2) == pytest.approx(9 / 7, abs=0.25)


def test_a_field_fitted_to_few_noisy_forces_calls_no_map_invalid():
    """Fitted to the forces that it is compared with, the field of 6 functions and 40 rows would hold 6/40 of the noise
    of the reference, and a map without noise would lack it. t with 9 degrees: 100 z have a mean of 0 +- 0.113."""
    few = [compare_maps(sums_of(*made_up(noise=(20.0, 1.0), bias=(0, 0), rows=4, seed=s)[1:]))[1] for s in range(100)]
    assert abs(np.mean([each.cross.z for each in few])) < 4 * 0.113
    assert sum(not each.agrees for each in few) < 6  # 1 is expected; 6 have probability 6e-4


def test_a_biased_map_is_found_and_the_reference_agrees_with_itself():
    _, Phi, F = made_up(noise=(1.0, 1.0, 8.0), bias=(0, 0.3, 0.0))
    reference, biased, noisy = compare_maps(sums_of(Phi, F))
    assert (reference.agrees, biased.agrees, noisy.agrees) == (True, False, True)
    assert np.all(reference.fields == 0)
    assert reference.doubt == 1.0
    # <0.3 Phi_0 . Phi_k>, the bias that was built in
    expected = 0.3 * np.mean(Phi[..., :1] * Phi, axis=(0, 1))
    np.testing.assert_allclose(biased.fields, expected, atol=4 * biased.errors.max())
    assert "differ" in biased.verdict


def products_of(F: np.ndarray, f: np.ndarray, U: np.ndarray, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What ``decomposition`` is made from, of frames [T, ...]; the bias is the mean of all components."""
    all_four = np.stack([np.reshape(a, (len(F), -1)) for a in (F, f, U, np.ones(F.shape))])
    blocks = [all_four[:, block == b] for b in np.unique(block)]
    return np.array([np.einsum("itc,jtc->ij", b, b) for b in blocks]), np.array([b[0].size for b in blocks])


def test_the_decomposition_adds_up():
    rng = np.random.default_rng(2)
    f, U, noise = rng.normal(size=(3, 5000, 4, 3)) * np.array([3.0, 2.0, 5.0])[:, None, None, None]
    found = decomposition(*products_of(f + noise, f, U, np.arange(5000) // 500))
    parts = found.pmf_error.value + found.noise.value + found.cross.value
    assert found.chi2.value == pytest.approx(parts, rel=1e-12)
    # of 60,000 components: s.d. of a mean square sqrt(2 / 60000) of it
    assert found.noise.value == pytest.approx(25, rel=4 * np.sqrt(2 / 60000))
    assert found.pmf_error.value == pytest.approx(13, rel=4 * np.sqrt(2 / 60000))
    assert abs(found.cross.z) < 4.8  # t with 9 degrees, probability 1e-3
    with pytest.raises(InputError, match="one statistical block"):
        decomposition(*products_of(f, f, U, np.zeros(5000)))


# ---- two rigid waters ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def waters(shared_data):
    """Positions of the oxygens [T, 2, 3], forces of the maps basic and slice [T, 2, 3, 2], exact f(r); A, kJ/mol."""
    folder = shared_data / "forcemap"
    if not (folder / "dimer_rigid.npz").exists():
        pytest.skip(f"no water dimer in {folder}")
    with np.load(folder / "dimer_rigid.npz") as file:
        coords, forces = file["coords"] * 10.0, file["Fs"] / 10.0
    exact = np.load(folder / "exact_rigid.npy")
    basic = forces.reshape(len(forces), 2, 3, 3).sum(axis=2)
    maps = np.stack([basic, forces[:, [0, 3]]], axis=-1)
    r, first = np.unique(exact[:, 0], return_index=True)
    inside = CubicSpline(r * 10, exact[first, 2] / 10)
    # beyond 16 A the waters feel the field alone, 3 kJ/mol/nm^2 on each of 3 atoms, of which r has 3/2
    return coords[:, [0, 3]], maps, lambda r: np.where(r < 16, inside(np.minimum(r, 16)), -0.045 * r)


def test_the_slice_map_of_rigid_water_is_found_invalid(waters):
    R, maps, _ = waters
    blocks = dimer_sums(R, maps, validity_basis(2, (2.5, 9.0), 12))
    basic, sliced = compare_maps(blocks)
    assert basic.agrees
    assert not sliced.agrees
    assert max(abs(sliced.fields / sliced.errors).max(), sliced.difference.z) > 10


def test_chi2_of_rigid_waters_is_error_of_the_model_and_noise(waters):
    """The radial force, kJ/mol/nm as in the reference: U = 0 gives PMF 14,445, noise 1664, cross -97 +- 64."""
    R, maps, exact = waters
    u = R[:, 0] - R[:, 1]
    r = np.linalg.norm(u, axis=1)
    radial = 10 * np.einsum("tx,txm->tm", u / r[:, None], maps[:, 0] - maps[:, 1]) / 2
    block = np.arange(len(r)) * 10 // len(r)
    basic, sliced = (decomposition(*products_of(radial[:, m], 10 * exact(r), np.zeros(len(r)), block)) for m in (0, 1))
    assert basic.noise.value == pytest.approx(1664, rel=0.02)
    assert basic.pmf_error.value == pytest.approx(14445, rel=0.02)
    assert abs(basic.cross.z) < 4.8
    assert abs(basic.bias.z) < 4.8
    assert sliced.bias.value == pytest.approx(136.6, abs=4 * 2.0)
    assert sliced.cross.z > 10


def test_the_fitted_force_between_waters_is_the_exact_one(waters):
    """RBF of the distance: the reference finds an r.m.s. error of 1.2 kJ/mol/nm with 40,000 frames."""
    R, maps, exact = waters
    basis = validity_basis(2, (0.0, 10.0), 40)
    fit = fit_forces(dimer_sums(R, maps, basis))
    r = np.linspace(2.6, 8.0, 200)
    pairs = np.zeros((200, 2, 3))
    pairs[:, 0, 0] = r
    found = 10 * np.asarray(basis_forces(basis, pairs))[:, 0, 0] @ fit.coefficients
    populated = np.histogram(np.linalg.norm(R[:, 0] - R[:, 1], axis=1), np.append(r - 0.0136, r[-1] + 0.0136))[0]
    error = found - 10 * exact(r)
    assert np.sqrt(np.average(error**2, weights=populated)) < 2.0
    assert fit.fitted < fit.test.value
    assert fit.test.value == pytest.approx(chi2(fit_sum(dimer_sums(R, maps, basis)), fit.coefficients), rel=0.01)


def fit_sum(blocks):
    total = NormalEquations(*(leaf.sum(axis=0) for leaf in blocks))
    return total._replace(rhs=total.rhs[:, 0], square=total.square[0])


def dimer_sums(R, maps, basis, blocks=10):
    edges = np.linspace(0, len(R), blocks + 1).astype(int)
    return stacked([
        normal_equations(basis, R[a:b].astype(np.float32), maps[a:b].astype(np.float32))
        for a, b in itertools.pairwise(edges)
    ])  # fmt: skip
