"""Frames from simulations: a trajectory as a source of frames, and its structure factors by density FFT."""

from __future__ import annotations

import contextlib
import functools
import glob
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hpcfit.errors import InputError
from hpcfit.physics.scattering import (
    XRAY,
    DensityFFT,
    FFTError,
    FormFactors,
    fractional_coordinates,
    orthogonalization,
)
from hpcfit.readers.ase_files import NOT_GIVEN, Given
from hpcfit.readers.cells import cell_of
from hpcfit.readers.frame_folders import folder_digest, is_frame_folder
from hpcfit.readers.positions import Reader, TrajectoryReader, files_of, has_elements, open_positions
from hpcfit.readers.selection import Chosen, chosen_atoms
from hpcfit.store.files import sha256_of_file
from hpcfit.store.frame import Frame, Topology
from hpcfit.store.pieces import check_finished, pieces_digest
from hpcfit.store.reference import Reflections

LARGEST_BOX_CHANGE = 0.05  # relative; more is another supercell or another unit, not constant pressure
LARGEST_ANGLE_CHANGE = 3.0  # degrees


class Scattering(NamedTuple):
    """Options of computed structure factors: the store's reflections, d_min (A), a grid finer by oversampling, and what
    scatters."""

    reflections: Reflections
    d_min: float
    oversampling: float
    form_factors: FormFactors = XRAY

    @property
    def box(self) -> tuple[float, ...]:
        """The cell of the supercell."""
        lengths = np.multiply(self.reflections.cell[:3], self.reflections.ndiv)
        return (*map(float, lengths), *self.reflections.cell[3:])


@dataclass(frozen=True)
class ReaderSource:
    """An opened file as a source of frames. rows: the frames of it that are used, start:stop:stride of the config;
    chosen: the atoms of it that are used, None for all."""

    name: str
    label: str
    reader: Reader
    rows: range
    inputs: dict[str, str]  # file -> SHA-256
    chosen: Chosen | None = field(default=None, kw_only=True)

    @property
    def path(self) -> Path:
        """The file, or the folder of pieces."""
        return self.reader.path

    @property
    def chosen_by(self) -> str:
        """Words of the config that decide what is read, as the bytes of files do: the group of an H5MD with several,
        columns and units, a selection of atoms."""
        if not isinstance(self.reader, TrajectoryReader):
            return ""
        group, given = self.reader.group or "", self.reader.given
        return f"{group}{'' if given == NOT_GIVEN else given}{self.chosen.selection if self.chosen else ''}"

    @property
    def n_frames(self) -> int:
        """Frames after start, stop and stride."""
        return len(self.rows)

    @property
    def digest(self) -> str:
        """SHA-256 over all inputs."""
        return hashlib.sha256("".join([*self.inputs.values(), self.chosen_by]).encode()).hexdigest()

    def read(self, start: int, stop: int) -> Iterator[Frame]:
        """Frames start to stop - 1 of `rows` as the file has them."""
        with contextlib.closing(self.reader.frames(self.rows[start:stop])) as found:
            yield from found if self.chosen is None else map(self.chosen.of, found)


@dataclass(frozen=True)
class TrajectorySource(ReaderSource):
    """One trajectory, giving structure factors once `on` told it which.

    keep: of positions and forces, what goes into the store beside structure factors.
    """

    keep_positions: bool = False
    keep_forces: bool = False
    scattering: Scattering | None = None

    @property
    def topology(self) -> Topology:
        """Elements and cell, of the atoms that are used."""
        found = self.reader.topology
        return found if self.chosen is None else found._replace(elements=self.chosen.among(found.elements))

    def on(self, scattering: Scattering) -> TrajectorySource:
        """Return this source, giving these structure factors."""
        return replace(self, scattering=scattering)

    def frames(self, start: int, stop: int) -> Iterator[Frame]:
        """Frames start to stop - 1 of `rows`, with structure factors on the store's reflections."""
        fft = self._fft()
        for frame in self.read(start, stop):
            yield self._frame(frame, fft)

    def _frame(self, frame: Frame, fft: DensityFFT) -> Frame:
        f_h = fft(self.fractional(frame))
        positions = frame.positions.astype(np.float32) if self.keep_positions else None
        if self.keep_forces and frame.forces is None:
            raise InputError(f"{self.path}, frame {frame.row}: no forces", remedy="set [prepare] forces = false")
        forces = frame.forces if self.keep_forces else None
        return frame._replace(structure_factors=f_h, positions=positions, forces=forces)

    def fractional(self, frame: Frame) -> np.ndarray:
        """Fractional coordinates [N, 3] in the frame's box, or in the reference box when the frame has none."""
        check_finite(self.path, frame.row, "position", frame.positions)
        box = orthogonalization(self.scattering.box).T if frame.box is None else frame.box
        _check_box(box, self.scattering.box, self.path, frame.row)
        return fractional_coordinates(frame.positions, box)

    def fft_error(self, row: int, sample: int = 200) -> FFTError:
        """The error of the density FFT for one frame of `rows`, against direct summation on `sample` reflections."""
        (frame,) = self.read(row, row + 1)
        return self._fft().error(self.fractional(frame), sample)

    def _fft(self) -> DensityFFT:
        s = self.scattering
        return _density_fft(
            self.topology.elements, s.box, np.asarray(s.reflections.hkl, np.int32).tobytes(), s.d_min, s.oversampling,
            s.form_factors,
        )  # fmt: skip


