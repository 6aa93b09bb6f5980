"""Laue orbits that a fit does not see: one test set, or the folds of a cross-validation.

Both rules decide by one representative reflection of each orbit and give the answer to all of its members, Friedel
mates included: an orbit is never parted, so that what is held out has no copy in the fit, whatever the Laue class.

by = "orbits": single orbits, one of each few neighbours in resolution, so that every shell is tested alike.
by = "blocks": whole cubes of reciprocal space. Neighbouring reflections of a supercell are correlated, because the
transform of one molecule is smooth on their scale; a single orbit that is held out is known from its neighbours. A
cube leaves such neighbours only at its faces, and where the representatives end at a face of the asymmetric wedge that
is no mirror (across a mirror, the neighbour's image is the neighbour on this side).
"""

from __future__ import annotations

import heapq
from typing import Literal

import numpy as np

from hpcfit.errors import InputError
from hpcfit.physics import reciprocal

By = Literal["orbits", "blocks"]


def held_out_orbits(hkl: np.ndarray, *, by: By, fraction: float, seed: int, block: int) -> np.ndarray:
    """The orbits of the test set, [n] bool: about ``fraction`` of them, drawn by ``seed``.

    hkl: [n, 3] one reflection of each orbit, by ascending resolution 1/d. block: edge of a cube in reflections of the
    map's own grid, for by = "blocks": whole cubes are drawn until their orbits are as near to the fraction as they get.
    Raises InputError where that would hold out nothing or everything.
    """
    if by == "orbits":
        test, said = _one_of_neighbours(len(hkl), fraction, seed), ""
    else:
        cube = cubes(hkl, block)
        test, said = _drawn_cubes(cube, fraction, seed), f" in {cube.max() + 1} cubes of {block} reflections a side"
    if test.all() or not test.any():
        raise InputError(
            f"a fraction of {fraction:g} of {len(hkl)} orbits{said} holds out {test.sum()}, and leaves {(~test).sum()}",
            remedy="choose a fraction nearer to a half" + (", or smaller cubes" if said else ""),
        )
    return test


def folds_of(hkl: np.ndarray, *, by: By, folds: int, block: int, seed: int = 0) -> np.ndarray:
    """The fold that holds out each orbit, [n] in 0 ... folds - 1: each orbit in just one, folds of about one size.

    hkl, block: as for ``held_out_orbits``. "orbits": of each ``folds`` neighbours in resolution one goes to each fold.
    "blocks": whole cubes, the largest first, to the smallest fold; sizes differ by one cube at most. The folds do not
    depend on frames or ranks. Raises InputError where there are too few orbits or cubes for so many folds.
    """
    if by == "orbits":
        return _dealt_neighbours(len(hkl), folds, seed)
    return _dealt_cubes(hkl, block, folds, seed)


def cubes(hkl: np.ndarray, block: int) -> np.ndarray:
    """The cube of ``block`` reflections a side that each of ``hkl`` [n, 3] lies in, numbered from 0, [n]."""
    return np.unique(reciprocal.packed(np.asarray(hkl) // block), return_inverse=True)[1]


def _one_of_neighbours(n: int, fraction: float, seed: int) -> np.ndarray:
    """One orbit of each run of about 1 / fraction neighbours."""
    edges = np.rint(np.linspace(0, n, round(fraction * n) + 1)).astype(int)
    test = np.zeros(n, bool)
    test[np.random.default_rng(seed).integers(edges[:-1], edges[1:])] = True
    return test


def _drawn_cubes(cube: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """The first cubes of a random order, so many that the number of their orbits is nearest to the fraction."""
    sizes = np.bincount(cube)
    order = np.random.default_rng(seed).permutation(len(sizes))
    held_by_first = np.concatenate([[0], np.cumsum(sizes[order])])
    chosen = order[: np.argmin(np.abs(held_by_first - fraction * len(cube)))]
    return np.isin(cube, chosen)


def _dealt_neighbours(n: int, folds: int, seed: int) -> np.ndarray:
    if n < 2 * folds:
        raise InputError(f"problem.folds = {folds} for {n} orbits", remedy=f"use at most {n // 2} folds")
    groups = np.tile(np.arange(folds), (-(-n // folds), 1))
    # NumPy pads seeds with zeros: (folds, 0) is the generator of `folds` alone.
    return np.random.default_rng((folds, seed)).permuted(groups, axis=1).ravel()[:n]


def _dealt_cubes(hkl: np.ndarray, block: int, folds: int, seed: int) -> np.ndarray:
    cube = cubes(hkl, block)
    sizes = np.bincount(cube)
    if len(sizes) < folds:
        raise InputError(
            f"problem.folds = {folds} for {len(hkl)} orbits in {len(sizes)} cubes of {block} reflections a side",
            remedy=f"use at most {len(sizes)} folds, or smaller cubes",
        )
    shuffled = np.random.default_rng((folds, seed)).permutation(len(sizes))
    smallest, fold_of_cube = [(0, fold) for fold in range(folds)], np.empty(len(sizes), int)
    for number in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        held, fold = smallest[0]
        fold_of_cube[number] = fold
        heapq.heapreplace(smallest, (held + sizes[number], fold))
    return fold_of_cube[cube]
