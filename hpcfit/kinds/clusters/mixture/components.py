"""Components of a mixture: what a cluster of each label scatters, and the reference program's fit of their mean.

A component's intensity at spreads sigma_p of its pairs p is

    I_c(q) = own_c(q) + sum over p of damped_cp(q) exp(-q^2 sigma_cp^2 / 2)

An averaged component is the mean over many structures, whose spread is in it already: it damps nothing (S5-091).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.kinds.clusters.composition import Structure
from hpcfit.observables.pair_moments import PairMoments, bin_width, pair_indices, pair_moments

Source = Literal["averaged", "single", "predicted"]


class Component(NamedTuple):
    """The intensity of a label. weight: its population, number of clusters in any unit; own: [Q]; damped: [P, Q];
    sigma: [P] A, 0 where none is known; nodes: of it, for sums by size."""

    label: str
    source: Source
    weight: float
    own: np.ndarray
    damped: np.ndarray
    sigma: np.ndarray
    nodes: int = 0

    def intensity(self, q: np.ndarray) -> np.ndarray:
        """I_c(q), [Q]."""
        return self.own + np.sum(self.damped * np.exp(-(q**2) * self.sigma[:, None] ** 2 / 2), axis=0)


class ReferenceFit(NamedTuple):
    """The fit without errors: I = scale model + offset, either of them of any sign, and the root mean square left."""

    scale: float
    offset: float
    rmse: float


def averaged(
    label: str, weight: float, moments: PairMoments, f: np.ndarray, q: np.ndarray, nodes: int = 0
) -> Component:
    """The mean over the structures of summed moments. f: [S, Q] of the species of the moments."""
    return averaged_sums(label, weight, (moments.structures, moments.atoms, moments.pair_sums(q)), f, nodes)


def averaged_sums(
    label: str, weight: float, sums: tuple[int, np.ndarray, np.ndarray], f: np.ndarray, nodes: int = 0
) -> Component:
    """The mean over structures from their number, atoms [S], and sums S_ab(q) [P, Q]."""
    structures, atoms, pairs = sums
    a, b = pair_indices(len(f))
    mean = (np.asarray(atoms, float) @ f**2 + 2 * np.sum(f[a] * f[b] * pairs, axis=0)) / max(int(structures), 1)
    return Component(label, "averaged", weight, mean, np.zeros_like(pairs), np.zeros(len(pairs)), nodes)


def mean_of_conformers(parts: Sequence[Component]) -> Component:
    """The mean over components of one label, such as placements of a predicted cluster."""
    own, damped = (sum(getattr(one, what) for one in parts) / len(parts) for what in ("own", "damped"))
    return parts[0]._replace(own=own, damped=damped)


def single(
    label: str, weight: float, structure: Structure, species: Sequence[str], f: np.ndarray, q: np.ndarray,
    sigma: np.ndarray, among: np.ndarray | None = None, source: Source = "single", nodes: int = 0,
) -> Component:  # fmt: skip
    """One structure, whose pairs spread by sigma [P] A, in the order of ``pairs_of(species)`` (NaN and 0: not at all).

    species: the elements that scatter; among: [n, n] of bool, the pairs that are damped, such as those of the first
    shell; all where it is None.
    """
    width, sigma = bin_width(q[-1]), np.nan_to_num(np.asarray(sigma, float))
    if np.any(sigma < 0) or len(sigma) != len(species) * (len(species) + 1) // 2:
        raise InputError(
            f"component '{label}' has the spreads {sigma} of the pairs of {', '.join(species)}",
            remedy="give one for each pair of species, not negative",
        )
    every = pair_moments(structure.positions, structure.elements, species, width)
    some = every if among is None else pair_moments(structure.positions, structure.elements, species, width, among)
    a, b = pair_indices(len(species))
    own = every.atoms.astype(float) @ f**2
    if among is not None:
        own = own + np.sum(2 * f[a] * f[b] * (every - some).pair_sums(q), axis=0)
    return Component(label, source, weight, own, 2 * f[a] * f[b] * some.pair_sums(q), sigma, nodes)


def mean_of(components: Sequence[Component], q: np.ndarray) -> np.ndarray:
    """The mean intensity by population, sum of w I / sum of w over components of positive weight, [Q]."""
    used = [one for one in components if one.weight > 0]
    if not used:
        raise InputError(
            f"no component of {', '.join(one.label for one in components) or 'none'} has a population above 0",
            remedy="check the counts and the predictions",
        )
    return sum(one.weight * one.intensity(q) for one in used) / sum(one.weight for one in used)


def reference_fit(model: np.ndarray, measured: np.ndarray) -> ReferenceFit:
    """The reference program's least squares, which heed no errors and may scale by a negative number."""
    (scale, offset), *_ = np.linalg.lstsq(np.stack([model, np.ones_like(model)], axis=1), measured, rcond=None)
    left = measured - scale * model - offset
    return ReferenceFit(float(scale), float(offset), float(np.sqrt(np.mean(left**2))))
