"""Atoms on springs, whose force maps are known in closed form, and a store of their frames.

Energies are x^T K x / 2 for each of the three components, so that frames are Gaussian with covariance kT K^-1, forces
are -K x, and beads R = M x have the mean force -(M K^-1 M^T)^-1 R. The optimal map W = (M K^-1 M^T)^-1 M K^-1 has no
noise, and its mean square is kT times the diagonal of (M K^-1 M^T)^-1.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpcfit.physics.constants import GAS_CONSTANT
from hpcfit.store.catalog import write_catalog
from hpcfit.store.forces import ForceContent, ForceFrames, ForceStore, open_force_store
from hpcfit.store.particles import Particles
from hpcfit.store.positions import write_frames
from hpcfit.store.shard import Origin, ShardPlan


@dataclass(frozen=True)
class HarmonicBeads:
    """A chain of n atoms: springs between neighbours and to their places 1.5 A apart on a line. K: [n, n],
    kJ/mol/A^2; temperature: K."""

    n: int = 12
    bond: float = 40.0
    tether: float = 8.0
    temperature: float = 300.0

    @property
    def K(self) -> np.ndarray:
        """Stiffness, kJ/mol/A^2; no two springs are equal."""
        K = self.tether * np.diag(1 + 0.1 * np.arange(self.n))
        for i in range(self.n - 1):
            k = self.bond * (1 + 0.05 * i)
            K[[i, i + 1], [i, i + 1]] += k
            K[[i, i + 1], [i + 1, i]] -= k
        return K

    @property
    def kT(self) -> float:
        """kJ/mol."""
        return GAS_CONSTANT * self.temperature

    @property
    def places(self) -> np.ndarray:
        """Positions of the atoms at rest, [n, 3], A."""
        return np.outer(1.5 * np.arange(self.n), [1.0, 0.0, 0.0])

    def frames(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Independent positions (A) and forces (kJ/mol/A), [count, n, 3]."""
        root = np.linalg.cholesky(np.linalg.inv(self.K) * self.kT)
        x = np.einsum("ij,tjk->tik", root, np.random.default_rng(seed).normal(size=(count, self.n, 3)))
        return self.places + x, -np.einsum("ij,tjk->tik", self.K, x)

    def bead_stiffness(self, M: np.ndarray) -> np.ndarray:
        """(M K^-1 M^T)^-1 [N, N] of the potential of mean force of beads M [N, n]."""
        return np.linalg.inv(M @ np.linalg.solve(self.K, M.T))

    def optimal(self, M: np.ndarray) -> np.ndarray:
        """The map of least noise, [N, n]."""
        return self.bead_stiffness(M) @ M @ np.linalg.inv(self.K)

    @property
    def particles(self) -> Particles:
        """Carbons in residues of three, all bonded in a chain, without constraints."""
        residue = np.arange(self.n) // 3
        n_residues = int(residue[-1]) + 1
        return Particles(
            names=tuple(("CA", "CB", "CG")[i % 3] for i in range(self.n)),
            elements=("C",) * self.n,
            residue=residue,
            residue_names=("ALA",) * n_residues,
            residue_numbers=tuple(range(1, n_residues + 1)),
            chains=("A",) * n_residues,
            masses=np.full(self.n, 12.011),
            bonds=np.array([(i, i + 1) for i in range(self.n - 1)]),
            constraints=np.empty((0, 2), int),
        )


def write_force_store(
    folder: Path, particles: Particles, sources: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray | None]]
) -> ForceStore:
    """A store of one shard a source: positions (A), forces (kJ/mol/A) [T, n, 3], and boxes [T, 3, 3] or None."""
    folder.mkdir(parents=True, exist_ok=True)
    content = ForceContent.of(particles, any(box is not None for _, _, box in sources.values()))
    store = content.begin(folder, {})
    plans, first = [], 0
    for name, (positions, forces, box) in sources.items():
        plan = ShardPlan(
            f"{name}.h5", name, "", name, first, 0, len(positions), f"plan of {name}", store=store, place=len(plans)
        )
        rows = np.arange(len(positions))
        origin = Origin(first + rows, [name] * len(rows), rows, rows.astype(float))
        write_frames(folder, plan, content, ForceFrames(positions, forces, box), origin)
        plans.append(plan)
        first += len(positions)
    write_catalog(folder, plans, content)
    return open_force_store(folder)
