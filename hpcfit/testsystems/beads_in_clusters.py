"""Beads that form clusters: 24 nodes and 48 linkers that attract each other, by Brownian dynamics in seconds.

Nodes and linkers attract each other by a Lennard-Jones potential of some kT; equal beads only repel each other.
They are called Pb and I. Everything is in A, ps and kT.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

TRAJECTORY = "trajectory.npz"


class Beads(NamedTuple):
    """The system. side: of the cubic box, A; depth: of the attraction, kT; sigma: A, of nodes with linkers, of equal
    beads; diffusion: A^2/ps; step: ps; stride: steps between frames."""

    nodes: int = 24
    linkers: int = 48
    side: float = 36.0
    depth: float = 3.2
    sigma: tuple[float, float] = (2.7, 4.0)
    diffusion: float = 0.2
    step: float = 0.02
    stride: int = 8
    frames: int = 640
    equilibration: int = 1500
    seed: int = 1

    @property
    def elements(self) -> list[str]:
        """Their names."""
        return ["Pb"] * self.nodes + ["I"] * self.linkers


def trajectory(beads: Beads) -> np.ndarray:
    """Positions of all frames, [frames, n, 3] A, in the box."""
    n, random = beads.nodes + beads.linkers, np.random.default_rng(beads.seed)
    side = int(np.ceil(n ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    x = (random.permutation(grid)[:n] + 0.5) * beads.side / side
    i, j = np.triu_indices(n, 1)
    is_node = np.arange(n) < beads.nodes
    unlike = is_node[i] != is_node[j]
    width = np.sqrt(2 * beads.diffusion * beads.step)
    found = np.empty((beads.frames, n, 3))
    for number in range(-beads.equilibration, beads.frames * beads.stride):
        drift = beads.diffusion * beads.step * _forces(x, i, j, unlike, beads)
        x = (x + drift + width * random.standard_normal((n, 3))) % beads.side
        if number >= 0 and (number + 1) % beads.stride == 0:
            found[number // beads.stride] = x
    return found


def _forces(x: np.ndarray, i: np.ndarray, j: np.ndarray, unlike: np.ndarray, beads: Beads) -> np.ndarray:
    """Forces [n, 3], kT/A, of a 12-6 potential; that of equal beads ends at its minimum."""
    r = x[i] - x[j]
    r -= beads.side * np.rint(r / beads.side)
    sigma = np.where(unlike, *beads.sigma)
    square = np.sum(r**2, axis=1)
    near = square < np.where(unlike, 9.0, 2 ** (1 / 3)) * sigma**2
    r, i, j, unlike = r[near], i[near], j[near], unlike[near]
    square = np.maximum(square[near], 0.64 * sigma[near] ** 2)  # of the first steps
    sixth = (sigma[near] ** 2 / square) ** 3
    slope = 24 * np.where(unlike, beads.depth, 1.0) * (2 * sixth**2 - sixth) / square
    pull = slope[:, None] * r
    return np.stack([np.bincount(i, p, len(x)) - np.bincount(j, p, len(x)) for p in pull.T], axis=1)


def write(folder: Path, beads: Beads | None = None) -> None:
    """Simulate and write FOLDER/trajectory.npz: coordinates, elements, box and times as arrays."""
    beads = beads or Beads()
    x = trajectory(beads)
    time = 1000 * beads.step * beads.stride * np.arange(1, len(x) + 1)
    elements = np.array(beads.elements)
    arrays = {"coordinates": x.astype("<f4"), "elements": elements, "box": np.full(3, beads.side), "time_fs": time}
    np.savez(folder / TRAJECTORY, **arrays)
