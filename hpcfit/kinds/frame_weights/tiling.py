"""Reflections cut into tiles and strips of whole orbits.

A tile is what is dealt out over ranks, and what sums are formed over. A strip is a part of a tile, so narrow that all
frames of it lie in the cache of a core (``kinds.frame_weights.one_pass``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpcfit.kinds.frame_weights.objectives import Splines
from hpcfit.kinds.frame_weights.one_pass import strip_reflections
from hpcfit.kinds.frame_weights.orbits import OrbitMap

# the width of a tile is a multiple of it (``kinds.frame_weights.moments`` adds 64 real numbers side by side)
LANES = 32


@dataclass(frozen=True)
class Tiling:
    """columns: [tiles, width] column of the store, -1 for padding. orbits: [tiles, width] which orbit each place for
    orbits holds, -1 for padding. place: [tiles, width] the place of each reflection's orbit in its tile. strip:
    reflections of a strip, which divides the width."""

    columns: np.ndarray
    orbits: np.ndarray
    place: np.ndarray
    strip: int

    @property
    def width(self) -> int:
        """Reflections of a tile, padding included."""
        return self.columns.shape[1]

    @property
    def strips(self) -> np.ndarray:
        """The columns strip by strip, [tiles * strips, strip]."""
        return self.columns.reshape(-1, self.strip)

    def of_orbits(self, values: np.ndarray, padding: float = 0.0) -> np.ndarray:
        """Values of orbits [n] at their places, [tiles, width]."""
        return np.where(self.orbits >= 0, np.asarray(values)[self.orbits], padding)

    def of_columns(self, values: np.ndarray) -> np.ndarray:
        """Values of the store's columns [H, ...] at the reflections, [tiles, width, ...]; 0 for padding."""
        held = (self.columns >= 0).reshape(self.columns.shape + (1,) * (np.ndim(values) - 1))
        return np.where(held, np.asarray(values)[self.columns], 0)

    def most_shells(self, shell: np.ndarray) -> int:
        """The most resolution shells of one tile, from its lowest to its highest; ``shell``: of each orbit, [n]."""
        rows = self.of_orbits(shell, -1)
        return max(int(row.max() - row[row >= 0].min()) + 1 for row in rows)

    def of_splines(self, values: np.ndarray) -> Splines:
        """Splines at the orbits, [J, n]: of each tile those that are not 0 on it, and so many of the next that all
        tiles have the same number."""
        used = np.stack([self.of_orbits(row) != 0 for row in values], axis=1).any(axis=2)
        first = np.argmax(used, axis=1)
        m = int(np.max(used.shape[1] - np.argmax(used[:, ::-1], axis=1) - first))
        whole = np.concatenate([values, np.zeros((m, values.shape[1]))])
        rows = np.stack([self.of_orbits(row) for row in whole], axis=1)
        return Splines(np.stack([row[start : start + m] for row, start in zip(rows, first)]), first.astype(np.int32))


def tile_width(n_reflections: int, largest_orbit: int, *, widest: int = 2048, at_least: int = 16) -> int:
    """Reflections of a tile: 2048, fewer where that would leave less than ``at_least`` tiles to deal out over ranks."""
    even = -(-n_reflections // at_least)
    return max(min(widest, -(-even // 64) * 64), -(-largest_orbit // 64) * 64)


def make_tiling(orbit_map: OrbitMap, n_frames: int, itemsize: int) -> Tiling:
    """Pack whole orbits into strips, and strips into tiles; ``itemsize``: bytes of a stored real number.

    A function of the data set alone, so that its sums are the same on any machine and number of ranks.
    """
    order = np.argsort(orbit_map.orbit, kind="stable")
    orbit, column = orbit_map.orbit[order], orbit_map.column[order]
    sizes = np.bincount(orbit)
    width = tile_width(len(orbit), int(sizes.max()))
    strip = min(strip_reflections(n_frames, itemsize, int(sizes.max())), width)
    width = max(width // (whole := np.lcm(strip, LANES)), 1) * whole
    strip_of_orbit = _pack(sizes, strip)
    strips = width // strip
    tile_of_orbit = strip_of_orbit // strips
    n_tiles = int(tile_of_orbit[-1]) + 1

    of_strip = strip_of_orbit[orbit]
    at = of_strip // strips, of_strip % strips * strip + _place_in_group(of_strip)
    columns, place = np.full((n_tiles, width), -1), np.zeros((n_tiles, width), np.int32)
    orbit_place = _place_in_group(tile_of_orbit)
    columns[at], place[at] = column, orbit_place[orbit]
    orbits = np.full((n_tiles, width), -1)
    orbits[tile_of_orbit, orbit_place] = np.arange(len(sizes))
    return Tiling(columns, orbits, place, strip)


def _pack(sizes: np.ndarray, width: int) -> np.ndarray:
    """The strip of each orbit: as many as fit, in order."""
    ends, strip = np.cumsum(sizes), np.empty(len(sizes), int)
    first = number = 0
    while first < len(sizes):
        filled = ends[first - 1] if first else 0
        last = np.searchsorted(ends, filled + width, side="right")
        strip[first:last] = number
        first, number = last, number + 1
    return strip


def _place_in_group(group: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... within each run of equal values of a sorted array."""
    starts = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    return np.arange(len(group)) - np.repeat(starts, np.diff(np.r_[starts, len(group)]))
