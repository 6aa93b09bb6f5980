"""Force maps against other solvers, an independent null-space solution and closed forms.

A coefficient of a solved system is known to eps times the condition number of what was solved: the Gram matrices here
have eigenvalues of 0.5 ... 50, so that 1e-12 is ten times more than rounding leaves.
"""

import numpy as np
import pytest
import qpsolvers
import scipy.linalg
import scipy.sparse

from hpcfit.errors import InputError
from hpcfit.kinds.force_map import maps as fm
from hpcfit.kinds.force_map.constraints import rigid_groups

N_ATOMS, N_BEADS = 40, 4
CONSTRAINTS = np.array([[1, 2], [3, 4], [4, 5], [10, 11], [20, 21], [20, 22], [30, 31]])
ROUNDING = 1e-12


def system(kind="atoms", constraints=CONSTRAINTS):
    """Four beads. atoms: one each, two of them constrained; averages: weighted means of 3 atoms, one group shared."""
    M = np.zeros((N_BEADS, N_ATOMS))
    if kind == "atoms":
        M[np.arange(N_BEADS), [1, 8, 20, 33]] = 1
    else:
        for bead, atoms in enumerate([[0, 1, 3], [2, 5, 6], [20, 23, 24], [30, 32, 39]]):  # 1 and 2 are joined
            M[bead, atoms] = np.array([12.0, 14.0, 1.0]) / 27
    return fm.reduced(fm.Beads(tuple("ABCD"), scipy.sparse.csr_array(M)), rigid_groups(N_ATOMS, constraints))


def gram_of(forces, found):
    """Mean products per frame and component of forces [T, n, 3]."""
    y = np.einsum("qi,tix->tqx", found.reduction().toarray(), forces)
    return np.einsum("tqx,tpx->qp", y, y) / (3 * len(forces))


def forces(seed=0, n_frames=200, zero_net=False):
    rng = np.random.default_rng(seed)
    mix = np.eye(N_ATOMS) + 0.3 * rng.standard_normal((N_ATOMS, N_ATOMS))
    f = np.einsum("ij,tjx->tix", mix, rng.standard_normal((n_frames, N_ATOMS, 3)))
    return f - f.mean(axis=1, keepdims=True) if zero_net else f


def by_null_space(P, A):
    """The same program by the singular value decomposition of A."""
    x0, Z = np.linalg.pinv(A), scipy.linalg.null_space(A)
    return (x0 - Z @ np.linalg.solve(Z.T @ P @ Z, Z.T @ P @ x0)).T


@pytest.mark.filterwarnings("ignore:The default value of raise_error:PendingDeprecationWarning")  # OSQP's own
@pytest.mark.parametrize("zero_net", [False, True])
@pytest.mark.parametrize("kind", ["atoms", "averages"])
def test_the_optimal_map_is_that_of_the_null_space_and_of_other_solvers(kind, zero_net):
    found = system(kind)
    gram = gram_of(forces(zero_net=zero_net), found)
    m, C = found.n_groups, fm.optimal_map(gram, found)
    P = gram[:m, :m]
    assert (np.linalg.eigvalsh(P)[0] < 1e-12) == zero_net
    np.testing.assert_allclose(C[:, :m], by_null_space(P, found.A), atol=ROUNDING)
    assert fm.check_map(C, found).valid
    options = {
        "clarabel": {"tol_gap_abs": 1e-14, "tol_gap_rel": 1e-14, "tol_feas": 1e-14},
        "osqp": {"eps_abs": 1e-12, "eps_rel": 1e-12, "polishing": True, "max_iter": 100000},
    }
    for solver, tight in options.items():
        for bead in range(N_BEADS):
            other = qpsolvers.solve_qp(
                scipy.sparse.csc_matrix(P), np.zeros(m), A=scipy.sparse.csc_matrix(found.A), b=np.eye(N_BEADS)[bead],
                solver=solver, **tight,
            )  # fmt: skip
            np.testing.assert_allclose(C[bead, :m], other, atol=1e-8)


def test_mapped_forces_have_the_mean_square_that_the_gram_says():
    found, f = system("averages"), forces()
    gram, C = gram_of(f, found), fm.optimal_map(gram_of(f, found), found)
    mapped = np.einsum("Ii,tix->tIx", found.spread(C).toarray(), f)
    np.testing.assert_allclose(fm.residual_matrix(C, gram), np.einsum("tIx,tJx->IJ", mapped, mapped) / 600, atol=1e-11)
    of_blocks = fm.mean_square(C, np.stack([gram, 2 * gram]))
    np.testing.assert_allclose(of_blocks, np.outer([1, 2], np.mean(mapped**2, axis=(0, 2))))