@functools.lru_cache(maxsize=1)
def _density_fft(elements, box, hkl: bytes, d_min: float, oversampling: float, form_factors) -> DensityFFT:
    # Shards of one topology follow each other; the model of a million atoms is not to be built for each.
    return DensityFFT(elements, box, np.frombuffer(hkl, np.int32).reshape(-1, 3), d_min, oversampling, form_factors)


def check_finite(path: Path, row: int, what: str, values: np.ndarray) -> None:
    """Raise InputError, naming file, frame and atom, unless `values` [n, 3] are finite numbers."""
    if not np.all(np.isfinite(values)):
        atom = int(np.argwhere(~np.isfinite(values))[0][0])
        raise InputError(
            f"{path}, frame {row}: the {what} of atom {atom} is {values[atom].tolist()}",
            remedy="repair the trajectory, or leave the frame out with start, stop and stride",
        )


def _check_box(box, cell, path: Path, row: int) -> None:
    found = np.array(cell_of(np.asarray(box, float)))
    same = np.allclose(found[:3], cell[:3], rtol=LARGEST_BOX_CHANGE)
    if same and np.allclose(found[3:], cell[3:], rtol=0, atol=LARGEST_ANGLE_CHANGE):
        return
    what, part, unit, limit = (
        ("angles", slice(3, 6), "degrees", f"{LARGEST_ANGLE_CHANGE:g} degrees") if same
        else ("lengths", slice(0, 3), "A", f"{100 * LARGEST_BOX_CHANGE:g} %")
    )  # fmt: skip
    raise InputError(
        f"{path}, frame {row}: the box has {what} {np.round(found[part], 3).tolist()} {unit}, cell x supercell has"
        f" {np.round(cell[part], 3).tolist()} {unit}; they may differ by {limit}",
        remedy="correct [prepare] cell or supercell, or leave the frame out with start and stop of its source",
    )


def open_trajectory(
    path: Path, topology: Path | None, label: str, frames: slice, group: str | None = None, given: Given = NOT_GIVEN,
    selection: str | None = None,
) -> TrajectorySource:  # fmt: skip
    """Open one trajectory file, with its topology where the format has no elements, cut to a range of frames and to a
    selection of atoms; group: of its particles, of an H5MD that has several; given: see `Given`.

    Raises InputError for files that are missing, damaged, of unknown format, of other atoms, or without frames.
    """
    reader, rows = opened_rows(path, topology, frames, group, given)
    chosen = None if selection is None else chosen_atoms(selection, reader, topology)
    inputs = _digests(path, topology, rows, with_topology=chosen is not None)
    return TrajectorySource(path.name, label, reader, rows, inputs, chosen=chosen)


def opened_rows(
    path: Path, topology: Path | Topology | None, frames: slice, group: str | None = None, given: Given = NOT_GIVEN
) -> tuple[TrajectoryReader, range]:
    """The reader of a trajectory, and which of its frames are used; raises as `open_trajectory`."""
    reader = open_positions(path, topology, group, given)
    rows = chosen_rows(path, reader.n_frames, frames)
    _check_count(reader, frames.stop)
    next(reader.frames(rows[-1:]))  # a truncated file is found before hours are spent on its first frames
    return reader, rows


def chosen_rows(path: Path, n_frames: int, frames: slice) -> range:
    """The frames start:stop:stride of a file; InputError where there are none."""
    rows = range(n_frames)[frames]
    if not rows:
        raise InputError(
            f"{path} has {n_frames} frames; {frames.start}:{frames.stop}:{frames.step} selects none",
            remedy="correct start, stop and stride of this [[prepare.source]]",
        )
    return rows


def _digests(path: Path, topology: Path | None, rows: range, *, with_topology: bool) -> dict[str, str]:
    """What is read of a trajectory: file -> SHA-256. with_topology: of the topology too, where one is given."""
    files = [topology] if topology is not None and (with_topology or not has_elements(path)) else []
    return digests_of(path, rows) | {str(file): sha256_of_file(file) for file in files}


def digests_of(path: Path, rows: range) -> dict[str, str]:
    """SHA-256 of the files of a trajectory, by file; of one in pieces, of what the used frames follow from."""
    if is_frame_folder(path):
        return {str(path): folder_digest(path)}
    if path.is_dir():
        return {str(path): pieces_digest(path, rows[-1])}
    return {str(file): sha256_of_file(file) for file in files_of(path)}


def _check_count(reader: TrajectoryReader, stop: int | None) -> None:
    """Raise InputError for a file that lacks frames which it announces and which are asked for."""
    path, announced, found = reader.path, reader.announced, reader.n_frames
    if is_frame_folder(path):
        return
    if path.is_dir():
        check_finished(path, stop)
    elif announced is not None and announced > found and (stop is None or stop > found):
        raise InputError(
            f"{path} announces {announced} frames and holds {found} whole ones",
            remedy=f"the file is truncated: repair it, or set stop = {found} to use what there is",
        )


def trajectory_files(patterns, topology: Path | None) -> list[Path]:
    """The files that paths or globs name, sorted within each pattern; InputError for one that names none."""
    files = []
    for pattern in patterns:
        found = sorted(glob.glob(pattern)) or ([pattern] if Path(pattern).exists() else [])
        if not found:
            raise InputError(f"no trajectory at {pattern}", remedy="correct [[prepare.source]] trajectory")
        files += [Path(name) for name in found if topology is None or Path(name) != topology]
    return files
