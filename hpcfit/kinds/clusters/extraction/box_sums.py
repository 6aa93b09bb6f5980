"""The stage of the static structure factor of the box: sums over the vectors of its reciprocal lattice, by shells of
|q| and statistical blocks of frames. All atoms of the frames scatter, also those that take no part in clusters."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.fit.running_sum import BlockSums, Reductions
from hpcfit.fit.stages import SumsOfUnits
from hpcfit.kinds.clusters.extraction.stages import Frames
from hpcfit.observables.box_scattering import Vectors, densities, lattice_vectors, n_shells, shell_sums
from hpcfit.ranks import Ranks
from hpcfit.statistics.blocks import weighted_error

SUMS = "sums"


class Scatterers(NamedTuple):
    """The atoms of the box. species: S elements; order: [n] numbers of atoms, by species; starts: [S + 1], where each
    species begins in it, and n; form_factors: f [S, Q] at given q [Q], 1/A."""

    species: tuple[str, ...]
    order: np.ndarray
    starts: np.ndarray
    form_factors: Callable[[np.ndarray], np.ndarray]


class Shells(NamedTuple):
    """The vectors that are asked for. q_max, width: 1/A; most: vectors of a shell."""

    q_max: float
    width: float
    most: int


class BoxScattering(NamedTuple):
    """S(q) in the B shells that have vectors. q: [B] mean length, 1/A; vectors: [B] mean number in a frame, where q and
    -q are one; total, partial: [B], [P, B], with standard errors over blocks of frames, NaN of a single block."""

    species: tuple[str, ...]
    q: np.ndarray
    vectors: np.ndarray
    total: np.ndarray
    total_error: np.ndarray
    partial: np.ndarray
    partial_error: np.ndarray


def scatterers(elements: Sequence[str], form_factors: Callable[[Sequence[str], np.ndarray], np.ndarray]) -> Scatterers:
    """The atoms among elements [n]; sites without an element scatter nothing. form_factors: f of species at q."""
    species = tuple(sorted(set(elements) - {""}))
    number = {name: k for k, name in enumerate(species)}
    kind = np.array([number.get(name, -1) for name in elements])
    order = np.argsort(kind, kind="stable")[np.count_nonzero(kind < 0) :]
    starts = np.searchsorted(kind[order], np.arange(len(species) + 1))
    return Scatterers(species, order, starts, partial(form_factors, species))


class BoxSums(SumsOfUnits):
    """The sums of all frames; see ``fit.stages.Work``. Its product has `sums` [G, P + 3, shells] (``shell_sums``) of
    each of G groups of frames. group: [T], of each frame, -1 for those left out."""

    def __init__(
        self, frames: Frames, of: Scatterers, shells: Shells, group: np.ndarray, ranks: Ranks, reductions: Reductions
    ):
        self.n_units = len(frames.blocks)
        self._frames, self._of, self._shells, self._group = frames, of, shells, group
        self._first = np.concatenate([[0], np.cumsum([block.frames for block in frames.blocks])])
        self._bins, S = n_shells(shells.q_max, shells.width), len(of.species)
        shape = (S * (S + 1) // 2 + 3, self._bins)
        super().__init__(BlockSums(int(group.max()) + 1, shape, reductions), ranks)
        self._lattice: tuple[np.ndarray, Vectors, np.ndarray] | None = None

    def run(self, units: Sequence[int]) -> Generator[int | None]:
        """See ``Work``."""
        of, atoms = self._of, np.diff(self._of.starts).astype(float)
        for unit in units:
            for row, (_, x, box, where) in enumerate(self._frames.of_block(unit), self._first[unit]):
                if self._group[row] < 0:
                    continue
                vectors, f = self._vectors(box, where)
                rho = densities(x[of.order].astype(float), box, of.starts, vectors.hkl)
                self._sums.add(int(self._group[row]), shell_sums(rho, atoms, f, vectors, self._bins))
                yield None
            yield unit

    def _vectors(self, box: np.ndarray, where: str) -> tuple[Vectors, np.ndarray]:
        """The vectors of a box, and f of all species at them; those of the frame before where it has the same box."""
        if self._lattice is None or not np.array_equal(self._lattice[0], box):
            vectors = lattice_vectors(box, *self._shells)
            if not len(vectors.q):
                raise InputError(
                    f"{where}: the box has no vector of its reciprocal lattice up to {self._shells.q_max:g} 1/A",
                    remedy="raise [problem.scattering] box_q_max",
                )
            self._lattice = box, vectors, self._of.form_factors(vectors.q)
        return self._lattice[1:]

    def product(self) -> dict[str, np.ndarray]:
        """See ``Work``."""
        total = self._sums.total(self.ranks)
        return {SUMS: total} if self.ranks.is_root else {}


def box_scattering(sums: np.ndarray, species: tuple[str, ...], frames: int) -> BoxScattering:
    """S(q) from the product of ``BoxSums``."""
    count = sums[:, -1]
    seen = count.sum(axis=0) > 0
    count, values = count[:, seen], sums[:, :-1][:, :, seen]
    share = count / count.sum(axis=0)
    # Blocks without any vector of a shell, where the box changes its size, have a share of 0.
    means = values / np.maximum(count, 1)[:, None]
    whole = np.sum(share[:, None] * means, axis=0)
    errors = np.full(whole.shape, np.nan)
    for shell in range(len(share[0])):
        there = share[:, shell] > 0
        if np.count_nonzero(there) > 1:
            errors[:, shell] = weighted_error(means[there, :, shell], share[there, shell])
    return BoxScattering(species, whole[-1], count.sum(axis=0) / frames, whole[-2], errors[-2], whole[:-2], errors[:-2])