def test_zero_net_force_does_not_violate_the_constraint_as_the_inverse_does():
    """The formula (A P^-1 A^T)^-1 A P^-1 gives numbers that look like a map."""
    found = system()
    m = found.n_groups
    gram = gram_of(forces(zero_net=True), found)
    inverse = np.linalg.inv(gram[:m, :m])
    trap = np.linalg.solve(found.A @ inverse @ found.A.T, found.A @ inverse)
    assert np.abs(trap @ found.A.T - np.eye(N_BEADS)).max() > 1e-6
    C = fm.optimal_map(gram, found)
    assert np.abs(C[:, :m] @ found.A.T - np.eye(N_BEADS)).max() < ROUNDING


def test_of_two_groups_the_coefficient_is_a_regression():
    found = fm.reduced(fm.Beads(("A",), scipy.sparse.csr_array([[1.0, 0.0]])), np.array([0, 1]))
    gram = np.array([[3.0, -1.2, 3.0], [-1.2, 2.0, -1.2], [3.0, -1.2, 3.0]])
    np.testing.assert_allclose(fm.optimal_map(gram, found), [[1, 0.6, 0]], atol=1e-15)


@pytest.mark.parametrize("kind", ["atoms", "averages"])
def test_of_independent_equal_forces_the_best_is_known(kind):
    """P = diag(sizes): c = D^-1 A^T (A D^-1 A^T)^-1, the basic map where each bead is one atom or a plain mean."""
    found = system(kind)
    m = found.n_groups
    gram = np.zeros((m + N_BEADS,) * 2)
    gram[:m, :m] = 7 * np.diag(found.sizes)
    scaled = found.A / found.sizes
    exact = np.linalg.solve(scaled @ found.A.T, scaled)
    np.testing.assert_allclose(fm.optimal_map(gram, found)[:, :m], exact, atol=ROUNDING)
    if kind == "atoms":
        np.testing.assert_allclose(fm.optimal_map(gram, found), fm.basic_map(found), atol=ROUNDING)
    # of any Gram matrix, the same comes of a ridge without end: the distance is that of P to the ridge
    C = fm.optimal_map(gram_of(forces(), found), found, ridge=1e12)
    np.testing.assert_allclose(C[:, :m], exact, atol=1e-9)


def test_of_independent_equal_forces_the_best_for_means_is_the_basic_map():
    group = rigid_groups(12, [[0, 1], [4, 5], [5, 6]])
    M = np.kron(np.eye(3), np.full((1, 4), 0.25))
    found = fm.reduced(fm.Beads(tuple("ABC"), scipy.sparse.csr_array(M)), group)
    gram = np.zeros((found.n_groups + 3,) * 2)
    gram[: found.n_groups, : found.n_groups] = np.diag(found.sizes)
    np.testing.assert_allclose(fm.optimal_map(gram, found), fm.basic_map(found), atol=ROUNDING)


def test_a_ridge_without_end_gives_the_map_it_draws_towards():
    found, whole = system(), everything(system())
    gram = gram_of(forces(), found)
    basic = fm.basic_map(found)
    tied = fm.tied_map(gram, found, whole, *tying(found))
    for target in (basic, tied):
        np.testing.assert_allclose(fm.optimal_map(gram, found, 1e12, target), target, atol=1e-9)
        np.testing.assert_allclose(fm.local_map(gram, found, whole, 1e12, target), target, atol=1e-9)
    np.testing.assert_allclose(fm.tied_map(gram, found, whole, *tying(found), 1e12, tied), tied, atol=1e-9)
    with pytest.raises(InputError, match="towards the slice map"):
        fm.optimal_map(gram, found, 1.0, fm.slice_map(found))


def test_a_ridge_is_a_fraction_of_the_mean_square_of_a_group():
    found = system("averages")
    gram = gram_of(forces(), found)
    m = found.n_groups
    P = gram[:m, :m] + 0.3 * np.trace(gram[:m, :m]) / m * np.diag(found.sizes)
    for units in (1, 1e6):
        C = fm.optimal_map(gram * units, found, ridge=0.3)
        np.testing.assert_allclose(C[:, :m], by_null_space(P, found.A), atol=ROUNDING)


