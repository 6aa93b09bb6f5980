"""The graph of an energy, by its couplings or by a stage over its Hessians, and the slow modes of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from hpcfit.fit.stages import Fits
from hpcfit.kinds.structure.config import ModesConfig
from hpcfit.kinds.structure.landscapes.landscape import Landscape
from hpcfit.kinds.structure.modes.graph import GraphModes, laplacian, lowest_modes, overlap
from hpcfit.kinds.structure.modes.hessian_norms import BlockNorms, all_partners, partners_in, weights_of
from hpcfit.kinds.structure.modes.samples import PILOT, StoredSamples, choose_spread, configurations, enough
from hpcfit.kinds.structure.opening import unit_of

STAGE = "slow modes"
CLOSE = 0.05  # relative, eigenvalues that errors of averages can exchange
ALL = 2000  # particles, up to which norms of all pairs are kept


class SlowModes(NamedTuple):
    """The modes that are written, and the samples that they come from, None for modes of the couplings.

    overlap: the share of their space that is in that of as many modes of the couplings, those with them that have the
    eigenvalue of the last one within CLOSE, and that of random ones; None where there are none to compare with.
    """

    modes: GraphModes
    sampling: Sampling | None
    overlap: tuple[float, float] | None

    def told(self) -> dict[str, Any]:
        """Numbers of the modes."""
        return {
            "values": self.modes.values.tolist(), "participation": self.modes.participation.tolist(),
            "residuals": self.modes.residuals.tolist(), "pieces": self.modes.n_components, "overlap": self.overlap,
            "spread": self.sampling and self.sampling.spread, "samples": self.sampling and self.sampling.count,
        }  # fmt: skip


class Sampling(NamedTuple):
    """The samples of Hessians: their number, and how far they are spread, None for frames of a store."""

    count: int
    spread: float | None


def graph_of(
    landscape: Landscape, choice: ModesConfig, seed: int, fits: Fits, frames: StoredSamples | None = None
) -> tuple[csr_array | None, Sampling | None]:
    """Weights [n, n] on every rank, None where there are no couplings, and the samples of Hessians; collective."""
    couplings = landscape.couplings()
    if choice.source == "couplings":
        return couplings, None
    samples, spread = fits.grid.world.on_root(lambda: _samples(landscape, choice, seed, frames))
    every = landscape.n <= ALL or couplings is None
    partners = all_partners(landscape.n) if every else partners_in(couplings)
    squared = choice.average == "squared"
    work = BlockNorms(landscape, samples, partners, fits.grid.world, squared=squared, cap=choice.cap)
    norms = fits.grid.world.bcast(fits.stage(STAGE, work, {}).get("norms"))
    return weights_of(norms, partners), Sampling(len(samples), spread)


def _samples(
    landscape: Landscape, choice: ModesConfig, seed: int, frames: StoredSamples | None
) -> tuple[np.ndarray, float | None]:
    """Configurations [K, n, d], and how far they are spread."""
    if frames is not None:
        count = choice.samples
        if count == "auto":
            count = enough(landscape, frames.spaced(PILOT), seed, cap=choice.cap)
        return frames.spaced(min(count, len(frames.x))), None
    spread = choice.spread if choice.spread == "auto" else unit_of(landscape) * choice.spread
    if spread == "auto":
        spread = choose_spread(landscape, seed, cap=choice.cap).spread
    count = choice.samples
    if count == "auto":
        count = enough(landscape, configurations(landscape, spread, PILOT, seed), seed, cap=choice.cap)
    return configurations(landscape, spread, count, seed), spread


def slow_modes(landscape: Landscape, weights: csr_array, sampling: Sampling | None, choice: ModesConfig) -> SlowModes:
    """The slowest modes of a graph, as many as there are; collective by solver "slepc"."""
    matrix = laplacian(weights)
    pieces = connected_components(matrix, directed=False)[0]
    found = lowest_modes(matrix, min(choice.number, landscape.n - pieces), choice.solver)
    couplings, known = landscape.couplings(), None
    if sampling is not None and couplings is not None:
        known = tuple(map(float, overlap(found.vectors, _as_slow(couplings, found.vectors.shape[1], choice.solver))))
    return SlowModes(found, sampling, known)


def _as_slow(couplings: csr_array, k: int, solver: str = "auto") -> np.ndarray:
    """The k slowest modes of the couplings, and those that have the last one's eigenvalue within CLOSE, [n, k or more].

    Which of such modes are the slower ones is decided by less than the errors of averages: a space that is cut between
    them is not known.
    """
    matrix = laplacian(couplings)
    most = matrix.shape[0] - connected_components(matrix, directed=False)[0]
    k = min(k, most)
    modes = lowest_modes(matrix, min(2 * k + 10, most), solver)
    return modes.vectors[:, modes.values <= (1 + CLOSE) * modes.values[k - 1]]


def as_arrays(found: SlowModes) -> dict[str, np.ndarray]:
    """Datasets of a file of modes."""
    modes = found.modes
    return {
        "values": modes.values, "vectors": modes.vectors, "residuals": modes.residuals,
        "participation": modes.participation, "piece": modes.component,
    }  # fmt: skip
