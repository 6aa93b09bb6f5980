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
from hpcfit.physics import force_map as fm
from hpcfit.physics.rigid_groups import rigid_groups

N_ATOMS, N_BEADS = 40, 4
CONSTRAINTS = np.array([[1, 2], [3, 4], [4, 5], [10, 11], [20, 21], [20, 22], [30, 31]])
ROUNDING = 1e-12


def system(kind="atoms", constraints=CONSTRAINTS):
    """Four beads of 40 atoms. atoms: one each, two of them constrained; averages: means of 3 atoms, one group shared."""
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