@pytest.mark.parametrize("target", [False, True])
def test_fewer_frames_than_coefficients_give_the_limit_of_a_vanishing_ridge(target):
    found = system()
    gram = gram_of(forces(n_frames=6), found)  # 18 samples of 32 groups
    towards = fm.basic_map(found) if target else None
    C = fm.optimal_map(gram, found, 0.0, towards)
    assert fm.check_map(C, found).valid
    np.testing.assert_allclose(fm.mean_square(C, gram), 0, atol=1e-12 * np.trace(gram))
    # the distance to the limit is of the order of ridge times the condition number of what the frames span
    np.testing.assert_allclose(C, fm.optimal_map(gram, found, 1e-9, towards), atol=1e-6)
    # a Gram matrix that was summed in float32 has negative eigenvalues; it is as good as its digits
    rounded = gram.astype(np.float32).astype(float)
    assert np.linalg.eigvalsh(rounded)[0] < -1e-9
    np.testing.assert_allclose(fm.optimal_map(rounded, found, 0.0, towards), C, atol=1e-4)


# ---- local and tied --------------------------------------------------------------------------------------------------


def everything(found):
    return np.tile(np.arange(found.n_groups), (found.n_beads, 1))


def tying(found):
    """Classes of (own group, the two next to it, all others), for beads of one atom."""
    own = np.argmax(found.A, axis=1)[:, None]
    distance = np.abs(np.arange(found.n_groups) - own)
    return (np.where(found.A.any(axis=0) & (distance > 0), 3, np.minimum(distance, 2)),)


@pytest.mark.parametrize("ridge", [0.0, 0.2])
@pytest.mark.parametrize("kind", ["atoms", "averages"])
def test_full_support_is_the_optimal_map(kind, ridge):
    found = system(kind)
    gram = gram_of(forces(), found)
    expected = fm.optimal_map(gram, found, ridge)
    support = np.random.default_rng(0).permuted(everything(found), axis=1)
    padded = np.insert(support, 3, -1, axis=1)
    for of in (gram, fm.sub_grams(gram, padded)):
        C = fm.local_map(of, found, padded, ridge)
        np.testing.assert_allclose(C, expected, atol=ROUNDING)
        np.testing.assert_allclose(fm.local_mean_square(C, fm.sub_grams(gram, padded), padded), fm.mean_square(C, gram))
    np.testing.assert_array_equal(fm.free_coefficients(found, padded), fm.free_coefficients(found))


@pytest.mark.parametrize("kind", ["atoms", "averages"])
def test_local_support_is_the_same_program_on_fewer_groups(kind):
    found = system(kind)
    gram, rng = gram_of(forces(), found), np.random.default_rng(1)
    own = [np.flatnonzero(row) for row in found.A]
    chosen = [np.union1d(groups, rng.choice(found.n_groups, 9 + i)) for i, groups in enumerate(own)]
    support = np.full((N_BEADS, max(map(len, chosen))), -1)
    for bead, groups in enumerate(chosen):
        support[bead, : len(groups)] = groups
    C = fm.local_map(gram, found, support)
    free = fm.free_coefficients(found, support)
    for bead, groups in enumerate(chosen):
        rows = np.unique(np.append(np.flatnonzero(found.A[:, groups].any(axis=1)), bead))
        A = found.A[np.ix_(rows, groups)]
        exact = by_null_space(gram[np.ix_(groups, groups)], A)[list(rows).index(bead)]
        np.testing.assert_allclose(C[bead, groups], exact, atol=ROUNDING)
        assert free[bead] == len(groups) - np.linalg.matrix_rank(A)
        assert not np.any(np.delete(C[bead], groups))
    assert fm.check_map(C, found).valid
    assert np.all(fm.mean_square(C, gram) >= fm.mean_square(fm.optimal_map(gram, found), gram))


def test_a_class_for_each_coefficient_is_the_local_map():
    found = system()
    gram, support = gram_of(forces(), found), everything(found)[:, ::-1]
    classes = np.arange(support.size).reshape(support.shape)
    for ridge in (0.0, 0.3):
        C = fm.tied_map(gram, found, support, classes, ridge)
        np.testing.assert_allclose(C, fm.local_map(gram, found, support, ridge), atol=ROUNDING)
    expected = fm.free_coefficients(found, support).mean()
    np.testing.assert_array_equal(fm.free_coefficients(found, support, classes), np.full(N_BEADS, expected))


