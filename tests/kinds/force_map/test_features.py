"""Configuration-dependent maps: divergence by finite differences, M W^T = 1 anywhere, nested linear maps, and a system
whose forces at fixed beads are known to average to nothing.
"""

import numpy as np
import pytest
import scipy.sparse

from hpcfit.errors import InputError
from hpcfit.kinds.force_map import features as fmap
from hpcfit.kinds.force_map import maps as fm
from hpcfit.kinds.force_map.constraints import rigid_groups

N_ATOMS, KT, CUTOFF = 10, 2.5, 6.0
CONSTRAINTS = [[1, 2], [4, 5], [5, 6]]
BOX = np.array([[14.0, 0, 0], [3, 13, 0], [-2, 4, 15]])


def system(kind="mean", constraints=CONSTRAINTS):
    """Two beads of ten atoms, the last of which is a virtual site. mean: of three atoms in two groups; atom: one."""
    M = np.zeros((2, N_ATOMS))
    if kind == "mean":
        M[0, [0, 1, 3]], M[1, [2, 7, 8]] = [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]  # 1 and 2 are in one group
    else:
        M[0, 0], M[1, 4] = 1, 1
    group = rigid_groups(N_ATOMS, np.reshape(constraints, (-1, 2)), left_out=[9])
    return fm.reduced(fm.Beads(("A", "B"), scipy.sparse.csr_array(M)), group)


def some_features(found, n_gaussians=4, bead=0, groups=None):
    groups = np.arange(found.n_groups) if groups is None else groups
    C = fm.optimal_map(np.eye(found.n_groups + 2), found)
    return fmap.features_of(bead, found, C, groups, n_gaussians, CUTOFF)


def frames(n=5, seed=0, size=2.0):
    rng = np.random.default_rng(seed)
    return size * rng.standard_normal((n, N_ATOMS, 3)), rng.standard_normal((n, N_ATOMS, 3))


def weights_of_atoms(features, found, theta, positions, box=None):
    """W_I(r) [F, n]."""
    w = np.zeros((len(positions), found.n_groups + 1))
    w[:, features.groups] = fmap.coefficients_at(features, theta, positions, box)
    return w[:, found.group]


def divergence(features, found, theta, positions, box=None, step=1e-4):
    """sum_i d W_i / d r_i, [F, 3], by central differences of every coordinate."""
    steps = step * np.eye(3 * N_ATOMS).reshape(3 * N_ATOMS, 1, N_ATOMS, 3)
    moved = np.stack([positions + steps, positions - steps]).reshape(-1, N_ATOMS, 3)
    boxes = None if box is None else np.tile(box, (6 * N_ATOMS, 1, 1))
    W = weights_of_atoms(features, found, theta, moved, boxes).reshape(2, N_ATOMS, 3, len(positions), N_ATOMS)
    return np.einsum("ixfi->fx", W[0] - W[1]) / (2 * step)


@pytest.mark.parametrize(("kind", "box"), [("mean", BOX), ("atom", None)])
def test_forces_are_those_of_the_map_and_its_divergence(kind, box):
    found = system(kind)
    features, (positions, forces) = some_features(found), frames()
    theta = np.random.default_rng(1).standard_normal(features.n_features)
    boxes = None
    if box is not None:
        boxes = np.broadcast_to(box, (len(positions), 3, 3))
        positions = positions + np.random.default_rng(2).integers(-1, 2, positions.shape) @ box  # atoms in any image
    W = weights_of_atoms(features, found, theta, positions, boxes)
    expected = np.einsum("fi,fix->fx", W, forces) + KT * divergence(features, found, theta, positions, boxes)
    mapped = fmap.mapped_forces(features, theta, positions, forces, boxes, KT)
    # h^2 / 6 of a third derivative of some 10 (kT / width^3, 44 terms): 1e-7
    np.testing.assert_allclose(mapped, expected, atol=1e-6)
    single = fmap.mapped_forces(features, theta, positions.astype("f4"), forces.astype("f4"), boxes, KT)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, atol=1e-3)  # 1e-6 A over the width, 44 terms of the order of 1


