"""Stokes flow in a cavity with a moving lid, as the minimum of dissipation over stream functions on a grid.

    D = ½ μ Σ ω² h²,    ω = −∇²ψ,    u = ∂ψ/∂y,  v = −∂ψ/∂x

Among all flows without divergence that keep to the walls, creeping flow dissipates least (Helmholtz; Batchelor, An
Introduction to Fluid Dynamics, section 4.8), and there ∫ω² and the dissipation differ by what the walls fix. The cavity
is the unit square, u = 1 at its lid y = 1 and 0 at other walls, where ψ = 0. Velocities at walls enter by values of ψ
outside, mirrored so that central differences give them. Coordinates [n, 1] are ψ at the inner points of the grid, by
rows of y; the energy is a quadratic form, and ``direct`` its minimum by a sparse solution.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import csc_array, csr_array, diags_array, eye_array, kron, vstack
from scipy.sparse.linalg import splu

from hpcfit.errors import InputError
from hpcfit.kinds.structure.landscapes.landscape import Landscape
from hpcfit.pytrees import pytree

LEAST = 3  # inner points a side


@pytree
@dataclass(frozen=True)
class Stokes(Landscape):
    """The flow on a grid of ``side``² inner points. Made by ``of``."""

    n: int = field(metadata={"static": True})
    side: int = field(metadata={"static": True})
    d: int = field(default=1, metadata={"static": True})
    unit: str = field(default="", metadata={"static": True})
    length: str = field(default="psi", metadata={"static": True})

    @classmethod
    def of(cls, side: int) -> Stokes:
        """A grid with so many inner points a side."""
        if side < LEAST:
            raise InputError(f"a grid of {side} inner points a side has no flow", remedy=f"take {LEAST} or more")
        return cls(side * side, side)

    @property
    def spacing(self) -> float:
        """The distance of grid points, of a cavity of width 1."""
        return 1 / (self.side + 1)

    def energy(self, x: jax.Array, cap: Any = 0.0) -> jax.Array:
        """See ``Landscape``; there are no pairs, and no cap. Vorticities at walls count half, as their cells do."""
        h = self.spacing
        psi = jnp.pad(jnp.asarray(x).reshape(self.side, self.side), 1)
        inner = (psi[2:, 1:-1] + psi[:-2, 1:-1] + psi[1:-1, 2:] + psi[1:-1, :-2] - 4 * psi[1:-1, 1:-1]) / h**2
        # (ψ_out + ψ_in)/h² with ψ_out − ψ_in = 2 h u at the lid, and ψ_out = ψ_in at the other walls
        walls = 2 / h**2 * jnp.stack([psi[-2, 1:-1] + h, psi[1, 1:-1], psi[1:-1, 1], psi[1:-1, -2]])
        return 0.5 * h**2 * (jnp.sum(inner**2) + 0.5 * jnp.sum(walls**2))

    def independent(self, x: np.ndarray) -> float:
        """See ``Landscape``: the quadratic form by sparse matrices."""
        matrix, constant = self._vorticity()
        omega = matrix @ np.asarray(x, np.float64).ravel() + constant
        return float(0.5 * omega @ omega)

    def _vorticity(self) -> tuple[csr_array, np.ndarray]:
        """(M, c) so that D = ½ |M ψ + c|²."""
        m, h = self.side, self.spacing
        second = diags_array([np.ones(m - 1), -2 * np.ones(m), np.ones(m - 1)], offsets=[-1, 0, 1])
        inner = (kron(eye_array(m), second) + kron(second, eye_array(m))) / h
        number = np.arange(m * m).reshape(m, m)
        wall = eye_array(m * m).tocsr()[np.concatenate([number[-1], number[0], number[:, 0], number[:, -1]])]
        factor = np.sqrt(0.5) * 2 / h
        constant = np.zeros(m * m + 4 * m)
        constant[m * m : m * m + m] = factor * h
        return csr_array(vstack([inner, factor * wall])), constant

    def direct(self) -> np.ndarray:
        """The minimum, ψ [n, 1], by one sparse solution."""
        matrix, constant = self._vorticity()
        return splu(csc_array(matrix.T @ matrix)).solve(-(matrix.T @ constant))[:, None]

    def couplings(self) -> csr_array:
        """See ``Landscape``: 1 of neighbours in the grid."""
        step = diags_array([np.ones(self.side - 1)] * 2, offsets=[-1, 1])
        return csr_array(kron(eye_array(self.side), step) + kron(step, eye_array(self.side)))

    def reference(self) -> float:
        """The least dissipation on this grid."""
        return self.independent(self.direct())

    def label(self, particle: int) -> str:
        """See ``Landscape``."""
        return f"grid point {tuple(int(one) + 1 for one in divmod(particle, self.side))}"
