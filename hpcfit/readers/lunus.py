"""Frames from a checkpoint of LUNUS: the structure factors of a trajectory in one HDF5 file, ``checkpoint.nxs``.

``xtraj.py do_opt=True checkpoint=True`` writes them before it starts to remove frames:

    entry/data/fcalc_list     [T, H, 2] float32  real and imaginary parts, electrons
    entry/data/weights        [T]                1, or 0 for frames that its list of filtered frames had
    entry/reflections/hkl     [H, 3]             integers, as float64: those that frames and measured map have in common
    entry/sample/unit_cell    [6], A and degrees, of these integers; entry/sample/unit_cell_group: the space group

One of each pair of Friedel mates is listed. Where the space group is not P 1, one of its mates is: no others are made
of them here, since LUNUS also lists so the structure factors of cells that do not have this symmetry.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from hpcfit.errors import InputError
from hpcfit.readers.expansion import known_expansion, placement
from hpcfit.readers.foreign_hdf5 import dataset, opened, text
from hpcfit.readers.patterns import matching
from hpcfit.readers.reflections import FactorSource, Listed
from hpcfit.readers.trajectory import chosen_rows
from hpcfit.store.files import sha256_of_file
from hpcfit.store.frame import Frame
from hpcfit.store.reference import Reflections

FRAMES, WEIGHTS, HKL = "entry/data/fcalc_list", "entry/data/weights", "entry/reflections/hkl"
CELL, GROUP = "entry/sample/unit_cell", "entry/sample/unit_cell_group"
NO_SYMMETRY = "P 1"


class LunusFile(NamedTuple):
    """A checkpoint: a ReflectionFile."""

    path: Path

    def listed(self) -> Listed:
        """The reflections it has."""
        with opened(self.path) as file:
            return Listed(known_expansion(_hkl(file), NO_SYMMETRY).hkl, _cell(file), _space_group(file))


@dataclass(frozen=True)
class LunusSource(FactorSource):
    """One checkpoint of LUNUS.

    rows: the frames of the file that are used, start:stop:stride of the config. digest: SHA-256 of the file.
    """

    name: str
    label: str
    path: Path
    rows: range
    digest: str
    reflections: Reflections | None = None

    @property
    def n_frames(self) -> int:
        """Frames after start, stop and stride."""
        return len(self.rows)

    @property
    def reflection_files(self) -> list[LunusFile]:
        """The file whose reflections are to be agreed on."""
        return [LunusFile(self.path)]

    def frames(self, start: int, stop: int) -> Iterator[Frame]:
        """Frames start to stop - 1 of `rows`, on the reflections of the store; one is in memory at a time."""
        with opened(self.path) as file:
            hkl, pairs = _hkl(file), dataset(file, FRAMES)
            place = placement(self.path, hkl, NO_SYMMETRY, self.wanted())
            for row in self.rows[start:stop]:
                yield Frame(row, structure_factors=place.apply(_structure_factors(pairs, row, hkl)))

    def weights(self) -> np.ndarray | None:
        """The weights of the frames in `rows` as the file has them, [frames] float64; None where it has none."""
        with opened(self.path) as file:
            return _weights(file)[list(self.rows)] if WEIGHTS in file else None


def _structure_factors(pairs: h5py.Dataset, row: int, hkl: np.ndarray) -> np.ndarray:
    """F [H] complex128 of one frame."""
    f_h = pairs[row].astype(np.float64).view(np.complex128)[:, 0]
    finite = np.isfinite(f_h)
    if not finite.all():
        where = tuple(hkl[~finite][0].tolist())
        raise InputError(
            f"{pairs.file.filename}, frame {row}: the structure factor at hkl {where} is {f_h[~finite][0]}"
            f" ({np.sum(~finite)} of {len(hkl)} are not finite)",
            remedy="have LUNUS write the checkpoint again, or leave the frame out with start, stop and stride",
        )
    if not f_h.any():
        # HDF5 fills rows that no rank wrote with zeros; LUNUS leaves such rows where a trajectory ends early.
        raise InputError(
            f"{pairs.file.filename}, frame {row}: all structure factors are 0, so it was never written",
            remedy="leave the frame out with start, stop and stride",
        )
    return f_h


def _hkl(file: h5py.File) -> np.ndarray:
    """[H, 3] int32."""
    found = dataset(file, HKL)[()]
    if found.ndim != 2 or found.shape[1] != 3 or not np.array_equal(found, np.rint(found)):
        raise InputError(
            f"{file.filename}: {HKL} of shape {found.shape} are not integers [H, 3]",
            remedy="have LUNUS write the checkpoint again",
        )
    return found.astype(np.int32)


def _cell(file: h5py.File) -> tuple[float, ...]:
    cell = tuple(np.ravel(dataset(file, CELL)[()]).astype(float).tolist())
    if len(cell) != 6 or not all(value > 0 for value in cell):
        raise InputError(
            f"{file.filename}: {CELL} = {cell} are not six positive numbers", remedy="repair the checkpoint"
        )
    return cell


def _space_group(file: h5py.File) -> str:
    """As the file has it: a label of the store, which no reading depends on."""
    return text(file[GROUP]) if GROUP in file else NO_SYMMETRY


def _weights(file: h5py.File) -> np.ndarray:
    """[T] float64."""
    weights, n_frames = np.asarray(dataset(file, WEIGHTS)[()], float), dataset(file, FRAMES).shape[0]
    if weights.shape != (n_frames,):
        raise InputError(
            f"{file.filename}: {WEIGHTS} has shape {weights.shape}, {FRAMES} has {n_frames} frames",
            remedy="have LUNUS write the checkpoint again",
        )
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        raise InputError(
            f"{file.filename}: the weight of frame {np.flatnonzero(wrong)[0]} is {weights[wrong][0]}",
            remedy="weights are finite and not negative: repair the checkpoint",
        )
    return weights


def open_lunus(path: Path, label: str, frames: slice) -> LunusSource:
    """Open one checkpoint, cut to a range of frames.

    Raises InputError for files that are missing, damaged or no checkpoint, whose arrays disagree, or without frames.
    """
    rows = chosen_rows(path, _checked_frames(path), frames)
    return LunusSource(path.name, label, path, rows, sha256_of_file(path))


def _checked_frames(path: Path) -> int:
    """How many frames a file has, after a look at everything in it but the frames."""
    with opened(path) as file:
        shape, hkl = dataset(file, FRAMES).shape, _hkl(file)
        _cell(file)
        if len(shape) != 3 or shape[1:] != (len(hkl), 2):
            raise InputError(
                f"{path}: {FRAMES} has shape {shape}, {HKL} has {len(hkl)} reflections: expected [T, {len(hkl)}, 2]",
                remedy="have LUNUS write the checkpoint again",
            )
        if WEIGHTS in file:
            _weights(file)
        return shape[0]


def lunus_files(pattern: str) -> list[Path]:
    """The checkpoints that a path or pattern names, sorted naturally; InputError for one that names none."""
    files = matching(pattern)
    if not files:
        raise InputError(f"no LUNUS checkpoint at {pattern}", remedy="correct [[prepare.source]] lunus")
    return files