def test_a_group_on_the_bead_is_no_singularity():
    found = system("atom")
    features, (positions, forces) = some_features(found), frames(3)
    free = features.groups[features.free]
    positions[0, found.group == free[1]] = positions[0, 0]  # exactly
    positions[1, found.group == free[1]] = positions[1, 0] + 1e-9
    theta = np.random.default_rng(1).standard_normal(features.n_features)
    h = np.asarray(fmap.feature_forces(features, positions, forces, None, KT))
    assert np.all(np.isfinite(h))
    W = weights_of_atoms(features, found, theta, positions)
    expected = np.einsum("fi,fix->fx", W, forces) + KT * divergence(features, found, theta, positions)
    np.testing.assert_allclose(h[..., 0] + h[..., 1:] @ theta, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["mean", "atom"])
def test_no_configuration_violates_the_constraints(kind):
    found = system(kind)
    for bead in range(2):
        features = some_features(found, bead=bead)
        theta = 10 * np.random.default_rng(3).standard_normal(features.n_features)
        W = weights_of_atoms(features, found, theta, frames(20)[0])
        np.testing.assert_allclose(found.beads.M @ W.T, np.tile(np.eye(2)[bead], (20, 1)).T, atol=1e-12)
        for i, j in CONSTRAINTS:
            np.testing.assert_array_equal(W[:, i], W[:, j])
        assert np.std(W, axis=0).max() > 0.1  # it is not a linear map


@pytest.mark.parametrize("kind", ["mean", "atom"])
def test_constants_alone_give_the_linear_map(kind):
    found, (positions, forces) = system(kind), frames(64)
    y = np.einsum("qi,tix->tqx", found.reduction().toarray(), forces)
    gram = np.einsum("tqx,tpx->qp", y, y) / (3 * 64)
    optimal = fm.optimal_map(gram, found)
    for bead, start in enumerate([optimal, fm.optimal_map(np.eye(len(gram)), found)]):
        features = fmap.features_of(bead, found, start, np.arange(found.n_groups), 0, CUTOFF)
        products = fmap.feature_gram(features, positions, forces, None, KT) / (3 * 64)
        theta = fmap.solve_features(products, ridge=0)
        w = np.zeros(found.n_groups)
        w[features.groups] = fmap.coefficients_at(features, theta, positions[:1], None)[0]
        np.testing.assert_allclose(w, optimal[bead, : found.n_groups], atol=1e-12)
        expected = fm.mean_square(optimal, gram)[bead]
        assert fmap.feature_mean_square(theta, products) == pytest.approx(expected, rel=1e-12)


def test_products_are_those_of_the_forces_and_sum_over_blocks():
    found, (positions, forces) = system(), frames(128)
    features = some_features(found)
    h = np.asarray(fmap.feature_forces(features, positions, forces, None, KT))
    exact = np.einsum("txk,txl->kl", h, h)
    of_blocks = [fmap.feature_gram(features, positions[b], forces[b], None, KT) for b in (slice(64), slice(64, 128))]
    np.testing.assert_allclose(sum(of_blocks), exact, rtol=1e-11, atol=1e-10)
    held = np.arange(128) < 50
    padded = fmap.feature_gram(features, positions, forces, None, KT, held)
    np.testing.assert_allclose(padded, np.einsum("txk,txl->kl", h[:50], h[:50]), rtol=1e-11, atol=1e-10)
    theta = fmap.solve_features(exact, ridge=0.1)
    pulled = exact[1:, 1:] + 0.1 * np.mean(np.diagonal(exact)[1:]) * np.eye(features.n_features)
    np.testing.assert_allclose(theta, -np.linalg.solve(pulled, exact[1:, 0]), rtol=1e-9, atol=1e-12)
    assert features.n_features == len(h[0, 0]) - 1 == 5 * (found.n_groups - 2)


