"""The reflections of a fit: those of the frames, matched with the measured map over Laue orbits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hpcfit.errors import InputError
from hpcfit.log import logger
from hpcfit.physics import reciprocal

SAME_VALUE, MOSTLY = 1e-5, 0.99  # of the standard deviation of a map; of its reflections
SAMPLE, MOSTLY_OF_SOME = 2000, 0.9  # reflections whose mates are compared first; of them

if TYPE_CHECKING:
    from hpcfit.kinds.frame_weights.config import FrameWeightsConfig
    from hpcfit.readers.maps import DiffuseMap
    from hpcfit.store.reference import Reflections


@dataclass(frozen=True)
class OrbitMap:
    """A measured map averaged over Laue orbits, and the reflections of the store that each orbit averages.

    column: [H] column in the store; orbit: [H] orbit of each, in 0 ... n - 1, in the order of resolution. Of each
    orbit, [n]: observed (mean over its measured voxels), sigma of that mean or None, halves [n, 2] (means of two
    independent sets of measurements, NaN where there are none) or None, multiplicity (reflections of the full sphere),
    shell, hkl [n, 3] of one reflection, inverse_d (1/A), mates (the same number for orbits that the symmetry of the
    map makes equal). left_out: how many store reflections and voxels are not used, by reason.
    """

    column: np.ndarray
    orbit: np.ndarray
    observed: np.ndarray
    sigma: np.ndarray | None
    halves: np.ndarray | None
    multiplicity: np.ndarray
    shell: np.ndarray
    hkl: np.ndarray
    inverse_d: np.ndarray
    mates: np.ndarray
    left_out: dict[str, int]


def match_orbits(reflections: Reflections, measured: DiffuseMap, choice: FrameWeightsConfig) -> OrbitMap:
    """Average the map over the orbits of ``choice.laue`` and find the reflections of the store in each.

    The mean over an orbit is taken of what each side has: all reflections of the store for x, all measured voxels for
    y. Raises InputError if nothing is common, or the map has no variance.
    """
    common = np.lcm(reflections.ndiv, measured.ndiv)
    reciprocal.check_metric(choice.laue, reflections.cell, "the frames")
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
    halves = _half_sets(measured, used_voxels, voxel_orbit)
    return OrbitMap(
        column, column_orbit, observed, sigma, halves, size[in_both], shell, hkl, np.sqrt(inverse_d2),
        _mates(hkl, observed, reflections, measured), left_out,
    )  # fmt: skip


def _mates(hkl: np.ndarray, observed: np.ndarray, reflections: Reflections, measured: DiffuseMap) -> np.ndarray:
    """Which orbits symmetry makes equal, [n], by first appearance: where a fit averages over less of it than the map
    has, an orbit has copies. The symmetry is that of the group that the map names, or else of the store's group or of
    the values, whichever joins more."""
    named = [measured.space_group] if measured.space_group != "P 1" else [reflections.space_group]
    if measured.space_group == "P 1":
        named += [name for name in [_symmetry_of(hkl, observed, reflections)] if name]
    found = np.arange(len(hkl))
    for name in named:
        operations = reciprocal.laue_operations(name)
        if not reciprocal.maps_lattice(operations, reflections.ndiv):
            continue
        joined = reciprocal.laue_orbits(hkl, operations, reflections.ndiv)[0]
        found = joined if joined.max(initial=0) < found.max(initial=0) else found
    return found


def _symmetry_of(hkl: np.ndarray, observed: np.ndarray, reflections: Reflections) -> str | None:
    """The Laue class of most operations that the cell has and whose mates have equal values: one that the map was
    averaged over without saying so. None where there is none."""
    least = SAME_VALUE * np.std(observed)
    looked_up = reciprocal.Lookup(hkl, reflections.ndiv)
    some = np.unique(np.linspace(0, len(hkl) - 1, min(len(hkl), SAMPLE)).round().astype(int))
    for name in sorted(reciprocal.LAUE_CLASSES, key=lambda one: -len(reciprocal.laue_operations(one))):
        operations = reciprocal.laue_operations(name)
        if not reciprocal.keeps_metric(operations, reflections.cell):
            continue
        if not reciprocal.maps_lattice(operations, reflections.ndiv):
            continue
        here, there = looked_up.mates(some, operations)
        same = np.abs(observed[here] - observed[there]) <= 2 * least
        if not len(same) or np.mean(same) < MOSTLY_OF_SOME:
            continue
        orbit = reciprocal.laue_orbits(hkl, operations, reflections.ndiv)[0]
        count = np.bincount(orbit)
        mean = np.bincount(orbit, observed) / count
        mates = count[orbit] > 1
        if np.mean(np.abs(observed - mean[orbit])[mates] <= least) > MOSTLY:
            logger.info(
                "the map names no space group, but its values are equal over the Laue class %s: %d orbits are %d"
                " different ones, whose mates are held out together",
                name, len(hkl), len(count),
            )  # fmt: skip
            return name
    return None


def _half_sets(measured: DiffuseMap, used_voxels: np.ndarray, voxel_orbit: np.ndarray) -> np.ndarray | None:
    """Means over the orbits of both half-sets, [n, 2]: over the voxels where both have a value."""
    if measured.halves is None:
        return None
    halves = measured.halves[used_voxels]
    there, n = np.all(np.isfinite(halves), axis=1), voxel_orbit.max() + 1
    count = np.bincount(voxel_orbit[there], minlength=n)
    sums = [np.bincount(voxel_orbit[there], half[there], minlength=n) for half in halves.T]
    return np.stack(sums, axis=1) / np.where(count > 0, count, np.nan)[:, None]


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
