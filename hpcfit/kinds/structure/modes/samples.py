"""Configurations that Hessians are averaged over, and how far they are spread.

Slow modes are robust where the spread of samples is within the range of the couplings: further out the Hessian has
forgotten who is tied to whom. The spread is chosen by a few rows of blocks at each of some candidates: by how much
their average norms look like the couplings (cosine of the two), or, without couplings, like those of other samples.
Frames of simulations need no spread. The number of samples follows from how much a norm varies between them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from hpcfit.errors import InputError, NumericalError
from hpcfit.kinds.structure.landscapes.landscape import Landscape
from hpcfit.kinds.structure.modes.hessian_norms import SLICE, partner_norms
from hpcfit.kinds.structure.starts import IN_ANGSTROM
from hpcfit.log import logger
from hpcfit.store.contents import open_any_store
from hpcfit.store.positions import PositionContent, read_block

PILOT, MOST, ERROR = 8, 128, 0.1  # samples to measure with, samples at most, and the error that is aimed at
SPREADS = tuple(float(2.0**k) for k in range(-6, 4))  # candidates, in the length of the landscape


class StoredSamples(NamedTuple):
    """Frames of a store. x: [T, n, 3], in the landscape's unit; digest: of the store."""

    x: np.ndarray
    digest: str

    @classmethod
    def read(cls, folder: Path, count: int | Literal["auto"], landscape: Landscape) -> StoredSamples:
        """The frames of a store of particles, evenly spaced, count of them, or at most MOST. Raises InputError for a
        store of other particles, or of fewer frames than ``count``."""
        store = open_any_store(folder)
        if not isinstance(store.content, PositionContent):
            raise InputError(
                f"samples_from = {folder} is a store of {store.content.name}",
                remedy='prepare one with [prepare] content = "positions"',
            )
        if store.content.width != landscape.n or landscape.d != 3:
            raise InputError(
                f"the frames of {folder} have {store.content.width} particles with 3 coordinates, the energy takes"
                f" {landscape.n} with {landscape.d}",
                remedy="give frames of this very system",
            )
        if count != "auto" and count > store.n_frames:
            raise InputError(
                f"samples = {count}, and {folder} has {store.n_frames} frames",
                remedy=f"take at most {store.n_frames} samples",
            )
        rows = _spaced(store.n_frames, MOST if count == "auto" else count)
        bounds = np.cumsum([0, *(block.frames for block in store.blocks())])
        found = []
        for block, first, end in zip(store.blocks(), bounds, bounds[1:]):
            own = rows[(rows >= first) & (rows < end)] - first
            if len(own):
                found.append(read_block(store, block).positions[own])
        x = np.concatenate(found).astype(float) / IN_ANGSTROM.get(landscape.length, 1.0)
        return cls(x, store.digest())

    def spaced(self, count: int) -> np.ndarray:
        """So many of the frames, or all, evenly spaced."""
        return self.x[_spaced(len(self.x), count)]


def _spaced(frames: int, count: int) -> np.ndarray:
    """The numbers of frames, [count] or all."""
    return np.unique(np.linspace(0, frames - 1, min(count, frames)).round().astype(int))


def enough(landscape: Landscape, pilot: np.ndarray, seed: int, *, cap: float = 0.0) -> int:
    """The number of samples whose average norms have a relative standard error of ERROR, from those of SLICE particles
    at some samples [K, n, d]: (σ/μ/ERROR)², σ²/μ² a mean over pairs with weights μ². At least as many as those,
    at most MOST."""
    chosen = np.sort(np.random.default_rng([seed, 2]).permutation(landscape.n)[:SLICE])
    rows = _rows(landscape, pilot, chosen, cap)
    variance, square = np.sum(np.var(rows, axis=0, ddof=1)), np.sum(np.mean(rows, axis=0) ** 2)
    if len(pilot) < 2 or not (np.isfinite(variance) and square > 0):
        return len(pilot)
    count = int(np.clip(np.ceil(variance / square / ERROR**2), len(pilot), MOST))
    logger.info("norms vary by %.0f %% from sample to sample: %d samples", 100 * np.sqrt(variance / square), count)
    return count


class Spread(NamedTuple):
    """spread: the one chosen. candidates, scores: [C], cosines from 0 to 1, NaN where Hessians are not finite."""

    spread: float
    candidates: np.ndarray
    scores: np.ndarray


def configurations(
    landscape: Landscape, spread: float, count: int, seed: int, around: np.ndarray | None = None
) -> np.ndarray:
    """Samples [count, n, d]: normal displacements of standard deviation ``spread`` from a configuration [n, d], or
    from the origin. A sample is a function of seed and its number."""
    centre = np.zeros((landscape.n, landscape.d)) if around is None else np.asarray(around, float)
    shape = centre.shape
    return np.stack([centre + spread * np.random.default_rng([seed, s]).standard_normal(shape) for s in range(count)])


def choose_spread(
    landscape: Landscape,
    seed: int,
    *,
    candidates: tuple[float, ...] = SPREADS,
    count: int = 8,
    cap: float = 0.0,
    around: np.ndarray | None = None,
) -> Spread:
    """The candidate with the best score; the wider one of equals. Raises NumericalError where no candidate has finite
    Hessians."""
    chosen = np.sort(np.random.default_rng([seed, 1]).permutation(landscape.n)[:SLICE])
    couplings = landscape.couplings()
    known = None if couplings is None else couplings[chosen].toarray()
    scores = [
        _score(landscape, configurations(landscape, one, count, seed, around), chosen, known, cap)
        for one in candidates
    ]  # fmt: skip
    scores = np.array(scores)
    if np.all(np.isnan(scores)):
        raise NumericalError(
            f"no Hessian is finite at samples spread by {candidates[0]:g} to {candidates[-1]:g} {landscape.length}",
            remedy="give a cap to pair potentials",
        )
    best = len(scores) - 1 - int(np.nanargmax(scores[::-1]))
    logger.info(
        "samples are spread by %g %s, where averages look like %s to %.2f",
        *(candidates[best], landscape.length, "each other" if known is None else "couplings", scores[best]),
    )
    return Spread(candidates[best], np.asarray(candidates), scores)


def _rows(landscape: Landscape, samples: np.ndarray, chosen: np.ndarray, cap: float) -> np.ndarray:
    """The norms of the blocks of some particles [m] with all others, [K, m, n], at each sample."""
    partners = np.tile(np.arange(landscape.n, dtype=np.int32), (len(chosen), 1))
    rows = np.stack([np.asarray(partner_norms(landscape, x, cap, chosen, partners))[:, :-1] for x in samples])
    rows[:, np.arange(len(chosen)), chosen] = 0.0
    return rows


def _score(landscape: Landscape, samples: np.ndarray, chosen: np.ndarray, known: np.ndarray | None, cap) -> float:
    rows = _rows(landscape, samples, chosen, cap)
    if not np.all(np.isfinite(rows)):
        return np.nan
    first, second = (rows[::2], rows[1::2]) if known is None else (rows, known[None])
    first, second = first.mean(axis=0), second.mean(axis=0)
    size = np.linalg.norm(first) * np.linalg.norm(second)
    return float(np.sum(first * second) / size) if size > 0 else 0.0