def molecules(n_molecules):
    """Molecules of three atoms O, H, H with a bead on O, and the Gram matrix of forces of 50 frames."""
    M = np.kron(np.eye(n_molecules), [[1.0, 0, 0]])
    group = np.arange(3 * n_molecules)
    found = fm.reduced(fm.Beads(tuple(f"W{i}" for i in range(n_molecules)), scipy.sparse.csr_array(M)), group)
    f = np.random.default_rng(3).standard_normal((50, n_molecules, 3, 3))
    f[:, :, 0] -= 3 * f[:, :, 1] + 3 * f[:, :, 2]
    return found, gram_of(f.reshape(50, -1, 3), found)


def test_tied_molecules_have_one_regression_between_them():
    found, gram = molecules(5)
    support = np.arange(15).reshape(5, 3)
    C = fm.tied_map(gram, found, support, np.tile([0, 1, 1], (5, 1)))
    products = gram[:15, :15].reshape(5, 3, 5, 3)
    own = np.einsum("iaib->iab", products)
    # c_O = 1; the sum over molecules of (O + c (H1 + H2))^2 is least at
    exact = -(own[:, 0, 1] + own[:, 0, 2]).sum() / own[:, 1:, 1:].sum()
    np.testing.assert_allclose(C[:, :15], np.kron(np.eye(5), [[1, exact, exact]]), atol=ROUNDING)
    np.testing.assert_array_equal(fm.free_coefficients(found, support, np.tile([0, 1, 1], (5, 1))), np.full(5, 0.2))
    # a coefficient that is held at 0, as one that is not in the support
    without = fm.tied_map(gram, found, support, np.tile([2, 0, -1], (5, 1)))
    shorter = fm.tied_map(fm.sub_grams(gram, support[:, :2]), found, support[:, :2], np.tile([0, 1], (5, 1)))
    np.testing.assert_allclose(without, shorter, atol=ROUNDING)


def test_ties_that_no_map_satisfies_are_one_error():
    found, gram = molecules(2)
    support = np.array([[0, 1, 3], [3, 4, 0]])
    with pytest.raises(InputError, match=r"tied coefficients of bead 'W0' \(atoms 0\).* 0 on the others"):
        fm.tied_map(gram, found, support, np.array([[0, 1, 0], [0, 1, 0]]))


def test_a_support_that_cannot_tell_beads_apart_is_one_error():
    M = scipy.sparse.csr_array(np.array([[0.5, 0.5, 0, 0], [0.25, 0.25, 0.5, 0]]))
    found = fm.reduced(fm.Beads(("head", "tail"), M), np.arange(4))
    with pytest.raises(InputError, match=r"bead 'head' \(atoms 0, 1\) has no local map.*from 'tail'"):
        fm.local_map(np.eye(6), found, np.array([[0, 1, -1], [0, 1, 2]]))


# ---- what is refused, checks, statistics -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([[0.5, 0.4, 0, 0]], r"'A' \(atoms 0, 1\) sum to 0.9"),
        ([[1, 0, 0, 0], [0, 0, 0, 0]], "'B' has no atoms"),
        ([[1.5, -0.5, 0, 0]], r"'A' \(atoms 0, 1\) has a weight of -0.5"),
        ([[np.nan, 1, 0, 0]], r"'A' \(atoms 0, 1\) has a weight of nan"),
        ([[np.inf, 1, 0, 0]], r"'A' \(atoms 0, 1\) has a weight of inf"),
        ([[0, 0, 0, 1]], "holds atom 3, which is a virtual site"),
        ([[1, 0, 0, 0], [0, 1, 0, 0]], r"'A' \(atoms 0\), 'B' \(atoms 1\) lie in one rigid group"),
        ([[1, 0, 0, 0], [0, 0, 1, 0], [0.5, 0, 0.5, 0]], r"'A'.*'B'.*'C'.*3 in all\) depend on each other"),
    ],
)
def test_beads_without_a_map_are_one_error(rows, words):
    beads = fm.Beads(tuple("ABC"[: len(rows)]), scipy.sparse.csr_array(np.array(rows, float)))
    with pytest.raises(InputError, match=words):
        fm.reduced(beads, np.array([0, 0, 1, -1]))


def test_weights_of_single_precision_sum_to_one():
    masses = np.random.default_rng(0).random(30)
    M = scipy.sparse.csr_array((masses / masses.sum()).astype(np.float32)[None])
    found = fm.reduced(fm.Beads(("A",), M), np.arange(30))
    assert fm.check_map(fm.basic_map(found), found).valid


