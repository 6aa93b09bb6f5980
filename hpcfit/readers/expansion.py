"""Expansion of the reflections that a file lists to one hemisphere of P1, and to the reflections of a store."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.physics import reciprocal

ONE_CELL = (1, 1, 1)


class Expansion(NamedTuple):
    """A list of reflections expanded to one hemisphere of P1: F(hkl) = F_file[row] * factor, conjugate if flipped."""

    hkl: np.ndarray
    row: np.ndarray
    factor: np.ndarray
    flipped: np.ndarray

    def apply(self, f_h) -> np.ndarray:
        """F [H] complex128 of the hemisphere."""
        expanded = f_h[self.row]
        expanded *= self.factor
        return np.conjugate(expanded, out=expanded, where=self.flipped)


def expansion(hkl, space_group: str) -> Expansion:
    """All images of reflections under a space group, in one hemisphere, each once, without 000.

    An operation x' = R x + t of the crystal gives F(R^T h) = F(h) exp(-2 pi i h . t).
    """
    import gemmi

    hkl, images, factors = np.asarray(hkl, np.int64).reshape(-1, 3), [], []
    for op in gemmi.find_spacegroup_by_name(space_group).operations().sym_ops:
        images.append(hkl @ (np.array(op.rot) // op.DEN))
        factors.append(np.exp(-2j * np.pi * (hkl @ np.array(op.tran)) / op.DEN))
    canonical, flipped = reciprocal.hemisphere(np.concatenate(images))
    _, first = np.unique(reciprocal.packed(canonical), return_index=True)
    first = first[np.any(canonical[first] != 0, axis=1)]
    return Expansion(canonical[first], first % len(hkl), np.concatenate(factors)[first], flipped[first])


def known_expansion(hkl, space_group: str) -> Expansion:
    """The expansion of [n, 3] integers, made once for equal lists: the files of a folder mostly hold the same list."""
    return _known_expansion(np.ascontiguousarray(hkl, np.int32).tobytes(), space_group)


@functools.lru_cache(maxsize=4)
def _known_expansion(hkl: bytes, space_group: str) -> Expansion:
    return expansion(np.frombuffer(hkl, np.int32).reshape(-1, 3), space_group)


def placement(path: Path, hkl, space_group: str, wanted: bytes) -> Expansion:
    """The expansion of the reflections of a file, cut to those of the store, in their order.

    wanted: the bytes of [H, 3] int32, reflections of one hemisphere. Raises InputError where the file lacks some.
    """
    place = _placement(np.ascontiguousarray(hkl, np.int32).tobytes(), space_group, wanted)
    n_wanted = len(wanted) // (3 * np.dtype(np.int32).itemsize)
    if len(place.row) != n_wanted:
        raise InputError(
            f"{path} has {len(place.row)} of the {n_wanted} reflections of the store",
            remedy="the file was changed after the store was begun: prepare into an empty folder",
        )
    return place


@functools.lru_cache(maxsize=4)
def _placement(hkl: bytes, space_group: str, wanted: bytes) -> Expansion:
    plan = _known_expansion(hkl, space_group)
    index = reciprocal.match(np.frombuffer(wanted, np.int32).reshape(-1, 3), ONE_CELL, plan.hkl, ONE_CELL)[1]
    return Expansion(*(part[index] for part in plan))
