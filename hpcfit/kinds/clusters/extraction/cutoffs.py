"""Distances within which species are bound, by level, and the first minimum of a radial distribution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.kinds.clusters.composition import Roles

PAIR = "-"  # between the species of a pair, as Pb-I


class Cutoffs(NamedTuple):
    """Cut-offs between S species in A, inclusive; 0: no bond. bond: [S, S] of level 0, symmetric; shell: [S, S], around
    nodes, the largest of the levels by which shells grow."""

    bond: np.ndarray
    shell: np.ndarray

    @property
    def largest(self) -> float:
        """The distance within which pairs are looked for."""
        return float(max(self.bond.max(), self.shell.max()))


def species_of_pair(text: str, known: Sequence[str]) -> tuple[str, str]:
    """The two species of `a-b`; a species may have a hyphen itself. Raises InputError where it is no pair of known
    species."""
    parts = text.split(PAIR)
    pairs = [(PAIR.join(parts[:n]), PAIR.join(parts[n:])) for n in range(1, len(parts))]
    found = next((pair for pair in pairs if set(pair) <= set(known)), None)
    if found is None:
        raise InputError(
            f"[problem.cutoffs] '{text}' is no pair of {', '.join(known)}", remedy="write it as NODE-LINKER, for"
            " instance Pb-I, of species that node, linker and shell name",
        )  # fmt: skip
    return found


def cutoff_matrices(
    roles: Roles, given: Mapping[str, Mapping[int, float]], default: float | None, levels: Sequence[int]
) -> Cutoffs:
    """The matrices of cut-offs by pair and level. default: of pairs that are not given, None: they are not bound.

    Raises InputError for a pair that is given twice, and where nothing can be bound.
    """
    species = [*roles.node, *roles.linker, *roles.shell]
    by_pair: dict[frozenset[str], Mapping[int, float]] = {}
    for text, of_levels in given.items():
        pair = frozenset(species_of_pair(text, species))
        if pair in by_pair:
            raise InputError(f"[problem.cutoffs] has {text} twice", remedy="a pair has no order: give it once")
        by_pair[pair] = of_levels
    bond, shell = np.zeros((len(species),) * 2), np.zeros((len(species),) * 2)
    for i, a in enumerate(species):
        for j, b in enumerate(species):
            both = {roles.of(a), roles.of(b)}
            of_levels = by_pair.get(frozenset((a, b)))
            if both != {"shell"}:
                bond[i, j] = (default or 0.0) if of_levels is None else of_levels.get(0, 0.0)
            if both == {"node", "shell"}:
                of_level = [(default or 0.0) if of_levels is None else of_levels.get(k, 0.0) for k in levels]
                shell[i, j] = max(of_level, default=0.0)
    _check(species, roles, Cutoffs(bond, shell))
    return Cutoffs(bond, shell)


def _check(species: Sequence[str], roles: Roles, found: Cutoffs) -> None:
    free = [one for one, near, far in zip(species, found.bond, found.shell) if not near.any() and not far.any()]
    unbound = [one for one in free if roles.of(one) == "shell"]
    if unbound or len(free) == len(species):
        who = f"shell species {', '.join(unbound)}" if unbound else "no pair of species"
        raise InputError(
            f"[problem.cutoffs] binds {who}{' to nothing' if unbound else ''}",
            remedy="give a cut-off of a pair, for instance Pb-I = 4.0, or default_cutoff; of shells that grow by"
            " levels one of such a level, Pb-O = { 1 = 3.3 }",
        )


def first_minimum(r: np.ndarray, g: np.ndarray, width: float = 0.15) -> float | None:
    """The distance (A) of the first minimum of g(r) [bins] behind its first peak; None where there is none.

    g is smoothed by a Gaussian of this width (A). The first peak is the first maximum of at least a tenth of the
    highest that g falls from by 30 % or more; its minimum is the lowest value before g rises by 5 % of the peak, so
    that noise between the shells is none. A peak may be below 1, where most atoms of a molecule cannot be neighbours.
    """
    step = r[1] - r[0]
    reach = int(np.ceil(4 * width / step))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) * step / width) ** 2)
    smooth = np.convolve(g, kernel, "same") / np.convolve(np.ones_like(g), kernel, "same")
    maxima = np.flatnonzero((smooth[1:-1] >= smooth[:-2]) & (smooth[1:-1] > smooth[2:])) + 1
    for peak in maxima[smooth[maxima] >= 0.1 * smooth.max()].tolist():
        rises = np.flatnonzero(smooth[peak:] > np.minimum.accumulate(smooth[peak:]) + 0.05 * smooth[peak])
        if len(rises):
            lowest = peak + int(np.argmin(smooth[peak : peak + rises[0]]))
            if smooth[lowest] <= 0.7 * smooth[peak]:
                return float(r[lowest])
    return None
