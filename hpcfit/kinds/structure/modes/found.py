"""The graph of an energy, by its couplings or by a stage over its Hessians, and the slow modes of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from hpcfit.fit.stages import Fits
from hpcfit.kinds.structure.config import ModesConfig
from hpcfit.kinds.structure.landscapes.landscape import Landscape
from hpcfit.kinds.structure.modes.graph import GraphModes, laplacian, lowest_modes, overlap
from hpcfit.kinds.structure.modes.hessian_norms import BlockNorms, all_partners, partners_in, weights_of
from hpcfit.kinds.structure.modes.samples import choose_spread, configurations
from hpcfit.kinds.structure.opening import unit_of

STAGE = "slow modes"
ALL = 2000  # particles, up to which norms of all pairs are kept


class SlowModes(NamedTuple):
    """The modes that are written, and where they come from. overlap: the share of their space that is in that of as
    many modes of the couplings, and that of random ones; None where these are the modes themselves, or there are none.
    """

    modes: GraphModes
    spread: float | None
    overlap: tuple[float, float] | None

    def told(self) -> dict[str, Any]:
        """Numbers of the modes."""
        return {
            "values": self.modes.values.tolist(), "participation": self.modes.participation.tolist(),
            "residuals": self.modes.residuals.tolist(), "pieces": self.modes.n_components, "spread": self.spread,
            "overlap": self.overlap,
        }  # fmt: skip


def graph_of(landscape: Landscape, choice: ModesConfig, seed: int, fits: Fits) -> tuple[csr_array | None, float | None]:
    """Weights [n, n] on every rank, None where there are no couplings, and the spread of samples; collective."""
    couplings = landscape.couplings()
    if choice.source == "couplings":
        return couplings, None
    spread = choice.spread if choice.spread == "auto" else unit_of(landscape) * choice.spread
    if spread == "auto":
        spread = choose_spread(landscape, seed, cap=choice.cap).spread
    samples = configurations(landscape, spread, choice.samples, seed)
    every = landscape.n <= ALL or couplings is None
    partners = all_partners(landscape.n) if every else partners_in(couplings)
    squared = choice.average == "squared"
    work = BlockNorms(landscape, samples, partners, fits.grid.world, squared=squared, cap=choice.cap)
    norms = fits.grid.world.bcast(fits.stage(STAGE, work, {}).get("norms"))
    return weights_of(norms, partners), spread


def slow_modes(landscape: Landscape, weights: csr_array, spread: float | None, number: int) -> SlowModes:
    """The slowest modes of a graph, as many as there are."""
    matrix = laplacian(weights)
    pieces = lowest_modes(matrix, 1).n_components
    found = lowest_modes(matrix, min(number, landscape.n - pieces))
    couplings, known = landscape.couplings(), None
    if spread is not None and couplings is not None:
        of_couplings = lowest_modes(laplacian(couplings), found.vectors.shape[1])
        known = tuple(map(float, overlap(found.vectors, of_couplings.vectors)))
    return SlowModes(found, spread, known)


def as_arrays(found: SlowModes) -> dict[str, np.ndarray]:
    """Datasets of a file of modes."""
    modes = found.modes
    return {
        "values": modes.values, "vectors": modes.vectors, "residuals": modes.residuals,
        "participation": modes.participation, "piece": modes.component,
    }  # fmt: skip
