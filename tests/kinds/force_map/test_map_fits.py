"""Maps, ridges, held-out noise and errors from products of blocks, against least squares on the frames themselves."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse

from hpcfit.errors import InputError
from hpcfit.kinds.force_map.bead_choice import Beads, Reduced, reduced
from hpcfit.kinds.force_map.config import MapConfig
from hpcfit.kinds.force_map.features import feature_forces, features_of
from hpcfit.kinds.force_map.map_fits import (
    Evidence,
    FeatureEvidence,
    choose_map,
    covariance,
    find_map,
    learning_curve,
    methods,
    warnings_of,
)
from hpcfit.kinds.force_map.maps import basic_map, sub_grams
from hpcfit.kinds.force_map.support import support_within, tied_classes
from hpcfit.testsystems.harmonic_beads import HarmonicBeads

SYSTEM = HarmonicBeads(12)
FRAMES = np.array([50, 40, 50, 60, 40])


def of_beads(group: np.ndarray | None = None) -> Reduced:
    """Atoms 0 and 7, and the middle of 3 and 4."""
    M = np.zeros((3, 12))
    M[0, 0], M[1, [3, 4]], M[2, 7] = 1, [0.25, 0.75], 1
    return reduced(Beads(("A", "B", "C"), scipy.sparse.csr_array(M)), np.arange(12) if group is None else group)


def reduced_forces(of: Reduced, count: int, seed=1) -> np.ndarray:
    """Components of frames, [3 T, q]."""
    _, f = SYSTEM.frames(count, seed)
    return np.einsum("qi,tix->txq", of.reduction().toarray(), f).reshape(3 * count, -1)


def evidence_of(g: np.ndarray, frames=FRAMES) -> Evidence:
    parts = np.split(g, 3 * np.cumsum(frames)[:-1])
    return Evidence(np.stack([part.T @ part for part in parts]), np.asarray(frames))


def least_squares(g: np.ndarray, of: Reduced, ridge: float, support: np.ndarray | None) -> np.ndarray:
    """C [N, q] by lstsq on the frames, in a basis of the null space of the constraints: no normal equations."""
    m, found = of.n_groups, []
    if support is None:
        support = np.tile(np.arange(m), (of.n_beads, 1))
    near = np.unique(support[support >= 0])
    pull = ridge * np.mean(g[:, near] ** 2) * len(g)
    for bead, groups in enumerate(support):
        groups = groups[groups >= 0]
        A = of.A[:, groups]
        Z, start = scipy.linalg.null_space(A), np.linalg.lstsq(A, np.eye(of.n_beads)[bead], rcond=None)[0]
        rows = np.concatenate([g[:, groups], np.diag(np.sqrt(pull * of.sizes[groups]))])
        c = np.zeros(g.shape[1])
        c[groups] = start - Z @ np.linalg.lstsq(rows @ Z, rows @ start, rcond=None)[0]
        found.append(c)
    return np.array(found)


def supports(of: Reduced, distance=2) -> np.ndarray:
    return support_within(SYSTEM.particles.bonds, of, distance)


def tied_of(of: Reduced, support: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    atoms = SYSTEM.particles
    return support, tied_classes(
        support, of, atoms.elements, atoms.names, atoms.residue, atoms.residue_names, atoms.bonds
    )


def made(of: Reduced, evidence: Evidence, **choice) -> list:
    """The methods of a config."""
    config = MapConfig(**choice)
    near = supports(of)
    return methods(config, of, evidence, near, tied_of(of, near), None, None)


# ---- held out ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("ridge", [0.0, 0.03])
@pytest.mark.parametrize("name", ["optimal", "local"])
def test_every_number_is_that_of_fits_to_the_frames(name, ridge, constrained):
    """The normal equations have the condition of the frames squared, 1e4 here: 1e-16 x 1e4 and some more."""
    of = of_beads(np.array([0, 0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 8]) if constrained else None)
    g = reduced_forces(of, FRAMES.sum())
    (method,) = made(of, evidence_of(g), methods=[name], ridge=ridge)
    found = find_map(method, of, 0, 0)
    support = supports(of) if name == "local" else None
    parts = np.split(np.arange(len(g)), 3 * np.cumsum(FRAMES)[:-1])
    by_block = []
    for rows in parts:
        C = least_squares(np.delete(g, rows, axis=0), of, ridge, support)
        by_block.append(np.mean((g[rows] @ C.T) ** 2, axis=0))
    C = least_squares(g, of, ridge, support)
    share = FRAMES / FRAMES.sum()
    expected = share @ by_block
    np.testing.assert_allclose(found.C, C, atol=1e-10)
    np.testing.assert_allclose(found.fitted, np.mean((g @ C.T) ** 2, axis=0), rtol=1e-10)
    np.testing.assert_allclose(found.held_out, expected, rtol=1e-10)
    deviations = share[:, None] * (np.array(by_block) - expected)
    np.testing.assert_allclose(found.held_out_error, np.sqrt(5 / 4 * np.sum(deviations**2, axis=0)), rtol=1e-8)
    over_beads = np.sqrt(5 / 4 * np.sum(deviations.mean(axis=1) ** 2))
    assert found.total_error == pytest.approx(over_beads, rel=1e-8)
    assert found.curve == ((ridge, pytest.approx(expected.mean(), rel=1e-10)),)
    assert found.valid
    n_groups = 9 if constrained else 12
    free = [n_groups - 3] * 3 if name == "optimal" else [
        len(row[row >= 0]) - np.linalg.matrix_rank(of.A[:, row[row >= 0]]) for row in support
    ]  # fmt: skip
    np.testing.assert_array_equal(found.p, free)


def test_maps_that_are_not_fitted_have_the_noise_of_all_frames_and_no_ridge():
    of = of_beads()
    g = reduced_forces(of, FRAMES.sum())
    for method in made(of, evidence_of(g), methods=["slice", "basic"]):
        found = find_map(method, of, 20, 0)
        F = g @ found.C.T
        np.testing.assert_allclose(found.held_out, np.mean(F**2, axis=0), rtol=1e-12)
        np.testing.assert_allclose(found.fitted, found.held_out, rtol=1e-12)
        assert (found.ridge, found.curve, found.error) == (None, (), None)
        np.testing.assert_array_equal(found.p, 0)


@pytest.mark.parametrize("name", ["local", "tied"])
def test_local_products_give_what_dense_ones_give(name):
    """The same numbers in the same order but for the sum that the ridge is a fraction of."""
    of = of_beads()
    dense = evidence_of(reduced_forces(of, FRAMES.sum()))
    near = supports(of)
    local = replace(dense, sums=sub_grams(dense.sums, near), support=near)
    found = []
    for evidence in (dense, local):
        choice = {"methods": ["slice", "basic", name], "ridge": [0.0, 0.01], "tie": "residues"}
        if name == "local":
            choice.pop("tie")
        of_methods = made(of, evidence, **choice)
        found.append([find_map(method, of, 10, 3) for method in of_methods])
        for method, one in zip(of_methods, found[-1]):
            assert learning_curve(method, one.ridge or 0.0)
    for a, b in zip(*found):
        for part in ("C", "p", "fitted", "held_out", "held_out_error"):
            np.testing.assert_allclose(getattr(a, part), getattr(b, part), rtol=1e-9, atol=1e-12)
        assert a.ridge == b.ridge
        if a.error is not None:
            np.testing.assert_allclose(a.error, b.error, rtol=1e-7, atol=1e-12)
        np.testing.assert_allclose(np.diag(covariance(a, dense)), np.diag(covariance(b, local)), rtol=1e-9)
        np.testing.assert_array_equal(covariance(b, local), np.diag(b.fitted))
    F = reduced_forces(of, FRAMES.sum()) @ found[0][2].C.T
    np.testing.assert_allclose(covariance(found[0][2], dense), F.T @ F / len(F), rtol=1e-9)


# ---- the ridge -------------------------------------------------------------------------------------------------------


def test_the_ridge_is_the_one_of_least_noise_on_blocks_left_out():
    """Of 15 frames 9 coefficients are better held back; 3000 frames need that no more. towards: basic, from which the
    best map is not far."""
    of = of_beads()
    chosen = {}
    for count in (15, 3000):
        frames = np.full(5, count // 5)
        evidence = evidence_of(reduced_forces(of, count), frames)
        (method,) = made(of, evidence, methods=["optimal"], ridge=[0.0, 0.1, 1e5], ridge_towards="basic")
        found = find_map(method, of, 0, 0)
        curve = dict(found.curve)
        assert list(curve) == [0.0, 0.1, 1e5]
        assert found.held_out.mean() == pytest.approx(min(curve.values()), rel=1e-12)
        assert curve[found.ridge] == min(curve.values())
        at_basic = evidence.mean_square(basic_map(of)).mean()
        assert curve[1e5] == pytest.approx(at_basic, rel=1e-3)  # as good as held fast
        chosen[count] = found.ridge
    assert chosen == {15: 0.1, 3000: 0.0}


def test_towards_the_tied_map_a_strong_ridge_is_the_tied_map():
    of = of_beads()
    evidence = evidence_of(reduced_forces(of, FRAMES.sum()))
    optimal, tied = made(of, evidence, methods=["optimal", "tied"], ridge=[1e9], ridge_towards="tied", tie="residues")
    C = find_map(optimal, of, 0, 0).C
    np.testing.assert_allclose(C, tied.fit(evidence.mean(), 0.0), atol=1e-6)  # 1 / ridge, times the condition


# ---- errors of the coefficients --------------------------------------------------------------------------------------


def test_the_bootstrap_error_is_the_spread_of_maps_of_independent_frames():
    """Forces are Gaussian, so the coefficients of T frames are those of a regression, of covariance s2 (Z^T G Z)^-1 /
    (3T - p - 1). 20 blocks know a standard deviation to 1 / sqrt(2 x 19) = 16 %, over the 9 coefficients of a bead to
    less, by how much depends on their correlations: 30 % is two of these. The spread of 40 sets is known to 11 %."""
    of, count, n = of_beads(), 1200, 20
    frames = np.full(n, count // n)
    maps = []
    for seed in range(40):
        (method,) = made(of, evidence_of(reduced_forces(of, count, seed), frames), methods=["optimal"], ridge=0.0)
        maps.append(find_map(method, of, 200 if seed == 0 else 0, 5))
    spread = np.std([one.C for one in maps], axis=0, ddof=1)
    S = of.reduction().toarray()[:12]
    G = SYSTEM.kT * S @ SYSTEM.K @ S.T
    Z = scipy.linalg.null_space(of.A)
    exact = Z @ np.linalg.inv(Z.T @ G @ Z) @ Z.T
    s2 = SYSTEM.kT * np.diag(SYSTEM.bead_stiffness(of.beads.M.toarray()))
    for bead in range(3):
        expected = np.sqrt(s2[bead] * np.diag(exact) / (3 * count - 10))
        rms = [np.sqrt(np.mean(values[bead, :12] ** 2)) for values in (spread, maps[0].error)]
        assert rms[0] == pytest.approx(np.sqrt(np.mean(expected**2)), rel=0.22)
        assert rms[1] == pytest.approx(np.sqrt(np.mean(expected**2)), rel=0.3)
    fixed = maps[0].error[:, [0, 7]]  # coefficients that M W^T = 1 sets
    assert fixed.max() < 1e-7


def test_resamples_are_those_of_the_seed():
    of = of_beads()
    (method,) = made(of, evidence_of(reduced_forces(of, FRAMES.sum())), methods=["optimal"], ridge=0.0)
    first, again, other = (find_map(method, of, 20, seed).error for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


# ---- learning --------------------------------------------------------------------------------------------------------


def test_the_learning_curve_is_that_of_the_first_frames_judged_by_the_last():
    of, frames = of_beads(), np.array([20, 30, 40, 50, 30, 20, 25])
    g = reduced_forces(of, frames.sum())
    (method,) = made(of, evidence_of(g, frames), methods=["optimal"], ridge=0.0)
    curve = learning_curve(method, 0.0)
    ends = np.cumsum(frames)
    test = g[3 * ends[4] :]  # two of seven blocks
    assert [point.frames for point in curve] == [ends[count - 1] for count in (1, 2, 4, 5)]
    for point in curve:
        train = g[: 3 * point.frames]
        C = least_squares(train, of, 0.0, None)
        fitted = np.mean((train @ C.T) ** 2)
        assert point.fitted == pytest.approx(fitted, rel=1e-8)
        assert point.held_out == pytest.approx(np.mean((test @ C.T) ** 2), rel=1e-8)
        assert point.predicted == pytest.approx(fitted / (1 - 9 / (3 * point.frames)) ** 2, rel=1e-8)


def test_the_law_of_optimism_holds_for_gaussian_forces():
    """Mean over 100 data sets of held-out and fitted noise at T = 12, p = 9; new frames of Gaussian forces by random
    designs: s2 (3T - 1) / (3T - p - 1), which the law s2 (1 + p / (3T - p)) has to 1 / (3T - p) = 4 %. The mean of 100
    x 300 components of 3 beads has 1.5 %, and the maps of 12 frames scatter by sqrt(2 p) / (3T) / sqrt(300) = 0.7 %."""
    of, s2 = of_beads(), SYSTEM.kT * np.diag(SYSTEM.bead_stiffness(of_beads().beads.M.toarray()))
    held_out, fitted = [], []
    for seed in range(100):
        g = reduced_forces(of, 112, seed)
        (method,) = made(of, evidence_of(g[:36], np.full(2, 6)), methods=["optimal"], ridge=0.0)
        C = method.fit(method.evidence.mean(), 0.0)
        fitted.append(np.mean((g[:36] @ C.T) ** 2, axis=0) / s2)
        held_out.append(np.mean((g[36:] @ C.T) ** 2, axis=0) / s2)
    assert np.mean(fitted) == pytest.approx(1 - 9 / 36, rel=0.04)
    assert np.mean(held_out) == pytest.approx(35 / 26, rel=0.04)


# ---- errors and warnings ---------------------------------------------------------------------------------------------


def test_a_fit_that_nothing_determines_is_an_error_without_a_ridge():
    """9 coefficients; without its largest block 4 frames have 12 components, 3 frames 9."""
    of = of_beads()
    for frames, ridge, fine in (([2, 2, 2], 0.0, True), ([2, 1, 1], 0.0, False), ([2, 1, 1], [0.0, 0.1], True)):
        evidence = evidence_of(reduced_forces(of, sum(frames)), np.array(frames))
        (method,) = made(of, evidence, methods=["optimal"], ridge=ridge)
        if fine:
            assert find_map(method, of, 0, 0).valid
            continue
        words = r"'optimal' has 9 free coefficients, 6 force components \(of 2 frames\) .* without a ridge"
        with pytest.raises(InputError, match=words) as caught:
            find_map(method, of, 0, 0)
        assert "remedy: give more frames, a ridge above 0, or use a local or tied map" in str(caught.value)


def rigid() -> Reduced:
    """Atoms 0 and 1 as one group: slice takes the force of one of them."""
    return of_beads(np.array([0, 0, *range(1, 11)]))


def found_maps(of: Reduced, frames=FRAMES, **choice):
    evidence = evidence_of(reduced_forces(of, int(np.sum(frames))), frames)
    return [find_map(method, of, 0, 0) for method in made(of, evidence, ridge=0.0, **choice)]


def test_the_best_map_is_the_valid_one_of_least_held_out_noise():
    slice_, basic, optimal = found_maps(rigid(), methods=["slice", "basic", "optimal"])
    assert not slice_.valid
    assert basic.valid
    assert optimal.valid
    config = MapConfig()
    assert choose_map(config, [slice_, basic, optimal]) is optimal
    assert choose_map(config, [slice_, basic]) is basic
    silent = slice_._replace(held_out=0 * slice_.held_out)
    assert choose_map(config, [silent, basic]) is basic
    noisy = optimal._replace(held_out=10 * basic.held_out, fitted=0 * basic.fitted)
    assert choose_map(config, [noisy, basic]) is basic
    with pytest.raises(InputError, match="none of the maps slice gives the mean force") as caught:
        choose_map(config, [slice_])
    assert "add 'basic' or 'optimal'" in str(caught.value)


def test_an_invalid_map_is_used_if_it_is_named_with_a_warning(caplog):
    slice_, basic, _ = found_maps(rigid(), methods=["slice", "basic", "optimal"])
    with caplog.at_level(logging.WARNING, "hpcfit"):
        assert choose_map(MapConfig(methods=["slice", "basic"], use="slice"), [slice_, basic]) is slice_
        assert choose_map(MapConfig(methods=["slice", "basic"], use="basic"), [slice_, basic]) is basic
    (record,) = caplog.records
    assert "map 'slice' is invalid: it differs by 1 within a rigid group" in record.getMessage()


def test_warnings():
    """9 coefficients ask for 297 frames."""
    maps = found_maps(of_beads(), methods=["basic", "optimal", "local"])
    assert warnings_of(maps, 297) == []
    said = warnings_of(maps, 296)
    assert len(said) == 1
    assert "map 'optimal' has 9 free coefficients and 296 frames, less than 33 for each" in said[0]
    assert said[0].endswith("or use a local or tied map")
    said = warnings_of(maps, 20)
    assert ["optimal" in said[0], "local" in said[1], "or tied" in said[1]] == [True, True, False]
    assert "map 'slice' is invalid" in warnings_of(found_maps(rigid(), methods=["slice", "optimal"]), 10_000)[0]


# ---- features --------------------------------------------------------------------------------------------------------


def test_features_are_fitted_to_the_frames_and_not_worse_than_the_basic_map():
    """Constants are among them, so that more frames than 33 a coefficient make them better by far: the best map has
    no noise, the basic one has. By least squares on the forces of the features, whose normal equations are scaled."""
    of, frames = of_beads(), np.full(4, 150)
    r, f = SYSTEM.frames(600, 7)
    near, basic = supports(of, 1), basic_map(of)
    features = [features_of(bead, of, basic, near[bead], 2, 5.0) for bead in range(3)]
    h = [np.asarray(feature_forces(one, r, f, None, SYSTEM.kT)) for one in features]
    K = max(one.n_features for one in features)
    sums = np.zeros((4, 3, K + 1, K + 1))
    for bead, rows in enumerate(h):
        k = rows.shape[2]
        for part in range(4):
            of_part = rows[150 * part : 150 * (part + 1)].reshape(-1, k)
            sums[part, bead, :k, :k] = of_part.T @ of_part
    linear = evidence_of(reduced_forces(of, 600, 7), frames)
    config = MapConfig(methods=["basic", "features"], ridge=0.0)
    plain, with_features = (
        find_map(method, of, 20, 0)
        for method in methods(config, of, linear, None, None, None, (features, FeatureEvidence(sums, frames)))
    )
    assert with_features.theta.shape == (3, K)
    np.testing.assert_array_equal(with_features.C, plain.C)
    assert with_features.valid
    assert with_features.error is None
    for bead, rows in enumerate(h):
        rows = rows.reshape(-1, rows.shape[2])
        theta = -np.linalg.lstsq(rows[:, 1:], rows[:, 0], rcond=None)[0]
        expected = np.mean((rows @ np.r_[1, theta]) ** 2)
        assert with_features.fitted[bead] == pytest.approx(expected, rel=1e-8)
        blocks = np.arange(len(rows)) // 450
        held = []
        for part in range(4):
            theta = -np.linalg.lstsq(rows[blocks != part, 1:], rows[blocks != part, 0], rcond=None)[0]
            held.append(np.mean((rows[blocks == part] @ np.r_[1, theta]) ** 2))
        assert with_features.held_out[bead] == pytest.approx(np.mean(held), rel=1e-6)
        assert with_features.p[bead] == rows.shape[1] - 1
    assert with_features.held_out.mean() < plain.held_out.mean() - 3 * plain.total_error
    np.testing.assert_array_equal(covariance(with_features, linear), np.diag(with_features.fitted))
