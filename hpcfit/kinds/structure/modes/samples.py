"""Configurations that Hessians are averaged over, and how far they are spread.

Slow modes are robust where the spread of samples is within the range of the couplings: further out the Hessian has
forgotten who is tied to whom. The spread is chosen by a few rows of blocks at each of some candidates: by how much
their average norms look like the couplings (cosine of the two), or, without couplings, like those of other samples.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hpcfit.errors import NumericalError
from hpcfit.kinds.structure.landscapes.landscape import Landscape
from hpcfit.kinds.structure.modes.hessian_norms import SLICE, all_partners, partner_norms
from hpcfit.log import logger

SPREADS = tuple(float(2.0**k) for k in range(-6, 4))  # candidates, in the length of the landscape


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


def _score(landscape: Landscape, samples: np.ndarray, chosen: np.ndarray, known: np.ndarray | None, cap) -> float:
    partners = all_partners(landscape.n)[chosen]
    rows = np.stack([np.asarray(partner_norms(landscape, x, cap, chosen, partners))[:, :-1] for x in samples])
    rows[:, np.arange(len(chosen)), chosen] = 0.0
    if not np.all(np.isfinite(rows)):
        return np.nan
    first, second = (rows[::2], rows[1::2]) if known is None else (rows, known[None])
    first, second = first.mean(axis=0), second.mean(axis=0)
    size = np.linalg.norm(first) * np.linalg.norm(second)
    return float(np.sum(first * second) / size) if size > 0 else 0.0
