"""Solvers for the lowest modes of the Laplacian of a connected graph, by name.

    dense          LAPACK: all of the matrix
    shift-invert   Lanczos (ARPACK) around a shift below 0, by a factor of the matrix
    lobpcg         Knyazev (2001, 10.1137/S1064827500366124), by products alone; its preconditioner is algebraic
                   multigrid where pyamg is installed, else a Chebyshev polynomial of the matrix
    slepc          Krylov-Schur of SLEPc (10.1145/1089014.1089019), with a shift and a parallel factor where PETSc has
                   MUMPS, else by products; the rows of the matrix are dealt out to all ranks, which call it together
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse
from scipy.sparse.linalg import LinearOperator, eigsh, lobpcg

from hpcfit.errors import InputError

DENSE = 1500  # particles, up to which all eigenvectors cost less than an iteration
FACTORS = 20_000  # particles, above which factors of a graph in three dimensions grow beyond what products cost
SHIFT = 1e-6  # of the largest degree, below 0, around which the Laplacian is inverted
STEPS = 400  # of LOBPCG
TOLERANCE = 1e-5  # of iterations, a residual in units of the largest degree
POLYNOMIAL = 30  # degree of the preconditioner

Found = tuple[np.ndarray, np.ndarray]  # values [k], ascending, and vectors [n, k]


def lowest(matrix: Any, k: int, solver: str) -> Found:
    """The k lowest modes of the Laplacian [n, n] of a connected graph, without the constant one.

    "auto": by the number of particles. A graph of fewer than four times as many particles as modes is solved densely.
    """
    size = matrix.shape[0]
    if 4 * k > size or (solver == "auto" and size <= DENSE):
        solver = "dense"
    elif solver == "auto":
        solver = "lobpcg" if size > FACTORS else "shift-invert"
    return SOLVERS[solver](matrix, k)


def require_solver(solver: str) -> None:
    """Raise InputError for a solver of a library that is not installed."""
    if solver == "slepc" and importlib.util.find_spec("slepc4py") is None:
        raise InputError(
            "[problem.modes] solver = 'slepc' needs slepc4py, which is not installed",
            remedy="install petsc4py and slepc4py for the MPI library of hpcfit, or use solver = 'auto'",
        )


def _dense(matrix: Any, k: int) -> Found:
    return scipy.linalg.eigh(matrix.toarray(), subset_by_index=[1, k])


def _shift_invert(matrix: Any, k: int) -> Found:
    shift = -SHIFT * matrix.diagonal().max()
    start = np.random.default_rng(0).standard_normal(matrix.shape[0])
    values, vectors = eigsh(matrix.tocsc(), k + 1, sigma=shift, v0=start)
    order = np.argsort(values)[1:]
    return values[order], vectors[:, order]


def _lobpcg(matrix: Any, k: int) -> Found:
    size, largest = matrix.shape[0], matrix.diagonal().max()
    whole = np.full((size, 1), size**-0.5)
    start = np.random.default_rng(0).standard_normal((size, k + k // 4 + 2))
    near = multigrid(matrix) if importlib.util.find_spec("pyamg") else polynomial(matrix)
    values, vectors = lobpcg(
        matrix, start, M=near, Y=whole, largest=False, maxiter=STEPS, tol=TOLERANCE * largest
    )  # fmt: skip
    order = np.argsort(values)[:k]
    return values[order], vectors[:, order]


def multigrid(matrix: Any) -> Any:
    """A preconditioner by smoothed aggregation (pyamg)."""
    import pyamg

    old = scipy.sparse.csr_matrix(matrix)
    old.indices, old.indptr = old.indices.astype(np.int32), old.indptr.astype(np.int32)  # the only ones that it takes
    shifted = old + SHIFT * old.diagonal().max() * scipy.sparse.eye(matrix.shape[0])
    return pyamg.smoothed_aggregation_solver(shifted).aspreconditioner()


def polynomial(matrix: Any, degree: int = POLYNOMIAL) -> LinearOperator:
    """A preconditioner by a polynomial of the matrix: so many steps of the Chebyshev iteration (Saad 2003,
    10.1137/1.9780898718003, algorithm 12.1) on the part of the spectrum that they solve to 2 exp(−3.4); it is positive
    on the rest."""
    top = 2 * matrix.diagonal().max()
    low = top * (1.7 / degree) ** 2
    middle, half = (top + low) / 2, (top - low) / 2
    ratio = middle / half

    def solved(residual: np.ndarray) -> np.ndarray:
        rho, step = 1 / ratio, residual / middle
        found = step.copy()
        for _ in range(degree - 1):
            following = 1 / (2 * ratio - rho)
            step = following * rho * step + 2 * following / half * (residual - matrix @ found)
            found, rho = found + step, following
        return found

    return LinearOperator(matrix.shape, matvec=solved, matmat=solved, dtype=float)


def _slepc(matrix: Any, k: int) -> Found:
    """Collective over all ranks of PETSc; every rank has the whole matrix, and gets all vectors."""
    import slepc4py

    slepc4py.init([])
    from petsc4py import PETSc
    from slepc4py import SLEPc

    size, largest = matrix.shape[0], float(matrix.diagonal().max())
    rows = PETSc.Mat().createAIJ([size, size], nnz=1)  # to ask how PETSc deals out rows
    rows.setUp()
    first, end = rows.getOwnershipRange()
    own = matrix[first:end].tocsr()
    indices = (own.indptr.astype(PETSc.IntType), own.indices.astype(PETSc.IntType), own.data.astype(float))
    operator = PETSc.Mat().createAIJ([size, size], csr=indices)
    constant = operator.createVecRight()
    constant.set(size**-0.5)
    solver = SLEPc.EPS().create()
    solver.setOperators(operator)
    solver.setProblemType(SLEPc.EPS.ProblemType.HEP)
    solver.setDimensions(k)
    solver.setTolerances(TOLERANCE, STEPS)
    solver.setConvergenceTest(SLEPc.EPS.Conv.ABS)
    solver.setDeflationSpace(constant)
    if PETSc.Sys.hasExternalPackage("mumps"):
        solver.setTarget(-SHIFT * largest)
        solver.setWhichEigenpairs(SLEPc.EPS.Which.TARGET_MAGNITUDE)
        transform = solver.getST()
        transform.setType(SLEPc.ST.Type.SINVERT)
        transform.setShift(-SHIFT * largest)
        linear = transform.getKSP()
        linear.setType(PETSc.KSP.Type.PREONLY)
        factor = linear.getPC()
        factor.setType(PETSc.PC.Type.CHOLESKY)
        factor.setFactorSolverType("mumps")
    else:
        solver.setWhichEigenpairs(SLEPc.EPS.Which.SMALLEST_REAL)
    solver.solve()
    count = min(k, solver.getConverged())
    values, vectors = np.full(k, np.nan), np.zeros((size, k))
    vector = operator.createVecRight()
    to_all, whole = PETSc.Scatter.toAll(vector)
    for number in range(count):
        values[number] = solver.getEigenpair(number, vector).real
        to_all.scatter(vector, whole, mode=PETSc.ScatterMode.FORWARD)
        vectors[:, number] = whole.getArray()
    order = np.argsort(values)
    return values[order], vectors[:, order] / np.maximum(np.linalg.norm(vectors[:, order], axis=0), 1e-300)


SOLVERS: dict[str, Callable[[Any, int], Found]] = {
    "dense": _dense,
    "shift-invert": _shift_invert,
    "lobpcg": _lobpcg,
    "slepc": _slepc,
}
