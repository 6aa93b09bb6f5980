"""The reflections that all files of a store have, and what each file lacks or has beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np

from hpcfit.errors import InputError
from hpcfit.physics import reciprocal
from hpcfit.readers.expansion import ONE_CELL
from hpcfit.store.reference import Reflections

SAME_CELL = 1e-3  # relative


class Listed(NamedTuple):
    """The reflections of a file: hkl [H, 3] int32 in one hemisphere, each once; cell (A, degrees) of these integers."""

    hkl: np.ndarray
    cell: tuple[float, ...]
    space_group: str


class ReflectionFile(Protocol):
    """A file of structure factors that exist already; picklable, and not yet read."""

    path: Path

    def listed(self) -> Listed:
        """The reflections it has."""


class FactorSource:
    """A source of structure factors that exist already; a FrameSource once `on` gave it the store's reflections.

    path: of its input; digest: of what it was read from.
    """

    path: Path
    digest: str
    reflections: Reflections | None

    @property
    def inputs(self) -> dict[str, str]:
        """The input and its digest."""
        return {str(self.path): self.digest}

    def on(self, reflections: Reflections) -> Self:
        """This source, giving its frames on these reflections, all of which it has."""
        return replace(self, reflections=reflections)

    def wanted(self) -> bytes:
        """The bytes of the store's reflections, [H, 3] int32."""
        return np.ascontiguousarray(self.reflections.hkl, np.int32).tobytes()


class Survey(NamedTuple):
    """The reflections of some files. lists: distinct lists of the P1 hemisphere by digest; rows: one a file."""

    lists: dict[str, np.ndarray]
    rows: list[tuple[Path, str, tuple[float, ...], str]]  # file, digest of its list, cell, space group


def survey(files: Sequence[ReflectionFile]) -> Survey:
    """Read which reflections each file has."""
    lists, rows = {}, []
    for file in files:
        hkl, cell, space_group = file.listed()
        digest = hashlib.sha256(hkl.tobytes()).hexdigest()
        lists[digest] = hkl
        rows.append((file.path, digest, cell, space_group))
    return Survey(lists, rows)


def merged(parts: Sequence[Survey]) -> Survey:
    """The survey of all files from those of consecutive pieces."""
    lists = {digest: hkl for part in parts for digest, hkl in part.lists.items()}
    return Survey(lists, [row for part in parts for row in part.rows])


class Presence(NamedTuple):
    """A row of missing.csv. missing: what other files have and this one lacks; unused: what is not common to all."""

    file: Path
    reflections: int
    missing: int
    unused: int


def agree(found: Survey, ndiv, d_min: float | None) -> tuple[Reflections, list[Presence]]:
    """The reflections that all files have, to d_min, in store order, and what each file lacks or has beside them.

    The cell of the files is that of their integer indices, ndiv unit cells. Raises InputError when cells differ, or
    when nothing is common.
    """
    first = found.rows[0]
    for row in found.rows:
        _check_cell(first, row)
    lengths = np.array(first[2][:3]) / ndiv
    cell = (*map(float, lengths), *first[2][3:])
    lists = {digest: _within(hkl, ndiv, cell, d_min) for digest, hkl in found.lists.items()}
    every, counts = np.unique(np.concatenate(list(lists.values())), axis=0, return_counts=True)
    common = every[counts == len(lists)]
    if not len(common):
        raise _nothing_common(found, lists)
    common = common[reciprocal.resolution_order(common, ndiv, cell)].astype(np.int32)
    presence = [
        Presence(file, n := len(lists[digest]), len(every) - n, n - len(common)) for file, digest, *_ in found.rows
    ]
    return Reflections(common, tuple(ndiv), cell, first[3]), presence


def _within(hkl, ndiv, cell, d_min: float | None) -> np.ndarray:
    if d_min is None:
        return hkl
    return hkl[reciprocal.inverse_d2(hkl, ndiv, cell) <= (1 + reciprocal.SAME_RESOLUTION) / d_min**2]


def _check_cell(first, row) -> None:
    if not np.allclose(first[2], row[2], rtol=SAME_CELL):
        raise InputError(
            f"{row[0]} has cell {row[2]}, {first[0]} has {first[2]}",
            remedy="frames of one store share one cell: prepare them into different stores",
        )


def _nothing_common(found: Survey, lists: dict[str, np.ndarray]) -> InputError:
    """Name two files that do not overlap; where every two do, the first and the last."""
    first = found.rows[0]
    others = [row for row in found.rows[1:] if not _overlap(lists[first[1]], lists[row[1]])]
    other = (others or found.rows[-1:])[0]
    ranges = [f"\n  {file}: {_range(lists[digest])}, cell {cell}" for file, digest, cell, _ in (first, other)]
    return InputError(
        f"no reflection is common to all {len(found.rows)} files:{''.join(ranges)}",
        remedy="leave one of them out; `supercell` must be that of the files; d_min must leave reflections",
    )


def _overlap(hkl_a, hkl_b) -> bool:
    return len(reciprocal.match(hkl_a, ONE_CELL, hkl_b, ONE_CELL)[0]) > 0


def _range(hkl) -> str:
    if not len(hkl):
        return "no reflections"
    return ", ".join(f"{name} {low} to {high}" for name, low, high in zip("hkl", hkl.min(axis=0), hkl.max(axis=0)))