def test_checks_find_what_is_wrong_with_a_map():
    found = system()
    assert fm.check_map(fm.basic_map(found), found) == (0, 0)
    assert fm.check_map(fm.slice_map(found), found) == (0, 1)  # two of its atoms are constrained
    assert not fm.check_map(fm.slice_map(found), found).valid
    free = system(constraints=[])
    assert fm.check_map(fm.slice_map(free), free).valid
    wrong = fm.basic_map(found)
    wrong[1, np.argmax(found.A[2])] = 0.25
    assert fm.check_map(wrong, found) == (0.25, 0)
    with pytest.raises(InputError, match=r"'A'.*'B'.*share a rigid group"):
        fm.basic_map(system("averages"))


def test_optimism_is_what_new_frames_show():
    """For Gaussians s2 (1 + p / (n - p - 1)), n = 3 T, is exact: the law is smaller by p / (n - p) / (n - p - 1)."""
    found, T, repeats, p, n = system(), 30, 40, 29, 90
    truth = gram_of(forces(n_frames=4000), found)
    root = np.linalg.cholesky(truth[: found.n_groups, : found.n_groups])
    best = fm.mean_square(fm.optimal_map(truth, found), truth)
    rng, ratios = np.random.default_rng(5), []
    for _ in range(repeats):
        y = root @ rng.standard_normal((found.n_groups, 3 * T))
        train = np.zeros_like(truth)
        train[: found.n_groups, : found.n_groups] = y @ y.T / (3 * T)
        C = fm.optimal_map(train, found)
        ratios.append([fm.mean_square(C, gram) / best for gram in (train, truth)])
    fitted, held_out = np.mean(ratios, axis=(0, 2))
    error = np.std(np.mean(ratios, axis=2), axis=0) / np.sqrt(repeats)
    law = fm.optimism(1 - p / n, fm.free_coefficients(found)[0], T)
    assert abs(fitted - (1 - p / n)) < 4 * error[0]
    assert law.least == pytest.approx(1)
    assert abs(held_out - law.held_out) < 4 * error[1] + p / (n - p) / (n - p - 1)
    assert law.ratio == pytest.approx((n / (n - p)) ** 2)
    assert np.isinf(fm.optimism(0.0, 28, 9).held_out)
    enough = fm.optimism(1.0, 100, fm.FRAMES_PER_COEFFICIENT * 100)
    assert enough.held_out / enough.least == pytest.approx(1.01, abs=3e-4)


def test_noised_beads_are_the_program_of_the_larger_system():
    """n atoms and N sites y: the noise adds -M^T n to the forces on atoms, n = -kT (y - R) / variance to those on y."""
    found, kT, variance = system("averages"), 2.5, 0.3
    m, gram = found.n_groups, gram_of(forces(), found)
    C = fm.optimal_map(gram, found)
    closed = fm.noise_map(fm.residual_matrix(C, gram), variance, kT)

    select = scipy.sparse.hstack([scipy.sparse.csr_array((N_BEADS, N_ATOMS)), scipy.sparse.eye_array(N_BEADS)])
    group = np.concatenate([found.group, m + np.arange(N_BEADS)])
    larger = fm.reduced(fm.Beads(tuple("ABCD"), scipy.sparse.csr_array(select)), group)
    V2, A = kT**2 / variance, found.A
    whole = np.zeros((m + 2 * N_BEADS,) * 2)
    whole[:m, :m], whole[:m, m:-N_BEADS] = gram[:m, :m] + V2 * A.T @ A, -V2 * A.T
    whole[m:-N_BEADS, :m], whole[m:-N_BEADS, m:-N_BEADS] = -V2 * A, V2 * np.eye(N_BEADS)
    augmented = fm.optimal_map(whole, larger)
    np.testing.assert_allclose(augmented[:, :m], closed.Lambda1 @ C[:, :m], atol=ROUNDING)
    # n enters directly, and through the atoms as -M^T n
    np.testing.assert_allclose(closed.Lambda2, np.eye(N_BEADS) - augmented[:, :m] @ A.T, atol=ROUNDING)
    np.testing.assert_allclose(closed.residual, fm.residual_matrix(augmented, whole), rtol=1e-11)
    parallel = np.linalg.inv(np.linalg.inv(fm.residual_matrix(C, gram)) + np.eye(N_BEADS) / V2)
    np.testing.assert_allclose(closed.residual, parallel, rtol=1e-11)