@pytest.mark.parametrize("kind", ["mean", "atom"])
def test_features_do_not_change_the_mean_force(kind):
    """<h_k G(R)> = 0 for any G, by theory: harmonic forces, of which independent frames are drawn. 150 means at 4.5
    standard errors; without its divergence a feature is tens of them off."""
    found = system(kind, constraints=[])
    rng, n = np.random.default_rng(4), 60000
    root = np.eye(9) + 0.4 * rng.standard_normal((9, 9))  # r = root x: the covariance is root root^T
    x = rng.standard_normal((n, 9, 3))
    positions, forces = np.zeros((n, N_ATOMS, 3)), np.zeros((n, N_ATOMS, 3))
    positions[:, :9] = np.einsum("ij,tjx->tix", root, x)
    forces[:, :9] = -KT * np.einsum("ji,tjx->tix", np.linalg.inv(root), x)
    features = some_features(found, n_gaussians=3)
    h = np.asarray(fmap.feature_forces(features, positions, forces, None, KT))
    R = found.beads.M @ positions.transpose(1, 0, 2).reshape(N_ATOMS, -1)
    between = np.subtract(*R.reshape(2, n, 3))
    for test in (between, between * np.exp(-np.sum(between**2, axis=1))[:, None]):
        products = np.einsum("txk,tx->tk", h[..., 1:], test)
        error = products.std(axis=0) / np.sqrt(n)
        assert np.all(np.abs(products.mean(axis=0)) < 4.5 * error)
    bare = np.asarray(fmap.feature_forces(features, positions, forces, None, 0.0))[..., 1:]
    # the distance to the bead is what shows a wrong divergence: of groups that pull the bead along
    products = np.einsum("txk,tx->tk", bare, between)
    assert np.abs(products.mean(axis=0) / products.std(axis=0)).max() * np.sqrt(n) > 10


def test_features_lower_the_noise_of_new_frames_where_it_depends_on_the_distance():
    """One bead and one group that carries the bead's noise when it is near: no constant coefficient can know."""
    found = fm.reduced(fm.Beads(("A",), scipy.sparse.csr_array([[1.0, 0.0]])), np.arange(2))
    rng = np.random.default_rng(6)
    positions = np.stack([np.zeros((4000, 3)), rng.uniform(-3, 3, (4000, 3))], axis=1)
    d = np.linalg.norm(positions[:, 1], axis=1)
    g = rng.standard_normal((4000, 3)) * 30
    forces = np.stack([-np.exp(-(d[:, None] ** 2) / 4) * g, g], axis=1)
    start = fm.basic_map(found)
    features = fmap.features_of(0, found, start, np.arange(2), 5, 6.0)
    train, test = (
        fmap.feature_gram(features, positions[p], forces[p], None, 0.0) for p in (slice(2000), slice(2000, 4000))
    )
    constants = fmap.features_of(0, found, start, np.arange(2), 0, 6.0)
    linear = [
        fmap.feature_gram(constants, positions[p], forces[p], None, 0.0) for p in (slice(2000), slice(2000, 4000))
    ]
    best = fmap.feature_mean_square(fmap.solve_features(linear[0]), linear[1])
    assert fmap.feature_mean_square(fmap.solve_features(train), test) < 0.01 * best


def test_a_map_with_coefficients_elsewhere_and_a_small_box_are_errors():
    found = system("atom")
    with pytest.raises(InputError, match="coefficients outside the 2 groups"):
        fmap.features_of(0, found, fm.optimal_map(np.eye(9) + 0.1, found), np.array([0, 2, -1]), 3, CUTOFF)
    positions, forces = frames()
    with pytest.raises(InputError, match="beyond half the smallest width"):
        fmap.feature_gram(some_features(found), positions, forces, np.broadcast_to(8 * np.eye(3), (5, 3, 3)), KT)
