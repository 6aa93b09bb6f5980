"""The reflections of a fit: matched with the measured map over Laue orbits, then cut into tiles of whole orbits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hpcfit.errors import InputError
from hpcfit.physics import reciprocal
from hpcfit.problems.frame_weights import Tiles

if TYPE_CHECKING:
    from hpcfit.config import FrameWeightsConfig
    from hpcfit.data.experiment import DiffuseMap
    from hpcfit.data.reference import Reflections


@dataclass(frozen=True)
class OrbitMap:
    """A measured map averaged over Laue orbits, and the reflections of the store that each orbit averages.

    column: [H] column in the store; orbit: [H] orbit of each, in 0 ... n - 1, in the order of resolution. Of each
    orbit, [n]: observed (mean over its measured voxels), sigma of that mean or None, multiplicity (reflections of the
    full sphere), shell, held_out (whether the fit must not see it), drawn (how often a bootstrap drew it, else 1), hkl
    [n, 3] of one reflection, inverse_d (1/A). left_out: how many store reflections and voxels are not used, by reason.
    """

    column: np.ndarray
    orbit: np.ndarray
    observed: np.ndarray
    sigma: np.ndarray | None
    multiplicity: np.ndarray
    shell: np.ndarray
    held_out: np.ndarray
    drawn: np.ndarray
    hkl: np.ndarray
    inverse_d: np.ndarray
    left_out: dict[str, int]

    def standardised(self) -> np.ndarray:
        """y with mean 0 and variance 1 under the multiplicities: CC does not change, its sums keep their digits."""
        mean = np.average(self.observed, weights=self.multiplicity)
        return (self.observed - mean) / np.sqrt(np.average((self.observed - mean) ** 2, weights=self.multiplicity))


def match_orbits(reflections: Reflections, measured: DiffuseMap, choice: FrameWeightsConfig) -> OrbitMap:
    """Average the map over the orbits of ``choice.laue`` and find the reflections of the store in each.

    The mean over an orbit is taken of what each side has: all reflections of the store for x, all measured voxels for
    y. Raises InputError if nothing is common, or the map has no variance.
    """
    common = np.lcm(reflections.ndiv, measured.ndiv)
    both = np.concatenate([_on_lattice(reflections, common), _on_lattice(measured, common)])
    orbit, size = reciprocal.laue_orbits(both, reciprocal.laue_operations(choice.laue), common)
    store_orbit, map_orbit = orbit[: len(reflections)], orbit[len(reflections) :]
    selected, left_out = _selected(reflections, choice)
    in_both = np.isin(np.arange(len(size)), store_orbit[selected]) & np.isin(np.arange(len(size)), map_orbit)
    if not in_both.any():
        raise _nothing_common(reflections, measured, choice)
    used_columns, used_voxels = selected & in_both[store_orbit], in_both[map_orbit]
    left_out["reflections not measured"] = int(np.sum(selected & ~used_columns))
    left_out["measured voxels not calculated or outside the limits"] = int(np.sum(~used_voxels))

    number = np.cumsum(in_both) - 1  # of the orbits in both, in order of first appearance: by resolution
    column = np.flatnonzero(used_columns)
    column_orbit, voxel_orbit = number[store_orbit[column]], number[map_orbit[used_voxels]]
    voxels = np.bincount(voxel_orbit)
    observed = np.bincount(voxel_orbit, measured.intensity[used_voxels]) / voxels
    sigma = (
        None if measured.sigma is None else np.sqrt(np.bincount(voxel_orbit, measured.sigma[used_voxels] ** 2)) / voxels
    )
    if np.ptp(observed) == 0:
        raise InputError(
            f"{measured.source}: all {len(observed)} orbits within the limits have the intensity {observed[0]:g}:"
            " zero variance, so that no correlation is defined",
            remedy="check the column, the mask and the resolution limits",
        )
    hkl = reflections.hkl[column[np.unique(column_orbit, return_index=True)[1]]]
    inverse_d2 = reciprocal.inverse_d2(hkl, reflections.ndiv, reflections.cell)
    shell, _ = reciprocal.shells(inverse_d2, choice.shells)
    held_out = held_out_orbits(len(observed), choice.folds, choice.fold)
    drawn = drawn_orbits(held_out, choice.bootstrap)
    return OrbitMap(
        column, column_orbit, observed, sigma, size[in_both], shell, held_out, drawn, hkl, np.sqrt(inverse_d2), left_out
    )


def held_out_orbits(n: int, folds: int | None, fold: int) -> np.ndarray:
    """Which of n orbits, ordered by resolution, the fit does not see, [n] bool: one of each ``folds`` neighbours.

    An orbit is whole, Friedel mates included, so that what is held out has no copy in the fit. The folds do not depend
    on frames or ranks, and each orbit is held out in just one of them.
    """
    if folds is None:
        return np.zeros(n, bool)
    if n < 2 * folds:
        raise InputError(f"problem.folds = {folds} for {n} orbits", remedy=f"use at most {n // 2} folds")
    groups = np.tile(np.arange(folds), (-(-n // folds), 1))
    return np.random.default_rng(folds).permuted(groups, axis=1).ravel()[:n] == fold


def drawn_orbits(held_out: np.ndarray, bootstrap: int) -> np.ndarray:
    """How often each orbit counts, [n]: once, or as often as resample number ``bootstrap`` of the fitted ones drew it.

    Efron's bootstrap (10.1214/aos/1176344552): as many draws, with replacement, as there are fitted orbits.
    """
    drawn, fitted = np.ones(len(held_out)), np.flatnonzero(~held_out)
    if bootstrap:
        picks = np.random.default_rng(bootstrap).integers(len(fitted), size=len(fitted))
        drawn[fitted] = np.bincount(picks, minlength=len(fitted))
    return drawn


def _on_lattice(indexed: Reflections | DiffuseMap, common: np.ndarray) -> np.ndarray:
    return np.asarray(indexed.hkl, np.int64) * (common // np.asarray(indexed.ndiv))


def _selected(reflections: Reflections, choice: FrameWeightsConfig) -> tuple[np.ndarray, dict[str, int]]:
    """Which reflections of the store lie within the limits, [H] bool, and how many do not, by reason."""
    inverse_d2 = reciprocal.inverse_d2(reflections.hkl, reflections.ndiv, reflections.cell)
    inside = inverse_d2 > 0
    if choice.d_min is not None:
        inside &= inverse_d2 <= (1 + reciprocal.SAME_RESOLUTION) / choice.d_min**2
    if choice.d_max is not None:
        inside &= inverse_d2 >= (1 - reciprocal.SAME_RESOLUTION) / choice.d_max**2
    bragg = np.all(reflections.hkl % np.asarray(reflections.ndiv) == 0, axis=1) & choice.exclude_bragg
    left_out = {
        "reflections outside the resolution limits": int(np.sum(~inside)),
        "Bragg reflections": int(np.sum(inside & bragg)),
    }
    return inside & ~bragg, left_out


def _nothing_common(reflections: Reflections, measured: DiffuseMap, choice: FrameWeightsConfig) -> InputError:
    def say(indexed: Reflections | DiffuseMap) -> str:
        low, high = np.min(indexed.hkl, axis=0), np.max(indexed.hkl, axis=0)
        ranges = " ".join(f"{name} {a}..{b}" for name, a, b in zip("hkl", low, high, strict=True))
        return f"{ranges}, ndiv {tuple(map(int, indexed.ndiv))}, cell {tuple(round(float(x), 3) for x in indexed.cell)}"

    return InputError(
        f"the frames and the map {measured.source} have no reflection in common (d_min = {choice.d_min},"
        f" d_max = {choice.d_max}, laue = {choice.laue}):\n  frames: {say(reflections)}\n  map:    {say(measured)}",
        remedy="check cell, ndiv (cells of the supercell), indexing and the resolution limits of both",
    )


@dataclass(frozen=True)
class Tiling:
    """columns: [tiles, width] column of the store, -1 for padding. orbits: [tiles, width] orbit of each place in
    ``Tiles.y``, -1 for padding. tiles: the constants, on all tiles."""

    columns: np.ndarray
    orbits: np.ndarray
    tiles: Tiles


def tile_width(n_reflections: int, largest_orbit: int, *, widest: int = 2048, at_least: int = 16) -> int:
    """Reflections of a tile: 2048, fewer where that would leave less than ``at_least`` tiles to deal out over ranks."""
    even = -(-n_reflections // at_least)
    return max(min(widest, -(-even // 64) * 64), -(-largest_orbit // 64) * 64)


def make_tiling(orbit_map: OrbitMap, scale: np.ndarray) -> Tiling:
    """Pack whole orbits into tiles of one width; ``scale``: s(h) of the store, [columns]."""
    order = np.argsort(orbit_map.orbit, kind="stable")
    orbit, column = orbit_map.orbit[order], orbit_map.column[order]
    sizes = np.bincount(orbit)
    width = tile_width(len(orbit), int(sizes.max()))
    tile_of_orbit = _pack(sizes, width)
    n_tiles = int(tile_of_orbit[-1]) + 1

    tile = tile_of_orbit[orbit]
    place = _place_in_group(tile)
    columns = np.full((n_tiles, width), -1)
    columns[tile, place] = column
    orbit_place = _place_in_group(tile_of_orbit)
    orbits = np.full((n_tiles, width), -1)
    orbits[tile_of_orbit, orbit_place] = np.arange(len(sizes))

    share, number = np.zeros((n_tiles, width)), np.zeros((n_tiles, width), np.int32)
    share[tile, place] = scale[column] ** 2 / sizes[orbit]
    number[tile, place] = orbit_place[orbit]
    held = orbits >= 0
    y = np.where(held, orbit_map.standardised()[orbits], 0.0)
    multiplicity = np.where(held, (orbit_map.multiplicity * orbit_map.drawn)[orbits], 0.0)
    shell = np.where(held, orbit_map.shell[orbits], 0).astype(np.int32)
    part = np.where(held, orbit_map.held_out[orbits], 0).astype(np.int32)
    return Tiling(columns, orbits, Tiles(number, share, y, multiplicity, shell, part))


def _pack(sizes: np.ndarray, width: int) -> np.ndarray:
    """The tile of each orbit: as many as fit, in order."""
    ends, tile = np.cumsum(sizes), np.empty(len(sizes), int)
    first = number = 0
    while first < len(sizes):
        filled = ends[first - 1] if first else 0
        last = np.searchsorted(ends, filled + width, side="right")
        tile[first:last] = number
        first, number = last, number + 1
    return tile


def _place_in_group(group: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... within each run of equal values of a sorted array."""
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    return np.arange(len(group)) - np.repeat(starts, np.diff(np.r_[starts, len(group)]))
